//! An established TLS session as a transport.

use std::fmt;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use super::Peer;
use super::session::Session;
use crate::transport::Transport;

/// A TLS session after its handshake. Dropping it cuts the connection without `close_notify`.
pub struct TlsStream<T> {
    session: Session<T>,
    peer: Peer,
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
    pub(super) fn new(session: Session<T>, peer: Peer) -> Self {
        Self { session, peer }
    }

    /// The transport below.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        self.session.io()
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
        self.session.poll_recv(cx, buffer)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.session.poll_send(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.poll_close(cx)
    }
}
