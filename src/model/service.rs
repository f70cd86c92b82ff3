//! A service: a stable name and addresses in front of endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::addr::{NamespacedHostname, NetworkAddress, NetworkCidr};
use super::gateway::GatewayAddress;
use super::workload::{HealthStatus, PortMap};

/// One workload behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Key of the workload.
    pub workload_uid: Arc<str>,
    /// Port map of this endpoint; wins over the service's.
    pub ports: PortMap,
    /// Health when it was admitted.
    pub status: HealthStatus,
}

/// Property two workloads may share, used to prefer near endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BalanceMode {
    /// Any endpoint.
    #[default]
    Standard,
    /// Only endpoints that match every preference.
    Strict,
    /// The best-matching endpoints.
    Failover,
    /// The original destination, unchanged.
    Passthrough,
}

/// Which endpoints are admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    /// Healthy ones.
    #[default]
    OnlyHealthy,
    /// All, whatever their status.
    AllowAll,
}

/// Load-balancing settings of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Preferences in order.
    pub routing_preferences: Vec<Scope>,
    /// Mode.
    pub mode: BalanceMode,
    /// Admission.
    pub health_policy: HealthPolicy,
}

/// IP families a service is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpFamilies {
    /// Both.
    Dual,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl IpFamilies {
    /// Whether an address of this family may be used.
    #[must_use]
    pub const fn allows(self, ip: IpAddr) -> bool {
        match self {
            Self::Dual => true,
            Self::Ipv4 => ip.is_ipv4(),
            Self::Ipv6 => ip.is_ipv6(),
        }
    }
}

/// Who may look a service up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everyone.
    #[default]
    Public,
    /// Its own namespace.
    Namespace,
}

/// Waypoint with a share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayAddress,
    /// Its share; 0 is never picked.
    pub weight: u32,
}

/// Stable name with its addresses and endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Short name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Hostname; with the namespace the primary key.
    pub hostname: Arc<str>,
    /// Exact virtual addresses.
    pub vips: Vec<NetworkAddress>,
    /// Virtual address ranges.
    pub cidr_vips: Vec<NetworkCidr>,
    /// Service port to target port.
    pub ports: PortMap,
    /// Extra accepted server identities, as written.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Waypoint in front of it.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints with weights; wins over `waypoint` when usable.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// Load balancing; `None` is Standard.
    pub load_balancer: Option<LoadBalancer>,
    /// Allowed families; `None` is no restriction.
    pub ip_families: Option<IpFamilies>,
    /// Tie-break between services of one key.
    pub canonical: bool,
    /// Who sees it.
    pub visibility: Visibility,
    /// Endpoints by workload uid.
    pub endpoints: BTreeMap<Arc<str>, Endpoint>,
}

impl Service {
    /// Primary key.
    #[must_use]
    pub fn key(&self) -> NamespacedHostname {
        NamespacedHostname {
            namespace: Arc::clone(&self.namespace),
            hostname: Arc::clone(&self.hostname),
        }
    }

    /// Whether a client of `namespace` may use it.
    #[must_use]
    pub fn visible_to(&self, namespace: &str) -> bool {
        self.visibility == Visibility::Public || &*self.namespace == namespace
    }

    /// Whether endpoints of this health are stored.
    #[must_use]
    pub fn admits(&self, status: HealthStatus) -> bool {
        let policy = self.load_balancer.as_ref().map(|lb| lb.health_policy);
        status == HealthStatus::Healthy || policy == Some(HealthPolicy::AllowAll)
    }

    /// Balance mode, `Standard` when no load balancer is set.
    #[must_use]
    pub fn balance_mode(&self) -> BalanceMode {
        self.load_balancer
            .as_ref()
            .map_or(BalanceMode::Standard, |lb| lb.mode)
    }
}
