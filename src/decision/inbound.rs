//! CONNECT authority → application address (spec: routing.md 5.3, 5.4, 7; hbone.md 7, 8).
//!
//! The address dialled is always the one the tunnel arrived at; the authority decides the port and
//! must name this workload, or something this workload is the waypoint of.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::missing::{address_key, hostname_key};
use super::route::{Authority, referenced};
use crate::model::addr::NetworkAddress;
use crate::model::close::CloseReason;
use crate::model::gateway::GatewayAddress;
use crate::model::service::Service;
use crate::model::workload::{AppTunnelProtocol, Workload};
use crate::snapshot::{Address, Snapshot};

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
    /// The port is one of our own listeners'.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    /// The authority names neither this workload nor anything behind it.
    #[error("ip mismatch: {destination} != {authority}")]
    IpMismatch {
        /// Local address of the tunnel.
        destination: IpAddr,
        /// Address in the authority.
        authority: IpAddr,
    },
    /// No service of that name, or none this workload may see.
    #[error("no service or workload for hostname: {0}")]
    UnknownHostname(Arc<str>),
    /// The service has no such port, or a named one this workload does not map.
    #[error("requested service {host}:{port} found, but cannot resolve port")]
    PortUnresolved {
        /// Hostname in the authority.
        host: Arc<str>,
        /// Service port in the authority.
        port: u16,
    },
    /// The PROXY header needs an address and the service has none.
    #[error("requested service {0} found, but has no IP addresses")]
    NoAddress(Arc<str>),
}

impl InboundError {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::IpMismatch { .. } => 400,
            Self::SelfCall
            | Self::UnknownHostname(_)
            | Self::PortUnresolved { .. }
            | Self::NoAddress(_) => 503,
        }
    }
}

impl From<InboundError> for CloseReason {
    fn from(error: InboundError) -> Self {
        Self::Route(error.to_string())
    }
}

/// Whether an inbound connection is for one of our own listeners, at any address.
#[must_use]
pub fn self_call(port: u16, illegal_ports: &[u16]) -> bool {
    illegal_ports.contains(&port)
}

/// Validates the authority and finds the application.
///
/// # Errors
/// See [`InboundError`].
pub fn resolve(
    request: &InboundRequest<'_>,
    snapshot: &Snapshot,
) -> Result<InboundTarget, InboundError> {
    let named = match request.authority {
        Authority::Address(address) => {
            validate(request, address.ip(), snapshot)?;
            None
        }
        Authority::Hostname(host, _) => {
            let namespace = Some(&*request.local.namespace);
            let service = snapshot
                .service_by_host(host, namespace)
                .ok_or_else(|| InboundError::UnknownHostname(Arc::clone(host)))?;
            Some(service)
        }
    };
    let port = match (request.authority, named) {
        (Authority::Hostname(host, port), Some(service)) => {
            service_target(service, request.local, *port).ok_or_else(|| {
                InboundError::PortUnresolved {
                    host: Arc::clone(host),
                    port: *port,
                }
            })?
        }
        (authority, _) => authority.port(),
    };
    if self_call(port, request.illegal_ports) {
        return Err(InboundError::SelfCall);
    }
    let (port, announce) = through_tunnel(request, named, port)?;
    Ok(InboundTarget {
        address: SocketAddr::new(request.tunnel_local.ip(), port),
        announce,
        service: match named {
            Some(service) => booked(std::iter::once(service), request, port),
            None => booked(services_of(request.local, snapshot), request, port),
        },
    })
}

/// Service a plain-text connection is booked on (routing 7, rule 2).
#[must_use]
pub fn plaintext_service(local: &Workload, port: u16, snapshot: &Snapshot) -> Option<Arc<Service>> {
    services_of(local, snapshot)
        .find(|service| leads_to(service, local, port))
        .cloned()
}

/// Routing 5.3. The comparison is literal: an IPv4-mapped authority is not its IPv4 form.
fn validate(
    request: &InboundRequest<'_>,
    authority: IpAddr,
    snapshot: &Snapshot,
) -> Result<(), InboundError> {
    let destination = request.tunnel_local.ip();
    if authority == destination
        || request.local.application_tunnel.is_some()
        || is_waypoint_of(request, authority, snapshot)
    {
        return Ok(());
    }
    Err(InboundError::IpMismatch {
        destination,
        authority,
    })
}

