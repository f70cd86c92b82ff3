//! Client side of a tunnel on the `h2` crate.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};

use super::io::Io;
use super::parking::register;
use super::stream::{self, RecvHalf, SendHalf, explain};
use super::tunnel::{Core, DATA_FRAME_BUDGET, InFlight, Next, Order, Shared};
use crate::hbone::HboneError;
use crate::hbone::client::OpenError;
use crate::hbone::connect::{ConnectRequest, ConnectResponse, encode_request, parse_response};
use crate::hbone::guard::Role;
use crate::hbone::settings::Settings;
use crate::hbone::stream::StreamError;
use crate::transport::Transport;

/// Starts a tunnel as client: sends preface and settings. Streams may be opened at once; the server's
/// SETTINGS are due within [`Settings::preface_timeout`]. Dropping the future drops the transport.
///
/// # Errors
/// [`HboneError::Handshake`] if the transport fails, [`HboneError::Limit`] if it takes too long.
pub(in crate::hbone) async fn handshake<T: Transport + 'static>(
    io: T,
    settings: &Settings,
) -> Result<(Opener, Driver<T>), HboneError> {
    let (mut core, io) = Core::new(io, Role::Client, settings);
    let mut shake = Box::pin(builder(settings).handshake::<_, Bytes>(io));
    let boxed = |(requests, engine)| (requests, Box::new(engine));
    let (requests, mut engine) =
        poll_fn(|cx| core.poll_handshake(cx, |cx| shake.as_mut().poll(cx).map_ok(boxed))).await?;
    core.start(engine.ping_pong());
    let peer_max_streams = Rc::new(Cell::new(settings.initial_send_streams));
    let opener = Opener {
        shared: Rc::clone(&core.shared),
        requests: Rc::new(RefCell::new(Some(requests))),
        peer_max_streams: Rc::clone(&peer_max_streams),
    };
    let driver = Driver {
        core,
        engine: Some(engine),
        settings_seen: 0,
        peer_max_streams,
    };
    Ok((opener, driver))
}

fn builder(settings: &Settings) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(settings.max_header_list)
        .initial_max_send_streams(settings.initial_send_streams)
        .max_send_buffer_size(settings.send_buffer)
        .max_local_error_reset_streams(Some(settings.local_error_resets))
        .data_frame_budget(DATA_FRAME_BUDGET);
    builder
}

/// Drives a tunnel: I/O, keepalive, deadlines. The caller spawns it; it ends with the tunnel. Dropping
/// it drops the tunnel at once.
pub(in crate::hbone) struct Driver<T: Transport> {
    core: Core<T>,
    engine: Option<Box<Connection<Io<T>, Bytes>>>,
    settings_seen: u32,
    peer_max_streams: Rc<Cell<usize>>,
}

