//! Which fetch is next: by priority, then by how long it has been due (spec ca.md 3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::model::identity::Identity;

/// How urgent a fetch is; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A handshake waits for it.
    RealTime,
    /// The first certificate of an identity that will be needed.
    Warmup,
    /// Refresh and retry.
    Background,
}

/// Order in the queue. The number tells those apart that became due together.
type Place = (Priority, SystemTime, u64);

/// Identities that wait for a fetch, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(Place, Identity)>,
    places: BTreeMap<Identity, Place>,
    pushed: u64,
}

impl Queue {
    /// Queues `identity`, or moves it ahead if it waits already with less priority.
    pub(super) fn push(&mut self, identity: &Identity, priority: Priority, due: SystemTime) {
        if let Some(place) = self.places.get(identity) {
            if place.0 <= priority {
                return;
            }
            self.remove(identity);
        }
        self.pushed += 1;
        let place = (priority, due, self.pushed);
        self.places.insert(identity.clone(), place);
        self.order.insert((place, identity.clone()));
    }

    /// Takes the first one that may start.
    pub(super) fn pop(&mut self, may_start: impl Fn(&Identity) -> bool) -> Option<Identity> {
        let mut waiting = self.order.iter();
        let (_, identity) = waiting.find(|(_, identity)| may_start(identity))?;
        let identity = identity.clone();
        self.remove(&identity);
        Some(identity)
    }

    pub(super) fn remove(&mut self, identity: &Identity) {
        if let Some(place) = self.places.remove(identity) {
            self.order.remove(&(place, identity.clone()));
        }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, identity: &Identity) -> bool {
        self.places.contains_key(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::new("cluster.local", "default", name)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        let next = || queue.pop(|_| true);
        let all = std::iter::from_fn(next);
        all.map(|identity| identity.service_account.to_string())
            .collect()
    }

    #[test]
    fn the_urgent_come_first_and_among_them_the_longest_due() {
        let mut queue = Queue::default();
        queue.push(&identity("late"), Priority::Background, at(2));
        queue.push(&identity("early"), Priority::Background, at(1));
        queue.push(&identity("first"), Priority::Warmup, at(5));
        queue.push(&identity("second"), Priority::Warmup, at(5));
        queue.push(&identity("now"), Priority::RealTime, at(9));
        let order = drain(&mut queue);
        assert_eq!(order, ["now", "first", "second", "early", "late"]);
    }

    #[test]
    fn an_identity_waits_once_and_only_moves_ahead() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c", "d"] {
            queue.push(&identity(name), Priority::Warmup, at(1));
        }
        queue.push(&identity("d"), Priority::RealTime, at(2));
        queue.push(&identity("d"), Priority::Background, at(0));
        queue.push(&identity("c"), Priority::Background, at(0));
        assert_eq!(drain(&mut queue), ["d", "a", "b", "c"]);
    }

    #[test]
    fn those_that_may_not_start_stay() {
        let mut queue = Queue::default();
        queue.push(&identity("a"), Priority::RealTime, at(1));
        queue.push(&identity("b"), Priority::Warmup, at(1));
        let popped = queue.pop(|whose| *whose != identity("a"));
        assert_eq!(popped, Some(identity("b")));
        assert!(queue.contains(&identity("a")));
        queue.remove(&identity("a"));
        assert_eq!(drain(&mut queue), [""; 0]);
    }
}
