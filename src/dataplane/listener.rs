//! Stage 1: accepts connections, sheds load at the limits, starts one task a connection.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::balance::{Handed, Weight};
use super::local::LocalKey;
use super::rt::{self, First, Listener, Socket};
use super::shard::{ListenerId, ListenerRole, PlannedListener, Shard};
use super::slot::Slot;
use super::{inbound, outbound, passthrough, socks};
use crate::config::ForwardTarget;
use crate::config::limits::{ACCEPT_BACKOFF_MAX, ACCEPT_BACKOFF_MIN, ACCEPTS_PER_TURN_MAX};
use crate::model::addr::ClientAddr;
use crate::sys;
use crate::sys::socket::{ConnectionOptions, set_connection_options};
use crate::telemetry::counters::{Limit, ListenerKind};
use crate::telemetry::flow::Direction;
use crate::telemetry::log_limit;

/// A fresh connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Rc<Socket>,
    pub(crate) client: ClientAddr,
    pub(crate) at: Instant,
}

/// What to do with the connections of a listener.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Captured outbound; the port is the listener's own.
    Outbound(LocalKey, u16),
    /// Captured inbound plain text; the flag: dial from the client's address; the port as above.
    Plaintext(bool, u16),
    /// HBONE; the flag as above.
    Inbound(bool),
    /// SOCKS5.
    Socks(LocalKey),
    /// Fixed destination.
    Forward(LocalKey, ForwardTarget),
}

impl Kind {
    pub(crate) fn new(local: LocalKey, planned: &PlannedListener) -> Self {
        match &planned.role {
            ListenerRole::Outbound => Self::Outbound(local, planned.addr.port()),
            ListenerRole::InboundPlaintext => {
                Self::Plaintext(planned.transparent, planned.addr.port())
            }
            ListenerRole::Inbound => Self::Inbound(planned.transparent),
            ListenerRole::OwnInbound => Self::Inbound(false),
            ListenerRole::Socks5 => Self::Socks(local),
            ListenerRole::Forward(to, account) => {
                let local = account.clone().map_or(local, LocalKey::Account);
                Self::Forward(local, to.clone())
            }
        }
    }

    const fn counted(&self) -> ListenerKind {
        match self {
            Self::Outbound(..) => ListenerKind::Outbound,
            Self::Plaintext(..) => ListenerKind::InboundPlaintext,
            Self::Inbound(_) => ListenerKind::Inbound,
            Self::Socks(_) => ListenerKind::Socks5,
            Self::Forward(..) => ListenerKind::Forward,
        }
    }

    const fn direction(&self) -> Direction {
        match self {
            Self::Outbound(..) | Self::Socks(_) | Self::Forward(..) => Direction::Outbound,
            Self::Plaintext(..) | Self::Inbound(_) => Direction::Inbound,
        }
    }
}

/// Registers a listener and starts its accept loop.
///
/// # Errors
/// When the driver refuses the descriptor.
pub(crate) fn start(
    shard: &Rc<Shard>,
    position: usize,
    planned: PlannedListener,
) -> io::Result<()> {
    // Accepted sockets inherit them (tcp(7), socket(7)), which saves five system calls each.
    if let Some(kind) = shard.kind(position) {
        set_connection_options(sys::fds::borrow(&planned.fd), &options_of(shard, kind));
    }
    let listener = Listener::from_fd(planned.fd)?;
    let task = accept_loop(Rc::clone(shard), listener, position, planned.addr);
    shard.spawn_vital(task, "an accept loop");
    Ok(())
}

/// Tunnels and SOCKS5 follow the reference: no keepalive on their accepted sockets, except that a
/// tunnel whose peer vanished must not stay for ever (its pings notice).
fn options_of(shard: &Shard, kind: &Kind) -> ConnectionOptions {
    match kind {
        Kind::Inbound(_) => shard.tunnel_options(),
        Kind::Socks(_) => ConnectionOptions::default(),
        Kind::Outbound(..) | Kind::Plaintext(..) | Kind::Forward(..) => shard.connection_options(),
    }
}

async fn accept_loop(shard: Rc<Shard>, listener: Listener, position: usize, addr: SocketAddr) {
    let mut reserve = Reserve::new();
    let mut backoff = ACCEPT_BACKOFF_MIN;
    // Until the policies are known, connections wait in the kernel's queue.
    if let First::Left(()) = rt::race(shard.drain.wait(), shard.open.wait()).await {
        return;
    }
    loop {
        match rt::race(shard.drain.wait(), listener.readable()).await {
            First::Left(()) => return last_call(&shard, &listener, position),
            First::Right(Ok(())) => {}
            First::Right(Err(error)) => {
                tracing::error!(target: "corelane::listener", %addr, %error, "cannot wait for connections");
                rt::sleep(ACCEPT_BACKOFF_MAX).await;
            }
        }
        #[cfg(any(test, feature = "faults"))]
        super::faults::trip(addr.port());
        match accept_batch(&shard, &listener, position) {
            Ok(Batch::Emptied) => backoff = ACCEPT_BACKOFF_MIN,
            Ok(Batch::More) => {
                backoff = ACCEPT_BACKOFF_MIN;
                // Readiness may be known already: without this, a flood would keep all others out.
                rt::yield_now().await;
            }
            Err(error) => {
                exhausted(&shard, &listener, addr, &error, &mut reserve);
                rt::sleep(backoff).await;
                backoff = longer(backoff);
            }
        }
    }
}

