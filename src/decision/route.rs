//! Destination → Route: plain TCP, HBONE, through a waypoint, or across networks (spec: routing.md 3).

use std::net::SocketAddr;
use std::sync::Arc;

use super::Random;
pub use crate::model::addr::Authority;
use crate::model::addr::{ClientAddr, OrigDstAddr};
use crate::model::identity::Identity;
use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::snapshot::Snapshot;

/// How the bytes travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Plain TCP.
    Tcp,
    /// One CONNECT stream.
    Hbone {
        /// CONNECT target.
        authority: Authority,
    },
    /// A CONNECT stream inside another, across networks.
    DoubleHbone {
        /// CONNECT target of both.
        authority: Authority,
        /// Who may answer the inner tunnel.
        final_identities: Arc<[Identity]>,
    },
}

/// Next hop: an address, or a workload known by hostname only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Ready to dial.
    Address(SocketAddr),
    /// To be resolved first.
    Hostname(Arc<str>, u16),
}

/// Chosen way of an outbound connection.
#[derive(Clone, Debug)]
pub struct Route {
    /// Transport.
    pub via: Via,
    /// Where to dial.
    pub next_hop: NextHop,
    /// Workload actually dialled; none for passthrough.
    pub destination_workload: Option<Arc<Workload>>,
    /// Service the client addressed.
    pub destination_service: Option<Arc<Service>>,
    /// Who may answer the (outer) tunnel; empty accepts nobody.
    pub next_hop_identities: Arc<[Identity]>,
}

/// What the client meant to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address: captured traffic, SOCKS5, forwards to an address.
    Address(OrigDstAddr),
    /// A service hostname and service port: forwards and SOCKS5 by name.
    Hostname(Arc<str>, u16),
}

/// Input of [`route`].
#[derive(Clone, Debug)]
pub struct RouteRequest {
    /// Workload that sends.
    pub source: Arc<Workload>,
    /// Its address.
    pub client: ClientAddr,
    /// Where it wants to go.
    pub target: Target,
    /// Own network (`NETWORK`).
    pub network: Arc<str>,
    /// Port of inbound HBONE listeners (15008).
    pub hbone_port: u16,
}

/// Why no way was found; texts of routing.md 8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// SKELETON: the owner adds the variants.
    #[error("no healthy upstream: {0}")]
    NoHealthyUpstream(String),
}

/// Finds the way. SKELETON.
///
/// # Errors
/// See [`RouteError`].
pub fn route(
    _request: &RouteRequest,
    _snapshot: &Snapshot,
    _random: Random<'_>,
) -> Result<Route, RouteError> {
    unimplemented!()
}
