//! The HBONE tunnels one shard has opened, shared by the streams that may use them.
//!
//! A tunnel is used only for exactly its [`Key`]. Callers that need a tunnel while one is being
//! dialled wait for that dial and are all answered by it. A tunnel at its stream limit takes new
//! streams again once some end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::dial::{self, DialError};
use super::rt::{self, First, PollSocket, Signal};
use super::shard::Shard;
use crate::config::limits::POOL_TUNNELS_MAX;
use crate::hbone;
use crate::hbone::client::{OpenError, Opener};
use crate::hbone::connect::{ConnectRequest, ConnectResponse};
use crate::hbone::stream::Stream;
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::sys::socket::Source;
use crate::telemetry::counters::{Limit, Role};
use crate::tls;

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

/// The tunnels of one shard.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: RefCell<FxHashMap<Key, Rc<Slot>>>,
    tunnels: Cell<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    tunnels: RefCell<Vec<Rc<Tunnel>>>,
    dialling: RefCell<Option<Signal<Result<(), CloseReason>>>>,
}

/// One open tunnel.
#[derive(Debug)]
struct Tunnel {
    opener: Opener,
    leases: Cell<usize>,
    unused_since: Cell<Instant>,
    retired: Cell<bool>,
}

/// One stream's share of a tunnel; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    tunnel: Rc<Tunnel>,
}

/// A stream and its share of the tunnel.
#[derive(Debug)]
pub(crate) struct TunnelStream {
    pub(crate) stream: Stream,
    pub(crate) lease: Lease,
}

impl Lease {
    fn take(tunnel: &Rc<Tunnel>) -> Self {
        tunnel.leases.set(tunnel.leases.get() + 1);
        Self {
            tunnel: Rc::clone(tunnel),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let tunnel = &self.tunnel;
        tunnel.leases.set(tunnel.leases.get() - 1);
        if tunnel.leases.get() == 0 {
            tunnel.unused_since.set(rt::now());
            if tunnel.retired.get() {
                tunnel.opener.close_when_idle();
            }
        }
    }
}

impl Tunnel {
    fn has_room(&self, limit: usize) -> bool {
        !self.retired.get() && self.opener.is_usable() && self.leases.get() < limit
    }

    /// Takes no new streams; closes when the last one ends.
    fn retire(&self) {
        self.retired.set(true);
        if self.leases.get() == 0 {
            self.opener.close_when_idle();
        }
    }
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
        let lease = acquire(shard, key).await?;
        match rt::within(limit, lease.tunnel.opener.open(request)).await {
            Some(Ok((response, stream))) => {
                shard.telemetry.counters().streams_client_opened.add(1);
                return Ok((TunnelStream { stream, lease }, response));
            }
            Some(Err(error)) if error.is_retryable() => {
                // The peer never saw the request, so nothing can happen twice.
                lease.tunnel.retire();
                last = Some(error);
            }
            Some(Err(OpenError::Status(status))) => {
                return Err(CloseReason::Status(hbone::client::status_text(status)));
            }
            Some(Err(error)) => return Err(CloseReason::Http2(error.to_string())),
            None => {
                shard
                    .telemetry
                    .counters()
                    .limit(Limit::ConnectAnswerTimeout)
                    .add(1);
                let peer = key.next_hop;
                return Err(CloseReason::Http2(format!(
                    "{peer} did not answer the CONNECT within {limit:?}"
                )));
            }
        }
    }
    let why = last.map_or_else(String::new, |error| error.to_string());
    Err(CloseReason::Http2(format!(
        "no tunnel took the stream in {OPEN_ATTEMPTS} attempts: {why}"
    )))
}

async fn acquire(shard: &Rc<Shard>, key: &Key) -> Result<Lease, CloseReason> {
    let per_tunnel = usize::from(shard.config.pool.max_streams_per_connection);
    loop {
        let slot = Rc::clone(
            shard
                .pool
                .slots
                .borrow_mut()
                .entry(key.clone())
                .or_default(),
        );
        let free = slot
            .tunnels
            .borrow()
            .iter()
            .find(|tunnel| tunnel.has_room(per_tunnel.min(tunnel.opener.peer_max_streams())))
            .map(Lease::take);
        if let Some(lease) = free {
            if per_tunnel == 1 {
                lease.tunnel.retired.set(true);
            }
            return Ok(lease);
        }
        let pending = slot.dialling.borrow().clone();
        let dialled = match pending {
            Some(dialled) => dialled,
            None => start_dial(shard, key, &slot),
        };
        dialled.wait().await?;
    }
}

/// Dials in a task of its own, so that the caller that happened to come first may leave.
fn start_dial(shard: &Rc<Shard>, key: &Key, slot: &Rc<Slot>) -> Signal<Result<(), CloseReason>> {
    let dialled = Signal::default();
    *slot.dialling.borrow_mut() = Some(dialled.clone());
    let finish = {
        let (slot, dialled) = (Rc::clone(slot), dialled.clone());
        move |result| {
            *slot.dialling.borrow_mut() = None;
            dialled.fire(result);
        }
    };
    let (on_panic, task) = (finish.clone(), {
        let (shard, key, slot) = (Rc::clone(shard), key.clone(), Rc::clone(slot));
        async move { finish(establish(&shard, &key, &slot).await) }
    });
    shard.spawn(task, move || on_panic(Err(CloseReason::Panic)));
    dialled
}

