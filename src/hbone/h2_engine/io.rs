//! Adapts a [`Transport`] to the I/O traits `h2` asks for, under the eyes of the guard.
//!
//! `poll_flush` only notes that something waits: `h2` flushes after each large frame, and the tunnel
//! flushes once for all streams when `h2` has nothing more to write.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::hbone::guard::Guard;
use crate::transport::Transport;

/// First size of a read; it doubles while reads come back full. A buffer that `h2` has not written
/// before must be zeroed, which costs more than a short read when it is large.
const READ_BYTES_MIN: usize = 16 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// The transport of one tunnel, shared by `h2` and the tunnel's own flush.
pub(super) struct Wire<T> {
    transport: RefCell<T>,
    unflushed: Cell<bool>,
}

impl<T: Transport> Wire<T> {
    pub(super) fn new(transport: T) -> Rc<Self> {
        Rc::new(Self {
            transport: RefCell::new(transport),
            unflushed: Cell::new(false),
        })
    }

    /// Gives everything taken for sending to the kernel.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed.get() {
            ready!(self.transport.borrow_mut().poll_flush(cx))?;
            self.unflushed.set(false);
        }
        Poll::Ready(Ok(()))
    }
}

/// What `h2` reads and writes.
pub(super) struct Io<T> {
    wire: Rc<Wire<T>>,
    guard: Rc<Guard>,
    read_bytes: usize,
}

impl<T: Transport> Io<T> {
    pub(super) fn new(wire: Rc<Wire<T>>, guard: Rc<Guard>) -> Self {
        Self {
            wire,
            guard,
            read_bytes: READ_BYTES_MIN,
        }
    }

    fn note_sent(&self, slices: &[IoSlice<'_>], mut taken: usize) {
        self.wire.unflushed.set(true);
        for slice in slices {
            let step = slice.len().min(taken);
            self.guard.sent(&slice[..step]);
            taken -= step;
            if taken == 0 {
                break;
            }
        }
    }
}

impl<T> Unpin for Io<T> {}

impl<T: Transport> AsyncRead for Io<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.guard.must_pause() {
            // No waker: the tunnel itself goes on as soon as it has dealt with the cause.
            return Poll::Pending;
        }
        let size = buffer.remaining().min(this.read_bytes);
        let room = buffer.initialize_unfilled_to(size);
        let received = ready!(this.wire.transport.borrow_mut().poll_recv(cx, room))?;
        this.guard.received(&room[..received]);
        buffer.advance(received);
        if received == this.read_bytes {
            this.read_bytes = (this.read_bytes * 2).min(READ_BYTES_MAX);
        } else if received < this.read_bytes / 4 {
            this.read_bytes = (this.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for Io<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let taken = ready!(this.wire.transport.borrow_mut().poll_send(cx, slices))?;
        this.note_sent(slices, taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closed = ready!(this.wire.transport.borrow_mut().poll_close(cx));
        this.wire.unflushed.set(false);
        Poll::Ready(closed)
    }
}
