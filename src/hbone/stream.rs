//! One stream: flow control, half-close, resets.
//!
//! What the peer sent before RST_STREAM stays readable: the reset is reported after it, or a clean end
//! if END_STREAM came first. What we queued is discarded when either side resets.

use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use super::{ResetCode, engine, h2_engine};
use crate::transport::Transport;

/// Why a stream ended before its time. A reset is never turned into a clean end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream. `NoError` after its END_STREAM means "stop sending": see
    /// [`SendHalf::poll_reset`].
    #[error("stream reset by the peer: {0}")]
    Reset(ResetCode),
    /// The tunnel failed; the text says why.
    #[error("{0}")]
    Connection(String),
    /// The tunnel ended by a GOAWAY of the peer.
    #[error("h2 failed: the peer went away")]
    GoneAway,
    /// We ended this direction, or the stream, ourselves.
    #[error("stream is closed")]
    Closed,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Connection(_) | StreamError::GoneAway => io::ErrorKind::ConnectionAborted,
            StreamError::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}

/// Both halves of a stream.
pub struct Stream {
    recv: RecvHalf,
    send: SendHalf,
    /// Received but not yet taken through [`Transport::poll_recv`].
    rest: Bytes,
}

impl Stream {
    fn new(recv: RecvHalf, send: SendHalf) -> Self {
        Self {
            recv,
            send,
            rest: Bytes::new(),
        }
    }

    /// Separates the halves, which may then be used from different tasks.
    #[must_use]
    pub fn split(self) -> (RecvHalf, SendHalf) {
        (self.recv, self.send)
    }
}

impl From<(engine::stream::RecvHalf, engine::stream::SendHalf)> for Stream {
    fn from((recv, send): (engine::stream::RecvHalf, engine::stream::SendHalf)) -> Self {
        Self::new(RecvHalf(Recv::Own(recv)), SendHalf(Send::Own(send)))
    }
}

impl From<(h2_engine::stream::RecvHalf, h2_engine::stream::SendHalf)> for Stream {
    fn from((recv, send): (h2_engine::stream::RecvHalf, h2_engine::stream::SendHalf)) -> Self {
        Self::new(RecvHalf(Recv::H2(Box::new(recv))), SendHalf(Send::H2(send)))
    }
}

#[derive(Debug)]
enum Recv {
    Own(engine::stream::RecvHalf),
    /// Boxed: relays are as large as the larger kind.
    H2(Box<h2_engine::stream::RecvHalf>),
}

/// Receiving half. Dropped before the peer's END_STREAM was seen: RST_STREAM(CANCEL), except on a
/// server that has finished sending, which says NO_ERROR.
#[derive(Debug)]
pub struct RecvHalf(Recv);

impl RecvHalf {
    /// The next bytes, never empty; `None` at the peer's END_STREAM. What arrived before a reset is
    /// delivered first, then the reset is reported.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        match &mut self.0 {
            Recv::Own(recv) => recv.poll_data(cx),
            Recv::H2(recv) => recv.poll_data(cx),
        }
    }

    /// More bytes that are here already, to be forwarded together with those just taken. Never the end.
    pub fn take_more(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Recv::Own(recv) => recv.take_more(),
            Recv::H2(_) => None,
        }
    }

    /// Gives the peer credit for bytes that were really forwarded.
    pub fn forwarded(&mut self, bytes: usize) {
        match &mut self.0 {
            Recv::Own(recv) => recv.forwarded(bytes),
            Recv::H2(recv) => recv.forwarded(bytes),
        }
    }
}

#[derive(Debug)]
enum Send {
    Own(engine::stream::SendHalf),
    H2(h2_engine::stream::SendHalf),
}

/// Sending half. Dropped before [`SendHalf::finish`]: RST_STREAM(CANCEL).
#[derive(Debug)]
pub struct SendHalf(Send);

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
        match &mut self.0 {
            Send::Own(send) => send.poll_capacity(cx, want),
            Send::H2(send) => send.poll_capacity(cx, want),
        }
    }

    /// Gives reserved credit back. Call it before waiting for something to send, or an idle stream
    /// holds a part of the connection window.
    pub fn release(&mut self) {
        match &mut self.0 {
            Send::Own(send) => send.release(),
            Send::H2(send) => send.release(),
        }
    }

    /// Queues bytes, at most what [`SendHalf::poll_capacity`] granted.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.0 {
            Send::Own(send) => send.send(data),
            Send::H2(send) => send.send(data),
        }
    }

    /// Ends this direction: DATA without payload, END_STREAM. A second call does nothing.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub fn finish(&mut self) -> Result<(), StreamError> {
        match &mut self.0 {
            Send::Own(send) => send.finish(),
            Send::H2(send) => send.finish(),
        }
    }

    /// RST_STREAM; bytes not yet sent are discarded. Does nothing on a stream that has ended.
    pub fn reset(&mut self, code: ResetCode) {
        match &mut self.0 {
            Send::Own(send) => send.reset(code),
            Send::H2(send) => send.reset(code),
        }
    }

    /// Ready when the peer reset the stream or the tunnel ended. `Reset(NoError)` after the peer's
    /// END_STREAM is a clean request to stop sending. Shares its waker with
    /// [`SendHalf::poll_capacity`]: poll both from one task.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &mut self.0 {
            Send::Own(send) => send.poll_reset(cx),
            Send::H2(send) => send.poll_reset(cx),
        }
    }
}

/// So that TLS can run inside a stream. Credit is given as bytes are taken.
impl Transport for Stream {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.rest.is_empty() {
            match ready!(self.recv.poll_data(cx))? {
                Some(data) => self.rest = data,
                None => return Poll::Ready(Ok(0)),
            }
        }
        let taken = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..taken]);
        self.recv.forwarded(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let want: usize = slices.iter().map(|slice| slice.len()).sum();
        if want == 0 {
            return Poll::Ready(Ok(0));
        }
        let granted = ready!(self.send.poll_capacity(cx, want))?;
        let mut data = BytesMut::with_capacity(granted);
        for slice in slices {
            let room = granted - data.len();
            data.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        self.send.send(data.freeze())?;
        Poll::Ready(Ok(granted))
    }

    /// The tunnel sends by itself: there is nothing to wait for.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.finish().map_err(io::Error::from))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.send).finish()
    }
}
