//! Server side of a tunnel on the `h2` crate.

use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};

use super::io::Io;
use super::parking::{RecvCell, register};
use super::stream::{self, RecvHalf, SendHalf, explain};
use super::tunnel::{Core, DATA_FRAME_BUDGET, InFlight, Next, Order, Shared};
use crate::hbone::HboneError;
use crate::hbone::connect::{ConnectRequest, Refusal, encode_response, read_request};
use crate::hbone::guard::Role;
use crate::hbone::settings::{LimitKind, Settings};
use crate::hbone::stream::StreamError;
use crate::model::baggage::Baggage;
use crate::transport::Transport;

/// Starts a tunnel as server: sends settings, waits for the client's preface. Its first SETTINGS are
/// due within the same [`Settings::preface_timeout`]. Dropping the future drops the transport.
///
/// # Errors
/// [`HboneError::Handshake`] if the transport fails or speaks something else, [`HboneError::Limit`]
/// if it takes too long.
pub(in crate::hbone) async fn handshake<T: Transport + 'static>(
    io: T,
    settings: &Settings,
) -> Result<(Server<T>, DrainHandle), HboneError> {
    let (mut core, io) = Core::new(io, Role::Server, settings);
    let mut shake = Box::pin(builder(settings).handshake::<_, Bytes>(io));
    let mut engine =
        poll_fn(|cx| core.poll_handshake(cx, |cx| shake.as_mut().poll(cx).map_ok(Box::new)))
            .await?;
    core.start(engine.ping_pong());
    let handle = DrainHandle {
        shared: Rc::clone(&core.shared),
    };
    let server = Server {
        core,
        engine: Some(engine),
    };
    Ok((server, handle))
}

fn builder(settings: &Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(settings.advertised_header_list)
        .max_concurrent_streams(settings.max_streams)
        .max_send_buffer_size(settings.send_buffer)
        .max_local_error_reset_streams(Some(settings.local_error_resets))
        .max_pending_accept_reset_streams(settings.pending_accept_resets)
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}

/// A request and the way to answer it.
type Incoming = (Result<ConnectRequest, Refusal>, Respond);

/// A tunnel that accepts streams. Dropping it drops the tunnel at once.
pub(in crate::hbone) struct Server<T: Transport> {
    core: Core<T>,
    engine: Option<Box<Connection<Io<T>, Bytes>>>,
}

