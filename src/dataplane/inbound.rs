//! Runs the stages for tunnels and streams arriving by HBONE: identify, resolve, authorize, dial,
//! answer, relay (spec: hbone.md 6).

use std::fmt::Display;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::dial;
use super::listener::Accepted;
use super::local;
use super::notes;
use super::relay::{self, Side};
use super::rt::{self, First, PollSocket};
use super::shard::{Shard, TunnelLife};
use crate::decision::authorize::{ConnectionFacts, Denied, Permit, authorize};
use crate::decision::inbound::{InboundRequest, InboundTarget, resolve};
use crate::hbone::connect::ConnectRequest;
use crate::hbone::server::{self, DrainHandle, Incoming, Respond, Server};
use crate::model::addr::NetworkAddress;
use crate::model::baggage::Baggage;
use crate::model::close::CloseReason;
use crate::model::workload::Workload;
use crate::sys::socket::Source;
use crate::telemetry::counters::{Limit, Role};
use crate::telemetry::flow::{Direction, Flow, Party};
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
        drop(rt::race(shard.drain.wait(), life.graceful()).await);
        handle.drain();
        life.ended().await;
        handle.abort();
        std::future::pending::<()>().await;
    };
    drop(rt::race(accept, wind_down).await);
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
        async move { stream(&shard, &tunnel, request, respond, at).await }
    };
    shard.spawn(task, || {});
}

async fn stream(
    shard: &Rc<Shard>,
    tunnel: &Tunnel,
    request: ConnectRequest,
    respond: Respond,
    at: Instant,
) {
    let refuse = |status, error: &dyn Display, respond: Respond| {
        shard.refused(Direction::Inbound, tunnel.client, Some(tunnel.local), error);
        respond.refuse(status);
    };
    let workload = match local::workload(shard, &shard.local_key(tunnel.local)).await {
        Ok(workload) => workload,
        Err(error) => return refuse(503, &error, respond),
    };
    let target = resolve(
        &InboundRequest {
            local: &workload,
            tunnel_local: tunnel.local,
            authority: &request.authority,
            forwarded_host: request.forwarded.host.as_deref(),
            network: &shard.config.network,
            illegal_ports: &shard.config.illegal_ports,
        },
        &shard.snapshot(),
    );
    let target = match target {
        Ok(target) => target,
        Err(error) => return refuse(error.status(), &error, respond),
    };
    let flow = describe(shard, tunnel, &request, &workload, &target);
    let flow = shard.telemetry.opened(flow, at);
    let registration = shard.table.register(ConnectionFacts {
        identity: tunnel.peer.identity.clone(),
        source_ip: tunnel.client.ip(),
        destination_ip: target.address.ip(),
        destination_port: target.address.port(),
        destination: Arc::clone(&workload),
    });
    let entry = registration.entry();
    let work = async {
        let permit = match permitted(shard, &entry.facts).await {
            Ok(permit) => permit,
            Err(denied) => {
                respond.refuse(401);
                if let Some(policy) = denied.policy() {
                    flow.set_policy(Arc::clone(policy));
                }
                return CloseReason::from(denied);
            }
        };
        serve_permitted(
            shard,
            tunnel,
            &workload,
            &target,
            respond,
            Work {
                permit,
                flow: &flow,
                close: &entry.close,
            },
        )
        .await
    };
    let reason = match rt::race(shard.force.wait(), work).await {
        First::Left(()) => CloseReason::Drain,
        First::Right(reason) => reason,
    };
    flow.finish(&reason, rt::now());
}

/// What an authorized stream carries to its relay.
struct Work<'a> {
    permit: Permit,
    flow: &'a crate::telemetry::OpenFlow,
    close: &'a rt::Signal<CloseReason>,
}

async fn serve_permitted(
    shard: &Rc<Shard>,
    tunnel: &Tunnel,
    workload: &Workload,
    target: &InboundTarget,
    mut respond: Respond,
    work: Work<'_>,
) -> CloseReason {
    let (to, source) = dial_address(shard, tunnel, workload, target);
    let options = shard.connection_options();
    let dialled = {
        let dial = dial::tcp(shard, to, source, &options);
        let gone = poll_fn(|cx| respond.poll_reset(cx));
        rt::race(dial, rt::race(gone, work.close.wait())).await
    };
    let server = match dialled {
        First::Left(Ok(server)) => server,
        First::Left(Err(error)) => {
            respond.refuse(503);
            return CloseReason::Dial(error.to_string());
        }
        First::Right(First::Left(_)) => return CloseReason::ClientReset,
        First::Right(First::Right(reason)) => {
            respond.refuse(401);
            return reason;
        }
    };
    let baggage = shard
        .config
        .response_baggage
        .then(|| Baggage::from(workload));
    let stream = match respond.accept(baggage.as_ref()) {
        Ok(stream) => stream,
        Err(error) => {
            server.reset_on_close();
            return CloseReason::Http2(error.to_string());
        }
    };
    if let Some(header) = proxy_header(tunnel, workload, target)
        && let Err(error) = relay::send_all(&server, &header).await
    {
        server.reset_on_close();
        return CloseReason::Dial(error.to_string());
    }
    #[cfg(feature = "faults")]
    super::faults::trip(target.address.port());
    relay::run(
        Side::Accepted(stream),
        Side::Tcp(server),
        work.permit,
        work.flow,
        work.close,
    )
    .await
}