impl<T: Transport + 'static> Driver<T> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HboneError>> {
        let Some(engine) = &mut self.engine else {
            return Poll::Ready(Ok(()));
        };
        if let Err(error) = self.core.attend(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            if let Some(window) = self.core.window_change() {
                engine.set_target_window_size(window);
            }
            let polled = Pin::new(&mut **engine).poll(cx);
            let settings_seen = self.core.shared.guard.settings_frames();
            if settings_seen != self.settings_seen {
                self.settings_seen = settings_seen;
                self.peer_max_streams
                    .set(engine.max_concurrent_send_streams());
            }
            if let Poll::Ready(ended) = polled {
                return Poll::Ready(ended.or_else(|error| self.core.failed(&error)));
            }
            match self.core.settle(cx) {
                Next::Again => {}
                Next::Wait => return Poll::Pending,
                Next::Ended => return Poll::Ready(Ok(())),
                Next::Dead(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<T: Transport + 'static> Future for Driver<T> {
    type Output = Result<(), HboneError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = this.turn(cx);
        if let Poll::Ready(outcome) = &polled {
            this.core.end(outcome.as_ref().err());
            this.core.last_flush(cx);
            // Dropping the engine tells every stream.
            this.engine = None;
        }
        polled
    }
}

impl<T: Transport> Drop for Driver<T> {
    fn drop(&mut self) {
        if self.engine.is_some() {
            self.core.end(Some(&HboneError::Aborted));
        }
    }
}

impl<T: Transport> Unpin for Driver<T> {}

/// Opens streams in a tunnel. The tunnel closes by itself once every clone is dropped and no stream is
/// left.
#[derive(Clone)]
pub(in crate::hbone) struct Opener {
    shared: Rc<Shared>,
    requests: Rc<RefCell<Option<SendRequest<Bytes>>>>,
    peer_max_streams: Rc<Cell<usize>>,
}

impl Opener {
    /// Sends the request and waits for the answer. Waits too while the peer's stream limit is
    /// reached. Dropping the future before it completes resets the stream (CANCEL).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(in crate::hbone) async fn open(
        &self,
        request: &ConnectRequest,
    ) -> Result<(ConnectResponse, (RecvHalf, SendHalf)), OpenError> {
        let encoded = encode_request(request)
            .ok_or_else(|| OpenError::Authority(request.authority.to_string()))?;
        let requests = self.requests.borrow().clone();
        let Some(mut requests) = requests else {
            return Err(OpenError::NotSent("h2 failed: tunnel is closing".into()));
        };
        let in_flight = InFlight::new(&self.shared);
        let (answer, send) = requests.send_request(encoded, false).map_err(|error| {
            // Over, or out of stream numbers: nothing can be opened any more.
            self.close_when_idle();
            OpenError::NotSent(self.text(&error))
        })?;
        drop(requests);
        let id = answer.stream_id().as_u32();
        let response = answer.await.map_err(|error| self.failed(id, &error))?;
        let status = response.status().as_u16();
        let (head, recv) = response.into_parts();
        if status != 200 {
            return Err(OpenError::Status(status));
        }
        let recv = register(&self.shared, recv);
        let halves = stream::halves(in_flight, &self.shared, send, recv);
        Ok((parse_response(&head.headers), halves))
    }

    fn text(&self, error: &h2::Error) -> String {
        self.shared.failure().map_or_else(
            || format!("h2 failed: {error}"),
            |failure| failure.to_string(),
        )
    }

    fn failed(&self, id: u32, error: &h2::Error) -> OpenError {
        let guard = &self.shared.guard;
        let left_out = guard
            .goaway_received()
            .is_some_and(|goaway| id > goaway.last_stream);
        if let StreamError::Reset(code) = explain(&self.shared, error) {
            OpenError::Reset(code)
        } else if left_out || !guard.was_sent(id) {
            OpenError::NotSent(self.text(error))
        } else {
            OpenError::Connection(self.text(error))
        }
    }

    /// True until GOAWAY was received, the tunnel failed or its end was ordered.
    pub(in crate::hbone) fn is_usable(&self) -> bool {
        self.shared.ordered() == Order::Run
            && self.shared.failure().is_none()
            && self.shared.guard.goaway_received().is_none()
            && !self.shared.guard.wants_drain()
            && self.requests.borrow().is_some()
    }

    /// Streams that are open or being opened.
    pub(in crate::hbone) fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }

    /// Streams the peer allows at once.
    pub(in crate::hbone) fn peer_max_streams(&self) -> usize {
        self.peer_max_streams.get()
    }

    /// Opens nothing more, through any clone; once no stream is left: GOAWAY(NO_ERROR), then closes
    /// the transport.
    pub(in crate::hbone) fn close_when_idle(&self) {
        // `h2` closes a client when neither a stream nor a request handle is left.
        let requests = self.requests.borrow_mut().take();
        drop(requests);
        self.shared.order(Order::Drain);
    }

    /// Drops the tunnel as soon as its driver runs, with all its streams and without GOAWAY.
    pub(in crate::hbone) fn abort(&self) {
        self.shared.order(Order::Abort);
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opener").field(&self.shared).finish()
    }
}

impl<T: Transport> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driver").field(&self.core).finish()
    }
}
