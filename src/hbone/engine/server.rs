//! Server side of a tunnel on our engine.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::driver::Core;
use super::stream::{Link, RecvHalf, SendHalf, halves};
use super::tunnel::{InFlight, Order, Tunnel};
use crate::hbone::HboneError;
use crate::hbone::connect::{ConnectRequest, Refusal, read_request};
use crate::hbone::guard::Role;
use crate::hbone::settings::Settings;
use crate::hbone::stream::StreamError;
use crate::model::baggage::Baggage;
use crate::transport::Transport;

/// See [`crate::hbone::server::handshake`].
pub(in crate::hbone) async fn handshake<T: Transport>(
    transport: T,
    settings: &Settings,
) -> Result<(Server<T>, DrainHandle), HboneError> {
    // Boxed: an idle tunnel's task must not hold the room twice.
    let mut core = Box::new(Core::new(transport, Role::Server, settings));
    poll_fn(|cx| core.poll_handshake(cx)).await?;
    let handle = DrainHandle {
        tunnel: Rc::clone(&core.tunnel),
    };
    Ok((Server { core: Some(core) }, handle))
}

/// A request and the way to answer it.
type Incoming = (Result<ConnectRequest, Refusal>, Respond);

/// See [`crate::hbone::server::Server`].
pub(in crate::hbone) struct Server<T> {
    core: Option<Box<Core<T>>>,
}

impl<T: Transport> Server<T> {
    pub(in crate::hbone) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, HboneError>>> {
        let Some(core) = &mut self.core else {
            return Poll::Ready(None);
        };
        if let Some(incoming) = next_request(&core.tunnel) {
            return Poll::Ready(Some(Ok(incoming)));
        }
        let outcome = match core.turn(cx) {
            Poll::Pending => {
                return next_request(&core.tunnel)
                    .map_or(Poll::Pending, |incoming| Poll::Ready(Some(Ok(incoming))));
            }
            Poll::Ready(outcome) => outcome,
        };
        core.end(outcome.as_ref().err(), cx);
        self.core = None;
        Poll::Ready(outcome.err().map(Err))
    }
}

fn next_request(tunnel: &Rc<Tunnel>) -> Option<Incoming> {
    let (id, request) = tunnel.drive(|connection| connection.next_request())?;
    let parsed = read_request(&tunnel.settings, &request);
    let link = Link::new(tunnel, id, InFlight::new(tunnel));
    Some((parsed, Respond { link: Some(link) }))
}

impl<T> Drop for Server<T> {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            core.tunnel.end(Some(&HboneError::Aborted));
        }
    }
}

/// See [`crate::hbone::server::DrainHandle`].
#[derive(Clone, Debug)]
pub(in crate::hbone) struct DrainHandle {
    tunnel: Rc<Tunnel>,
}

impl DrainHandle {
    pub(in crate::hbone) fn drain(&self) {
        self.tunnel.order(Order::Drain);
    }

    pub(in crate::hbone) fn abort(&self) {
        self.tunnel.order(Order::Abort);
    }

    pub(in crate::hbone) fn in_flight(&self) -> usize {
        self.tunnel.in_flight()
    }
}

/// See [`crate::hbone::server::Respond`].
#[derive(Debug)]
pub(in crate::hbone) struct Respond {
    link: Option<Link>,
}

impl Respond {
    pub(in crate::hbone) fn refuse(mut self, status: u16) {
        if let Some(link) = self.link.take() {
            link.tunnel
                .ask(|connection| connection.refuse_request(link.id, status));
        }
    }

    pub(in crate::hbone) fn accept(
        mut self,
        baggage: Option<&Baggage>,
    ) -> Result<(RecvHalf, SendHalf), StreamError> {
        let Some(link) = self.link.take() else {
            return Err(StreamError::Closed);
        };
        link.tunnel
            .ask(|connection| connection.accept_request(link.id, baggage))?;
        Ok(halves(link))
    }

    pub(in crate::hbone) fn poll_reset(&self, cx: &Context<'_>) -> Poll<StreamError> {
        match &self.link {
            Some(link) => link
                .tunnel
                .ask(|connection| connection.poll_reset(link.id, cx)),
            None => Poll::Ready(StreamError::Closed),
        }
    }

    pub(in crate::hbone) const fn is_answered(&self) -> bool {
        self.link.is_none()
    }
}

impl Drop for Respond {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.tunnel
                .ask(|connection| connection.stop_sending(link.id));
        }
    }
}

impl<T> std::fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tunnel = self.core.as_ref().map(|core| &core.tunnel);
        f.debug_tuple("Server").field(&tunnel).finish()
    }
}
