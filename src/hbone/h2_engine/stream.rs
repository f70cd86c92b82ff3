//! One stream on the `h2` crate.
//!
//! What the peer sent before RST_STREAM stays readable: `h2` keeps the DATA it queued and reports the
//! reset after it, or a clean end if END_STREAM came first. What we queued is discarded when either
//! side resets.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::parking::RecvCell;
use super::tunnel::{InFlight, Shared};
use crate::hbone::ResetCode;
use crate::hbone::guard::Role;
use crate::hbone::stream::StreamError;

/// Most bytes one stream may send at a time, so that streams of a tunnel take turns.
const SEND_CHUNK_BYTES: usize = 256 * 1024;
/// What both halves share.
struct Link {
    shared: Rc<Shared>,
    id: u32,
    send: RefCell<h2::SendStream<Bytes>>,
    send_done: Cell<bool>,
    reset: Cell<bool>,
    _in_flight: InFlight,
}

impl Link {
    fn reset(&self, code: ResetCode) {
        if !self.reset.replace(true) {
            self.send.borrow_mut().send_reset(code.code().into());
        }
    }

    fn explain(&self, error: &h2::Error) -> StreamError {
        explain(&self.shared, error)
    }

    /// `h2` names a bare reason for streams lost to GOAWAY as well as for streams that were reset.
    fn explain_reason(&self, reason: h2::Reason) -> StreamError {
        if let Some(failure) = self.shared.failure() {
            return StreamError::Connection(failure.to_string());
        }
        let guard = &self.shared.guard;
        let left_out = guard.goaway_received().is_some_and(|goaway| {
            let ours = self.shared.role == Role::Client;
            goaway.code != 0 || (ours && self.id > goaway.last_stream)
        });
        if left_out {
            StreamError::GoneAway
        } else if guard.goaway_sent().is_some_and(|goaway| goaway.code != 0) {
            StreamError::Connection(format!("h2 failed: {reason}"))
        } else if self.reset.get() {
            StreamError::Closed
        } else {
            StreamError::Reset(reason.into())
        }
    }
}

/// A failure of `h2` in the words of this module.
pub(super) fn explain(shared: &Shared, error: &h2::Error) -> StreamError {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => StreamError::Reset(reason.into()),
        Some(_) if error.is_go_away() && error.is_remote() => StreamError::GoneAway,
        Some(_) if error.is_reset() && !error.is_library() => StreamError::Closed,
        _ => StreamError::Connection(shared.failure().map_or_else(
            || format!("h2 failed: {error}"),
            |failure| failure.to_string(),
        )),
    }
}

/// Both halves of a stream, which may be used from different tasks.
pub(super) fn halves(
    in_flight: InFlight,
    shared: &Rc<Shared>,
    send: h2::SendStream<Bytes>,
    recv: Rc<RecvCell>,
) -> (RecvHalf, SendHalf) {
    let link = Rc::new(Link {
        shared: Rc::clone(shared),
        id: send.stream_id().as_u32(),
        send: RefCell::new(send),
        send_done: Cell::new(false),
        reset: Cell::new(false),
        _in_flight: in_flight,
    });
    let recv = RecvHalf {
        cell: recv,
        link: Rc::clone(&link),
        ended: false,
    };
    (recv, SendHalf { link })
}

/// Receiving half. Dropped before the peer's END_STREAM was seen: RST_STREAM(CANCEL), except on a
/// server that has finished sending, which says NO_ERROR.
pub(in crate::hbone) struct RecvHalf {
    cell: Rc<RecvCell>,
    link: Rc<Link>,
    ended: bool,
}

impl RecvHalf {
    /// The next bytes, never empty; `None` at the peer's END_STREAM. What arrived before a reset is
    /// delivered first, then the reset is reported.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub(in crate::hbone) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let outcome = ready!(self.cell.poll_data(cx));
        self.ended |= !matches!(outcome, Ok(Some(_)));
        Poll::Ready(outcome)
    }

    /// Gives the peer credit for bytes that were really forwarded.
    pub(in crate::hbone) fn forwarded(&self, bytes: usize) {
        self.cell.forwarded(bytes);
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.link.shared.forget(self.link.id);
        // A server that answered in full and wants no more says NO_ERROR, which `h2` does by itself
        // (RFC 9113 section 8.1).
        let answered = self.link.shared.role == Role::Server && self.link.send_done.get();
        if !self.ended && !answered {
            self.link.reset(ResetCode::Cancel);
        }
    }
}

