//! Bounds what a shard holds at once: connections and streams in all, and those of peers that have
//! proven nothing, in all and for each address.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use std::collections::HashMap;

use super::balance::Load;
use super::shard::PlaceId;
use crate::telemetry::counters::Limit;

/// Counts unauthenticated connections of one shard.
#[derive(Debug)]
pub(crate) struct Admission {
    total_max: u64,
    per_source_max: u32,
    total: Cell<u64>,
    // Keys come from network peers, hence the keyed default hasher.
    per_source: RefCell<HashMap<(PlaceId, IpAddr), u32>>,
}

/// Held while a connection is unauthenticated.
#[derive(Debug)]
pub(crate) struct Pending {
    admission: Rc<Admission>,
    source: (PlaceId, IpAddr),
}

impl Admission {
    pub(crate) fn new(total_max: u64, per_source_max: u32) -> Rc<Self> {
        Rc::new(Self {
            total_max,
            per_source_max,
            total: Cell::new(0),
            per_source: RefCell::default(),
        })
    }

    /// Admits one more connection from `ip` to the workload or workloads of `place`, or names the limit that
    /// refuses it. One that opens tunnels to every workload of a shared node, as a gateway does, has its
    /// share at each.
    pub(crate) fn admit(self: &Rc<Self>, place: PlaceId, ip: IpAddr) -> Result<Pending, Limit> {
        let source = (place, ip);
        if self.total.get() >= self.total_max {
            return Err(Limit::UnauthenticatedTotal);
        }
        let mut per_source = self.per_source.borrow_mut();
        let count = per_source.entry(source).or_insert(0);
        if *count >= self.per_source_max {
            return Err(Limit::UnauthenticatedPerSource);
        }
        *count += 1;
        self.total.set(self.total.get() + 1);
        Ok(Pending {
            admission: Rc::clone(self),
            source,
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.total.set(admission.total.get() - 1);
        let mut per_source = admission.per_source.borrow_mut();
        if let Some(count) = per_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                per_source.remove(&self.source);
            }
        }
    }
}

/// Counts the connections and streams of one shard.
#[derive(Debug)]
pub(crate) struct Slots {
    max: u64,
    used: Cell<u64>,
    /// Where other shards see it.
    load: Arc<Load>,
}

impl Slots {
    pub(crate) fn new(max: u64, load: Arc<Load>) -> Self {
        Self {
            max,
            used: Cell::new(0),
            load,
        }
    }

    /// Takes a slot, if one is free; [`Slots::give_back`] must follow.
    #[must_use]
    pub(crate) fn take(&self) -> bool {
        let used = self.used.get();
        let free = used < self.max;
        if free {
            self.set(used + 1);
        }
        free
    }

    /// Frees a slot that was taken.
    pub(crate) fn give_back(&self) {
        self.set(self.used.get() - 1);
    }

    fn set(&self, used: u64) {
        self.used.set(used);
        self.load.set_open(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_refuses_one_too_many_and_takes_the_next_after_a_release() {
        let admission = Admission::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = admission.admit(PlaceId::OWN, a).unwrap();
        let _second = admission.admit(PlaceId::OWN, a).unwrap();
        assert_eq!(
            admission.admit(PlaceId::OWN, a).unwrap_err(),
            Limit::UnauthenticatedPerSource
        );
        let _third = admission.admit(PlaceId::OWN, b).unwrap();
        assert_eq!(
            admission.admit(PlaceId::OWN, b).unwrap_err(),
            Limit::UnauthenticatedTotal
        );
        drop(first);
        assert!(admission.admit(PlaceId::OWN, a).is_ok());
    }

    #[test]
    fn one_source_has_its_share_at_each_place() {
        let admission = Admission::new(10, 1);
        let (ip, other) = ([10, 0, 0, 1].into(), PlaceId::OWN.next());
        let _here = admission.admit(PlaceId::OWN, ip).unwrap();
        let _there = admission.admit(other, ip).unwrap();
        for place in [PlaceId::OWN, other] {
            let refused = admission.admit(place, ip).unwrap_err();
            assert_eq!(refused, Limit::UnauthenticatedPerSource);
        }
    }

    #[test]
    fn slots_are_as_many_as_they_say_and_come_back() {
        let slots = Slots::new(2, Arc::default());
        assert!(slots.take() && slots.take());
        assert!(!slots.take());
        slots.give_back();
        slots.give_back();
        assert_eq!(slots.used.get(), 0);
        assert!(slots.take());
    }

    #[test]
    fn released_addresses_leave_nothing_behind() {
        let admission = Admission::new(10, 10);
        for n in 0..10 {
            drop(admission.admit(PlaceId::OWN, [10, 0, 0, n].into()).unwrap());
        }
        assert!(admission.per_source.borrow().is_empty());
    }
}
