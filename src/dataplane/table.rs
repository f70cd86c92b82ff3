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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::workload::Workload;

    fn facts(port: u16) -> ConnectionFacts {
        ConnectionFacts {
            identity: None,
            source_ip: "10.0.0.1".parse().unwrap(),
            destination_ip: "10.0.0.2".parse().unwrap(),
            destination_port: port,
            destination: Arc::new(Workload::default()),
        }
    }

    fn ports(table: &Table) -> Vec<u16> {
        let (entries, rest) = table.slice(0, 100);
        assert_eq!(rest, None);
        entries
            .iter()
            .map(|entry| entry.facts.destination_port)
            .collect()
    }

    /// Vectors 80, 82 and 83, but that equal connections have an entry each.
    #[test]
    fn each_connection_has_an_entry_of_its_own_until_it_is_released() {
        let table = Rc::new(Table::default());
        let [first, second, other] = [80, 80, 81].map(|port| table.register(facts(port)));
        assert_eq!(ports(&table), [80, 80, 81]);
        drop(first);
        assert_eq!(ports(&table), [80, 81], "the other of the two stays");
        drop(second);
        assert_eq!(ports(&table), [81]);
        drop(other);
        assert_eq!(ports(&table), Vec::<u16>::new());
        drop(table.register(facts(82)));
        assert_eq!(ports(&table), Vec::<u16>::new(), "dropped before use");
    }

    /// Vector 81.
    #[test]
    fn closing_equal_connections_tells_each_and_nobody_else() {
        let table = Rc::new(Table::default());
        let [first, second, other] = [80, 80, 81].map(|port| table.register(facts(port)));
        for entry in table.slice(0, 100).0 {
            if entry.facts.destination_port == 80 {
                entry
                    .close
                    .give(CloseReason::PolicyChange("denied".to_owned()));
            }
        }
        assert!(first.entry().close.is_given() && second.entry().close.is_given());
        assert!(!other.entry().close.is_given());
        drop((first, second));
        assert_eq!(ports(&table), [81]);
    }

    #[test]
    fn a_walk_in_slices_misses_none_and_meets_none_twice() {
        let table = Rc::new(Table::default());
        let held: Vec<_> = (0..10).map(|port| table.register(facts(port))).collect();
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(number) = from {
            let (slice, next) = table.slice(number, 3);
            seen.extend(slice.iter().map(|entry| entry.facts.destination_port));
            from = next;
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        drop(held);
    }
}
