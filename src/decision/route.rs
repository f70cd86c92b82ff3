//! Destination → Route: plain TCP, HBONE, through a waypoint, or across networks (spec: routing.md 3).
//!
//! Priority: service waypoint, gateway to another network, workload waypoint, HBONE, TCP,
//! passthrough. What cannot be reached the way it must be is an error, never sent another way.
//! Absent on purpose: DNS (a workload known by name only comes back as [`NextHop::Hostname`]) and
//! waiting for state.

mod destination;
mod error;
mod gateway;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::destination::{Destination, DestinationHost};
pub use self::error::RouteError;
use super::Random;
use super::balance::Purpose;
pub use crate::model::addr::Authority;
use crate::model::addr::{ClientAddr, NamespacedHostname, NetworkAddress, OrigDstAddr};
use crate::model::gateway::GatewayDestination;
use crate::model::identity::Identity;
use crate::model::service::{BalanceMode, Service};
use crate::model::workload::{Workload, WorkloadProtocol};
use crate::snapshot::{Address, Snapshot};

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
    /// To be resolved first; [`Route::resolved`] takes the answers.
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

impl Route {
    /// Replaces a hostname next hop by one of the `answers` of DNS: a random one of the preferred
    /// family, else a random one of the others. When the dialled workload is also what the tunnel
    /// asks for, its address takes the place of the name there too. A next hop that is an address
    /// already stays.
    ///
    /// # Errors
    /// [`RouteError::EmptyResolution`] when there are no answers.
    pub fn resolved(
        mut self,
        answers: &[IpAddr],
        prefer_ipv6: bool,
        random: Random<'_>,
    ) -> Result<Self, RouteError> {
        let NextHop::Hostname(host, port) = &self.next_hop else {
            return Ok(self);
        };
        let Some(ip) = destination::choose_answer(answers, prefer_ipv6, random) else {
            return Err(RouteError::EmptyResolution(self.dialled_uid()));
        };
        let next_hop = NextHop::Address(SocketAddr::new(ip, *port));
        if let Via::Hbone { authority } = &mut self.via
            && let Authority::Hostname(name, app_port) = authority
            && name == host
        {
            *authority = Authority::Address(SocketAddr::new(ip, *app_port));
        }
        self.next_hop = next_hop;
        Ok(self)
    }

    /// The error to report when DNS failed for this route's hostname.
    #[must_use]
    pub fn resolution_failed(&self) -> RouteError {
        RouteError::ResolutionFailed(self.dialled_uid())
    }

    fn dialled_uid(&self) -> Arc<str> {
        self.destination_workload
            .as_ref()
            .map_or_else(|| "".into(), |workload| Arc::clone(&workload.uid))
    }
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

/// Whether an outbound connection would come back to one of our own listeners: a loopback address
/// with one of their ports (routing 2). The caller refuses it with [`RouteError::SelfCall`].
#[must_use]
pub fn self_call(destination: SocketAddr, illegal_ports: &[u16]) -> bool {
    destination.ip().to_canonical().is_loopback() && illegal_ports.contains(&destination.port())
}

/// Input of every step of one search.
#[derive(Clone, Copy)]
struct Search<'a> {
    request: &'a RouteRequest,
    snapshot: &'a Snapshot,
}

impl Search<'_> {
    fn source(&self) -> &Workload {
        &self.request.source
    }
}

/// Finds the way.
///
/// # Errors
/// See [`RouteError`].
pub fn route(
    request: &RouteRequest,
    snapshot: &Snapshot,
    random: Random<'_>,
) -> Result<Route, RouteError> {
    let search = Search { request, snapshot };
    match &request.target {
        Target::Address(address) => search.by_address(address.get(), random),
        Target::Hostname(host, port) => search.by_hostname(host, *port, random),
    }
}