/// Sending half. Dropped before [`SendHalf::finish`]: RST_STREAM(CANCEL).
pub(in crate::hbone) struct SendHalf {
    link: Rc<Link>,
}

impl SendHalf {
    /// Asks to send up to `want` bytes (> 0) and answers how many may be sent now (> 0). The credit
    /// stays reserved, out of reach of other streams, until used or given back by
    /// [`SendHalf::release`].
    ///
    /// # Errors
    /// See [`StreamError`].
    pub(in crate::hbone) fn poll_capacity(
        &self,
        cx: &mut Context<'_>,
        want: usize,
    ) -> Poll<Result<usize, StreamError>> {
        if self.link.send_done.get() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let mut send = self.link.send.borrow_mut();
        let want = want.clamp(1, SEND_CHUNK_BYTES);
        send.reserve_capacity(want);
        let ready_now = send.capacity();
        if ready_now > 0 {
            return Poll::Ready(Ok(ready_now.min(want)));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(granted)) => Poll::Ready(Ok(granted.min(want))),
            Some(Err(error)) => Poll::Ready(Err(self.link.explain(&error))),
            None => {
                drop(send);
                Poll::Ready(Err(self.end(cx)))
            }
        }
    }

    /// Gives reserved credit back. Call it before waiting for something to send, or an idle stream
    /// holds a part of the connection window.
    pub(in crate::hbone) fn release(&self) {
        self.link.send.borrow_mut().reserve_capacity(0);
    }

    /// Queues bytes, at most what [`SendHalf::poll_capacity`] granted.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub(in crate::hbone) fn send(&self, data: Bytes) -> Result<(), StreamError> {
        if data.is_empty() {
            return Ok(());
        }
        self.push(data, false)
    }

    /// Ends this direction: DATA without payload, END_STREAM. A second call does nothing.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub(in crate::hbone) fn finish(&self) -> Result<(), StreamError> {
        if self.link.send_done.get() {
            return Ok(());
        }
        self.push(Bytes::new(), true)?;
        self.link.send_done.set(true);
        Ok(())
    }

    fn push(&self, data: Bytes, end: bool) -> Result<(), StreamError> {
        let sent = self.link.send.borrow_mut().send_data(data, end);
        sent.map_err(|_| self.end(&mut Context::from_waker(Waker::noop())))
    }

    /// Why nothing can be sent any more.
    fn end(&self, cx: &mut Context<'_>) -> StreamError {
        match self.link.send.borrow_mut().poll_reset(cx) {
            Poll::Ready(Ok(reason)) => self.link.explain_reason(reason),
            Poll::Ready(Err(error)) => self.link.explain(&error),
            Poll::Pending => StreamError::Closed,
        }
    }

    /// RST_STREAM; bytes not yet sent are discarded. Does nothing on a stream that has ended.
    pub(in crate::hbone) fn reset(&self, code: ResetCode) {
        self.link.reset(code);
    }

    /// Ready when the peer reset the stream or the tunnel ended. `Reset(NoError)` after the peer's
    /// END_STREAM is a clean request to stop sending. Shares its waker with
    /// [`SendHalf::poll_capacity`]: poll both from one task.
    pub(in crate::hbone) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let polled = self.link.send.borrow_mut().poll_reset(cx);
        polled.map(|outcome| match outcome {
            Ok(reason) => self.link.explain_reason(reason),
            Err(error) => self.link.explain(&error),
        })
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.link.send_done.get() {
            self.link.reset(ResetCode::Cancel);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("send_done", &self.send_done)
            .field("reset", &self.reset)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvHalf").field(&self.link).finish()
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(&self.link).finish()
    }
}
