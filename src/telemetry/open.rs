//! The open connections of one shard, for operators who ask which there are.
//!
//! A place in the list costs a pointer for each connection and no look-up: the connection knows its
//! place and leaves it when it ends.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use super::flow::{Direction, Ends, Kept};
use crate::model::workload::Workload;

/// One open connection as operators see it.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    /// Which way it goes.
    pub direction: Direction,
    /// Whether it travels in a tunnel.
    pub mutual_tls: bool,
    /// Whether that tunnel is inside another one.
    pub double: bool,
    /// Whether the peer's identity is proven.
    pub identified: bool,
    /// The workload of this node that it belongs to.
    pub local: Option<Arc<Workload>>,
    /// Client.
    pub src: SocketAddr,
    /// What the client wanted: an address, or on the way in a hostname, where that is known.
    pub original: Option<Original>,
    /// Whom we dialled.
    pub actual: SocketAddr,
}

/// What a client wanted to reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Original {
    /// An address.
    Address(SocketAddr),
    /// A name; the port is not known on the way in.
    Host(Arc<str>, Option<u16>),
}

/// The open connections of one shard, as many as were asked for.
#[derive(Clone, Debug, Default)]
pub struct OpenConnections {
    /// In no order.
    pub list: Vec<OpenConnection>,
    /// How many there are besides.
    pub left_out: usize,
}

/// Places the list grows by.
const PLACES_MORE: usize = 1_024;

/// Places of the connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Places(RefCell<Slots>);

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Arc<Kept>>>,
    free: Vec<u32>,
}

impl Places {
    /// Takes a place. More connections than a `u32` counts cannot be open.
    pub(super) fn enter(&self, kept: &Arc<Kept>) -> u32 {
        let mut places = self.0.borrow_mut();
        let kept = Some(Arc::clone(kept));
        if let Some(at) = places.free.pop() {
            places.slots[at as usize] = kept;
            return at;
        }
        if places.slots.len() == places.slots.capacity() {
            // Doubled, it would cost each of many connections another half of a place.
            places.slots.reserve_exact(PLACES_MORE);
        }
        places.slots.push(kept);
        u32::try_from(places.slots.len() - 1).unwrap_or(u32::MAX)
    }

    /// Replaces what stands at a place.
    pub(super) fn replace(&self, at: u32, kept: &Arc<Kept>) {
        if let Some(slot) = self.0.borrow_mut().slots.get_mut(at as usize) {
            *slot = Some(Arc::clone(kept));
        }
    }

    /// Gives a place back.
    pub(super) fn leave(&self, at: u32) {
        let mut places = self.0.borrow_mut();
        if let Some(slot) = places.slots.get_mut(at as usize)
            && slot.take().is_some()
        {
            places.free.push(at);
        }
    }

    /// Up to `max` of those that are there.
    pub(super) fn list(&self, max: usize) -> OpenConnections {
        let places = self.0.borrow();
        let open = places.slots.len() - places.free.len();
        let taken = places.slots.iter().flatten().take(max);
        let list: Vec<_> = taken.map(|kept| describe(kept)).collect();
        OpenConnections {
            left_out: open - list.len(),
            list,
        }
    }
}

fn describe(kept: &Kept) -> OpenConnection {
    let flow = kept.flow();
    let (local, outbound) = match flow.direction {
        Direction::Outbound => (flow.source.workload, true),
        Direction::Inbound => (flow.destination.workload, false),
    };
    let ends = kept.ends();
    let original = ends.and_then(|ends| ends.original.clone());
    let actual = ends.and_then(|ends| ends.actual).unwrap_or(flow.dst_addr);
    OpenConnection {
        direction: flow.direction,
        mutual_tls: flow.mutual_tls,
        double: ends.is_some_and(|ends| ends.double),
        identified: flow.source.identity.is_some(),
        local,
        src: flow.src_addr,
        // Who dials where the client wanted to go has nothing more to say.
        original: original.or_else(|| outbound.then_some(Original::Address(flow.dst_addr))),
        actual,
    }
}

impl Ends {
    /// Of an outbound connection, perhaps in a tunnel in a tunnel; nothing if it is dialled where the
    /// client wanted to go.
    #[must_use]
    pub fn outbound(original: Original, dialled: SocketAddr, double: bool) -> Option<Self> {
        (double || original != Original::Address(dialled)).then_some(Self {
            original: Some(original),
            actual: None,
            double,
        })
    }

    /// Of a stream of a tunnel: the service its request named, and whom we dial for it.
    #[must_use]
    pub fn inbound(host: Option<Arc<str>>, actual: SocketAddr) -> Self {
        Self {
            original: host.map(|host| Original::Host(host, None)),
            actual: Some(actual),
            double: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::flow::Parties;
    use crate::telemetry::testing::{inbound, outbound};

    fn kept(flow: super::super::flow::Flow) -> Arc<Kept> {
        let parties = Arc::new(Parties::of(&flow));
        Arc::new(Kept::new(flow, parties))
    }

    #[test]
    fn connections_are_listed_while_they_are_open() {
        let places = Places::default();
        let first = places.enter(&kept(outbound()));
        let second = places.enter(&kept(inbound()));
        assert_eq!(places.list(10).list.len(), 2);
        let bounded = places.list(1);
        assert_eq!((bounded.list.len(), bounded.left_out), (1, 1));
        places.leave(first);
        places.leave(first);
        let left = places.list(10);
        assert_eq!((left.list.len(), left.left_out), (1, 0));
        assert_eq!(left.list[0].direction, Direction::Inbound);
        assert_eq!(places.enter(&kept(outbound())), first, "places are reused");
        places.leave(second);
        assert_eq!(places.list(0).left_out, 1);
    }

    #[test]
    fn both_ends_are_told_from_each_other() {
        let places = Places::default();
        let out = kept(outbound());
        let wanted: SocketAddr = "10.96.0.1:80".parse().unwrap();
        out.set_ends(Ends::outbound(
            Original::Address(wanted),
            out.flow().dst_addr,
            true,
        ));
        places.enter(&out);
        let listed = places.list(1).list.remove(0);
        assert_eq!(listed.original, Some(Original::Address(wanted)));
        assert_eq!(listed.actual, out.flow().dst_addr);
        assert!(listed.double);
        assert_eq!(&*listed.local.unwrap().name, "client-0");

        let places = Places::default();
        let stream = kept(inbound());
        let dialled: SocketAddr = "10.1.0.3:8080".parse().unwrap();
        stream.set_ends(Some(Ends::inbound(None, dialled)));
        places.enter(&stream);
        let listed = places.list(1).list.remove(0);
        assert_eq!((listed.original, listed.actual), (None, dialled));
        assert_eq!(&*listed.local.unwrap().name, "server-0");
    }

    #[test]
    fn a_connection_dialled_where_it_wanted_to_go_keeps_nothing_more() {
        let flow = outbound();
        let same = Original::Address(flow.dst_addr);
        assert!(Ends::outbound(same, flow.dst_addr, false).is_none());
        let places = Places::default();
        places.enter(&kept(flow.clone()));
        let listed = places.list(1).list.remove(0);
        assert_eq!(listed.original, Some(Original::Address(flow.dst_addr)));
    }
}
