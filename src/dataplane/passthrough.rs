//! Runs the stages for captured plain text arriving at a workload: authorize, dial, relay.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::capture;
use super::dial;
use super::listener::Accepted;
use super::local;
use super::permission::permitted;
use super::relay::{self, Connection, Side};
use super::rt::{self, First, Socket};
use super::shard::Shard;
use super::slot::Slot;
use super::table::Registration;
use crate::decision::authorize::{ConnectionFacts, Permit};
use crate::decision::inbound::plaintext_service;
use crate::model::addr::{ClientAddr, NetworkAddress};
use crate::model::close::CloseReason;
use crate::model::workload::Workload;
use crate::sys::socket::Source;
use crate::telemetry::OpenFlow;
use crate::telemetry::flow::{Direction, Flow, Party};

/// Serves one connection of port 15006; `own_port` is its listener's.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    transparent: bool,
    own_port: u16,
    accepted: Accepted,
    slot: Slot,
) {
    let socket = Rc::clone(&accepted.socket);
    let prepared = prepare(&shard, transparent, own_port, accepted).await;
    let Some((open, outcome)) = prepared else {
        return socket.reset_on_close();
    };
    let Open { flow, registration } = open;
    match outcome {
        Ok((permit, server)) => {
            let sides = (Side::Tcp(socket), Side::Tcp(server));
            let connection = Connection {
                slot,
                flow,
                closed: registration,
            };
            relay::start(connection, sides, permit);
        }
        Err(reason) => {
            socket.reset_on_close();
            flow.finish(&reason, rt::now());
        }
    }
}

/// A connection that is counted, and in the table of those a policy change may close.
struct Open {
    flow: OpenFlow,
    registration: Registration,
}

type Outcome = Result<(Permit, Rc<Socket>), CloseReason>;

/// Everything before the relay. `None`: refused before its context was complete, and reported.
async fn prepare(
    shard: &Rc<Shard>,
    transparent: bool,
    own_port: u16,
    accepted: Accepted,
) -> Option<(Open, Outcome)> {
    let Accepted { socket, client, at } = accepted;
    let refuse = |to, error: &dyn std::fmt::Display| {
        shard.refused(Direction::Inbound, client.get(), to, error);
        None
    };
    let to = match capture::destination(&socket, own_port) {
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
    let registration = shard.table.register(ConnectionFacts {
        identity: None,
        source_ip: client.ip(),
        destination_ip: to.ip(),
        destination_port: to.port(),
        destination: workload,
    });
    let open = Open { flow, registration };
    let source = dial::dial_source(transparent, client.ip(), to.ip());
    let outcome = authorize_and_dial(shard, &open, to, source).await;
    Some((open, outcome))
}

async fn authorize_and_dial(shard: &Shard, open: &Open, to: SocketAddr, source: Source) -> Outcome {
    let entry = open.registration.entry();
    let permit = permitted(shard, &entry.facts).await.map_err(|denied| {
        if let Some(policy) = denied.policy() {
            open.flow.set_policy(Arc::clone(policy));
        }
        CloseReason::from(denied)
    })?;
    let options = shard.connection_options();
    let dial = dial::tcp(shard, to, source, &options);
    match rt::race(entry.close.wait(), dial).await {
        First::Left(reason) => Err(reason),
        First::Right(Ok(server)) => Ok((permit, server)),
        First::Right(Err(error)) => Err(CloseReason::Dial(error.to_string())),
    }
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
