//! An established session whose records we move ourselves: receiving, sending, ends.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::cipher::Cipher;
use super::inbox::{End, Inbox};
use super::lend::Lent;
use super::outbox::{Ask, Outbox};
use super::ratchet::Ratchet;
use super::{OVERHEAD_BYTES, RecordError, alert};
use crate::config::limits::{
    TLS_RECORD_BYTES_MAX, TLS_RECORD_PLAINTEXT_BYTES_MAX, TLS_RECV_BUFFER_BYTES,
};
use crate::tls::error::TlsError;
use crate::tls::session::cut_short;
use crate::transport::Transport;

/// One TLS session over `io`.
pub(in crate::tls) struct Session<T> {
    io: T,
    ratchet: Ratchet,
    inbox: Inbox,
    outbox: Outbox,
    /// An error of the transport that came behind data.
    deferred: Option<io::Error>,
    /// The transport has ended.
    ended: bool,
    close_sent: bool,
    /// Our alert, or the reason for which we have none, is in the outbox.
    fault_told: bool,
    /// The peer asked for a KeyUpdate; it goes in front of our next record.
    update_due: bool,
    /// A sender's waker is registered with the transport; a receiver must not replace it.
    sender_waits: bool,
    /// A receiver has put something into the outbox and has to see that it leaves.
    receiver_sends: bool,
}

impl<T: Transport> Session<T> {
    /// `received` came with the end of the handshake and is still sealed.
    pub(super) fn new(
        io: T,
        ratchet: Ratchet,
        send: Cipher,
        receive: Cipher,
        received: Vec<u8>,
    ) -> Self {
        Self {
            io,
            ratchet,
            inbox: Inbox::new(receive, received),
            outbox: Outbox::new(send),
            deferred: None,
            ended: false,
            close_sent: false,
            fault_told: false,
            update_due: false,
            sender_waits: false,
            receiver_sends: false,
        }
    }

    pub(in crate::tls) fn io(&self) -> &T {
        &self.io
    }

    pub(in crate::tls) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut filled = self.inbox.take_stashed(buffer, &mut self.ratchet);
        loop {
            self.react(cx);
            // A receive for little room would only fill the stash.
            if filled > 0 && buffer.len() - filled < TLS_RECORD_BYTES_MAX {
                return Poll::Ready(Ok(filled));
            }
            if let Some(end) = self.poll_end() {
                return Poll::Ready(if filled > 0 { Ok(filled) } else { end });
            }
            let got = match self.poll_receive(cx, &mut buffer[filled..]) {
                Poll::Ready(Ok(got)) => got,
                Poll::Ready(Err(error)) if filled > 0 => {
                    self.deferred = Some(error);
                    return Poll::Ready(Ok(filled));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if filled > 0 => return Poll::Ready(Ok(filled)),
                Poll::Pending => {
                    self.inbox.release_idle();
                    return Poll::Pending;
                }
            };
            filled += got;
            if filled > 0 {
                self.react(cx);
                return Poll::Ready(Ok(filled));
            }
        }
    }

    /// What a receiver is told now that there is no more data.
    fn poll_end(&mut self) -> Option<io::Result<usize>> {
        match self.inbox.end() {
            Some(End::Closed) => return Some(Ok(0)),
            Some(End::Refused(error, _) | End::Alerted(error)) => {
                return Some(Err(error.clone().into_io()));
            }
            None => {}
        }
        if let Some(error) = self.deferred.take() {
            return Some(Err(error));
        }
        self.ended.then(|| Err(cut_short()))
    }

