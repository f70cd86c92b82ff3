//! The HBONE tunnels one shard has opened, shared by the streams that may use them.
//!
//! A tunnel is used only for exactly its [`Key`]. It is in the pool from the moment its dial starts:
//! callers that find room in it hold a lease and wait for that dial, which answers them all. A tunnel
//! at its stream limit takes new streams again once some end.

mod establish;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::revocation;
use super::rt::{self, First};
use super::shard::Shard;
use super::tunnel_life::TunnelLife;
use crate::config::limits::{POOL_CONGESTED_TUNNELS_MAX, POOL_TUNNELS_MAX};
use crate::hbone::client::Opener;
use crate::hbone::connect::{ConnectRequest, ConnectResponse};
use crate::hbone::stream::Stream;
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::telemetry::counters::{Limit, Role};
use crate::tls::revocation::Revocable;
use establish::establish;
pub(super) use establish::{Up, not_opened, shake_hands, unanswered};
pub(super) use tunnel::{Lease, Tunnel};

/// What makes two tunnels interchangeable. All parts must be equal; a tunnel is never shared on a
/// hash alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Whose certificate we show.
    pub(crate) source: Arc<Identity>,
    /// Who may answer.
    pub(crate) expected: Arc<[Identity]>,
    /// Where to dial.
    pub(crate) next_hop: SocketAddr,
}

/// The tunnels of one place of a shard: workloads with namespaces of their own share none.
#[derive(Debug)]
pub(crate) struct Pool {
    /// A key is here as long as it has tunnels.
    tunnels: RefCell<FxHashMap<Key, Vec<Rc<Tunnel>>>>,
    /// Those of all places.
    count: Rc<Cell<usize>>,
}

/// A stream and its share of the tunnel.
#[derive(Debug)]
pub(crate) struct TunnelStream {
    pub(crate) stream: Stream,
    pub(crate) lease: Lease,
}

impl Pool {
    /// Without a tunnel. `count` is that of all pools of the shard.
    pub(crate) fn new(count: Rc<Cell<usize>>) -> Self {
        Self {
            tunnels: RefCell::default(),
            count,
        }
    }

    /// A lease of the first tunnel with room whose streams do not wait for the peer. `None`: the key
    /// needs one more tunnel. Those that are no longer needed end unused, because the first are
    /// preferred.
    fn lease(&self, key: &Key, streams_max: usize) -> Option<Lease> {
        let tunnels = self.tunnels.borrow();
        let states = tunnels
            .get(key)?
            .iter()
            .map(|tunnel| (tunnel, tunnel.has_room(streams_max), tunnel.is_congested()));
        choose(states).map(Lease::take)
    }

    fn add(&self, key: &Key, tunnel: &Rc<Tunnel>) {
        self.count.set(self.count.get() + 1);
        let mut tunnels = self.tunnels.borrow_mut();
        tunnels
            .entry(key.clone())
            .or_default()
            .push(Rc::clone(tunnel));
    }

    fn remove(&self, key: &Key, tunnel: &Rc<Tunnel>) {
        self.count.set(self.count.get() - 1);
        let mut tunnels = self.tunnels.borrow_mut();
        if let Some(of_key) = tunnels.get_mut(key) {
            of_key.retain(|other| !Rc::ptr_eq(other, tunnel));
            if of_key.is_empty() {
                tunnels.remove(key);
            }
        }
    }

    /// Makes room for one more tunnel, at the cost of the one here that is unused for longest.
    pub(crate) fn make_room(&self) -> bool {
        if self.count.get() < POOL_TUNNELS_MAX {
            return true;
        }
        let tunnels = self.tunnels.borrow();
        let unused = tunnels
            .values()
            .flatten()
            .filter(|tunnel| tunnel.is_unused());
        let Some(oldest) = unused.min_by_key(|tunnel| tunnel.unused_since()).cloned() else {
            return false;
        };
        drop(tunnels);
        oldest.retire();
        // It counts until its task has closed it: one tunnel too many for a moment.
        true
    }
}

/// The tunnel that takes the next stream, of those given with: has room, is congested. A congested one
/// takes it only when the key has as many tunnels as help.
fn choose<T: Copy>(tunnels: impl Iterator<Item = (T, bool, bool)> + Clone) -> Option<T> {
    let with_room = || tunnels.clone().filter(|(_, room, _)| *room);
    if let Some((free, ..)) = with_room().find(|(.., congested)| !congested) {
        return Some(free);
    }
    if tunnels.clone().count() < POOL_CONGESTED_TUNNELS_MAX {
        return None;
    }
    with_room().next().map(|(first, ..)| first)
}

/// A peer that goes away between our choice of a tunnel and our request costs one more attempt.
const OPEN_ATTEMPTS: usize = 4;

/// Opens a stream to the key's next hop, in an open tunnel if one has room.
///
/// Dropping the future resets the stream; a dial it started goes on for the others.
pub(crate) async fn open(
    shard: &Rc<Shard>,
    key: &Key,
    request: &ConnectRequest,
) -> Result<(TunnelStream, ConnectResponse), CloseReason> {
    let limit = shard.config.timeouts.connect_answer;
    let mut last = None;
    for _ in 0..OPEN_ATTEMPTS {
        let (lease, opener) = acquire(shard, key).await?;
        match rt::within(limit, opener.open(request)).await {
            Some(Ok((response, stream))) => {
                shard.telemetry.counters().streams_client_opened.add(1);
                return Ok((TunnelStream { stream, lease }, response));
            }
            Some(Err(error)) if error.is_retryable() => {
                // The peer never saw the request, so nothing can happen twice.
                lease.tunnel().retire();
                last = Some(error);
            }
            Some(Err(error)) => return Err(not_opened(&error)),
            None => return Err(unanswered(shard, key.next_hop)),
        }
    }
    let why = last.map_or_else(String::new, |error| error.to_string());
    Err(CloseReason::Http2(format!(
        "no tunnel took the stream in {OPEN_ATTEMPTS} attempts: {why}"
    )))
}

