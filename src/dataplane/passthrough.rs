//! Runs the stages for captured plain text arriving at a workload: authorize, dial, relay.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::capture;
use super::dial;
use super::listener::Accepted;
use super::local;
use super::permission::permitted;
use super::relay::{self, Side};
use super::rt::{self, First};
use super::shard::Shard;
use crate::decision::authorize::ConnectionFacts;
use crate::decision::inbound::plaintext_service;
use crate::model::addr::{ClientAddr, NetworkAddress};
use crate::model::close::CloseReason;
use crate::model::workload::Workload;
use crate::telemetry::flow::{Direction, Flow, Party};

/// Serves one connection of port 15006.
pub(crate) async fn serve(shard: Rc<Shard>, transparent: bool, accepted: Accepted) {
    let socket = Rc::clone(&accepted.socket);
    let work = run(&shard, transparent, accepted);
    if let First::Left(()) = rt::race(shard.force.wait(), work).await {
        socket.reset_on_close();
    }
}

async fn run(shard: &Rc<Shard>, transparent: bool, accepted: Accepted) {
    let Accepted { socket, client, at } = accepted;
    let refuse = |to, error: &dyn std::fmt::Display| {
        shard.refused(Direction::Inbound, client.get(), to, error);
        socket.reset_on_close();
    };
    let to = match capture::destination(&socket) {
        Ok(to) => to.get(),
        Err(error) => return refuse(None, &error),
    };
    if shard.config.illegal_ports.contains(&to.port()) {
        return refuse(Some(to), &capture::CaptureError::SelfCall);
    }
    let workload = match local::workload(shard, &shard.local_key(to)).await {
        Ok(workload) => workload,
        Err(error) => return refuse(Some(to), &error),
    };
    let flow = describe(shard, client, to, &workload);
    let flow = shard.telemetry.opened(flow, at);
    let facts = ConnectionFacts {
        identity: None,
        source_ip: client.ip(),
        destination_ip: to.ip(),
        destination_port: to.port(),
        destination: workload,
    };
    let registration = shard.table.register(facts);
    let close = registration.entry().close.clone();
    let reason = match permitted(shard, &registration.entry().facts).await {
        Err(denied) => {
            if let Some(policy) = denied.policy() {
                flow.set_policy(Arc::clone(policy));
            }
            Err(CloseReason::from(denied))
        }
        Ok(permit) => {
            let source = dial::dial_source(transparent, client.ip(), to.ip());
            match dial::tcp(shard, to, source, &shard.connection_options()).await {
                Ok(server) => Ok((permit, server)),
                Err(error) => Err(CloseReason::Dial(error.to_string())),
            }
        }
    };
    let reason = match reason {
        Ok((permit, server)) => {
            let (client, server) = (Side::Tcp(Rc::clone(&socket)), Side::Tcp(server));
            relay::run(client, server, permit, &flow, &close).await
        }
        Err(reason) => {
            socket.reset_on_close();
            reason
        }
    };
    flow.finish(&reason, rt::now());
}

fn describe(shard: &Shard, client: ClientAddr, to: SocketAddr, workload: &Arc<Workload>) -> Flow {
    let snapshot = shard.snapshot();
    let source = NetworkAddress {
        network: Arc::clone(&shard.config.network),
        ip: client.ip(),
    };
    Flow {
        direction: Direction::Inbound,
        mutual_tls: false,
        source: Party {
            workload: snapshot.workload_by_address(&source).cloned(),
            identity: None,
            baggage: None,
        },
        destination: Party {
            identity: Some(Arc::new(workload.identity())),
            workload: Some(Arc::clone(workload)),
            baggage: None,
        },
        service: plaintext_service(workload, to.port(), &snapshot),
        src_addr: client.get(),
        dst_addr: to,
        hbone_addr: None,
        trace_id: None,
    }
}
