//! One stream: flow control, half-close, resets.

use super::ResetCode;
use crate::transport::Transport;
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Why a stream ended before its time. A reset is never turned into a clean end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream. `NoError` after its END_STREAM means "stop sending": see
    /// [`SendHalf::poll_reset`].
    #[error("stream reset by the peer: {0}")]
    Reset(ResetCode),
    /// The tunnel failed.
    #[error("h2 failed: {0}")]
    Connection(String),
    /// The tunnel was closed by a GOAWAY that leaves this stream out, or with an error code.
    #[error("h2 failed: the peer went away")]
    GoneAway,
    /// We ended this direction already.
    #[error("stream is closed")]
    Closed,
}

/// Both halves of a stream.
#[derive(Debug)]
pub struct Stream {
    recv: RecvHalf,
    send: SendHalf,
}

impl Stream {
    /// Separates the halves, which may then be used from different tasks.
    #[must_use]
    pub fn split(self) -> (RecvHalf, SendHalf) {
        (self.recv, self.send)
    }
}

/// Receiving half. Dropped before the peer's END_STREAM was seen: RST_STREAM(CANCEL), except on a
/// server that has finished sending, which says NO_ERROR.
#[derive(Debug)]
pub struct RecvHalf {
    _t: PhantomData<Rc<()>>,
}

impl RecvHalf {
    /// The next bytes; `None` at the peer's END_STREAM. What arrived before a reset is delivered
    /// first, then the reset is reported.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let _ = cx;
        todo!()
    }

    /// Gives the peer credit for bytes that were really forwarded.
    pub fn forwarded(&mut self, bytes: usize) {
        let _ = bytes;
        todo!()
    }
}

/// Sending half. Dropped before [`SendHalf::finish`]: RST_STREAM(CANCEL).
#[derive(Debug)]
pub struct SendHalf {
    _t: PhantomData<Rc<()>>,
}

impl SendHalf {
    /// Asks to send up to `want` bytes (> 0) and answers how many may be sent now (> 0). The credit
    /// stays reserved, out of reach of other streams, until used or given back by
    /// [`SendHalf::release`].
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        want: usize,
    ) -> Poll<Result<usize, StreamError>> {
        let _ = (cx, want);
        todo!()
    }

    /// Gives reserved credit back. Call it before waiting for something to send, or an idle stream
    /// holds a part of the connection window.
    pub fn release(&mut self) {
        todo!()
    }

    /// Queues bytes, at most what [`SendHalf::poll_capacity`] granted.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        let _ = data;
        todo!()
    }

    /// Ends this direction: DATA without payload, END_STREAM.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn finish(&mut self) -> Result<(), StreamError> {
        todo!()
    }

    /// RST_STREAM; bytes not yet sent are discarded. Does nothing on a stream that has ended.
    pub fn reset(&mut self, code: ResetCode) {
        let _ = code;
        todo!()
    }

    /// Ready when the peer reset the stream or the tunnel ended. `Reset(NoError)` after the peer's
    /// END_STREAM is a clean request to stop sending. Shares its waker with
    /// [`SendHalf::poll_capacity`]: poll both from one task.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let _ = cx;
        todo!()
    }
}

impl Transport for Stream {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let _ = (cx, buffer);
        todo!()
    }
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let _ = (cx, slices);
        todo!()
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        todo!()
    }
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = cx;
        todo!()
    }
}
