//! Runs the stages for one stream of a tunnel: resolve, authorize, dial, answer, relay
//! (spec: hbone.md 6).

use std::fmt::Display;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Tunnel;
use crate::config::limits::DEMAND_ROUNDS_MAX;
use crate::dataplane::dial::{self, dial_source};
use crate::dataplane::local::LocalError;
use crate::dataplane::permission::permitted;
use crate::dataplane::relay::{self, Closed, Connection, Side};
use crate::dataplane::rt::{self, First, Socket};
use crate::dataplane::shard::Shard;
use crate::dataplane::slot::Slot;
use crate::dataplane::table::Registration;
use crate::dataplane::{demand, local, proxy_protocol};
use crate::decision::authorize::{ConnectionFacts, Permit};
use crate::decision::inbound::{InboundError, InboundRequest, InboundTarget, missing, resolve};
use crate::decision::route::Authority;
use crate::hbone::connect::ConnectRequest;
use crate::hbone::server::Respond;
use crate::hbone::stream::Stream;
use crate::model::addr::NetworkAddress;
use crate::model::baggage::Baggage;
use crate::model::close::CloseReason;
use crate::model::workload::{AppTunnelProtocol, Workload};
use crate::sys::socket::Source;
use crate::telemetry::OpenFlow;
use crate::telemetry::flow::{Direction, Ends, Flow, Party};

/// Serves one request.
pub(in crate::dataplane) async fn serve(
    shard: Rc<Shard>,
    tunnel: Rc<Tunnel>,
    request: ConnectRequest,
    respond: Respond,
    at: Instant,
    slot: Slot,
) {
    let Some((open, outcome)) = prepare(&shard, &tunnel, request, respond, at).await else {
        return;
    };
    let Open { flow, registration } = open;
    match outcome {
        Ok(ready) => {
            #[cfg(any(test, feature = "faults"))]
            crate::dataplane::faults::trip(registration.entry().facts.destination_port);
            let sides = (Side::Accepted(ready.stream), Side::Tcp(ready.server));
            let connection = Connection {
                slot,
                flow,
                closed: Watched {
                    registration,
                    tunnel,
                },
            };
            relay::start(connection, sides, ready.permit);
        }
        Err(reason) => flow.finish(&tunnel.reason(reason), rt::now()),
    }
}

/// What ends an open stream besides itself: a policy change, and the end of its tunnel, which knows why.
#[derive(Debug)]
pub(in crate::dataplane) struct Watched {
    registration: Registration,
    tunnel: Rc<Tunnel>,
}

impl Closed for Watched {
    fn closed(&self) -> impl Future<Output = CloseReason> {
        self.registration.closed()
    }

    fn reason(&self, reason: CloseReason) -> CloseReason {
        self.tunnel.reason(reason)
    }
}

/// A stream that is counted, and in the table of those a policy change may close.
struct Open {
    flow: OpenFlow,
    registration: Registration,
}

/// A stream that was answered with 200.
struct Ready {
    permit: Permit,
    stream: Stream,
    server: Rc<Socket>,
}

