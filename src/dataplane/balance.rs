//! Hands a fresh connection to a shard that is clearly less busy, before a byte of it was read.
//!
//! SO_REUSEPORT spreads connections by hash. Of few long ones the worst shard gets a multiple of the
//! mean, and stays so for as long as they live.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::shard::{ListenerId, Message, ShardMailbox};

/// How busy a shard is, for the others to read. Written by the shard, but for `coming`.
#[derive(Debug, Default)]
pub struct Load {
    /// Connections and streams that it holds.
    open: AtomicU64,
    /// Connections on their way to it.
    coming: AtomicU64,
    draining: AtomicBool,
}

impl Load {
    pub(super) fn set_open(&self, open: u64) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// From now on nothing is handed to this shard, other than what is coming already.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether a connection is on its way. Once this is false after [`Load::drain`], it stays so:
    /// who hands over counts first and looks for the drain then, we do the opposite.
    pub(super) fn is_coming(&self) -> bool {
        self.coming.load(Ordering::SeqCst) > 0
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn get(&self) -> u64 {
        self.open.load(Ordering::Relaxed) + self.coming.load(Ordering::Relaxed)
    }
}

/// A shard of the same node that has the same listeners in the same order.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its mailbox.
    pub mailbox: ShardMailbox,
    /// How busy it is.
    pub load: Arc<Load>,
}

/// A connection on its way to another shard.
#[derive(Debug)]
pub struct Handed {
    /// The listener that accepted it.
    pub(super) listener: ListenerId,
    pub(super) fd: OwnedFd,
    pub(super) peer: SocketAddr,
    /// To be dropped once the connection is counted as open.
    pub(super) coming: Coming,
}

/// Counts one connection as coming.
#[derive(Debug)]
pub(super) struct Coming(Arc<Load>);

impl Coming {
    fn new(load: &Arc<Load>) -> Self {
        load.coming.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(load))
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.coming.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The other shards, seen from one of them.
#[derive(Debug)]
pub(super) struct Balance {
    own: Arc<Load>,
    others: Vec<Neighbour>,
}

impl Balance {
    /// `shards` are all of the node's, shard `index` is the one that asks. Of fewer than two none has
    /// a neighbour.
    pub(super) fn new(index: usize, mut shards: Vec<Neighbour>) -> Self {
        let own = if index < shards.len() {
            shards.remove(index).load
        } else {
            Arc::default()
        };
        Self {
            own,
            others: shards,
        }
    }

    /// This shard's own load, to be kept up to date.
    pub(super) const fn own(&self) -> &Arc<Load> {
        &self.own
    }

    /// Hands a connection to the least busy shard if that is clearly less busy than this one; gives
    /// the descriptor back otherwise.
    pub(super) fn hand_over(
        &self,
        listener: ListenerId,
        weight: Weight,
        fd: OwnedFd,
        peer: SocketAddr,
    ) -> Result<(), OwnedFd> {
        let Some(least) = self.others.iter().min_by_key(|other| other.load.get()) else {
            return Err(fd);
        };
        if !is_clearly_busier(weight, self.own.get(), least.load.get()) {
            return Err(fd);
        }
        let coming = Coming::new(&least.load);
        if least.load.is_draining() {
            drop(coming);
            // It may have seen the count and now waits for a connection that does not come.
            let _ended = least.mailbox.send(Message::Drain);
            return Err(fd);
        }
        let handed = Handed {
            listener,
            fd,
            peer,
            coming,
        };
        match least.mailbox.send(Message::Adopt(handed)) {
            Ok(()) => Ok(()),
            Err(Message::Adopt(refused)) => Err(refused.fd),
            // The mailbox gives back what it was given.
            Err(_) => Ok(()),
        }
    }
}

/// How much a connection will mean to the shard that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// One application's connection, perhaps a short one.
    Connection,
    /// A tunnel: few, long, and each with many streams.
    Tunnel,
}