    /// One receive into a lent buffer, opened there; what does not fit is stashed.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut lent = Lent::for_receive();
        let partial = self.inbox.partial();
        let start = partial.len();
        lent[..start].copy_from_slice(partial);
        // Little more than the caller has room for, so that little is left to stash.
        let records = buffer.len() / TLS_RECORD_PLAINTEXT_BYTES_MAX + 1;
        let wanted = buffer.len() + records * OVERHEAD_BYTES + TLS_RECORD_BYTES_MAX;
        let room = start..wanted.min(TLS_RECV_BUFFER_BYTES);
        let received = ready!(self.io.poll_recv(cx, &mut lent[room]))?;
        self.ended = received == 0;
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let input = &mut lent[..start + received];
        Poll::Ready(Ok(self.inbox.take_received(
            input,
            buffer,
            &mut self.ratchet,
        )))
    }

    /// Answers what was received: alerts go behind what is being sent, KeyUpdates at once when
    /// nothing is. A waiting sender is not disturbed: the transport holds one waker a direction, and
    /// the sender pushes everything anyway.
    fn react(&mut self, cx: &mut Context<'_>) {
        self.update_due |= self.inbox.take_update_request();
        self.tell_fault();
        if self.update_due && self.outbox.is_empty() {
            self.receiver_sends |= self.answer_update().is_ok();
        }
        if self.receiver_sends && !self.sender_waits {
            let pushed = self.poll_push(cx);
            let flushed = pushed.map_ok(|()| self.io.poll_flush(cx));
            self.receiver_sends = flushed.is_pending();
            self.sender_waits = false;
        }
    }

    /// Puts our alert into the outbox, once.
    fn tell_fault(&mut self) {
        if self.fault_told {
            return;
        }
        match self.inbox.end() {
            Some(End::Refused(_, code)) if !self.close_sent => {
                let told = self.outbox.alert(*code, &mut self.ratchet);
                self.receiver_sends |= told.is_ok();
            }
            Some(End::Alerted(_)) => self.outbox.clear(),
            Some(End::Refused(..)) => {}
            Some(End::Closed) | None => return,
        }
        self.fault_told = true;
    }

    /// Sends a KeyUpdate if one is owed and there is room for it. One answers all requests so far
    /// (RFC 8446, 4.6.3).
    fn answer_update(&mut self) -> Result<(), RecordError> {
        if self.update_due && !self.close_sent && !self.fault_told {
            self.outbox.seal(&mut self.ratchet)?;
            if self.outbox.can_update_key() {
                self.outbox.update_key(Ask::Nothing, &mut self.ratchet)?;
                self.update_due = false;
            }
        }
        Ok(())
    }

    pub(in crate::tls) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.check_sendable()?;
        loop {
            self.answer_update().map_err(broken)?;
            let taken = self
                .outbox
                .fill(slices, &mut self.ratchet)
                .map_err(broken)?;
            if taken == 0 {
                ready!(self.poll_push(cx))?;
                continue;
            }
            if self.outbox.is_full()
                && let Poll::Ready(Err(error)) = self.poll_push(cx)
            {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(taken));
        }
    }

    /// Nothing follows close_notify or a fatal alert (RFC 8446, 6.1 and 6.2).
    fn check_sendable(&self) -> io::Result<()> {
        if self.close_sent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match self.inbox.end() {
            Some(End::Refused(error, _) | End::Alerted(error)) => Err(error.clone().into_io()),
            Some(End::Closed) | None => Ok(()),
        }
    }

    /// Hands every byte to the transport.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender_waits = false;
        self.outbox.seal(&mut self.ratchet).map_err(broken)?;
        while !self.outbox.unsent().is_empty() {
            let slices = [IoSlice::new(self.outbox.unsent())];
            match self.io.poll_send(cx, &slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => self.outbox.advance(sent),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.sender_waits = true;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(in crate::tls) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.answer_update().map_err(broken)?;
        ready!(self.poll_push(cx))?;
        let flushed = self.io.poll_flush(cx);
        self.sender_waits = flushed.is_pending();
        flushed
    }

    pub(in crate::tls) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_sent {
            self.close_sent = true;
            if !self.fault_told {
                self.outbox
                    .alert(alert::CLOSE_NOTIFY, &mut self.ratchet)
                    .map_err(broken)?;
            }
        }
        ready!(self.poll_push(cx))?;
        let closed = self.io.poll_close(cx);
        self.sender_waits = closed.is_pending();
        closed
    }

    /// Changes our key now and asks the peer to change its own.
    #[cfg(any(test, fuzzing))]
    pub(in crate::tls) fn update_key(&mut self) {
        let sealed = self.outbox.seal(&mut self.ratchet);
        let updated = sealed.and_then(|()| self.outbox.update_key(Ask::Update, &mut self.ratchet));
        assert_eq!(updated, Ok(()));
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn set_key_records_max(&mut self, limit: u64) {
        self.outbox.set_key_records_max(limit);
    }
}

#[cfg(test)]
impl<T> Session<T> {
    pub(super) fn io_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Records sealed under the present key.
    pub(super) fn key_records(&mut self) -> u64 {
        self.outbox.cipher().sequence()
    }

    pub(super) fn use_up_sequences(&mut self) {
        self.outbox.cipher().set_sequence(u64::MAX);
        self.inbox.cipher().set_sequence(u64::MAX);
    }

    pub(super) fn stash_bytes(&self) -> usize {
        self.inbox.stash_bytes()
    }

    /// Sealed bytes on their way out; `None` when no buffer is held.
    pub(super) fn unsent(&self) -> Option<usize> {
        (!self.outbox.is_empty()).then(|| self.outbox.unsent().len())
    }
}

/// A failure of our own side of the record layer.
fn broken(error: RecordError) -> io::Error {
    TlsError::from(error).into_io()
}
