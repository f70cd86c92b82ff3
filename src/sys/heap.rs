//! Counts, in tests, the heap memory that chosen threads hold.
//!
//! Memory is counted as jemalloc hands it out, in size classes, so that a figure is that of the
//! program, whose allocator it is.

#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

/// What a thread holds, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Held(AtomicI64);

impl Held {
    /// Counts what the calling thread takes and gives back from now on, until the thread ends.
    pub(crate) fn by_this_thread() -> &'static Self {
        let held: &'static Self = Box::leak(Box::default());
        COUNTED.set(Some(held));
        held
    }

    /// Bytes taken and not given back.
    pub(crate) fn bytes(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

thread_local! {
    static COUNTED: Cell<Option<&'static Held>> = const { Cell::new(None) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts memory that the calling thread takes (1) or gives back (-1).
fn count(size: usize, sign: i64) {
    if let Some(held) = COUNTED.get() {
        let bytes = i64::try_from(class(size)).unwrap_or(0);
        held.0.fetch_add(sign * bytes, Ordering::Relaxed);
    }
}

/// Bytes jemalloc takes for `size`: steps of 16 up to 128, then four steps to each power of two.
const fn class(size: usize) -> usize {
    match size {
        0..=8 => 8,
        9..=128 => size.next_multiple_of(16),
        _ => size.next_multiple_of(1 << ((size - 1).ilog2() - 2)),
    }
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // JUSTIFICATION: the trait's own call.
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // JUSTIFICATION: the trait's own call.
        // SAFETY: `at` came from `System` with this layout, as all memory of this allocator does.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // JUSTIFICATION: the trait's own call.
        // SAFETY: as for `dealloc`; the caller guarantees a valid size.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_in_classes_and_given_back() {
        for (size, taken) in [
            (1, 8),
            (100, 112),
            (128, 128),
            (129, 160),
            (1_280, 1_280),
            (1_281, 1_536),
        ] {
            assert_eq!(class(size), taken);
        }
        let held = Held::by_this_thread();
        let before = held.bytes();
        let block = vec![0_u8; 1_281];
        assert_eq!(held.bytes() - before, 1_536);
        drop(block);
        assert_eq!(held.bytes(), before);
    }
}