/// A tunnel goes to the less busy shard. Others stay unless this one has a quarter more and more than
/// chance makes of a handful: handing over costs a wake-up of the other shard, some microseconds.
const fn is_clearly_busier(weight: Weight, own: u64, other: u64) -> bool {
    match weight {
        Weight::Connection => own > other + other / 4 + 2,
        Weight::Tunnel => own > other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::rt;
    use super::super::shard::PlaceId;
    use super::*;

    fn shards(count: usize) -> (Vec<Neighbour>, Vec<rt::Inbox<Message>>) {
        let one = |_| {
            let (mailbox, inbox) = rt::mailbox().unwrap();
            let load = Arc::default();
            (Neighbour { mailbox, load }, inbox)
        };
        (0..count).map(one).unzip()
    }

    fn socket() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    const LISTENER: ListenerId = ListenerId {
        place: PlaceId::OWN,
        position: 0,
    };

    fn peer() -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    #[test]
    fn a_clearly_busier_shard_hands_over_to_the_least_busy_one() {
        let (neighbours, _inboxes) = shards(3);
        let loads: Vec<_> = neighbours.iter().map(|one| Arc::clone(&one.load)).collect();
        let balance = Balance::new(0, neighbours);
        for (load, open) in loads.iter().zip([9, 7, 4]) {
            load.set_open(open);
        }
        balance
            .hand_over(LISTENER, Weight::Connection, socket(), peer())
            .unwrap();
        assert_eq!(loads[2].get(), 5, "counted while it is under way");
        balance
            .hand_over(LISTENER, Weight::Connection, socket(), peer())
            .unwrap();
        assert!(
            balance
                .hand_over(LISTENER, Weight::Connection, socket(), peer())
                .is_err(),
            "9 : 6 is close enough"
        );
        let now: Vec<_> = loads.iter().map(|load| load.get()).collect();
        assert_eq!(now, [9, 7, 6]);
    }

    #[test]
    fn nothing_is_handed_to_a_shard_that_drains_or_has_ended() {
        let (neighbours, inboxes) = shards(2);
        let (own, other) = (
            Arc::clone(&neighbours[0].load),
            Arc::clone(&neighbours[1].load),
        );
        let balance = Balance::new(0, neighbours);
        own.set_open(100);
        balance
            .hand_over(LISTENER, Weight::Connection, socket(), peer())
            .unwrap();
        drop(inboxes);
        assert_eq!(
            other.get(),
            0,
            "what was under way is closed with its inbox"
        );
        assert!(
            balance
                .hand_over(LISTENER, Weight::Connection, socket(), peer())
                .is_err(),
            "ended"
        );
        assert_eq!(other.get(), 0);

        let (neighbours, _inboxes) = shards(2);
        let (own, other) = (
            Arc::clone(&neighbours[0].load),
            Arc::clone(&neighbours[1].load),
        );
        let balance = Balance::new(0, neighbours);
        own.set_open(100);
        other.drain();
        assert!(
            balance
                .hand_over(LISTENER, Weight::Connection, socket(), peer())
                .is_err()
        );
        assert_eq!(other.get(), 0);
    }

    #[test]
    fn few_connections_are_spread_evenly_and_many_are_left_to_chance() {
        for (own, other, clearly) in [
            (0, 0, false),
            (2, 0, false),
            (3, 0, true),
            (3, 1, false),
            (4, 1, true),
            (10, 7, false),
            (11, 7, true),
            (530, 470, false),
            (600, 470, true),
        ] {
            let busier = is_clearly_busier(Weight::Connection, own, other);
            assert_eq!(busier, clearly, "{own} : {other}");
        }
        assert!(is_clearly_busier(Weight::Tunnel, 1, 0));
        assert!(!is_clearly_busier(Weight::Tunnel, 1, 1));
    }

    #[test]
    fn a_shard_alone_keeps_what_it_accepts() {
        let (neighbours, _inboxes) = shards(1);
        let balance = Balance::new(0, neighbours);
        balance.own().set_open(1_000);
        assert!(
            balance
                .hand_over(LISTENER, Weight::Connection, socket(), peer())
                .is_err()
        );
    }
}
