//! An eventfd: wakes a shard from another thread, or from itself by way of its driver.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// Creates a non-blocking eventfd with count 0. See eventfd(2).
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn create() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Adds one to the count. A count at its maximum is already readable, so that error is success.
pub fn signal(event: impl AsFd) {
    // The count saturates far beyond any number of pending signals; `EAGAIN` then means readable.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Sets the count back to 0.
pub fn clear(event: impl AsFd) {
    let mut count = [0; 8];
    let _ = rustix::io::read(event, &mut count);
}
