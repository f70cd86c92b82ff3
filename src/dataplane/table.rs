//! The open connections of one shard: what each was permitted by, and how to close it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::decision::authorize::ConnectionFacts;
use crate::model::close::CloseReason;

use super::relay::Closed;
use super::rt::Notice;

/// One inbound connection that a policy change may close.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What it was authorized by. The destination is looked up anew at each recheck.
    pub(crate) facts: ConnectionFacts,
    /// Given with the reason to close.
    pub(crate) close: Notice<CloseReason>,
    number: u64,
}

/// Table of entries by a number that grows, so that a walk in slices misses none.
#[derive(Debug, Default)]
pub(crate) struct Table {
    next: Cell<u64>,
    entries: RefCell<BTreeMap<u64, Rc<Entry>>>,
}

/// Keeps an entry in the table; leaves with the connection.
#[derive(Debug)]
pub(crate) struct Registration {
    table: Rc<Table>,
    entry: Rc<Entry>,
}

impl Table {
    /// Registers a connection. Done before its first authorization, so that no policy change can
    /// slip in between.
    pub(crate) fn register(self: &Rc<Self>, facts: ConnectionFacts) -> Registration {
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = Rc::new(Entry {
            facts,
            close: Notice::default(),
            number,
        });
        self.entries.borrow_mut().insert(number, Rc::clone(&entry));
        Registration {
            table: Rc::clone(self),
            entry,
        }
    }

    /// Up to `count` entries from number `from` on, with the number to go on from; `None` at the end.
    pub(crate) fn slice(&self, from: u64, count: usize) -> (Vec<Rc<Entry>>, Option<u64>) {
        let entries = self.entries.borrow();
        let mut rest = entries.range(from..);
        let slice: Vec<_> = rest
            .by_ref()
            .take(count)
            .map(|(_, entry)| Rc::clone(entry))
            .collect();
        (slice, rest.next().map(|(number, _)| *number))
    }
}

impl Registration {
    /// The entry.
    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// A connection that a policy change may close.
impl Closed for Registration {
    fn closed(&self) -> impl Future<Output = CloseReason> {
        self.entry.close.wait()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.table.entries.borrow_mut().remove(&self.entry.number);
    }
}
