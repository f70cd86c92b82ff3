//! Client side of a tunnel: opens CONNECT streams.

use super::connect::{ConnectRequest, ConnectResponse};
use super::settings::Settings;
use super::stream::Stream;
use super::{HboneError, ResetCode};
use crate::transport::Transport;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Why a stream did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer answered with this status.
    #[error("http status: {}", status_text(*.0))]
    Status(u16),
    /// The peer reset the stream instead of answering.
    #[error("h2 failed: stream reset by the peer: {0}")]
    Reset(ResetCode),
    /// The peer never processed the request: retrying on another tunnel is safe.
    #[error("h2 failed: {0}")]
    NotSent(String),
    /// The tunnel failed while the request was under way.
    #[error("h2 failed: {0}")]
    Connection(String),
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

fn status_text(status: u16) -> String {
    match http::StatusCode::from_u16(status) {
        Ok(status) => status.to_string(),
        Err(_) => status.to_string(),
    }
}

/// Starts a tunnel as client: sends preface and settings. Streams may be opened at once.
///
/// # Errors
/// [`HboneError::Handshake`] if the transport fails, [`HboneError::Limit`] if it takes too long.
pub async fn handshake<T: Transport + 'static>(
    io: T,
    settings: &Settings,
) -> Result<(Opener, Driver<T>), HboneError> {
    let _ = (io, settings);
    todo!()
}

/// Drives a tunnel: I/O, keepalive, deadlines. The caller spawns it; it ends with the tunnel. Dropping
/// it drops the tunnel at once.
#[derive(Debug)]
#[must_use = "a tunnel makes no progress unless its driver is polled"]
pub struct Driver<T> {
    _t: PhantomData<T>,
}

impl<T: Transport + 'static> Future for Driver<T> {
    type Output = Result<(), HboneError>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

/// Opens streams in a tunnel. The tunnel closes by itself once every clone is dropped and no stream is
/// left.
#[derive(Clone, Debug)]
pub struct Opener {
    _t: PhantomData<Rc<()>>,
}

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
        let _ = request;
        todo!()
    }

    /// True until GOAWAY was received, the tunnel failed or its end was ordered.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        todo!()
    }

    /// Streams that are open or being opened.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// Streams the peer allows at once.
    #[must_use]
    pub fn peer_max_streams(&self) -> usize {
        todo!()
    }

    /// Opens nothing more; once no stream is left: GOAWAY(NO_ERROR), then closes the transport.
    pub fn close_when_idle(&self) {
        todo!()
    }

    /// Drops the tunnel now, with all its streams and without GOAWAY.
    pub fn abort(&self) {
        todo!()
    }
}
