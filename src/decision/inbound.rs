//! CONNECT authority → application address (spec: routing.md 5.3, 5.4, 7; hbone.md 7, 8).

use std::net::SocketAddr;
use std::sync::Arc;

use super::route::Authority;
use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::snapshot::Snapshot;

/// Input of [`resolve`].
#[derive(Clone, Debug)]
pub struct InboundRequest<'a> {
    /// The local workload the stream is for.
    pub local: &'a Arc<Workload>,
    /// Local address of the tunnel's TCP connection, canonical.
    pub tunnel_local: SocketAddr,
    /// CONNECT authority.
    pub authority: &'a Authority,
    /// `host=` of the `forwarded` header.
    pub forwarded_host: Option<&'a str>,
    /// Own network.
    pub network: &'a Arc<str>,
    /// Ports that lead back to us.
    pub illegal_ports: &'a [u16],
}

/// Where an inbound stream goes.
#[derive(Clone, Debug)]
pub struct InboundTarget {
    /// Application address: tunnel IP and resolved port. The port authorization looks at.
    pub address: SocketAddr,
    /// Address to announce in a PROXY header, when the application tunnel wants one.
    pub announce: Option<SocketAddr>,
    /// Service the stream is booked on.
    pub service: Option<Arc<Service>>,
}

/// Why a stream has no target; `status` is the CONNECT answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboundError {
    /// SKELETON: the owner adds the variants.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
}

impl InboundError {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        503
    }
}

/// Validates the authority and finds the application. SKELETON.
///
/// # Errors
/// See [`InboundError`].
pub fn resolve(
    _request: &InboundRequest<'_>,
    _snapshot: &Snapshot,
) -> Result<InboundTarget, InboundError> {
    unimplemented!()
}

/// Service a plain-text connection is booked on (routing 7, rule 2).
#[must_use]
pub fn plaintext_service(
    _local: &Workload,
    _port: u16,
    _snapshot: &Snapshot,
) -> Option<Arc<Service>> {
    unimplemented!()
}
