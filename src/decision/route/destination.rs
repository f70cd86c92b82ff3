//! Resolves a destination to one workload, its port and its address (spec: routing.md 3.5).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Authority, NextHop, RouteError, Search};
use crate::decision::Random;
use crate::decision::balance::{self, Picked, Purpose};
use crate::model::addr::NetworkAddress;
use crate::model::identity::Identity;
use crate::model::service::{BalanceMode, Service};
use crate::model::workload::Workload;

/// How a workload is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DestinationHost {
    /// At this address.
    Ip(IpAddr),
    /// At whatever this name resolves to.
    Hostname(Arc<str>),
    /// Not at all; only the gateway of its network leads there.
    None,
}

/// One workload chosen to take a connection.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) workload: Arc<Workload>,
    pub(super) host: DestinationHost,
    /// Target port on the workload.
    pub(super) port: u16,
    /// Service it was picked through.
    pub(super) service: Option<Arc<Service>>,
}

impl Destination {
    /// A workload that was addressed itself. `guide` is the address whose family is preferred.
    pub(super) fn of_workload(
        workload: Arc<Workload>,
        port: u16,
        guide: Option<IpAddr>,
    ) -> Result<Self, RouteError> {
        Ok(Self {
            host: choose_host(&workload, None, guide)?,
            workload,
            port,
            service: None,
        })
    }

    /// Where to dial it on `port`.
    pub(super) fn next_hop(&self, port: u16) -> Result<NextHop, RouteError> {
        match &self.host {
            DestinationHost::Ip(ip) => Ok(NextHop::Address(SocketAddr::new(*ip, port))),
            DestinationHost::Hostname(host) => Ok(NextHop::Hostname(Arc::clone(host), port)),
            DestinationHost::None => Err(RouteError::no_valid_destination(&self.workload)),
        }
    }

    /// What a tunnel to this very workload asks for.
    pub(super) fn authority(&self) -> Result<Authority, RouteError> {
        match &self.host {
            DestinationHost::Ip(ip) => Ok(Authority::Address(SocketAddr::new(*ip, self.port))),
            DestinationHost::Hostname(host) => Ok(Authority::Hostname(Arc::clone(host), self.port)),
            DestinationHost::None => Err(RouteError::no_valid_destination(&self.workload)),
        }
    }

    /// Identities its tunnel may answer with: those the service adds, and the workload's own.
    pub(super) fn identities(&self) -> Arc<[Identity]> {
        let own = std::iter::once(self.workload.identity());
        self.service
            .iter()
            .flat_map(|service| service_identities(service))
            .chain(own)
            .collect()
    }
}

/// Names of a service that are identities; others cannot be proven by a peer and are left out.
pub(super) fn service_identities(service: &Service) -> impl Iterator<Item = Identity> {
    service
        .subject_alt_names
        .iter()
        .filter_map(|name| name.parse().ok())
}

/// Who takes a connection to `address`: a service first, a workload second. `None` when nobody is
/// known, and when a service is but has no usable endpoint or wants the original destination.
pub(super) fn fetch(
    search: &Search<'_>,
    (network, address): (&Arc<str>, SocketAddr),
    purpose: Purpose,
    random: Random<'_>,
) -> Result<Option<Destination>, RouteError> {
    let key = NetworkAddress {
        network: Arc::clone(network),
        ip: address.ip(),
    };
    let snapshot = search.snapshot;
    if let Some(service) = snapshot.service_by_vip(&key, Some(&search.source().namespace)) {
        if service.balance_mode() == BalanceMode::Passthrough {
            return Ok(None);
        }
        let wanted = (address.port(), purpose);
        return of_service(search, service, wanted, Some(address.ip()), random);
    }
    snapshot
        .workload_by_address(&key)
        .map(|workload| {
            Destination::of_workload(Arc::clone(workload), address.port(), Some(address.ip()))
        })
        .transpose()
}

/// Picks an endpoint of `service` for its port.
pub(super) fn of_service(
    search: &Search<'_>,
    service: &Arc<Service>,
    (port, purpose): (u16, Purpose),
    guide: Option<IpAddr>,
    random: Random<'_>,
) -> Result<Option<Destination>, RouteError> {
    let wanted = (port, purpose);
    let Some(picked) = balance::pick(search.source(), service, wanted, search.snapshot, random)
    else {
        return Ok(None);
    };
    let Some(target) = target_port(service, &picked, port) else {
        return Ok(None);
    };
    let workload = Arc::clone(picked.workload);
    Ok(Some(Destination {
        host: choose_host(&workload, Some(service), guide)?,
        workload,
        port: target,
        service: Some(Arc::clone(service)),
    }))
}

/// Port of the endpoint for service port `port`: its own map, then the service's, then the service
/// port itself where an application tunnel takes any port.
fn target_port(service: &Service, picked: &Picked<'_>, port: u16) -> Option<u16> {
    let mapped = picked.endpoint.ports.get(&port);
    let declared = || service.ports.get(&port).filter(|target| **target != 0);
    mapped.or_else(declared).copied().or_else(|| {
        let tunnel = picked.workload.application_tunnel?;
        tunnel.port.map(|_| port)
    })
}

/// Chooses how to dial a workload: the very address the client asked for, else one of the same
/// family, else any, else its hostname.
fn choose_host(
    workload: &Workload,
    service: Option<&Service>,
    guide: Option<IpAddr>,
) -> Result<DestinationHost, RouteError> {
    if let Some(ip) = guide
        && workload.addresses.contains(&ip)
    {
        return Ok(DestinationHost::Ip(ip));
    }
    let families = service.and_then(|service| service.ip_families);
    let allowed = || {
        let addresses = workload.addresses.iter();
        addresses.filter(|ip| families.is_none_or(|families| families.allows(**ip)))
    };
    let prefer_ipv6 = guide.is_some_and(|ip| ip.is_ipv6());
    if let Some(ip) = allowed()
        .find(|ip| ip.is_ipv6() == prefer_ipv6)
        .or_else(|| allowed().next())
    {
        return Ok(DestinationHost::Ip(*ip));
    }
    if !workload.hostname.is_empty() {
        return Ok(DestinationHost::Hostname(Arc::clone(&workload.hostname)));
    }
    if workload.network_gateway.is_some() {
        return Ok(DestinationHost::None);
    }
    Err(RouteError::no_valid_destination(workload))
}

/// A random answer of the preferred family, else of the others.
pub(super) fn choose_answer(
    answers: &[IpAddr],
    prefer_ipv6: bool,
    random: Random<'_>,
) -> Option<IpAddr> {
    let preferred = answers
        .iter()
        .filter(|ip| ip.is_ipv6() == prefer_ipv6)
        .count();
    let wanted_ipv6 = if preferred > 0 {
        prefer_ipv6
    } else {
        !prefer_ipv6
    };
    let weights = answers
        .iter()
        .map(|ip| u32::from(ip.is_ipv6() == wanted_ipv6));
    let at = balance::weighted(weights, random)?;
    answers.get(at).copied()
}
