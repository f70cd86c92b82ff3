//! Where some of a shard's sockets live, and for whom: this process's own network namespace, or that
//! of a workload the node's agent named. Those come and go while the shard runs.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use super::super::balance::Handed;
use super::super::listener;
use super::super::local::LocalKey;
use super::{PlannedWorkload, Presence, Shard};
use crate::config::NodeMode;
use crate::model::workload::WorkloadInfo;
use crate::sys::netns::Namespace;
use crate::sys::socket::reset_on_close;

/// Names a place on every shard. Never used twice, so that what was meant for one that has gone cannot
/// meet another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId(u64);

impl PlaceId {
    /// This process's own network namespace.
    pub const OWN: Self = Self(0);

    /// The one that comes after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A listener, on every shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerId {
    pub(crate) place: PlaceId,
    /// Among those of the place.
    pub(crate) position: usize,
}

/// One place; by default this process's own.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) id: PlaceId,
    /// Whom all its listeners speak for.
    workload: Option<Arc<WorkloadInfo>>,
    /// Where its sockets are made; `None`: in this process's own.
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// Goes with the last task of the place.
    _presence: Option<Presence>,
}

impl Place {
    /// Key of the workload that connections to `to` are for here.
    pub(super) fn destination_key(&self, mode: &NodeMode, to: SocketAddr) -> LocalKey {
        match &self.workload {
            Some(info) => LocalKey::Named(Arc::clone(info), to.ip()),
            None => LocalKey::of_destination(mode, to),
        }
    }

    /// Key of the workload whose connections a listener on `ip` takes here.
    pub(super) fn local_key(&self, mode: &NodeMode, ip: IpAddr) -> LocalKey {
        match &self.workload {
            Some(info) => LocalKey::Named(Arc::clone(info), ip),
            None => LocalKey::of_listener(mode, ip),
        }
    }
}

impl Shard {
    /// Takes the listeners of a workload; they accept when it is to be served.
    pub(super) fn add_workload(self: &Rc<Self>, planned: PlannedWorkload) {
        let PlannedWorkload {
            id,
            info,
            namespace,
            listeners,
            presence,
        } = planned;
        let place = Place {
            id,
            workload: Some(info),
            namespace: Some(namespace),
            _presence: Some(presence),
        };
        let place = Self::new(Rc::clone(&self.core), place, &listeners);
        if self.drain.get().is_some() {
            place.drain.fire(());
        }
        self.places.borrow_mut().insert(id, Rc::clone(&place));
        for (position, planned) in listeners.into_iter().enumerate() {
            let addr = planned.addr;
            if let Err(error) = listener::start(&place, position, planned) {
                // The other shards have listeners on the same port.
                tracing::error!(
                    target: "corelane::shard", %addr, %error,
                    "this shard cannot take the listener of a workload"
                );
            }
        }
    }

    /// Ends everything of a workload, without grace.
    pub(super) fn remove_workload(&self, id: PlaceId) {
        let place = self.places.borrow_mut().remove(&id);
        if let Some(place) = place {
            place.drain.fire(());
            place.force.fire(());
        }
    }

    /// Serves a connection that another shard accepted.
    pub(super) fn adopt(self: &Rc<Self>, handed: Handed) {
        let place = self.at(handed.listener.place);
        match place {
            Some(place) => listener::adopt(&place, handed),
            // Its workload has gone meanwhile.
            None => reset_on_close(handed.fd.as_fd()),
        }
    }

    fn at(self: &Rc<Self>, id: PlaceId) -> Option<Rc<Self>> {
        if id == self.place.id {
            return Some(Rc::clone(self));
        }
        self.places.borrow().get(&id).cloned()
    }

    /// Makes room for one more tunnel, if need be at the cost of another place's unused one.
    pub(crate) fn make_room(&self) -> bool {
        let others = self.places.borrow();
        self.pool.make_room() || others.values().any(|place| place.pool.make_room())
    }

    pub(super) fn each_place(&self, each: impl Fn(&Self)) {
        for place in self.places.borrow().values() {
            each(place);
        }
    }
}
