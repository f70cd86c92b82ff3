//! Publisher (control thread) and Reader (shard): the only meeting point of the two planes.
//!
//! The newest value sits in an `ArcSwap`; one atomic version tells a reader when to fetch it, so
//! the usual look-up costs one relaxed load and no reference count.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

#[derive(Debug)]
struct Slot<T> {
    newest: ArcSwap<T>,
    version: AtomicU64,
}

/// Makes values current. One owner, on the control thread.
#[derive(Debug)]
pub struct Publisher<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Publisher<T> {
    /// Publishes `first` as version 1.
    #[must_use]
    pub fn new(first: Arc<T>) -> Self {
        let newest = ArcSwap::new(first);
        Self {
            slot: Arc::new(Slot {
                newest,
                version: AtomicU64::new(1),
            }),
        }
    }

    /// Makes `next` current: readers see it at their next look-up.
    pub fn publish(&mut self, next: Arc<T>) {
        self.slot.newest.store(next);
        // Release pairs with the Acquire in `Reader::current`: who sees the version sees the value.
        self.slot.version.fetch_add(1, Ordering::Release);
    }

    /// The current value.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        self.slot.newest.load_full()
    }

    /// A source of readers, to be moved to another thread.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<T> {
        Subscription {
            slot: Arc::clone(&self.slot),
        }
    }
}

/// Sent to a thread, which turns it into its own [`Reader`].
#[derive(Debug)]
pub struct Subscription<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Clone for Subscription<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
        }
    }
}

impl<T> Subscription<T> {
    /// The current value, for threads that look seldom.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        self.slot.newest.load_full()
    }

    /// A reader for this thread.
    #[must_use]
    pub fn reader(&self) -> Reader<T> {
        let version = self.slot.version.load(Ordering::Acquire);
        let held = self.slot.newest.load_full();
        Reader {
            slot: Arc::clone(&self.slot),
            held: RefCell::new(held),
            version: Cell::new(version),
        }
    }
}

/// One thread's copy of the current value.
#[derive(Debug)]
pub struct Reader<T> {
    slot: Arc<Slot<T>>,
    held: RefCell<Arc<T>>,
    version: Cell<u64>,
}

impl<T> Reader<T> {
    /// The newest value. A caller that must see one consistent state holds the returned `Arc`.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        let version = self.slot.version.load(Ordering::Acquire);
        if version != self.version.get() {
            *self.held.borrow_mut() = self.slot.newest.load_full();
            self.version.set(version);
        }
        Arc::clone(&self.held.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_published_and_nothing_older_again() {
        let mut publisher = Publisher::new(Arc::new(1));
        let reader = publisher.subscribe().reader();
        assert_eq!(*reader.current(), 1);
        publisher.publish(Arc::new(2));
        assert_eq!(*reader.current(), 2);
        assert_eq!(*publisher.subscribe().reader().current(), 2);
    }

    #[test]
    fn concurrent_readers_never_go_back() {
        let mut publisher = Publisher::new(Arc::new(0_u64));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let subscription = publisher.subscribe();
                std::thread::spawn(move || {
                    let reader = subscription.reader();
                    let mut last = 0;
                    while last < 10_000 {
                        let seen = *reader.current();
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                    }
                })
            })
            .collect();
        for n in 1..=10_000 {
            publisher.publish(Arc::new(n));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
