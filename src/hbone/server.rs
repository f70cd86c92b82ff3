//! Server side of a tunnel: accepts CONNECT streams.

use super::HboneError;
use super::connect::{ConnectRequest, Refusal};
use super::settings::Settings;
use super::stream::{Stream, StreamError};
use crate::model::baggage::Baggage;
use crate::transport::Transport;
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Starts a tunnel as server: sends settings, waits for the client's preface.
///
/// # Errors
/// [`HboneError::Handshake`] if the transport fails or speaks something else, [`HboneError::Limit`]
/// if it takes too long.
pub async fn handshake<T: Transport + 'static>(
    io: T,
    settings: &Settings,
) -> Result<(Server<T>, DrainHandle), HboneError> {
    let _ = (io, settings);
    todo!()
}

/// A tunnel that accepts streams. Dropping it drops the tunnel at once.
#[derive(Debug)]
pub struct Server<T> {
    _t: PhantomData<T>,
}

impl<T: Transport + 'static> Server<T> {
    /// Waits for the next request; `None` when the tunnel has ended in order. Streams move only while
    /// this is polled, so call it until it ends. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Incoming, HboneError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Server::next`].
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, HboneError>>> {
        let _ = cx;
        todo!()
    }
}

/// Ends a tunnel from outside.
#[derive(Clone, Debug)]
pub struct DrainHandle {
    _t: PhantomData<Rc<()>>,
}

impl DrainHandle {
    /// Two-step GOAWAY, then the tunnel ends once its streams have (spec: hbone.md 3.4).
    pub fn drain(&self) {
        todo!()
    }

    /// GOAWAY(NO_ERROR), every stream fails, the transport is dropped: now.
    pub fn abort(&self) {
        todo!()
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

/// Answers one request. Dropping it unanswered resets the stream (CANCEL).
#[derive(Debug)]
pub struct Respond {
    _t: PhantomData<Rc<()>>,
}

impl Respond {
    /// `:status` and END_STREAM, nothing else (spec: hbone.md 5).
    pub fn refuse(self, status: u16) {
        let _ = status;
        todo!()
    }

    /// Answers 200 and hands out the stream.
    ///
    /// # Errors
    /// If the stream or the tunnel ended meanwhile.
    pub fn accept(self, baggage: Option<&Baggage>) -> Result<Stream, StreamError> {
        let _ = baggage;
        todo!()
    }

    /// Ready when the peer gave up while we dial.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let _ = cx;
        todo!()
    }
}
