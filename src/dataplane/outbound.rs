//! Runs the stages for a connection leaving a workload: capture, route, dial, relay.

mod across;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use self::across::{Crossing, Uncounted};
use super::capture::{self, Captured};
use super::demand;
use super::dial::{self, DialError};
use super::hostnames;
use super::listener::Accepted;
use super::local::LocalKey;
use super::pool::{self, Key};
use super::relay::{self, Connection, Side};
use super::rt::{self, Socket};
use super::shard::Shard;
use super::slot::Slot;
use crate::config::ForwardTarget;
use crate::decision::authorize::Permit;
use crate::decision::route::{
    Authority, NextHop, Route, RouteError, RouteRequest, Target, Via, route,
};
use crate::hbone::connect::{ConnectRequest, Forwarded};
use crate::model::baggage::Baggage;
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::model::trace::TraceParent;
use crate::sys::socket::Source;
use crate::telemetry::OpenFlow;
use crate::telemetry::flow::{Direction, Ends, Flow, Party};
use crate::telemetry::open::Original;

/// Serves a captured connection; `own_port` is its listener's.
pub(crate) async fn captured(
    shard: Rc<Shard>,
    local: LocalKey,
    own_port: u16,
    accepted: Accepted,
    slot: Slot,
) {
    match capture::destination(&accepted.socket, own_port) {
        Ok(to) => run(&shard, &local, accepted, slot, Target::Address(to)).await,
        Err(error) => {
            let client = accepted.client.get();
            shard.refused(Direction::Outbound, client, None, &error);
            accepted.socket.reset_on_close();
        }
    }
}

/// Serves a connection of a forward.
pub(crate) async fn forward(
    shard: Rc<Shard>,
    local: LocalKey,
    to: ForwardTarget,
    accepted: Accepted,
    slot: Slot,
) {
    let target = capture::forward_target(&to);
    run(&shard, &local, accepted, slot, target).await;
}

async fn run(shard: &Rc<Shard>, local: &LocalKey, accepted: Accepted, slot: Slot, target: Target) {
    let socket = Rc::clone(&accepted.socket);
    match prepare(shard, local, accepted, target).await {
        Some(open) => open.relay(slot),
        None => socket.reset_on_close(),
    }
}

/// Everything before the relay. `None`: failed, and reported.
async fn prepare(
    shard: &Rc<Shard>,
    local: &LocalKey,
    accepted: Accepted,
    target: Target,
) -> Option<Open> {
    let client = accepted.client.get();
    let shown = shown(&target);
    match capture::identify(shard, local, accepted, target).await {
        Ok(captured) => connect(shard, captured).await.ok(),
        Err(error) => {
            shard.refused(Direction::Outbound, client, shown, &error);
            None
        }
    }
}

/// The address a log line shows for a target.
pub(super) const fn shown(target: &Target) -> Option<SocketAddr> {
    match target {
        Target::Address(to) => Some(to.get()),
        Target::Hostname(..) => None,
    }
}

/// What the client wanted, for operators.
fn wanted(target: &Target) -> Original {
    match target {
        Target::Address(to) => Original::Address(to.get()),
        Target::Hostname(host, port) => Original::Host(Arc::clone(host), Some(*port)),
    }
}

/// A connection with both sides open, not yet relayed.
#[derive(Debug)]
pub(crate) struct Open {
    client: Rc<Socket>,
    server: Side,
    flow: OpenFlow,
    #[cfg(any(test, feature = "faults"))]
    port: u16,
}

impl Open {
    /// Starts the relay.
    pub(crate) fn relay(self, slot: Slot) {
        let Self {
            client,
            server,
            flow,
            #[cfg(any(test, feature = "faults"))]
            port,
        } = self;
        #[cfg(any(test, feature = "faults"))]
        super::faults::trip(port);
        let (sides, permit) = ((Side::Tcp(client), server), Permit::outbound());
        let connection = Connection {
            slot,
            flow,
            closed: (),
        };
        relay::start(connection, sides, permit);
    }
}

/// Routes and dials. On failure everything is reported; the caller answers the client.
pub(crate) async fn connect(shard: &Rc<Shard>, captured: Captured) -> Result<Open, CloseReason> {
    match decide(shard, &captured).await {
        Ok(route) => dial_route(shard, &captured, route).await,
        Err(reason) => {
            let (client, to) = (captured.client.get(), shown(&captured.target));
            shard.refused(Direction::Outbound, client, to, &reason);
            Err(reason)
        }
    }
}

async fn decide(shard: &Shard, captured: &Captured) -> Result<Route, CloseReason> {
    let request = RouteRequest {
        source: Arc::clone(&captured.source),
        client: captured.client,
        target: captured.target.clone(),
        network: Arc::clone(&shard.config.network),
        hbone_port: shard.config.hbone_port(),
    };
    demand::settle(shard, &request).await?;
    route(&request, &shard.snapshot(), &mut |bound| {
        shard.random(bound)
    })
    .map_err(|error| CloseReason::Route(error.to_string()))
}