impl Search<'_> {
    /// An address is a workload first and a service second when asking *whether* a service was
    /// addressed, and the other way round when asking *who* takes the connection.
    fn by_address(&self, address: SocketAddr, random: Random<'_>) -> Result<Route, RouteError> {
        let original = Authority::Address(address);
        let key = NetworkAddress {
            network: Arc::clone(&self.request.network),
            ip: address.ip(),
        };
        let found = self
            .snapshot
            .find_address(&key, Some(&self.source().namespace));
        let service = match found {
            Some(Address::Service(service)) => Some(service),
            Some(Address::Workload(_)) | None => None,
        };
        if let Some(service) = &service
            && let Some(route) = gateway::service_waypoint(self, &original, service, random)?
        {
            return Ok(route);
        }
        let network = &self.source().network;
        let upstream = destination::fetch(self, (network, address), Purpose::Standard, random)?;
        self.towards((original, service), upstream, random)
    }

    /// A service by name, else a workload of the source's namespace by name. The service's own
    /// address, where it has one, stands for the original destination.
    fn by_hostname(
        &self,
        host: &Arc<str>,
        port: u16,
        random: Random<'_>,
    ) -> Result<Route, RouteError> {
        let namespace = &self.source().namespace;
        let Some(service) = self.snapshot.service_by_host(host, Some(namespace)) else {
            return self.by_workload_name(host, port, random);
        };
        let original = own_vip(service, &self.request.network).map_or_else(
            || Authority::Hostname(Arc::clone(host), port),
            |ip| Authority::Address(SocketAddr::new(ip, port)),
        );
        if let Some(route) = gateway::service_waypoint(self, &original, service, random)? {
            return Ok(route);
        }
        let upstream = if service.balance_mode() == BalanceMode::Passthrough {
            None
        } else {
            let guide = original.ip();
            destination::of_service(self, service, (port, Purpose::Standard), guide, random)?
        };
        self.towards((original, Some(Arc::clone(service))), upstream, random)
    }

    fn by_workload_name(
        &self,
        host: &Arc<str>,
        port: u16,
        random: Random<'_>,
    ) -> Result<Route, RouteError> {
        let key = NamespacedHostname {
            namespace: Arc::clone(&self.source().namespace),
            hostname: Arc::clone(host),
        };
        let Some(Address::Workload(workload)) = self.snapshot.find_hostname(&key) else {
            return Err(RouteError::UnknownHostname(Arc::clone(host)));
        };
        let upstream = Destination::of_workload(workload, port, None)?;
        let original = match upstream.host {
            DestinationHost::Ip(ip) => Authority::Address(SocketAddr::new(ip, port)),
            DestinationHost::Hostname(_) | DestinationHost::None => {
                Authority::Hostname(Arc::clone(host), port)
            }
        };
        self.towards((original, None), Some(upstream), random)
    }

    /// Steps 4 to 7 of the procedure: `service` is what the client addressed, if it did.
    fn towards(
        &self,
        (original, service): (Authority, Option<Arc<Service>>),
        upstream: Option<Destination>,
        random: Random<'_>,
    ) -> Result<Route, RouteError> {
        let Some(upstream) = upstream else {
            return without_destination(original, service.as_deref());
        };
        if upstream.workload.network != self.source().network {
            let Some(service) = service else {
                return Err(RouteError::NoService(original));
            };
            return gateway::across(self, &original, &service, &upstream, random);
        }
        if service.is_none()
            && let Some(waypoint) = &upstream.workload.waypoint
            && !gateway::comes_from(self, &waypoint.destination)
        {
            return gateway::workload_waypoint(self, original, waypoint, &upstream, random);
        }
        self.direct(upstream)
    }

    fn direct(&self, upstream: Destination) -> Result<Route, RouteError> {
        let protocol = upstream.workload.protocol;
        let (via, dial_port) = match protocol {
            WorkloadProtocol::Tcp => (Via::Tcp, upstream.port),
            WorkloadProtocol::Hbone => {
                let authority = upstream.authority()?;
                (Via::Hbone { authority }, self.request.hbone_port)
            }
        };
        Ok(Route {
            via,
            next_hop: upstream.next_hop(dial_port)?,
            next_hop_identities: upstream.identities(),
            destination_workload: Some(upstream.workload),
            destination_service: upstream.service,
        })
    }
}

/// Passthrough, unless a service was addressed that has to answer itself.
fn without_destination(
    original: Authority,
    service: Option<&Service>,
) -> Result<Route, RouteError> {
    if service.is_some_and(|service| service.balance_mode() != BalanceMode::Passthrough) {
        return Err(RouteError::NoHealthyUpstream(original));
    }
    match original {
        Authority::Address(address) => Ok(Route {
            via: Via::Tcp,
            next_hop: NextHop::Address(address),
            destination_workload: None,
            destination_service: None,
            next_hop_identities: Arc::from([]),
        }),
        Authority::Hostname(host, _) => Err(RouteError::PassthroughWithoutAddress(host)),
    }
}

/// The service's address on our own network, IPv4 first.
fn own_vip(service: &Service, network: &str) -> Option<IpAddr> {
    let own = || {
        let vips = service.vips.iter();
        vips.filter(|vip| &*vip.network == network)
            .map(|vip| vip.ip)
    };
    own().find(IpAddr::is_ipv4).or_else(|| own().next())
}

/// What a waypoint or gateway reference stands for, seen by everybody.
pub(super) fn referenced(destination: &GatewayDestination, snapshot: &Snapshot) -> Option<Address> {
    match destination {
        GatewayDestination::Address(address) => snapshot.find_address(address, None),
        GatewayDestination::Hostname(key) => snapshot.find_hostname(key),
    }
}

#[cfg(test)]
mod tests;