/// PROXY version 2 header, when the workload's application tunnel asks for one (hbone.md 9).
fn proxy_header(tunnel: &Tunnel, workload: &Workload, target: &InboundTarget) -> Option<Vec<u8>> {
    use crate::model::workload::AppTunnelProtocol;
    let wanted = workload.application_tunnel?.protocol == AppTunnelProtocol::Proxy;
    let announce = target.announce.filter(|_| wanted)?;
    Some(super::proxy_protocol::header(
        tunnel.client,
        announce,
        tunnel.peer.identity.as_deref(),
    ))
}

/// Where the application is dialled, and from which address (hbone.md 8).
fn dial_address(
    shard: &Shard,
    tunnel: &Tunnel,
    workload: &Workload,
    target: &InboundTarget,
) -> (SocketAddr, Source) {
    use crate::model::workload::AppTunnelProtocol;
    let to = target.address;
    let proxied = workload
        .application_tunnel
        .is_some_and(|tunnel| tunnel.protocol == AppTunnelProtocol::Proxy);
    if proxied && shard.config.localhost_app_tunnel {
        let loopback: IpAddr = if to.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        return (SocketAddr::new(loopback, to.port()), Source::Any);
    }
    (
        to,
        dial_source(tunnel.transparent, tunnel.client.ip(), to.ip()),
    )
}

/// The client's address as source, where that is enabled and means anything.
pub(crate) fn dial_source(transparent: bool, client: IpAddr, to: IpAddr) -> Source {
    if transparent && client != to && !client.is_loopback() {
        Source::Foreign(client)
    } else {
        Source::Any
    }
}

/// Authorizes, waiting a moment for a policy that is attached but not known yet (then: denied).
pub(crate) async fn permitted(shard: &Shard, facts: &ConnectionFacts) -> Result<Permit, Denied> {
    let wait = shard.config.timeouts.policy_wait;
    let decide = || {
        let decision = authorize(facts, &shard.snapshot());
        notes::report(shard, facts, &decision.notes);
        decision.verdict
    };
    let first = match decide() {
        Err(denied @ Denied::PolicyUnknown { .. }) => denied,
        verdict => return verdict,
    };
    let later = async {
        loop {
            let changed = shard.changed.next();
            match decide() {
                Err(Denied::PolicyUnknown { .. }) => changed.await,
                verdict => return verdict,
            }
        }
    };
    match rt::within(wait, later).await {
        Some(verdict) => verdict,
        None => {
            shard.telemetry.counters().limit(Limit::PolicyWait).add(1);
            Err(first)
        }
    }
}

fn describe(
    shard: &Shard,
    tunnel: &Tunnel,
    request: &ConnectRequest,
    workload: &Arc<Workload>,
    target: &InboundTarget,
) -> Flow {
    let config = &shard.config;
    let network = &config.network;
    // A request from another network comes through its gateway, whose address says nothing.
    let via_gateway = request
        .forwarded_network
        .as_deref()
        .is_some_and(|from| !from.eq_ignore_ascii_case(network));
    let address = NetworkAddress {
        network: Arc::clone(network),
        ip: tunnel.client.ip(),
    };
    let source = if via_gateway {
        None
    } else {
        shard.snapshot().workload_by_address(&address).cloned()
    };
    let baggage = config
        .response_baggage
        .then(|| Arc::new(request.baggage.clone()));
    Flow {
        direction: Direction::Inbound,
        mutual_tls: true,
        source: Party {
            workload: source,
            identity: tunnel.peer.identity.clone(),
            baggage,
        },
        destination: Party {
            workload: Some(Arc::clone(workload)),
            identity: Some(Arc::new(workload.identity())),
            baggage: None,
        },
        service: target.service.clone(),
        src_addr: tunnel.client,
        dst_addr: tunnel.local,
        hbone_addr: Some(request.authority.clone()),
        trace_id: request.traceparent,
    }
}
