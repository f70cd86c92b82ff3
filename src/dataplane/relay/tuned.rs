//! The expert settings of relays, set once on a shard's thread before anything is relayed.

use std::cell::Cell;

use crate::config::limits::{RELAY_BUFFER_BYTES, RELAY_PIPE_BYTES, RELAY_PROMOTE_READS};
use crate::config::tuning::Tuning;

thread_local! {
    static BUFFER_BYTES: Cell<usize> = const { Cell::new(RELAY_BUFFER_BYTES) };
    static PIPE_BYTES: Cell<Option<usize>> = const { Cell::new(Some(RELAY_PIPE_BYTES)) };
    static PROMOTE_READS: Cell<u32> = const { Cell::new(RELAY_PROMOTE_READS) };
}

/// Takes the settings over for the calling thread.
pub(in crate::dataplane) fn set(tuning: &Tuning) {
    BUFFER_BYTES.set(tuning.relay_buffer_bytes);
    PIPE_BYTES.set(tuning.pipe_bytes);
    PROMOTE_READS.set(tuning.promote_reads);
}

/// Bytes of the buffer the shard lends.
pub(super) fn buffer_bytes() -> usize {
    BUFFER_BYTES.get()
}

/// Bytes of a pipe; `None`: nothing is spliced.
pub(super) fn pipe_bytes() -> Option<usize> {
    PIPE_BYTES.get()
}

/// Full buffers in a row that promote a direction.
pub(super) fn promote_reads() -> u32 {
    PROMOTE_READS.get()
}
