//! Tunnels arriving by HBONE: handshakes, limits, and a task for each stream.

mod stream;

use std::fmt::Display;
use std::net::SocketAddr;
use std::rc::Rc;

use super::listener::Accepted;
use super::local;
use super::rt::{self, First, PollSocket};
use super::shard::{Shard, TunnelLife};
use crate::hbone::server::{self, DrainHandle, Incoming, Server};
use crate::telemetry::counters::{Limit, Role};
use crate::telemetry::flow::Direction;
use crate::tls::{self, Peer};

/// One tunnel a peer opened, as its streams see it.
#[derive(Debug)]
struct Tunnel {
    /// The peer's address.
    client: SocketAddr,
    /// Our address: the workload's.
    local: SocketAddr,
    /// What the handshake proved.
    peer: Peer,
    /// Applications are dialled from the client's address.
    transparent: bool,
}

/// Serves one connection of port 15008.
pub(crate) async fn serve(shard: Rc<Shard>, transparent: bool, accepted: Accepted) {
    let socket = Rc::clone(&accepted.socket);
    let work = run(&shard, transparent, accepted);
    if let First::Left(()) = rt::race(shard.force.wait(), work).await {
        socket.reset_on_close();
    }
}

async fn run(shard: &Rc<Shard>, transparent: bool, accepted: Accepted) {
    let Accepted { socket, client, at } = accepted;
    let client = client.get();
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let refuse = |error: &dyn Display| {
        shard.refused(Direction::Inbound, client, Some(local), error);
    };
    let pending = match shard.admission.admit(client.ip()) {
        Ok(pending) => pending,
        Err(limit) => {
            shard.telemetry.counters().limit(limit).add(1);
            refuse(&format_args!(
                "too many unauthenticated connections ({})",
                limit.as_str()
            ));
            return socket.reset_on_close();
        }
    };
    let workload = match local::workload(shard, &shard.local_key(local)).await {
        Ok(workload) => workload,
        Err(error) => return refuse(&error),
    };
    let credentials = match shard.credentials(&workload.identity()) {
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
    let (server, handle) = match server::handshake(tls, &shard.hbone).await {
        Ok(up) => up,
        Err(error) => return refuse(&error),
    };
    log_tunnel("inbound", client, &peer);
    counters.tunnels_server_opened.add(1);
    counters.tunnels_server_open.add(1);
    let tunnel = Rc::new(Tunnel {
        client,
        local,
        peer,
        transparent,
    });
    streams(shard, &tunnel, server, &handle, life).await;
    counters.tunnels_server_open.add(-1);
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
async fn streams<T: crate::transport::Transport + 'static>(
    shard: &Rc<Shard>,
    tunnel: &Rc<Tunnel>,
    mut server: Server<T>,
    handle: &DrainHandle,
    life: TunnelLife,
) {
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
        handle.drain();
        life.ended().await;
        handle.abort();
        std::future::pending::<()>().await;
    };
    rt::race(accept, wind_down).await;
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
    let task = {
        let (shard, tunnel) = (Rc::clone(shard), Rc::clone(tunnel));
        async move { Box::pin(stream::serve(&shard, &tunnel, request, respond, at)).await }
    };
    shard.spawn(task, || {});
}
