//! Why no route was found.

use std::sync::Arc;

use super::Authority;
use crate::model::close::CloseReason;
use crate::model::workload::{Workload, WorkloadProtocol};

/// Why no way was found; texts of routing.md 8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The destination leads back to this node's own listeners; see [`super::self_call`].
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    /// A waypoint is configured but is not known or has no endpoint.
    #[error("unknown waypoint: waypoint {0} not found")]
    UnknownWaypoint(String),
    /// A network gateway is configured but is not known or has no endpoint.
    #[error("unknown network gateway: gateway {0} not found")]
    UnknownNetworkGateway(String),
    /// The workload has no address that may be used, or its network has no gateway.
    #[error(
        "no valid routing destination for workload: Workload{{{name} with uid {uid} ({protocol})}}"
    )]
    NoValidDestination {
        /// Instance name.
        name: Arc<str>,
        /// Primary key.
        uid: Arc<str>,
        /// `TCP` or `HBONE`.
        protocol: &'static str,
    },
    /// The service has no usable endpoint.
    #[error("no healthy upstream: {0}")]
    NoHealthyUpstream(Authority),
    /// The destination is on another network and was not addressed as a service.
    #[error("no service for target address: {0}")]
    NoService(Authority),
    /// The hostname names nothing the source may use.
    #[error("no service or workload for hostname: {0}")]
    UnknownHostname(Arc<str>),
    /// The service asks for the original address, and the client gave a name.
    #[error("service {0} passes traffic through to its address, but has no IP addresses")]
    PassthroughWithoutAddress(Arc<str>),
    /// DNS failed for a workload known by hostname only; its uid.
    #[error("no ip addresses were resolved for workload: {0}")]
    ResolutionFailed(Arc<str>),
    /// DNS answered without addresses; uid of the workload.
    #[error(
        "ip addresses were resolved for workload {0}, but valid dns response had no A/AAAA records"
    )]
    EmptyResolution(Arc<str>),
}

impl RouteError {
    pub(super) fn no_valid_destination(workload: &Workload) -> Self {
        Self::NoValidDestination {
            name: Arc::clone(&workload.name),
            uid: Arc::clone(&workload.uid),
            protocol: match workload.protocol {
                WorkloadProtocol::Tcp => "TCP",
                WorkloadProtocol::Hbone => "HBONE",
            },
        }
    }
}

impl From<RouteError> for CloseReason {
    fn from(error: RouteError) -> Self {
        Self::Route(error.to_string())
    }
}
