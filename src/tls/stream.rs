//! An established TLS session as a transport.

use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use super::session::Session;
use super::{Peer, record};
use crate::transport::Transport;

/// A TLS session after its handshake. Dropping it cuts the connection without `close_notify`.
pub struct TlsStream<T> {
    session: Established<T>,
    peer: Peer,
}

/// A session after its handshake, by who moves its records.
#[expect(
    clippy::large_enum_variant,
    reason = "the usual variant is the large one, and each session has one"
)]
pub(super) enum Established<T> {
    /// Our record layer.
    InPlace(record::Session<T>),
    /// The TLS library.
    Library(Session<T>),
}

impl<T> fmt::Debug for TlsStream<T> {
    // Neither keys nor data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> TlsStream<T> {
    pub(super) fn new(session: Established<T>, peer: Peer) -> Self {
        Self { session, peer }
    }

    /// The transport below.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        match &self.session {
            Established::InPlace(session) => session.io(),
            Established::Library(session) => session.io(),
        }
    }

    /// Changes our sending key now and asks the peer to change its own.
    #[cfg(test)]
    pub(super) fn update_key(&mut self) {
        match &mut self.session {
            Established::InPlace(session) => session.update_key(),
            Established::Library(session) => session.update_key(),
        }
    }

    /// What the handshake proved.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// Receiving ends with `Ok(0)` after the peer's `close_notify` only; a peer that just goes away is
/// `UnexpectedEof`, and one that refuses us is an error naming its alert.
impl<T: Transport> Transport for TlsStream<T> {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.session {
            Established::InPlace(session) => session.poll_recv(cx, buffer),
            Established::Library(session) => session.poll_recv(cx, buffer),
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.session {
            Established::InPlace(session) => session.poll_send(cx, slices),
            Established::Library(session) => session.poll_send(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.session {
            Established::InPlace(session) => session.poll_flush(cx),
            Established::Library(session) => session.poll_flush(cx),
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.session {
            Established::InPlace(session) => session.poll_close(cx),
            Established::Library(session) => session.poll_close(cx),
        }
    }
}
