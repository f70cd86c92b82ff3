//! Routes through waypoints and network gateways (spec: routing.md 3.3, 3.4, 3.6).

use std::net::SocketAddr;
use std::sync::Arc;

use super::destination::{self, Destination};
use super::{Authority, Route, RouteError, Search, Via, referenced};
use crate::decision::Random;
use crate::decision::balance::{self, Purpose};
use crate::model::gateway::{GatewayAddress, GatewayDestination};
use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::snapshot::Address;

/// What a reference is resolved for.
#[derive(Clone, Copy)]
enum Role {
    Waypoint,
    NetworkGateway,
}

impl Role {
    const fn purpose(self) -> Purpose {
        match self {
            Self::Waypoint => Purpose::Waypoint,
            Self::NetworkGateway => Purpose::Standard,
        }
    }

    fn unknown(self, destination: &GatewayDestination) -> RouteError {
        let name = match destination {
            GatewayDestination::Address(address) => address.ip.to_string(),
            GatewayDestination::Hostname(key) => key.hostname.to_string(),
        };
        match self {
            Self::Waypoint => RouteError::UnknownWaypoint(name),
            Self::NetworkGateway => RouteError::UnknownNetworkGateway(name),
        }
    }
}

/// The route through the waypoint of `service`; `None` when it has none.
///
/// The tunnel asks for `original`, untranslated: the waypoint does the rest.
pub(super) fn service_waypoint(
    search: &Search<'_>,
    original: &Authority,
    service: &Arc<Service>,
    random: Random<'_>,
) -> Result<Option<Route>, RouteError> {
    let Some(reference) = sample_waypoint(service, random) else {
        return Ok(None);
    };
    let waypoint = resolve(search, reference, Role::Waypoint, original, random)?;
    if waypoint.workload.network != search.source().network {
        return across(search, original, service, &waypoint, random).map(Some);
    }
    let service = Some(Arc::clone(service));
    via(waypoint, original.clone(), service).map(Some)
}

/// The route through `reference`, the waypoint of the workload `upstream`.
pub(super) fn workload_waypoint(
    search: &Search<'_>,
    original: Authority,
    reference: &GatewayAddress,
    upstream: &Destination,
    random: Random<'_>,
) -> Result<Route, RouteError> {
    let waypoint = resolve(search, reference, Role::Waypoint, &original, random)?;
    via(waypoint, original, upstream.service.clone())
}

fn via(
    waypoint: Destination,
    authority: Authority,
    service: Option<Arc<Service>>,
) -> Result<Route, RouteError> {
    Ok(Route {
        via: Via::Hbone { authority },
        next_hop: waypoint.next_hop(waypoint.port)?,
        next_hop_identities: waypoint.identities(),
        destination_workload: Some(waypoint.workload),
        destination_service: service,
    })
}

/// The route to `upstream`, which is on another network: through that network's gateway.
///
/// Behind the gateway any endpoint of the service may answer, so only names the service itself
/// vouches for are accepted there; a service without any is unreachable across networks.
pub(super) fn across(
    search: &Search<'_>,
    original: &Authority,
    service: &Arc<Service>,
    upstream: &Destination,
    random: Random<'_>,
) -> Result<Route, RouteError> {
    let Some(reference) = &upstream.workload.network_gateway else {
        return Err(RouteError::no_valid_destination(&upstream.workload));
    };
    let gateway = resolve(search, reference, Role::NetworkGateway, original, random)?;
    let final_identities = upstream
        .service
        .iter()
        .flat_map(|service| destination::service_identities(service))
        .collect();
    Ok(Route {
        via: Via::DoubleHbone {
            authority: Authority::Hostname(Arc::clone(&service.hostname), original.port()),
            final_identities,
        },
        next_hop: gateway.next_hop(gateway.port)?,
        next_hop_identities: gateway.identities(),
        destination_workload: Some(gateway.workload),
        destination_service: Some(Arc::clone(service)),
    })
}

/// A waypoint of the weighted set, by weight; without a usable set, the plain one. A set whose sum
/// does not fit 32 bits is not usable (routing 3.3).
fn sample_waypoint<'a>(service: &'a Service, random: Random<'_>) -> Option<&'a GatewayAddress> {
    let weights = service.weighted_waypoints.iter().map(|entry| entry.weight);
    let usable = weights.clone().try_fold(0, u32::checked_add).is_some();
    usable
        .then(|| balance::weighted(weights, random))
        .flatten()
        .and_then(|at| service.weighted_waypoints.get(at))
        .map(|entry| &entry.destination)
        .or(service.waypoint.as_ref())
}

fn resolve(
    search: &Search<'_>,
    reference: &GatewayAddress,
    role: Role,
    original: &Authority,
    random: Random<'_>,
) -> Result<Destination, RouteError> {
    let (port, purpose) = (reference.hbone_mtls_port, role.purpose());
    let found = match &reference.destination {
        GatewayDestination::Address(address) => {
            let gateway = SocketAddr::new(address.ip, port);
            destination::fetch(search, (&address.network, gateway), purpose, random)?
        }
        GatewayDestination::Hostname(key) => match search.snapshot.find_hostname(key) {
            Some(Address::Service(service)) => {
                let wanted = (port, purpose);
                destination::of_service(search, &service, wanted, original.ip(), random)?
            }
            Some(Address::Workload(workload)) => {
                Some(Destination::of_workload(workload, port, original.ip())?)
            }
            None => None,
        },
    };
    found.ok_or_else(|| role.unknown(&reference.destination))
}

/// Whether the client *is* the waypoint `reference` stands for: it has the identity and an address
/// of a workload behind it. Keeps a waypoint on this node from being sent to itself.
pub(super) fn comes_from(search: &Search<'_>, reference: &GatewayDestination) -> bool {
    let is_source = |workload: &Workload| {
        let source = search.source();
        workload.trust_domain == source.trust_domain
            && workload.namespace == source.namespace
            && workload.service_account == source.service_account
            && workload.addresses.contains(&search.request.client.ip())
    };
    match referenced(reference, search.snapshot) {
        Some(Address::Workload(waypoint)) => is_source(&waypoint),
        Some(Address::Service(service)) => service.endpoints.values().any(|endpoint| {
            let workload = search.snapshot.workload_by_uid(&endpoint.workload_uid);
            workload.is_some_and(|workload| is_source(workload))
        }),
        None => false,
    }
}