/// Everything before the relay. `None`: refused before its context was complete, and reported.
async fn prepare(
    shard: &Rc<Shard>,
    tunnel: &Tunnel,
    request: ConnectRequest,
    respond: Respond,
    at: Instant,
) -> Option<(Open, Result<Ready, CloseReason>)> {
    let refuse = |status, error: &dyn Display, respond: Respond| {
        shard.refused(Direction::Inbound, tunnel.client, Some(tunnel.local), error);
        respond.refuse(status);
        None
    };
    let workload = match local::workload(shard, &shard.local_key(tunnel.local)).await {
        Ok(workload) => workload,
        Err(error) => return refuse(503, &error, respond),
    };
    if workload.identity() != tunnel.identity {
        // The address has a new owner, and the peer has verified the old one.
        tunnel.handle.drain();
        let error = format_args!(
            "the tunnel was opened to {}, but the address now belongs to {}",
            tunnel.identity,
            workload.identity()
        );
        return refuse(503, &error, respond);
    }
    let workload = match of_authority(shard, tunnel, &request.authority, workload).await {
        Ok(workload) => workload,
        Err(error) => return refuse(503, &error, respond),
    };
    let inbound = InboundRequest {
        local: &workload,
        tunnel_local: tunnel.local,
        authority: &request.authority,
        forwarded_host: request.forwarded.host.as_deref(),
        network: &shard.config.network,
        illegal_ports: &shard.config.illegal_ports,
    };
    let target = match find_target(shard, &inbound).await {
        Ok(target) => target,
        Err(error) => return refuse(error.status(), &error, respond),
    };
    // Only now is it known whose port a hostname leads to: that one's policies decide.
    let workload = match &request.authority {
        Authority::Address(_) => workload,
        Authority::Hostname(..) => match local::behind(shard, workload, target.address).await {
            Ok(workload) => workload,
            Err(error) => return refuse(503, &error, respond),
        },
    };
    let flow = describe(shard, tunnel, &request, &workload, &target);
    let ends = Ends::inbound(request.forwarded.host.clone(), target.address);
    let flow = shard.telemetry.opened(flow, at).with_ends(Some(ends));
    let registration = shard.table.register(ConnectionFacts {
        identity: tunnel.peer.identity.clone(),
        source_ip: tunnel.client.ip(),
        destination_ip: target.address.ip(),
        destination_port: target.address.port(),
        destination: Arc::clone(&workload),
    });
    let open = Open { flow, registration };
    let stage = Stage {
        shard,
        tunnel,
        workload: &workload,
        target: &target,
    };
    let outcome = stage.run(&open, respond).await;
    Some((open, outcome))
}

/// The workload a stream is for, of those that share an address, as far as the authority says it; where a
/// hostname leads to is found out later.
async fn of_authority(
    shard: &Shard,
    tunnel: &Tunnel,
    authority: &Authority,
    owner: Arc<Workload>,
) -> Result<Arc<Workload>, LocalError> {
    match authority {
        Authority::Hostname(..) => Ok(owner),
        Authority::Address(to) => {
            let to = SocketAddr::new(tunnel.local.ip(), to.port());
            local::behind(shard, owner, to).await
        }
    }
}

/// Where the stream goes; what it leads to and nobody knows is asked for first, where that can be.
async fn find_target(
    shard: &Shard,
    request: &InboundRequest<'_>,
) -> Result<InboundTarget, InboundError> {
    let mut asked = Vec::new();
    loop {
        let snapshot = shard.snapshot();
        let found = resolve(request, &snapshot);
        let Err(error) = &found else { return found };
        let Some(key) = missing(request, error, &snapshot) else {
            return found;
        };
        if asked.contains(&key) || asked.len() >= DEMAND_ROUNDS_MAX {
            return found;
        }
        drop(snapshot);
        // Boxed, like all that seldom happens.
        if Box::pin(demand::look_up(shard, &key)).await.is_err() {
            return found;
        }
        asked.push(key);
    }
}

/// What the stages from authorization on look at.
struct Stage<'a> {
    shard: &'a Rc<Shard>,
    tunnel: &'a Tunnel,
    workload: &'a Workload,
    target: &'a InboundTarget,
}