/// The route with the address that is dialled: a hostname is resolved now, an address of the family
/// the client asked for first (spec: routing 3.5).
async fn resolved(
    shard: &Shard,
    captured: &Captured,
    route: Route,
) -> Result<(Route, SocketAddr), RouteError> {
    let host = match &route.next_hop {
        NextHop::Address(addr) => {
            let addr = *addr;
            return Ok((route, addr));
        }
        NextHop::Hostname(host, _) => host,
    };
    let asked = Box::pin(hostnames::resolve(shard, host, &captured.source));
    let Some(answers) = asked.await else {
        return Err(route.resolution_failed());
    };
    let prefer_ipv6 = shown(&captured.target).is_some_and(|to| to.is_ipv6());
    let failed = route.resolution_failed();
    let route = route.resolved(&answers, prefer_ipv6, &mut |bound| shard.random(bound))?;
    match route.next_hop {
        NextHop::Address(addr) => Ok((route, addr)),
        NextHop::Hostname(..) => Err(failed),
    }
}

async fn dial_route(
    shard: &Rc<Shard>,
    captured: &Captured,
    route: Route,
) -> Result<Open, CloseReason> {
    let (route, next_hop) = match resolved(shard, captured, route).await {
        Ok(resolved) => resolved,
        Err(error) => {
            let reason = CloseReason::Route(error.to_string());
            let (client, to) = (captured.client.get(), shown(&captured.target));
            shard.refused(Direction::Outbound, client, to, &reason);
            return Err(reason);
        }
    };
    let double = matches!(route.via, Via::DoubleHbone { .. });
    let (flow, server) = dial_next_hop(shard, captured, &route, next_hop).await;
    let flow = flow.with_ends(Ends::outbound(wanted(&captured.target), next_hop, double));
    match server {
        Ok(server) => {
            let added = rt::now() - captured.at;
            shard
                .telemetry
                .counters()
                .added_latency_seconds
                .record(added);
            Ok(Open {
                client: Rc::clone(&captured.socket),
                server,
                flow,
                #[cfg(any(test, feature = "faults"))]
                port: match &captured.target {
                    Target::Address(to) => to.port(),
                    Target::Hostname(_, port) => *port,
                },
            })
        }
        Err(reason) => {
            flow.finish(&reason, rt::now());
            Err(reason)
        }
    }
}

/// Opens the server side.
async fn dial_next_hop(
    shard: &Rc<Shard>,
    captured: &Captured,
    route: &Route,
    next_hop: SocketAddr,
) -> (OpenFlow, Result<Side, CloseReason>) {
    let own = Arc::new(captured.source.identity());
    let trace = TraceParent::random(&mut || shard.random_bits());
    let flow = describe(captured, route, next_hop, &own, trace);
    let counted = |flow| shard.telemetry.opened(flow, captured.at);
    let key = Key {
        source: own,
        expected: Arc::clone(&route.next_hop_identities),
        next_hop,
    };
    match &route.via {
        Via::Tcp => {
            let flow = counted(flow);
            (flow, tcp(shard, next_hop).await)
        }
        Via::Hbone { authority } => {
            let flow = counted(flow);
            let request = request(captured, route, authority, trace);
            let opened = pool::open(shard, &key, &request).await;
            (flow, opened.map(|(stream, _)| Side::Pooled(stream)))
        }
        Via::DoubleHbone {
            authority,
            final_identities,
        } => {
            let crossing = Crossing {
                gateway: &key,
                expected: final_identities,
                request: request(captured, route, authority, trace),
            };
            let uncounted = Uncounted::new(&shard.telemetry, flow, captured.at);
            let opened = Box::pin(across::open(shard, crossing, uncounted));
            let (flow, stream) = opened.await;
            (flow, stream.map(Side::Pooled))
        }
    }
}

fn request(
    captured: &Captured,
    route: &Route,
    authority: &Authority,
    trace: TraceParent,
) -> ConnectRequest {
    let service = route.destination_service.as_ref();
    ConnectRequest {
        authority: authority.clone(),
        baggage: Baggage::from(&*captured.source),
        forwarded: Forwarded {
            client: Some(captured.client.get()),
            host: service.map(|service| Arc::clone(&service.hostname)),
        },
        traceparent: Some(trace),
        forwarded_network: None,
    }
}

async fn tcp(shard: &Shard, to: SocketAddr) -> Result<Side, CloseReason> {
    match dial::tcp(shard, to, Source::Any, &shard.connection_options()).await {
        Ok(socket) => Ok(Side::Tcp(socket)),
        Err(error @ (DialError::Io { .. } | DialError::TimedOut { .. })) => {
            Err(CloseReason::Connect(error.to_string()))
        }
    }
}

fn describe(
    captured: &Captured,
    route: &Route,
    next_hop: SocketAddr,
    own: &Arc<Identity>,
    trace: TraceParent,
) -> Flow {
    let authority = match &route.via {
        Via::Tcp => None,
        Via::Hbone { authority } | Via::DoubleHbone { authority, .. } => Some(authority.clone()),
    };
    let tunnelled = authority.is_some();
    let destination = route.destination_workload.clone();
    Flow {
        direction: Direction::Outbound,
        mutual_tls: tunnelled,
        source: Party {
            workload: Some(Arc::clone(&captured.source)),
            identity: tunnelled.then(|| Arc::clone(own)),
            baggage: None,
        },
        destination: Party {
            identity: destination
                .as_ref()
                .map(|workload| Arc::new(workload.identity())),
            workload: destination,
            baggage: None,
        },
        service: route.destination_service.clone(),
        src_addr: captured.client.get(),
        dst_addr: next_hop,
        hbone_addr: authority,
        // No line of another node speaks of a connection outside tunnels.
        trace_id: tunnelled.then_some(trace),
    }
}
