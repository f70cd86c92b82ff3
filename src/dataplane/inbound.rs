//! Runs the tunnels that peers open to us: identify, shake hands, start a task for each stream.

mod stream;

use std::cell::Cell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;

use super::listener::Accepted;
use super::local;
use super::revocation;
use super::rt::{self, PollSocket};
use super::shard::Shard;
use super::slot::Slot;
use super::tunnel_life::TunnelLife;
use crate::hbone::server::{self, DrainHandle, Incoming, Server};
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::telemetry::counters::{Limit, Role};
use crate::telemetry::flow::Direction;
use crate::tls::revocation::Revocable;
use crate::tls::{self, Peer, TlsStream};

/// One tunnel a peer opened, as its streams see it.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The peer's address.
    client: SocketAddr,
    /// Our address: the workload's.
    local: SocketAddr,
    /// Whom the peer was told it speaks to.
    identity: Identity,
    /// What the handshake proved.
    peer: Peer,
    /// Applications are dialled from the client's address.
    transparent: bool,
    /// The peer was revoked.
    revoked: Cell<bool>,
    /// Ends it.
    handle: DrainHandle,
}

impl Tunnel {
    /// Why a stream ended that ended for `reason`: with a revoked peer there is but one.
    fn reason(&self, reason: CloseReason) -> CloseReason {
        if self.revoked.get() {
            CloseReason::Revoked
        } else {
            reason
        }
    }
}

/// Serves one connection of port 15008.
pub(crate) async fn serve(shard: Rc<Shard>, transparent: bool, accepted: Accepted, _place: Slot) {
    // Boxed: an open tunnel must not hold the room its handshake took.
    let up = Box::pin(establish(&shard, transparent, accepted)).await;
    if let Some((tunnel, server, life, peer)) = up {
        streams(&shard, &tunnel, server, life, peer).await;
    }
}

type Up = (
    Rc<Tunnel>,
    Server<TlsStream<PollSocket>>,
    TunnelLife,
    Option<Revocable>,
);

/// Everything before the first stream. `None`: refused, and reported.
async fn establish(shard: &Rc<Shard>, transparent: bool, accepted: Accepted) -> Option<Up> {
    let Accepted { socket, client, at } = accepted;
    let client = client.get();
    let local = socket.local_addr().ok()?;
    let refuse = |error: &dyn Display| {
        shard.refused(Direction::Inbound, client, Some(local), error);
        None
    };
    let pending = match shard.admission.admit(shard.place.id, client.ip()) {
        Ok(pending) => pending,
        Err(limit) => {
            shard.telemetry.counters().limit(limit).add(1);
            socket.reset_on_close();
            return refuse(&format_args!(
                "too many unauthenticated connections ({})",
                limit.as_str()
            ));
        }
    };
    let workload = match local::workload(shard, &shard.local_key(local)).await {
        Ok(workload) => workload,
        Err(error) => return refuse(&error),
    };
    let identity = workload.identity();
    let credentials = match shard.credentials(&identity).await {
        Ok(credentials) => credentials,
        Err(error) => return refuse(&error),
    };
    let counters = shard.telemetry.counters();
    let limit = shard.config.timeouts.handshake;
    let handshake = tls::handshake::accept(PollSocket::new(socket), &credentials);
    let (tls, peer) = match rt::within(limit, handshake).await {
        Some(Ok(done)) => done,
        Some(Err(error)) => {
            counters.handshakes_failed(Role::Server).add(1);
            let revoked = u64::from(error.is_revoked());
            counters.crl_rejections(Role::Server).add(revoked);
            return refuse(&error);
        }
        None => {
            counters.handshakes_failed(Role::Server).add(1);
            counters.limit(Limit::HandshakeTimeout).add(1);
            return refuse(&format_args!(
                "tls handshake error: not finished within {limit:?}"
            ));
        }
    };
    drop(pending);
    counters.handshakes_ok(Role::Server).add(1);
    counters
        .handshake_seconds(Role::Server)
        .record(rt::now() - at);
    let life = TunnelLife::new(credentials.not_after(), peer.not_after);
    let revocable = credentials.revocable(&peer);
    let (server, handle) = match server::handshake(tls, &shard.hbone).await {
        Ok(up) => up,
        Err(error) => return refuse(&error),
    };
    log_tunnel("inbound", client, &peer);
    let tunnel = Tunnel {
        client,
        local,
        identity,
        peer,
        transparent,
        revoked: Cell::new(false),
        handle,
    };
    Some((Rc::new(tunnel), server, life, revocable))
}

/// Says who is at the other end of a new tunnel, and how it is protected.
pub(crate) fn log_tunnel(direction: &'static str, address: SocketAddr, peer: &Peer) {
    let identity = peer.identity.as_ref().map(tracing::field::display);
    let Peer {
        version,
        group,
        cipher,
        ..
    } = peer;
    tracing::debug!(
        target: "corelane::tunnel", direction, %address, identity, version, group, cipher,
        "tunnel open"
    );
}

/// Starts a task for each stream until the tunnel ends.
async fn streams(
    shard: &Rc<Shard>,
    tunnel: &Rc<Tunnel>,
    mut server: Server<TlsStream<PollSocket>>,
    life: TunnelLife,
    peer: Option<Revocable>,
) {
    let _open = Gauge::raise(shard);
    let accept = async {
        while let Some(next) = server.next().await {
            match next {
                Ok(incoming) => start(shard, tunnel, incoming),
                Err(error) => {
                    let client = tunnel.client;
                    tracing::debug!(target: "corelane::inbound", %client, %error, "tunnel ended");
                    return;
                }
            }
        }
    };
    let wind_down = async {
        rt::race(shard.drain.wait(), life.graceful()).await;
        tunnel.handle.drain();
        life.ended().await;
        tunnel.handle.abort();
        std::future::pending::<()>().await;
    };
    let revoked = async {
        revocation::revoked(shard, peer.as_ref(), Role::Server).await;
        tunnel.revoked.set(true);
        tunnel.handle.abort();
        std::future::pending::<()>().await;
    };
    rt::race(accept, rt::race(wind_down, revoked)).await;
}

/// Counts an open tunnel however it ends.
struct Gauge<'a>(&'a Shard);

impl<'a> Gauge<'a> {
    fn raise(shard: &'a Shard) -> Self {
        let counters = shard.telemetry.counters();
        counters.tunnels_server_opened.add(1);
        counters.tunnels_server_open.add(1);
        Self(shard)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.telemetry.counters().tunnels_server_open.add(-1);
    }
}

fn start(shard: &Rc<Shard>, tunnel: &Rc<Tunnel>, incoming: Incoming) {
    shard.telemetry.counters().streams_server_opened.add(1);
    let Incoming { request, respond } = incoming;
    let (at, client, local) = (rt::now(), tunnel.client, tunnel.local);
    let request = match request {
        Ok(request) => request,
        Err(refusal) => {
            shard.refused(Direction::Inbound, client, Some(local), &refusal);
            return respond.refuse(refusal.status);
        }
    };
    // A stream takes a descriptor as a connection does, and a peer may open many in one tunnel.
    let Some(slot) = shard.slot(None) else {
        shard.refused(
            Direction::Inbound,
            client,
            Some(local),
            &"too many connections",
        );
        return respond.refuse(503);
    };
    let (ours, tunnel) = (Rc::clone(shard), Rc::clone(tunnel));
    let task = stream::serve(ours, tunnel, request, respond, at, slot);
    // Dropped, its stream is reset, and the application's connection too.
    shard.spawn_set_up(Box::pin(task), || {});
}