async fn establish(shard: &Rc<Shard>, key: &Key, slot: &Rc<Slot>) -> Result<(), CloseReason> {
    if shard.pool.tunnels.get() >= POOL_TUNNELS_MAX {
        shard
            .telemetry
            .counters()
            .limit(Limit::TunnelsPerShard)
            .add(1);
        return Err(CloseReason::Limit(format!(
            "this shard has {POOL_TUNNELS_MAX} open tunnels"
        )));
    }
    let credentials = shard.credentials(&key.source)?;
    let options = shard.tunnel_options();
    let socket = match dial::tcp(shard, key.next_hop, Source::Any, &options).await {
        Ok(socket) => socket,
        Err(error @ DialError::TimedOut { .. }) => {
            return Err(CloseReason::ConnectTimeout(error.to_string()));
        }
        Err(error) => return Err(CloseReason::Connect(error.to_string())),
    };
    let started = rt::now();
    let counters = shard.telemetry.counters();
    let limit = shard.config.timeouts.handshake;
    let handshake = tls::handshake::connect(PollSocket::new(socket), &credentials, &key.expected);
    let (tls, peer) = match rt::within(limit, handshake).await {
        Some(Ok(done)) => done,
        Some(Err(error)) => {
            counters.handshakes_failed(Role::Client).add(1);
            return Err(CloseReason::Tls(error.to_string()));
        }
        None => {
            counters.handshakes_failed(Role::Client).add(1);
            counters.limit(Limit::HandshakeTimeout).add(1);
            let to = key.next_hop;
            return Err(CloseReason::Tls(format!(
                "{to} did not finish it within {limit:?}"
            )));
        }
    };
    counters.handshakes_ok(Role::Client).add(1);
    counters
        .handshake_seconds(Role::Client)
        .record(rt::now() - started);
    let (opener, driver) = match hbone::client::handshake(tls, &shard.hbone).await {
        Ok(open) => open,
        Err(error) => return Err(CloseReason::Http2(error.to_string())),
    };
    let life = super::shard::TunnelLife::new(credentials.not_after(), peer.not_after);
    super::inbound::log_tunnel("outbound", key.next_hop, &peer);
    let tunnel = Rc::new(Tunnel {
        opener,
        leases: Cell::new(0),
        unused_since: Cell::new(rt::now()),
        retired: Cell::new(false),
    });
    slot.tunnels.borrow_mut().push(Rc::clone(&tunnel));
    shard.pool.tunnels.set(shard.pool.tunnels.get() + 1);
    counters.tunnels_client_opened.add(1);
    counters.tunnels_client_open.add(1);
    let drive = drive(
        Rc::clone(shard),
        key.clone(),
        Rc::clone(slot),
        tunnel,
        driver,
        life,
    );
    shard.spawn(drive, || {});
    Ok(())
}

/// Runs a tunnel to its end, then forgets it.
async fn drive<D>(
    shard: Rc<Shard>,
    key: Key,
    slot: Rc<Slot>,
    tunnel: Rc<Tunnel>,
    driver: D,
    life: super::shard::TunnelLife,
) where
    D: Future<Output = Result<(), hbone::HboneError>>,
{
    let _leave = Leave {
        shard: Rc::clone(&shard),
        key,
        slot,
        tunnel: Rc::clone(&tunnel),
    };
    if let First::Left(Err(error)) = rt::race(driver, watch(&shard, &tunnel, life)).await {
        tracing::debug!(target: "corelane::pool", %error, "tunnel ended");
    }
}

/// Takes the tunnel out of the pool however its task ends.
struct Leave {
    shard: Rc<Shard>,
    key: Key,
    slot: Rc<Slot>,
    tunnel: Rc<Tunnel>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.tunnel.retired.set(true);
        self.slot
            .tunnels
            .borrow_mut()
            .retain(|tunnel| !Rc::ptr_eq(tunnel, &self.tunnel));
        let pool = &self.shard.pool;
        pool.tunnels.set(pool.tunnels.get() - 1);
        self.shard.telemetry.counters().tunnels_client_open.add(-1);
        let unused = self.slot.tunnels.borrow().is_empty() && self.slot.dialling.borrow().is_none();
        if unused {
            pool.slots.borrow_mut().remove(&self.key);
        }
    }
}

/// Retires the tunnel when it was unused long enough, when its certificates near their end, or when
/// the node drains; returns when it must end at once.
async fn watch(shard: &Shard, tunnel: &Tunnel, life: super::shard::TunnelLife) {
    let idle = shard.config.pool.unused_release_timeout;
    let retire = async {
        loop {
            let unused = rt::now().saturating_duration_since(tunnel.unused_since.get());
            if tunnel.leases.get() == 0 && unused >= idle {
                break;
            }
            let next = if tunnel.leases.get() == 0 {
                idle - unused
            } else {
                idle
            };
            if let First::Right(()) = rt::race(rt::sleep(next), life.graceful()).await {
                break;
            }
        }
        tunnel.retire();
        std::future::pending::<()>().await;
    };
    let drain = async {
        shard.drain.wait().await;
        tunnel.retire();
        shard.force.wait().await;
    };
    rt::race(retire, rt::race(drain, life.ended())).await;
    tunnel.opener.abort();
}
