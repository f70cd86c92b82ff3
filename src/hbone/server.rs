//! Server side of a tunnel: accepts CONNECT streams.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use super::connect::{ConnectRequest, Refusal};
use super::settings::{Engine, Settings};
use super::stream::{Stream, StreamError};
use super::{HboneError, engine, h2_engine};
use crate::model::baggage::Baggage;
use crate::transport::Transport;

/// Starts a tunnel as server: sends settings, waits for the client's preface. Its first SETTINGS are
/// due within the same [`Settings::preface_timeout`]. Dropping the future drops the transport.
///
/// # Errors
/// [`HboneError::Handshake`] if the transport fails or speaks something else, [`HboneError::Limit`]
/// if it takes too long.
pub async fn handshake<T: Transport + 'static>(
    io: T,
    settings: &Settings,
) -> Result<(Server<T>, DrainHandle), HboneError> {
    match settings.engine {
        Engine::Own => {
            let (server, drain) = engine::server::handshake(io, settings).await?;
            Ok((Server(Serve::Own(server)), DrainHandle(Drain::Own(drain))))
        }
        Engine::H2 => {
            let (server, drain) = h2_engine::server::handshake(io, settings).await?;
            Ok((
                Server(Serve::H2(Box::new(server))),
                DrainHandle(Drain::H2(drain)),
            ))
        }
    }
}

enum Serve<T: Transport> {
    Own(engine::server::Server<T>),
    H2(Box<h2_engine::server::Server<T>>),
}

/// A tunnel that accepts streams. Dropping it drops the tunnel at once.
pub struct Server<T: Transport>(Serve<T>);

impl<T: Transport + 'static> Server<T> {
    /// Waits for the next request; `None` when the tunnel has ended in order, or after an error was
    /// returned. Streams move only while this is polled, so call it until it ends. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Incoming, HboneError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Server::next`].
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, HboneError>>> {
        match &mut self.0 {
            Serve::Own(server) => server.poll_next(cx).map(|next| {
                next.map(|next| {
                    next.map(|(request, respond)| Incoming {
                        request,
                        respond: Respond(Answer::Own(respond)),
                    })
                })
            }),
            Serve::H2(server) => server.poll_next(cx).map(|next| {
                next.map(|next| {
                    next.map(|(request, respond)| Incoming {
                        request,
                        respond: Respond(Answer::H2(Box::new(respond))),
                    })
                })
            }),
        }
    }
}

#[derive(Clone, Debug)]
enum Drain {
    Own(engine::server::DrainHandle),
    H2(h2_engine::server::DrainHandle),
}

/// Ends a tunnel from outside.
#[derive(Clone, Debug)]
pub struct DrainHandle(Drain);

impl DrainHandle {
    /// Two-step GOAWAY, then the tunnel ends once its streams have (spec: hbone.md 3.4).
    pub fn drain(&self) {
        match &self.0 {
            Drain::Own(handle) => handle.drain(),
            Drain::H2(handle) => handle.drain(),
        }
    }

    /// GOAWAY(NO_ERROR), every stream fails, the transport is closed: as soon as the server is polled.
    pub fn abort(&self) {
        match &self.0 {
            Drain::Own(handle) => handle.abort(),
            Drain::H2(handle) => handle.abort(),
        }
    }

    /// Streams that are open or waiting for an answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match &self.0 {
            Drain::Own(handle) => handle.in_flight(),
            Drain::H2(handle) => handle.in_flight(),
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Incoming {
    /// The request, or the status it must be refused with.
    pub request: Result<ConnectRequest, Refusal>,
    /// The way to answer it.
    pub respond: Respond,
}

enum Answer {
    Own(engine::server::Respond),
    H2(Box<h2_engine::server::Respond>),
}

/// Answers one request. Dropping it unanswered resets the stream (CANCEL).
pub struct Respond(Answer);

impl Respond {
    /// `:status` and END_STREAM, nothing else (spec: hbone.md 5). A client that has not ended its half
    /// gets RST_STREAM(NO_ERROR) after it.
    pub fn refuse(self, status: u16) {
        match self.0 {
            Answer::Own(respond) => respond.refuse(status),
            Answer::H2(respond) => respond.refuse(status),
        }
    }

    /// Answers 200 and hands out the stream.
    ///
    /// # Errors
    /// If the stream or the tunnel ended meanwhile.
    pub fn accept(self, baggage: Option<&Baggage>) -> Result<Stream, StreamError> {
        match self.0 {
            Answer::Own(respond) => respond.accept(baggage).map(Stream::from),
            Answer::H2(respond) => respond.accept(baggage).map(Stream::from),
        }
    }

    /// Ready when the peer gave up while we dial.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &mut self.0 {
            Answer::Own(respond) => respond.poll_reset(cx),
            Answer::H2(respond) => respond.poll_reset(cx),
        }
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered = match &self.0 {
            Answer::Own(respond) => respond.is_answered(),
            Answer::H2(respond) => respond.is_answered(),
        };
        f.debug_struct("Respond")
            .field("answered", &answered)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Serve::Own(server) => server.fmt(f),
            Serve::H2(server) => server.fmt(f),
        }
    }
}
