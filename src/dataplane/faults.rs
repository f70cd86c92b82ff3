//! Faults that tests inject. Only in tests and builds with the feature `faults`; never in a release.

use std::sync::atomic::{AtomicU32, Ordering};

/// Above every port: no fault is armed.
const NONE: u32 = u32::MAX;

static PANIC_PORT: AtomicU32 = AtomicU32::new(NONE);

/// From now on the task of a connection to `port` panics when its relay starts.
pub fn panic_on(port: u16) {
    PANIC_PORT.store(u32::from(port), Ordering::Relaxed);
}

/// Panics if a fault is armed for this port.
pub(crate) fn trip(port: u16) {
    assert!(
        PANIC_PORT.load(Ordering::Relaxed) != u32::from(port),
        "panic injected for port {port}"
    );
}
