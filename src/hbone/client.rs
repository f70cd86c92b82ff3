//! Client side of a tunnel: opens CONNECT streams.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::connect::{ConnectRequest, ConnectResponse};
use super::settings::{Engine, Settings};
use super::stream::Stream;
use super::{HboneError, ResetCode, engine, h2_engine};
use crate::transport::Transport;

/// Why a stream did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer answered with this status, not 200.
    #[error("http status: {}", status_text(*.0))]
    Status(u16),
    /// The peer reset the stream instead of answering.
    #[error("stream reset by the peer: {0}")]
    Reset(ResetCode),
    /// The peer never processed the request: retrying on another tunnel is safe.
    #[error("{0}")]
    NotSent(String),
    /// The tunnel failed while the request was under way.
    #[error("{0}")]
    Connection(String),
    /// The authority cannot be written in a request.
    #[error("no valid authority pseudo header: {0}")]
    Authority(String),
}

impl OpenError {
    /// True if the peer cannot have acted on the request.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotSent(_) | Self::Reset(ResetCode::RefusedStream)
        )
    }
}

/// `401 Unauthorized`; the number alone for a code without a name.
pub fn status_text(status: u16) -> String {
    http::StatusCode::from_u16(status)
        .map_or_else(|_| status.to_string(), |status| status.to_string())
}

/// Starts a tunnel as client: sends preface and settings. Streams may be opened at once; the server's
/// SETTINGS are due within [`Settings::preface_timeout`]. Dropping the future drops the transport.
///
/// # Errors
/// [`HboneError::Handshake`] if the transport fails, [`HboneError::Limit`] if it takes too long.
pub async fn handshake<T: Transport + 'static>(
    io: T,
    settings: &Settings,
) -> Result<(Opener, Driver<T>), HboneError> {
    match settings.engine {
        Engine::Own => {
            let (opener, driver) = engine::client::handshake(io, settings).await?;
            Ok((Opener(Open::Own(opener)), Driver(Drive::Own(driver))))
        }
        Engine::H2 => {
            let (opener, driver) = h2_engine::client::handshake(io, settings).await?;
            Ok((
                Opener(Open::H2(opener)),
                Driver(Drive::H2(Box::new(driver))),
            ))
        }
    }
}

enum Drive<T: Transport> {
    Own(engine::client::Driver<T>),
    H2(Box<h2_engine::client::Driver<T>>),
}

/// Drives a tunnel: I/O, keepalive, deadlines. The caller spawns it; it ends with the tunnel. Dropping
/// it drops the tunnel at once.
#[must_use = "a tunnel makes no progress unless its driver is polled"]
pub struct Driver<T: Transport>(Drive<T>);

impl<T: Transport + 'static> Future for Driver<T> {
    type Output = Result<(), HboneError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Drive::Own(driver) => Pin::new(driver).poll(cx),
            Drive::H2(driver) => Pin::new(&mut **driver).poll(cx),
        }
    }
}

impl<T: Transport> Unpin for Driver<T> {}

#[derive(Clone, Debug)]
enum Open {
    Own(engine::client::Opener),
    H2(h2_engine::client::Opener),
}

/// Opens streams in a tunnel. The tunnel closes by itself once every clone is dropped and no stream is
/// left.
#[derive(Clone, Debug)]
pub struct Opener(Open);

impl Opener {
    /// Sends the request and waits for the answer. Waits too while the peer's stream limit is
    /// reached. Dropping the future before it completes resets the stream (CANCEL).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        request: &ConnectRequest,
    ) -> Result<(ConnectResponse, Stream), OpenError> {
        match &self.0 {
            Open::Own(opener) => {
                let (response, halves) = opener.open(request).await?;
                Ok((response, halves.into()))
            }
            Open::H2(opener) => {
                let (response, halves) = opener.open(request).await?;
                Ok((response, halves.into()))
            }
        }
    }

    /// True until GOAWAY was received, the tunnel failed or its end was ordered.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        match &self.0 {
            Open::Own(opener) => opener.is_usable(),
            Open::H2(opener) => opener.is_usable(),
        }
    }

    /// True while streams wait because the peer's connection window is used up: a new stream fares
    /// better in another tunnel. Not known with `h2`, where it is never true.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        match &self.0 {
            Open::Own(opener) => opener.is_congested(),
            Open::H2(_) => false,
        }
    }

    /// Streams that are open or being opened.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match &self.0 {
            Open::Own(opener) => opener.in_flight(),
            Open::H2(opener) => opener.in_flight(),
        }
    }

    /// Streams the peer allows at once.
    #[must_use]
    pub fn peer_max_streams(&self) -> usize {
        match &self.0 {
            Open::Own(opener) => opener.peer_max_streams(),
            Open::H2(opener) => opener.peer_max_streams(),
        }
    }

    /// Opens nothing more, through any clone; once no stream is left: GOAWAY(NO_ERROR), then closes
    /// the transport.
    pub fn close_when_idle(&self) {
        match &self.0 {
            Open::Own(opener) => opener.close_when_idle(),
            Open::H2(opener) => opener.close_when_idle(),
        }
    }

    /// Drops the tunnel as soon as its driver runs, with all its streams and without GOAWAY.
    pub fn abort(&self) {
        match &self.0 {
            Open::Own(opener) => opener.abort(),
            Open::H2(opener) => opener.abort(),
        }
    }
}

impl<T: Transport> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Drive::Own(driver) => driver.fmt(f),
            Drive::H2(driver) => driver.fmt(f),
        }
    }
}
