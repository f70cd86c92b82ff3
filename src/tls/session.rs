//! Moves records between a transport and the TLS library, for handshake and stream alike.
//!
//! The library's own reader takes 4 KiB a system call; here one large non-blocking receive goes into
//! a buffer the thread shares among its sessions and the library is fed from that. A session keeps
//! only ciphertext that did not fit the caller's buffer, and nothing while it is idle.

use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::task::{Context, Poll, ready};

use rustls::Connection;

use super::error::{HandshakeError, TlsError};
use crate::config::limits::{
    TLS_HANDSHAKE_BYTES_MAX, TLS_RECORD_BYTES_MAX, TLS_RECORD_PLAINTEXT_BYTES_MAX,
    TLS_RECV_BUFFER_BYTES, TLS_SEND_BUFFER_BYTES,
};
use crate::transport::Transport;

#[cfg(test)]
mod tests;

/// Sealed bytes waiting for the transport; beyond this a sender has to wait.
const UNSENT_BYTES_MAX: usize = 2 * TLS_SEND_BUFFER_BYTES;
/// What sealing adds to a record: header, content type, tag (RFC 8446, 5.2).
const RECORD_OVERHEAD: usize = 22;

thread_local! {
    // Taken out while in use: a session over a session (double HBONE) finds it empty and makes its own.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One TLS session over `io`.
pub(super) struct Session<T> {
    io: T,
    tls: Box<Connection>,
    /// Ciphertext received and not yet fed; `stash_used` bytes of it are spent.
    stash: Vec<u8>,
    stash_used: usize,
    /// Bytes the handshake has taken.
    handshake_bytes: usize,
    /// Sealed bytes inside the library, as an estimate from above.
    unsent: usize,
    /// Why no more can be received.
    fault: Option<TlsError>,
    /// The transport has ended.
    ended: bool,
    close_sent: bool,
    /// A sender's waker is registered with the transport; a receiver must not replace it.
    sender_waits: bool,
}

impl<T: Transport> Session<T> {
    pub(super) fn new(io: T, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Self {
            io,
            tls: Box::new(tls),
            stash: Vec::new(),
            stash_used: 0,
            handshake_bytes: 0,
            unsent: 0,
            fault: None,
            ended: false,
            close_sent: false,
            sender_waits: false,
        }
    }

    /// Completes when both sides have finished and our last flight is with the kernel.
    pub(super) fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), HandshakeError>> {
        loop {
            if let Err(error) = ready!(self.poll_flush(cx)) {
                return Poll::Ready(Err(self.read_parting_alert(cx, error)));
            }
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_more(cx)).map_err(HandshakeError::Io)?;
            if let Some(fault) = self.fault.clone() {
                return Poll::Ready(Err(fault.into()));
            }
        }
    }

    /// Feeds what one receive brings, up to the end of the handshake.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut scratch = Scratch::take();
        let received = ready!(
            self.io
                .poll_recv(cx, &mut scratch.0[..TLS_RECORD_BYTES_MAX])
        )?;
        self.ended = received == 0;
        let input = &scratch.0[..received];
        let mut used = 0;
        while used < received && self.tls.is_handshaking() && self.fault.is_none() {
            used += self.feed(&input[used..]);
        }
        self.handshake_bytes += used;
        if self.handshake_bytes > TLS_HANDSHAKE_BYTES_MAX && self.fault.is_none() {
            self.fault = Some(TlsError::Protocol("handshake too long".to_owned()));
        }
        // The peer's first data may ride with its last flight.
        self.stash.extend_from_slice(&input[used..]);
        Poll::Ready(Ok(()))
    }

    /// After a failed write: an alert that arrived before tells more than a broken pipe does.
    fn read_parting_alert(&mut self, cx: &mut Context<'_>, error: io::Error) -> HandshakeError {
        while let Poll::Ready(Ok(())) = self.poll_more(cx) {
            if let Some(fault) = self.fault.take() {
                return fault.into();
            }
        }
        HandshakeError::Io(error)
    }

    /// After a refusal: sends our alert, ends our side, and takes what is already here off the
    /// socket, because closing it unread would reset the connection and lose the alert.
    pub(super) fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.close_sent = true;
        if ready!(self.poll_push(cx)).is_ok() && ready!(self.io.poll_close(cx)).is_ok() {
            let mut scratch = Scratch::take();
            // Bounded: a peer that keeps sending gets its reset.
            for _ in 0..4 {
                match self.io.poll_recv(cx, &mut scratch.0) {
                    Poll::Ready(Ok(received)) if received > 0 => {}
                    Poll::Ready(_) | Poll::Pending => break,
                }
            }
        }
        Poll::Ready(())
    }

    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            if let Some(filled) = self.take_plaintext(buffer)? {
                return Poll::Ready(Ok(filled));
            }
            if let Some(fault) = self.fault.clone() {
                self.push_beside_sender(cx);
                return Poll::Ready(Err(fault.into_io()));
            }
            if self.ended {
                return Poll::Ready(Err(cut_short()));
            }
            match self.poll_decrypt(cx, buffer) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(filled) => return Poll::Ready(filled),
                Poll::Pending => {
                    self.release_idle();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Plaintext that is ready, from the library and then from the stash. `Some(0)` is a clean end.
    fn take_plaintext(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let stash = mem::take(&mut self.stash);
        let (used, got) = self.decrypt(&stash[self.stash_used..], buffer)?;
        self.stash_used += used;
        if self.stash_used < stash.len() && self.fault.is_none() {
            self.stash = stash;
        } else {
            self.stash_used = 0;
        }
        Ok(got)
    }

    /// One receive, decrypted straight into `buffer`; what does not fit is stashed.
    fn poll_decrypt(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut scratch = Scratch::take();
        // A small buffer asks for little, so little is left to stash.
        let wanted =
            (buffer.len() + buffer.len() / 64).clamp(TLS_RECORD_BYTES_MAX, TLS_RECV_BUFFER_BYTES);
        let received = ready!(self.io.poll_recv(cx, &mut scratch.0[..wanted]))?;
        self.ended = received == 0;
        let (used, got) = self.decrypt(&scratch.0[..received], buffer)?;
        if self.fault.is_none() && used < received {
            self.stash.extend_from_slice(&scratch.0[used..received]);
        }
        match got {
            Some(0) | None => Poll::Ready(Ok(0)),
            Some(filled) => Poll::Ready(Ok(filled)),
        }
    }

    /// Feeds `input` until `buffer` is full or the input spent: bytes used, plaintext (`Some(0)`:
    /// the peer closed, `None`: nothing yet).
    fn decrypt(&mut self, input: &[u8], buffer: &mut [u8]) -> io::Result<(usize, Option<usize>)> {
        let (mut used, mut filled) = (0, 0);
        loop {
            match self.tls.reader().read(&mut buffer[filled..]) {
                // Whatever follows the peer's close_notify is to be ignored (RFC 8446, 6.1).
                Ok(0) => return Ok((input.len(), Some(filled))),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if filled == buffer.len() || used == input.len() || self.fault.is_some() {
                return Ok((used, (filled > 0).then_some(filled)));
            }
            used += self.feed(&input[used..]);
        }
    }

    /// Gives the library up to 4 KiB; on failure sets `fault`.
    fn feed(&mut self, input: &[u8]) -> usize {
        let mut rest = input;
        let used = match self.tls.read_tls(&mut rest) {
            Ok(0) => {
                self.fault = Some(TlsError::Protocol("record too long".to_owned()));
                return input.len();
            }
            Ok(used) => used,
            Err(error) => {
                self.fault = Some(TlsError::Protocol(error.to_string()));
                return input.len();
            }
        };
        if let Err(error) = self.tls.process_new_packets() {
            self.fault = Some(error.into());
            return input.len();
        }
        used
    }

    /// Gives memory back before a wait of unknown length.
    fn release_idle(&mut self) {
        // The library shrinks its record buffer only when it is asked to read again.
        drop(self.tls.read_tls(&mut Nothing));
    }

    /// Sends what the library has to say by itself (alerts), without disturbing a waiting sender:
    /// the transport holds one waker a direction, and the sender pushes it anyway.
    fn push_beside_sender(&mut self, cx: &mut Context<'_>) {
        if !self.sender_waits && self.tls.wants_write() {
            drop(self.poll_push(cx).map_ok(|()| self.io.poll_flush(cx)));
            self.sender_waits = false;
        }
    }

    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if self.close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        loop {
            if self.unsent >= TLS_SEND_BUFFER_BYTES {
                let pushed = self.poll_push(cx)?;
                if pushed.is_pending() && self.unsent >= UNSENT_BYTES_MAX {
                    return Poll::Pending;
                }
            }
            let taken = self.tls.writer().write_vectored(slices)?;
            if taken > 0 {
                self.unsent +=
                    taken + taken.div_ceil(TLS_RECORD_PLAINTEXT_BYTES_MAX) * RECORD_OVERHEAD;
                return Poll::Ready(Ok(taken));
            }
            // The library counts small records more exactly than we do: it is full.
            ready!(self.poll_push(cx))?;
        }
    }

    /// Hands every sealed byte to the transport.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender_waits = false;
        while self.tls.wants_write() {
            let mut sink = Sink {
                io: &mut self.io,
                cx,
            };
            match self.tls.write_tls(&mut sink) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => self.unsent = self.unsent.saturating_sub(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sender_waits = true;
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.unsent = 0;
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(cx))?;
        let flushed = self.io.poll_flush(cx);
        self.sender_waits = flushed.is_pending();
        flushed
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_sent {
            self.close_sent = true;
            self.tls.send_close_notify();
        }
        ready!(self.poll_push(cx))?;
        let closed = self.io.poll_close(cx);
        self.sender_waits = closed.is_pending();
        closed
    }

    #[cfg(test)]
    pub(super) fn update_key(&mut self) {
        assert_eq!(self.tls.refresh_traffic_keys(), Ok(()));
    }

    pub(super) fn tls(&self) -> &Connection {
        &self.tls
    }

    pub(super) fn io(&self) -> &T {
        &self.io
    }
}

/// The transport ended and TLS had not.
pub(super) fn cut_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "peer closed the connection without ending TLS (no close_notify)",
    )
}

/// The thread's receive buffer, given back on drop.
struct Scratch(Vec<u8>);

impl Scratch {
    fn take() -> Self {
        let mut buffer = SCRATCH.take();
        buffer.resize(TLS_RECV_BUFFER_BYTES, 0);
        Self(buffer)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(mem::take(&mut self.0));
    }
}

/// A reader with nothing to read.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// The transport as the library's writer.
struct Sink<'a, 'b, T> {
    io: &'a mut T,
    cx: &'a mut Context<'b>,
}

impl<T: Transport> Write for Sink<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.io.poll_send(self.cx, slices) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