impl Stage<'_> {
    /// Authorizes, dials the application and answers.
    async fn run(&self, open: &Open, mut respond: Respond) -> Result<Ready, CloseReason> {
        let entry = open.registration.entry();
        let permit = match permitted(self.shard, &entry.facts).await {
            Ok(permit) => permit,
            Err(denied) => {
                respond.refuse(401);
                if let Some(policy) = denied.policy() {
                    open.flow.set_policy(Arc::clone(policy));
                }
                return Err(CloseReason::from(denied));
            }
        };
        let (to, source) = dial_address(self.shard, self.tunnel, self.workload, self.target);
        let options = self.shard.connection_options();
        let dialled = {
            let dial = dial::tcp(self.shard, to, source, &options);
            let gone = poll_fn(|cx| respond.poll_reset(cx));
            // A verdict that has changed goes before a dial that has succeeded.
            rt::race(entry.close.wait(), rt::race(dial, gone)).await
        };
        let server = match dialled {
            First::Left(reason) => {
                respond.refuse(401);
                return Err(reason);
            }
            First::Right(First::Left(Ok(server))) => server,
            First::Right(First::Left(Err(error))) => {
                respond.refuse(503);
                return Err(CloseReason::Dial(error.to_string()));
            }
            First::Right(First::Right(_)) => return Err(CloseReason::ClientReset),
        };
        let stream = self.answer(respond, &server).await;
        match stream {
            Ok(stream) => Ok(Ready {
                permit,
                stream,
                server,
            }),
            Err(reason) => {
                server.reset_on_close();
                Err(reason)
            }
        }
    }

    /// 200, and the PROXY header if one is wanted.
    async fn answer(&self, respond: Respond, server: &Socket) -> Result<Stream, CloseReason> {
        let baggage = self.shard.config.response_baggage;
        let baggage = baggage.then(|| Baggage::from(self.workload));
        let stream = respond
            .accept(baggage.as_ref())
            .map_err(|error| CloseReason::Http2(error.to_string()))?;
        if let Some(header) = proxy_header(self.tunnel, self.workload, self.target) {
            relay::send_all(server, &header)
                .await
                .map_err(|error| CloseReason::Dial(error.to_string()))?;
        }
        Ok(stream)
    }
}

/// PROXY version 2 header, when the workload's application tunnel asks for one (hbone.md 9).
fn proxy_header(tunnel: &Tunnel, workload: &Workload, target: &InboundTarget) -> Option<Vec<u8>> {
    let wanted = workload.application_tunnel?.protocol == AppTunnelProtocol::Proxy;
    let announce = target.announce.filter(|_| wanted)?;
    Some(proxy_protocol::header(
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

fn describe(
    shard: &Shard,
    tunnel: &Tunnel,
    request: &ConnectRequest,
    workload: &Arc<Workload>,
    target: &InboundTarget,
) -> Flow {
    let config = &shard.config;
    let network = &config.network;
    let address = NetworkAddress {
        network: Arc::clone(network),
        ip: tunnel.client.ip(),
    };
    let source = if crossed(request, network) {
        None
    } else {
        shard.snapshot().workload_by_address(&address).cloned()
    };
    // The record wins over the baggage.
    let baggage =
        (config.response_baggage && source.is_none()).then(|| Arc::new(request.baggage.clone()));
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

/// Whether a request comes from another network than `own`, through its gateway, whose address says
/// nothing of the source (spec: routing 5.6).
fn crossed(request: &ConnectRequest, own: &str) -> bool {
    let from = request.forwarded_network.as_deref();
    from.is_some_and(|from| !from.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hbone::connect::Forwarded;
    use crate::model::addr::Authority;

    #[test]
    fn only_another_network_than_our_own_makes_the_address_mean_nothing() {
        for (from, own, expected) in [
            (None, "far", false),
            (None, "", false),
            (Some("far"), "far", false),
            (Some("FAR"), "far", false),
            (Some("near"), "far", true),
            (Some(""), "far", true),
            (Some("near"), "", true),
            (Some(""), "", false),
            (Some("far "), "far", true),
        ] {
            let request = ConnectRequest {
                authority: Authority::Hostname("example.com".into(), 80),
                baggage: Baggage::default(),
                forwarded: Forwarded::default(),
                traceparent: None,
                forwarded_network: from.map(str::to_owned),
            };
            assert_eq!(crossed(&request, own), expected, "{from:?} at {own:?}");
        }
    }
}
