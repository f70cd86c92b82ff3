//! The byte stream that `tls` and `hbone` work on: non-blocking calls plus a waker.
//!
//! A raw socket, a TLS session over it and one HBONE stream all implement it, so sessions nest and
//! the record layer can be replaced without anything above it changing. No runtime is named here.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

/// A full-duplex byte stream. `Pending` registers the waker of `cx` for that direction; reading and
/// writing may be polled from different tasks.
pub trait Transport {
    /// Receives into `buffer`. `Ok(0)` is end of stream (for an empty buffer too). No byte is lost
    /// when the caller stops polling.
    ///
    /// # Errors
    /// `ConnectionReset` and other socket errors; `UnexpectedEof` for a TLS session cut short.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes bytes for sending, at least one unless all slices are empty. They may stay buffered
    /// until [`Transport::poll_flush`].
    ///
    /// # Errors
    /// `BrokenPipe` and other socket errors.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Completes when every byte taken has been given to the kernel.
    ///
    /// # Errors
    /// As [`Transport::poll_send`].
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Flushes, then ends the sending direction (TLS `close_notify`, TCP FIN). Receiving goes on.
    ///
    /// # Errors
    /// As [`Transport::poll_send`].
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        (**self).poll_recv(cx, buffer)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        (**self).poll_send(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_close(cx)
    }
}

/// Receives once. Dropping the future loses nothing.
///
/// # Errors
/// As [`Transport::poll_recv`].
pub async fn recv<T: Transport + ?Sized>(stream: &mut T, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_recv(cx, buffer)).await
}

/// Sends all of `bytes` and flushes. Dropping the future leaves an unknown part sent.
///
/// # Errors
/// As [`Transport::poll_send`]; `WriteZero` if the stream takes nothing.
pub async fn send_all<T: Transport + ?Sized>(stream: &mut T, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = [IoSlice::new(&bytes[sent..])];
        let taken = poll_fn(|cx| stream.poll_send(cx, &rest)).await?;
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        sent += taken;
    }
    poll_fn(|cx| stream.poll_flush(cx)).await
}
