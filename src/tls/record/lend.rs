//! Large buffers that a thread owns and lends to the sessions that have bytes to move right now.

use std::cell::RefCell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

use super::outbox::BUFFER_BYTES;
use crate::config::limits::TLS_RECV_BUFFER_BYTES;

/// Buffers kept for the next borrower. One is enough while sessions take turns; a session over a
/// session needs two, and senders keep theirs while the peer does not receive.
const KEPT_MAX: usize = 4;

type Shelf = RefCell<Vec<Vec<u8>>>;

thread_local! {
    static RECEIVE: Shelf = const { RefCell::new(Vec::new()) };
    static SEND: Shelf = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its thread on drop.
pub(super) struct Lent {
    bytes: Vec<u8>,
    shelf: &'static LocalKey<Shelf>,
}

impl Lent {
    /// [`TLS_RECV_BUFFER_BYTES`] for one receive.
    pub(super) fn for_receive() -> Self {
        Self::take(&RECEIVE, TLS_RECV_BUFFER_BYTES)
    }

    /// [`BUFFER_BYTES`] for records on their way out.
    pub(super) fn for_send() -> Self {
        Self::take(&SEND, BUFFER_BYTES)
    }

    fn take(shelf: &'static LocalKey<Shelf>, size: usize) -> Self {
        // A thread that ends has no shelf any more; its last sessions get buffers of their own.
        let kept = shelf.try_with(|shelf| shelf.borrow_mut().pop());
        Self {
            bytes: kept.ok().flatten().unwrap_or_else(|| vec![0; size]),
            shelf,
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        // Freed instead when the shelf is full, or gone with its thread.
        let _freed = self.shelf.try_with(|shelf| {
            let mut shelf = shelf.borrow_mut();
            if shelf.len() < KEPT_MAX {
                shelf.push(bytes);
            }
        });
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}