/// What the snapshot does not hold and might have led `resolve` to another answer than `error`: a
/// key to ask the control plane for (spec: routing.md 1.6, 5.3).
#[must_use]
pub fn missing(
    request: &InboundRequest<'_>,
    error: &InboundError,
    snapshot: &Snapshot,
) -> Option<Arc<str>> {
    match error {
        InboundError::UnknownHostname(host) => {
            let key = hostname_key(host, &request.local.namespace);
            Some(key.to_string().into())
        }
        InboundError::IpMismatch { authority, .. } => {
            let Some(found) = found_at(request, *authority, snapshot) else {
                return Some(address_key(request.network, *authority));
            };
            let waypoint = waypoint_of(&found)?;
            let known = referenced(&waypoint.destination, snapshot).is_some();
            (!known).then(|| waypoint.destination.to_string().into())
        }
        InboundError::SelfCall
        | InboundError::PortUnresolved { .. }
        | InboundError::NoAddress(_) => None,
    }
}

fn found_at(request: &InboundRequest<'_>, ip: IpAddr, snapshot: &Snapshot) -> Option<Address> {
    let network = Arc::clone(request.network);
    snapshot.find_address(&NetworkAddress { network, ip }, None)
}

/// The waypoint that is checked. The weighted set of a service is not looked at.
fn waypoint_of(found: &Address) -> Option<&GatewayAddress> {
    match found {
        Address::Workload(workload) => workload.waypoint.as_ref(),
        Address::Service(service) => service.waypoint.as_ref(),
    }
}

/// Whether the local workload is the waypoint of whatever has this address.
fn is_waypoint_of(request: &InboundRequest<'_>, authority: IpAddr, snapshot: &Snapshot) -> bool {
    let found = found_at(request, authority, snapshot);
    let Some(waypoint) = found.as_ref().and_then(waypoint_of) else {
        return false;
    };
    match referenced(&waypoint.destination, snapshot) {
        Some(Address::Service(service)) => service.endpoints.contains_key(&request.local.uid),
        Some(Address::Workload(workload)) => {
            workload.addresses.contains(&request.tunnel_local.ip())
        }
        None => false,
    }
}

/// Target port of `port` of `service` on this workload: its own map, then the service's.
fn service_target(service: &Service, local: &Workload, port: u16) -> Option<u16> {
    let own = service
        .endpoints
        .get(&local.uid)
        .and_then(|endpoint| endpoint.ports.get(&port));
    let declared = || service.ports.get(&port).filter(|target| **target != 0);
    own.or_else(declared).copied()
}

/// Port override and announced address of the application tunnel, if the workload has one.
fn through_tunnel(
    request: &InboundRequest<'_>,
    named: Option<&Arc<Service>>,
    port: u16,
) -> Result<(u16, Option<SocketAddr>), InboundError> {
    let Some(tunnel) = request.local.application_tunnel else {
        return Ok((port, None));
    };
    let announce = match tunnel.protocol {
        AppTunnelProtocol::None => None,
        AppTunnelProtocol::Proxy => Some(announced(request, named)?),
    };
    Ok((tunnel.port.unwrap_or(port), announce))
}

/// What the client asked for, as an address: the authority itself, or the best address of the
/// service it names with the port it names.
fn announced(
    request: &InboundRequest<'_>,
    named: Option<&Arc<Service>>,
) -> Result<SocketAddr, InboundError> {
    match request.authority {
        Authority::Address(address) => Ok(*address),
        Authority::Hostname(host, port) => named
            .and_then(|service| best_vip(service, request.network))
            .map(|ip| SocketAddr::new(ip, *port))
            .ok_or_else(|| InboundError::NoAddress(Arc::clone(host))),
    }
}

/// IPv4 on our network, else IPv6 on our network, else any.
fn best_vip(service: &Service, network: &str) -> Option<IpAddr> {
    let preference = |vip: &&NetworkAddress| match (&*vip.network == network, vip.ip.is_ipv4()) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    };
    service.vips.iter().min_by_key(preference).map(|vip| vip.ip)
}

/// Services the workload says it backs, those that are known.
fn services_of<'a>(
    local: &'a Workload,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Arc<Service>> + Clone {
    local
        .services
        .keys()
        .filter_map(|key| snapshot.service(key))
}

/// The candidate the client says it addressed, else the first that leads to the port. A forged
/// name can only choose among the workload's own services.
fn booked<'a>(
    candidates: impl Iterator<Item = &'a Arc<Service>> + Clone,
    request: &InboundRequest<'_>,
    port: u16,
) -> Option<Arc<Service>> {
    request
        .forwarded_host
        .and_then(|host| {
            candidates
                .clone()
                .find(|service| &*service.hostname == host)
        })
        .or_else(|| {
            candidates
                .clone()
                .find(|service| leads_to(service, request.local, port))
        })
        .cloned()
}

fn leads_to(service: &Service, local: &Workload, port: u16) -> bool {
    let own = service.endpoints.get(&local.uid);
    let mut targets = service
        .ports
        .values()
        .chain(own.iter().flat_map(|endpoint| endpoint.ports.values()));
    targets.any(|target| *target == port)
}

#[cfg(test)]
mod tests;