impl<T: Transport + 'static> Server<T> {
    /// See the public type.
    pub(in crate::hbone) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, HboneError>>> {
        if self.engine.is_none() {
            return Poll::Ready(None);
        }
        let polled = self.turn(cx);
        match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(ref error))) => self.end(Some(error), cx),
            Poll::Ready(None) => self.end(None, cx),
        }
        polled
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, HboneError>>> {
        let Some(engine) = &mut self.engine else {
            return Poll::Ready(None);
        };
        if let Err(error) = self.core.attend(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let guard = &self.core.shared.guard;
            if self.core.shared.ordered() == Order::Drain || guard.wants_drain() {
                // Does nothing the second time.
                engine.graceful_shutdown();
            }
            if let Some(window) = self.core.window_change() {
                engine.set_target_window_size(window);
            }
            match engine.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let incoming = incoming(&self.core.shared, request, respond);
                    return Poll::Ready(Some(Ok(incoming)));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(self.core.failed(&error).err().map(Err));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            match self.core.settle(cx) {
                Next::Again => {}
                Next::Wait => return Poll::Pending,
                Next::Ended => return Poll::Ready(None),
                Next::Dead(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Says GOAWAY if the end is ours, as far as the transport takes it at once, and tells the streams.
    fn end(&mut self, error: Option<&HboneError>, cx: &mut Context<'_>) {
        self.core.end(error);
        if let Some(mut engine) = self.engine.take() {
            if let Some(reason) = error.and_then(goaway_reason) {
                engine.abrupt_shutdown(reason);
                // One attempt: a peer that does not read must not keep the tunnel alive.
                let _ = engine.poll_closed(cx);
            }
            self.core.last_flush(cx);
        }
    }
}

/// What a server says when it ends a tunnel; `None` if `h2` has said it.
fn goaway_reason(error: &HboneError) -> Option<Reason> {
    match error {
        HboneError::Handshake(_) | HboneError::Failed(_) => None,
        HboneError::PingTimeout | HboneError::Aborted => Some(Reason::NO_ERROR),
        HboneError::Limit(LimitKind::SettingsAckTimeout) => Some(Reason::SETTINGS_TIMEOUT),
        HboneError::Limit(LimitKind::PrefaceTimeout) => Some(Reason::PROTOCOL_ERROR),
        HboneError::Limit(_) => Some(Reason::ENHANCE_YOUR_CALM),
    }
}

impl<T: Transport> Drop for Server<T> {
    fn drop(&mut self) {
        if self.engine.is_some() {
            self.core.end(Some(&HboneError::Aborted));
        }
    }
}

/// Ends a tunnel from outside.
#[derive(Clone, Debug)]
pub(in crate::hbone) struct DrainHandle {
    shared: Rc<Shared>,
}

impl DrainHandle {
    /// Two-step GOAWAY, then the tunnel ends once its streams have (spec: hbone.md 3.4).
    pub(in crate::hbone) fn drain(&self) {
        self.shared.order(Order::Drain);
    }

    /// GOAWAY(NO_ERROR), every stream fails, the transport is closed: as soon as the server is polled.
    pub(in crate::hbone) fn abort(&self) {
        self.shared.order(Order::Abort);
    }

    /// Streams that are open or waiting for an answer.
    pub(in crate::hbone) fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }
}

/// The parsed request and the way to answer it.
fn incoming(
    shared: &Rc<Shared>,
    request: http::Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
) -> (Result<ConnectRequest, Refusal>, Respond) {
    let parsed = read_request(&shared.settings, &request);
    let open = Open {
        in_flight: InFlight::new(shared),
        recv: register(shared, request.into_body()),
        respond,
    };
    let respond = Respond {
        shared: Rc::clone(shared),
        open: Some(open),
    };
    (parsed, respond)
}

/// Answers one request. Dropping it unanswered resets the stream (CANCEL).
pub(in crate::hbone) struct Respond {
    shared: Rc<Shared>,
    open: Option<Open>,
}

struct Open {
    in_flight: InFlight,
    recv: Rc<RecvCell>,
    respond: SendResponse<Bytes>,
}

impl Respond {
    /// `:status` and END_STREAM, nothing else (spec: hbone.md 5). A client that has not ended its half
    /// gets RST_STREAM(NO_ERROR) after it.
    pub(in crate::hbone) fn refuse(mut self, status: u16) {
        if let Some(open) = &mut self.open {
            // Fails only for a stream that is gone, which needs no answer.
            let _ = open
                .respond
                .send_response(encode_response(status, None), true);
        }
    }

    /// Answers 200 and hands out the stream.
    ///
    /// # Errors
    /// If the stream or the tunnel ended meanwhile.
    pub(in crate::hbone) fn accept(
        mut self,
        baggage: Option<&Baggage>,
    ) -> Result<(RecvHalf, SendHalf), StreamError> {
        let Some(mut open) = self.open.take() else {
            return Err(StreamError::Closed);
        };
        let id = open.respond.stream_id().as_u32();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let gone = poll_reset(&self.shared, &mut open.respond, &mut cx);
        let sent = match gone {
            Poll::Ready(error) => Err(error),
            Poll::Pending => open
                .respond
                .send_response(encode_response(200, baggage), false)
                .map_err(|error| explain(&self.shared, &error)),
        };
        match sent {
            Ok(send) => Ok(stream::halves(
                open.in_flight,
                &self.shared,
                send,
                open.recv,
            )),
            Err(error) => {
                self.shared.forget(id);
                Err(error)
            }
        }
    }

    pub(in crate::hbone) const fn is_answered(&self) -> bool {
        self.open.is_none()
    }

    /// Ready when the peer gave up while we dial.
    pub(in crate::hbone) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &mut self.open {
            Some(open) => poll_reset(&self.shared, &mut open.respond, cx),
            None => Poll::Ready(StreamError::Closed),
        }
    }
}

fn poll_reset(
    shared: &Shared,
    respond: &mut SendResponse<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<StreamError> {
    respond.poll_reset(cx).map(|outcome| match outcome {
        Ok(_) if shared.failure().is_some() => StreamError::Connection(
            shared
                .failure()
                .map_or_else(String::new, |failure| failure.to_string()),
        ),
        Ok(reason) => StreamError::Reset(reason.into()),
        Err(error) => explain(shared, &error),
    })
}

impl Drop for Respond {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            self.shared.forget(open.respond.stream_id().as_u32());
        }
    }
}

impl<T: Transport> fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.core).finish()
    }
}
