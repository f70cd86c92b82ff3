//! Stage 2: original destination and source workload → Captured.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::listener::Accepted;
use super::local::{self, LocalKey};
use super::rt::Socket;
use super::shard::Shard;
use crate::config::ForwardTarget;
use crate::decision::route::{Target, self_call};
use crate::model::addr::{ClientAddr, OrigDstAddr};
use crate::model::workload::Workload;
use crate::sys::socket::original_dst;

/// A connection whose sender and destination are known.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) socket: Rc<Socket>,
    pub(crate) client: ClientAddr,
    pub(crate) source: Arc<Workload>,
    pub(crate) target: Target,
    pub(crate) at: Instant,
}

/// Why a connection was not captured; texts of routing.md 8.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The destination would lead back to us.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    /// The socket's addresses cannot be read: the client has gone.
    #[error("cannot read the original destination: {0}")]
    OrigDst(#[source] std::io::Error),
    /// Nobody knows whom this node speaks for.
    #[error(transparent)]
    Workload(#[from] local::LocalError),
}

/// Where the kernel says the client meant to go. `own_port` is the listener's.
///
/// A client that dialled the listener itself is refused: the connection would be dialled on to where
/// it came in, again and again.
pub(crate) fn destination(socket: &Socket, own_port: u16) -> Result<OrigDstAddr, CaptureError> {
    let to = original_dst(socket.fd())
        .map(OrigDstAddr::new)
        .map_err(CaptureError::OrigDst)?;
    let local = socket.local_addr().map_err(CaptureError::OrigDst)?;
    if to.get() == local && to.port() == own_port {
        return Err(CaptureError::SelfCall);
    }
    Ok(to)
}

/// Completes a connection whose target is known.
pub(crate) async fn identify(
    shard: &Shard,
    local: &LocalKey,
    accepted: Accepted,
    target: Target,
) -> Result<Captured, CaptureError> {
    if let Target::Address(to) = &target
        && self_call(to.get(), &shard.config.illegal_ports)
    {
        return Err(CaptureError::SelfCall);
    }
    let Accepted { socket, client, at } = accepted;
    let source = local::source(shard, local, &socket, client.get()).await?;
    Ok(Captured {
        socket,
        client,
        source,
        target,
        at,
    })
}

/// Target of a forward.
pub(crate) fn forward_target(to: &ForwardTarget) -> Target {
    match to {
        ForwardTarget::Address(addr) => Target::Address(OrigDstAddr::new(*addr)),
        ForwardTarget::Hostname(host, port) => Target::Hostname(Arc::clone(host), *port),
    }
}
