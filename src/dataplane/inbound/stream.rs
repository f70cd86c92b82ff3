//! One stream of a tunnel a peer opened: resolve, authorize, dial, answer, relay (hbone.md 6).

use std::fmt::Display;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Tunnel;
use crate::dataplane::dial::{self, dial_source};
use crate::dataplane::permission::permitted;
use crate::dataplane::relay::{self, Side};
use crate::dataplane::rt::{self, First};
use crate::dataplane::shard::Shard;
use crate::dataplane::{local, proxy_protocol};
use crate::decision::authorize::{ConnectionFacts, Permit};
use crate::decision::inbound::{InboundRequest, InboundTarget, resolve};
use crate::hbone::connect::ConnectRequest;
use crate::hbone::server::Respond;
use crate::model::addr::NetworkAddress;
use crate::model::baggage::Baggage;
use crate::model::close::CloseReason;
use crate::model::workload::{AppTunnelProtocol, Workload};
use crate::sys::socket::Source;
use crate::telemetry::OpenFlow;
use crate::telemetry::flow::{Direction, Flow, Party};

/// Serves one request whose form is right.
pub(super) async fn serve(
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
    flow: &'a OpenFlow,
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
    crate::dataplane::faults::trip(target.address.port());
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
