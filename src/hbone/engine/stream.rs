//! The two halves of a stream, as handles on the engine.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::tunnel::{InFlight, Tunnel};
use crate::hbone::ResetCode;
use crate::hbone::stream::StreamError;

/// What holds a stream in the engine.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) tunnel: Rc<Tunnel>,
    pub(super) id: u32,
    _in_flight: InFlight,
}

impl Link {
    pub(super) fn new(tunnel: &Rc<Tunnel>, id: u32, in_flight: InFlight) -> Self {
        Self {
            tunnel: Rc::clone(tunnel),
            id,
            _in_flight: in_flight,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tunnel.ask(|connection| connection.let_go(self.id));
    }
}

/// Both halves, which may be used from different tasks.
pub(super) fn halves(link: Link) -> (RecvHalf, SendHalf) {
    let link = Rc::new(link);
    let recv = RecvHalf {
        link: Rc::clone(&link),
        ended: false,
    };
    (recv, SendHalf { link })
}

/// See [`crate::hbone::stream::RecvHalf`].
#[derive(Debug)]
pub(in crate::hbone) struct RecvHalf {
    link: Rc<Link>,
    ended: bool,
}

impl RecvHalf {
    pub(in crate::hbone) fn poll_data(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let polled = self
            .link
            .tunnel
            .ask(|connection| connection.poll_data(self.link.id, cx));
        if let Poll::Ready(outcome) = &polled {
            self.ended |= !matches!(outcome, Ok(Some(_)));
        }
        polled
    }

    pub(in crate::hbone) fn take_more(&self) -> Option<Bytes> {
        let link = &self.link;
        link.tunnel.ask(|connection| connection.take_more(link.id))
    }

    pub(in crate::hbone) fn forwarded(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.link
            .tunnel
            .ask(|connection| connection.return_credit(self.link.id, bytes));
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.link
            .tunnel
            .ask(|connection| connection.stop_reading(self.link.id, self.ended));
    }
}

/// See [`crate::hbone::stream::SendHalf`].
#[derive(Debug)]
pub(in crate::hbone) struct SendHalf {
    link: Rc<Link>,
}

impl SendHalf {
    pub(in crate::hbone) fn poll_capacity(
        &self,
        cx: &Context<'_>,
        want: usize,
    ) -> Poll<Result<usize, StreamError>> {
        self.link
            .tunnel
            .ask(|connection| connection.poll_capacity(self.link.id, cx, want))
    }

    pub(in crate::hbone) fn release(&self) {
        self.link
            .tunnel
            .ask(|connection| connection.release(self.link.id));
    }

    pub(in crate::hbone) fn send(&self, data: Bytes) -> Result<(), StreamError> {
        self.link
            .tunnel
            .ask(|connection| connection.send(self.link.id, data))
    }

    pub(in crate::hbone) fn finish(&self) -> Result<(), StreamError> {
        self.link
            .tunnel
            .ask(|connection| connection.finish(self.link.id))
    }

    pub(in crate::hbone) fn reset(&self, code: ResetCode) {
        self.link.tunnel.ask(|connection| {
            connection.reset(self.link.id, code.code(), &StreamError::Closed);
        });
    }

    pub(in crate::hbone) fn poll_reset(&self, cx: &Context<'_>) -> Poll<StreamError> {
        self.link
            .tunnel
            .ask(|connection| connection.poll_reset(self.link.id, cx))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.link
            .tunnel
            .ask(|connection| connection.stop_sending(self.link.id));
    }
}
