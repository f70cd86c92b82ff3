//! Client side of a tunnel on our engine.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::driver::Core;
use super::hpack;
use super::stream::{Link, RecvHalf, SendHalf, halves};
use super::tunnel::{InFlight, Order, Tunnel};
use crate::hbone::HboneError;
use crate::hbone::client::OpenError;
use crate::hbone::connect::{ConnectRequest, ConnectResponse, encode_request, parse_response};
use crate::hbone::guard::Role;
use crate::hbone::settings::Settings;
use crate::hbone::stream::StreamError;
use crate::transport::Transport;

/// See [`crate::hbone::client::handshake`].
pub(in crate::hbone) async fn handshake<T: Transport>(
    transport: T,
    settings: &Settings,
) -> Result<(Opener, Driver<T>), HboneError> {
    // Boxed: an idle tunnel's task must not hold the room twice.
    let mut core = Box::new(Core::new(transport, Role::Client, settings));
    poll_fn(|cx| core.poll_handshake(cx)).await?;
    let opener = Opener {
        handle: Rc::new(Handle(Rc::clone(&core.tunnel))),
    };
    Ok((opener, Driver { core: Some(core) }))
}

/// See [`crate::hbone::client::Driver`].
pub(in crate::hbone) struct Driver<T> {
    core: Option<Box<Core<T>>>,
}

impl<T: Transport> Future for Driver<T> {
    type Output = Result<(), HboneError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(core) = &mut this.core else {
            return Poll::Ready(Ok(()));
        };
        let polled = core.turn(cx);
        if let Poll::Ready(outcome) = &polled {
            core.end(outcome.as_ref().err(), cx);
            this.core = None;
        }
        polled
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            core.tunnel.end(Some(&HboneError::Aborted));
        }
    }
}

impl<T> Unpin for Driver<T> {}

/// The right to open streams; the tunnel closes once the last clone is gone.
#[derive(Debug)]
struct Handle(Rc<Tunnel>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.order(Order::Drain);
    }
}

/// See [`crate::hbone::client::Opener`].
#[derive(Clone, Debug)]
pub(in crate::hbone) struct Opener {
    handle: Rc<Handle>,
}

impl Opener {
    fn tunnel(&self) -> &Rc<Tunnel> {
        &self.handle.0
    }

    pub(in crate::hbone) async fn open(
        &self,
        request: &ConnectRequest,
    ) -> Result<(ConnectResponse, (RecvHalf, SendHalf)), OpenError> {
        let encoded = encode_request(request)
            .ok_or_else(|| OpenError::Authority(request.authority.to_string()))?;
        let link = self.start(&encoded)?;
        let (tunnel, id) = (Rc::clone(&link.tunnel), link.id);
        // From here on, giving up resets the stream.
        let halves = halves(link);
        let answer = poll_fn(|cx| tunnel.ask(|connection| connection.poll_answer(id, cx)));
        let (status, headers) = answer.await.map_err(|error| failed(&tunnel, id, error))?;
        if status != http::StatusCode::OK {
            return Err(OpenError::Status(status.as_u16()));
        }
        Ok((parse_response(&headers), halves))
    }

    fn start(&self, request: &http::Request<()>) -> Result<Link, OpenError> {
        let tunnel = self.tunnel();
        if let Some(failure) = tunnel.failure() {
            return Err(OpenError::NotSent(failure.to_string()));
        }
        if !self.is_usable() {
            let text = "h2 failed: tunnel is closing";
            return Err(OpenError::NotSent(text.into()));
        }
        let mut fields = Vec::with_capacity(512);
        hpack::encode_request(request, &mut fields);
        let in_flight = InFlight::new(tunnel);
        let Some(id) = tunnel.ask(|connection| connection.open(fields)) else {
            self.close_when_idle();
            let text = "h2 failed: no stream numbers are left";
            return Err(OpenError::NotSent(text.into()));
        };
        Ok(Link::new(tunnel, id, in_flight))
    }

    pub(in crate::hbone) fn is_usable(&self) -> bool {
        let tunnel = self.tunnel();
        tunnel.ordered() == Order::Run
            && tunnel.failure().is_none()
            && tunnel.guard.goaway_received().is_none()
            && !tunnel.guard.wants_drain()
    }

    pub(in crate::hbone) fn is_congested(&self) -> bool {
        self.tunnel().drive(|connection| connection.is_congested())
    }

    pub(in crate::hbone) fn in_flight(&self) -> usize {
        self.tunnel().in_flight()
    }

    pub(in crate::hbone) fn peer_max_streams(&self) -> usize {
        self.tunnel()
            .drive(|connection| connection.peer.max_streams)
    }

    pub(in crate::hbone) fn close_when_idle(&self) {
        self.tunnel().order(Order::Drain);
    }

    pub(in crate::hbone) fn abort(&self) {
        self.tunnel().order(Order::Abort);
    }
}

/// Why a request got no answer, and whether the peer can have acted on it.
fn failed(tunnel: &Tunnel, id: u32, error: StreamError) -> OpenError {
    let left_out = tunnel
        .guard
        .goaway_received()
        .is_some_and(|goaway| id > goaway.last_stream);
    let unsent = tunnel.drive(|connection| id > connection.last_opened);
    match error {
        StreamError::Reset(code) => OpenError::Reset(code),
        StreamError::GoneAway => OpenError::NotSent(error.to_string()),
        StreamError::Connection(text) if left_out || unsent => OpenError::NotSent(text),
        StreamError::Connection(text) => OpenError::Connection(text),
        StreamError::Closed => OpenError::Connection(error.to_string()),
    }
}

impl<T> std::fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tunnel = self.core.as_ref().map(|core| &core.tunnel);
        f.debug_tuple("Driver").field(&tunnel).finish()
    }
}