fn longer(backoff: Duration) -> Duration {
    (backoff * 2).min(ACCEPT_BACKOFF_MAX)
}

/// What a bounded round of accepts left.
enum Batch {
    /// Nothing waits.
    Emptied,
    /// Something may wait.
    More,
}

/// Takes what waits, bounded; an error means that descriptors or memory ran out.
fn accept_batch(shard: &Rc<Shard>, listener: &Listener, position: usize) -> io::Result<Batch> {
    let weight = match shard.kind(position) {
        Some(Kind::Inbound(_)) => Weight::Tunnel,
        _ => Weight::Connection,
    };
    let id = ListenerId {
        place: shard.place.id,
        position,
    };
    for _ in 0..ACCEPTS_PER_TURN_MAX {
        match listener.try_accept() {
            Ok((fd, peer)) => match shard.balance.hand_over(id, weight, fd, peer) {
                Ok(()) => shard.telemetry.counters().handed_over.add(1),
                Err(fd) => admit(shard, position, fd, peer),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Batch::Emptied),
            Err(error) if sys::fds::is_exhausted(&error) => return Err(error),
            // The connection ended before we took it (accept(2): treat network errors as retry).
            Err(_) => shard.telemetry.counters().accept_errors.add(1),
        }
    }
    Ok(Batch::More)
}

/// Ends a listener when a drain begins, and takes what waits: the kernel resets what a listener that closes
/// has not given away. Here, and not on another shard, which may have ended.
fn last_call(shard: &Rc<Shard>, listener: &Listener, position: usize) {
    // The kernel lets one more wait than it was told.
    let waiting_max = shard.config.tuning.listen_backlog.saturating_add(1);
    for _ in 0..waiting_max {
        match listener.try_accept() {
            Ok((fd, peer)) => admit(shard, position, fd, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if sys::fds::is_exhausted(&error) => break,
            Err(_) => shard.telemetry.counters().accept_errors.add(1),
        }
    }
    listener.stop();
}

/// One descriptor kept back: with it the connections that wait are answered by a reset instead of
/// being left hanging when all others are in use.
struct Reserve(Option<File>);

impl Reserve {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }
}

fn exhausted(
    shard: &Shard,
    listener: &Listener,
    addr: SocketAddr,
    error: &io::Error,
    reserve: &mut Reserve,
) {
    shard.telemetry.counters().accept_errors.add(1);
    shard.telemetry.counters().limit(Limit::Descriptors).add(1);
    log_limit::warn!(
        %addr, %error,
        "cannot accept; resetting waiting connections. Raise the descriptor limit (ulimit -n, \
         LimitNOFILE=) or lower limits.connections"
    );
    if reserve.0.take().is_some() {
        // Each is closed before the next is taken, so one descriptor serves for all.
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            match listener.try_accept() {
                Ok((fd, _)) => sys::socket::reset_on_close(sys::fds::borrow(&fd)),
                Err(_) => break,
            }
        }
    }
    *reserve = Reserve::new();
}

/// Takes a connection that another shard accepted.
pub(crate) fn adopt(shard: &Rc<Shard>, handed: Handed) {
    let Handed {
        listener,
        fd,
        peer,
        coming,
    } = handed;
    admit(shard, listener.position, fd, peer);
    drop(coming);
}

fn admit(shard: &Rc<Shard>, listener: usize, fd: OwnedFd, peer: SocketAddr) {
    // All shards have the same listeners.
    let Some(kind) = shard.kind(listener) else {
        return;
    };
    let client = ClientAddr::new(peer);
    let counters = shard.telemetry.counters();
    let Some(slot) = shard.slot(Some(kind.direction())) else {
        sys::socket::reset_on_close(sys::fds::borrow(&fd));
        return;
    };
    counters.accepted(kind.counted()).add(1);
    let socket = match Socket::from_fd(fd) {
        Ok(socket) => Rc::new(socket),
        Err(_) => {
            counters.accept_errors.add(1);
            return;
        }
    };
    let accepted = Accepted {
        socket: Rc::clone(&socket),
        client,
        at: rt::now(),
    };
    let task = serve(shard, kind, accepted, slot);
    shard.spawn_set_up(task, move || socket.reset_on_close());
}

fn serve(
    shard: &Rc<Shard>,
    kind: &Kind,
    accepted: Accepted,
    slot: Slot,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let (shard, client) = (Rc::clone(shard), accepted.client.ip());
    match kind.clone() {
        Kind::Outbound(local, port) => {
            let local = local.or_of_client(client);
            Box::pin(outbound::captured(shard, local, port, accepted, slot))
        }
        Kind::Forward(local, to) => Box::pin(outbound::forward(shard, local, to, accepted, slot)),
        Kind::Socks(local) => {
            let local = local.or_of_client(client);
            Box::pin(socks::serve(shard, local, accepted, slot))
        }
        Kind::Plaintext(transparent, port) => {
            Box::pin(passthrough::serve(shard, transparent, port, accepted, slot))
        }
        Kind::Inbound(transparent) => Box::pin(inbound::serve(shard, transparent, accepted, slot)),
    }
}
