//! Received bytes that wait for their reader, and the shard's bound on all of them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

/// Pieces below this are copied together: a slice would keep a whole receive buffer alive.
pub(super) const SLICE_BYTES_MIN: usize = 4096;
/// Size at which a block of copied pieces is closed.
const BLOCK_BYTES: usize = 16 * 1024;
/// A reader with more than this unread is slow: what comes for it is copied out of the receive
/// buffer, so that it holds no more memory than it has bytes.
const SLICES_PARKED_MAX: usize = 256 * 1024;

/// How many received bytes may wait for their readers in all tunnels that share this value (those
/// of one shard). Beyond that, tunnels shrink the windows of their streams, which stops those that
/// hold much and slows the others; below half of it, windows grow again.
#[derive(Clone, Debug)]
pub struct ParkedBudget {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parked: Cell<usize>,
    bytes_max: usize,
    strained: Cell<bool>,
}

impl ParkedBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            inner: Rc::new(Inner {
                parked: Cell::new(0),
                bytes_max,
                strained: Cell::new(false),
            }),
        }
    }

    /// Bytes that wait now.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.inner.parked.get()
    }

    /// True from the moment the bound is passed until half of it is free again.
    #[must_use]
    pub fn is_strained(&self) -> bool {
        self.inner.strained.get()
    }

    fn add(&self, bytes: usize) {
        let parked = self.inner.parked.get() + bytes;
        self.inner.parked.set(parked);
        if parked > self.inner.bytes_max {
            self.inner.strained.set(true);
        }
    }

    fn take(&self, bytes: usize) {
        let parked = self.inner.parked.get().saturating_sub(bytes);
        self.inner.parked.set(parked);
        if parked <= self.inner.bytes_max / 2 {
            self.inner.strained.set(false);
        }
    }
}

/// What one receive brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) bytes: &'a [u8],
    /// The same bytes, if large pieces of them may be kept as they are.
    pub(super) owner: Option<&'a Bytes>,
}

impl<'a> Received<'a> {
    /// Bytes that are only lent.
    pub(super) const fn lent(bytes: &'a [u8]) -> Self {
        Self { bytes, owner: None }
    }

    /// Bytes that may be shared.
    pub(super) fn shared(owner: &'a Bytes) -> Self {
        Self {
            bytes: owner,
            owner: Some(owner),
        }
    }
}

/// Received bytes of one stream.
#[derive(Debug)]
pub(super) struct Parked {
    budget: ParkedBudget,
    pieces: VecDeque<Bytes>,
    block: BytesMut,
    bytes: usize,
}

impl Parked {
    pub(super) fn new(budget: ParkedBudget) -> Self {
        Self {
            budget,
            pieces: VecDeque::new(),
            block: BytesMut::new(),
            bytes: 0,
        }
    }

    /// Keeps bytes `at` of what was received.
    pub(super) fn add(&mut self, received: Received<'_>, at: Range<usize>) {
        let length = at.len();
        if length == 0 {
            return;
        }
        self.budget.add(length);
        let slow = self.bytes > SLICES_PARKED_MAX;
        self.bytes += length;
        if let Some(owner) = received.owner
            && length >= SLICE_BYTES_MIN
            && !(slow && length < owner.len() / 2)
        {
            self.close_block();
            self.pieces.push_back(owner.slice(at));
            return;
        }
        if self.block.len() + length > BLOCK_BYTES {
            self.close_block();
        }
        self.block.extend_from_slice(&received.bytes[at]);
    }

    fn close_block(&mut self) {
        if !self.block.is_empty() {
            self.pieces.push_back(self.block.split().freeze());
        }
    }

    /// The oldest bytes.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front().or_else(|| {
            // Taken whole: what is left would keep the memory of what was given away.
            (!self.block.is_empty()).then(|| std::mem::take(&mut self.block).freeze())
        })?;
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
        self.bytes -= piece.len();
        self.budget.take(piece.len());
        Some(piece)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.budget.take(self.bytes);
    }
}