/// A place in a tunnel that is up.
async fn acquire(shard: &Rc<Shard>, key: &Key) -> Result<(Lease, Opener), CloseReason> {
    let streams_max = usize::from(shard.config.pool.max_streams_per_connection);
    let lease = match shard.pool.lease(key, streams_max) {
        Some(lease) => lease,
        None => Lease::take(&start(shard, key)?),
    };
    if streams_max == 1 {
        lease.tunnel().spend();
    }
    let opener = lease.tunnel().up().await?;
    Ok((lease, opener))
}

/// Puts a tunnel into the pool and dials it in a task of its own, so that the caller that happened to
/// come first may leave.
fn start(shard: &Rc<Shard>, key: &Key) -> Result<Rc<Tunnel>, CloseReason> {
    if !shard.make_room() {
        let counters = shard.telemetry.counters();
        counters.limit(Limit::TunnelsPerShard).add(1);
        return Err(CloseReason::Limit(format!(
            "this shard has {POOL_TUNNELS_MAX} tunnels in use"
        )));
    }
    let tunnel = Tunnel::new();
    shard.pool.add(key, &tunnel);
    let entry = Entry {
        shard: Rc::clone(shard),
        key: key.clone(),
        tunnel: Rc::clone(&tunnel),
    };
    shard.spawn(serve(entry), || {});
    Ok(tunnel)
}

/// A tunnel's place in the pool: left however its task ends, and whoever still waits for the dial is
/// answered then.
struct Entry {
    shard: Rc<Shard>,
    key: Key,
    tunnel: Rc<Tunnel>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shard.pool.remove(&self.key, &self.tunnel);
        self.tunnel.spend();
        // A dial that had a result has told it. What is left is a panic, or the shard's end.
        let reason = if self.shard.force.get().is_some() {
            CloseReason::Drain
        } else {
            CloseReason::Panic
        };
        self.tunnel.failed(reason);
    }
}

/// Dials a tunnel and runs it to its end.
async fn serve(entry: Entry) {
    let Entry { shard, key, tunnel } = &entry;
    let dial = Box::pin(establish(shard, key));
    let Up {
        opener,
        driver,
        life,
        revocable,
        ..
    } = match rt::race(shard.force.wait(), dial).await {
        First::Left(()) => return,
        First::Right(Ok(up)) => up,
        First::Right(Err(reason)) => {
            shard.telemetry.counters().tunnels_client_failed.add(1);
            // Out of the pool first: who is told of the failure may try again at once.
            tunnel.spend();
            return tunnel.failed(reason);
        }
    };
    let _open = Gauge::raise(shard);
    tunnel.came_up(opener);
    if let First::Left(Err(error)) = rt::race(driver, watch(shard, tunnel, life, revocable)).await {
        tracing::debug!(target: "corelane::pool", %error, "tunnel ended");
    }
}

/// Counts an open tunnel however it ends.
pub(super) struct Gauge(Rc<Shard>);

impl Gauge {
    pub(super) fn raise(shard: &Rc<Shard>) -> Self {
        let counters = shard.telemetry.counters();
        counters.tunnels_client_opened.add(1);
        counters.tunnels_client_open.add(1);
        Self(Rc::clone(shard))
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.telemetry.counters().tunnels_client_open.add(-1);
    }
}

/// Retires the tunnel when it was unused long enough, when its certificates near their end, or when
/// the node drains; completes when it must end at once, which a revoked peer demands.
async fn watch(shard: &Shard, tunnel: &Tunnel, life: TunnelLife, peer: Option<Revocable>) {
    let retire = async {
        let unused = tunnel.unused_for(shard.config.pool.unused_release_timeout);
        let old = rt::race(unused, life.graceful());
        rt::race(shard.drain.wait(), old).await;
        tunnel.retire();
        std::future::pending::<()>().await;
    };
    let revoked = async {
        revocation::revoked(shard, peer.as_ref(), Role::Client).await;
        tunnel.revoke();
    };
    let end = rt::race(shard.force.wait(), rt::race(life.ended(), revoked));
    rt::race(retire, end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_to_the_first_tunnel_that_neither_is_full_nor_waits_for_its_peer() {
        let (free, full, waiting) = ((true, false), (false, false), (true, true));
        let stuffed = (false, true);
        for (tunnels, chosen) in [
            (vec![free, free], Some(0)),
            (vec![full, free], Some(1)),
            (vec![waiting, free], Some(1)),
            (vec![], None),
            (vec![full, full], None),
            (vec![waiting, full], None),
            (vec![waiting; POOL_CONGESTED_TUNNELS_MAX - 1], None),
            (vec![waiting; POOL_CONGESTED_TUNNELS_MAX], Some(0)),
            (vec![stuffed; POOL_CONGESTED_TUNNELS_MAX], None),
        ] {
            let states = tunnels.iter().enumerate();
            let choice = choose(states.map(|(at, (room, congested))| (at, *room, *congested)));
            assert_eq!(choice, chosen, "{tunnels:?}");
        }
    }
}
