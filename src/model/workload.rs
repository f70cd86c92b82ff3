//! A workload: one running instance with an identity and addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::addr::NamespacedHostname;
use super::gateway::GatewayAddress;
use super::identity::Identity;

/// Port map: service port to target port; target 0 means a named port, known per endpoint only.
pub type PortMap = BTreeMap<u16, u16>;

/// How a workload accepts traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadProtocol {
    /// Plain TCP.
    #[default]
    Tcp,
    /// HBONE on port 15008.
    Hbone,
}

/// Whether the workload has a network namespace of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// Own address.
    #[default]
    Standard,
    /// Shares the host's address, so it cannot be found by address.
    HostNetwork,
}

/// Health as the control plane reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// May receive traffic.
    #[default]
    Healthy,
    /// Receives traffic only from services that allow all.
    Unhealthy,
}

/// Protocol spoken to an application tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppTunnelProtocol {
    /// Port override only.
    #[default]
    None,
    /// A PROXY protocol version 2 header precedes the bytes.
    Proxy,
}

/// Local listener of a workload that takes tunnelled traffic on a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// Header to send first.
    pub protocol: AppTunnelProtocol,
    /// Port override.
    pub port: Option<u16>,
}

/// Where a workload runs, for load balancing and telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Subzone.
    pub subzone: Arc<str>,
}

/// One running instance. Defaults are those of the local state file (spec: local-config 1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Primary key.
    pub uid: Arc<str>,
    /// Instance (pod) name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Addresses; empty when the workload is known by hostname only.
    pub addresses: Vec<IpAddr>,
    /// Hostname to resolve when no address fits.
    pub hostname: Arc<str>,
    /// Network the addresses belong to.
    pub network: Arc<str>,
    /// How it accepts traffic.
    pub protocol: WorkloadProtocol,
    /// Own address or the host's.
    pub network_mode: NetworkMode,
    /// Trust domain of its identity.
    pub trust_domain: Arc<str>,
    /// Service account of its identity.
    pub service_account: Arc<str>,
    /// Cluster.
    pub cluster_id: Arc<str>,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Region, zone, subzone.
    pub locality: Locality,
    /// Waypoint in front of it.
    pub waypoint: Option<GatewayAddress>,
    /// Gateway of its network.
    pub network_gateway: Option<GatewayAddress>,
    /// Listener that takes tunnelled traffic.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Services it backs, with their port maps.
    pub services: BTreeMap<NamespacedHostname, PortMap>,
    /// Health.
    pub status: HealthStatus,
    /// Load-balancing weight; 0 receives nothing.
    pub capacity: u32,
    /// Keys of the policies attached to it.
    pub authorization_policies: Vec<Arc<str>>,
    /// Speaks HBONE itself.
    pub native_tunnel: bool,
    /// Owner's name (deployment, job, …).
    pub workload_name: Arc<str>,
    /// Owner's kind in lower case: `deployment`, `cronjob`, `pod`, `job`.
    pub workload_type: Arc<str>,
    /// Canonical service name.
    pub canonical_name: Arc<str>,
    /// Canonical service revision.
    pub canonical_revision: Arc<str>,
}

impl Workload {
    /// The identity its certificate carries.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: Arc::clone(&self.trust_domain),
            namespace: Arc::clone(&self.namespace),
            service_account: Arc::clone(&self.service_account),
        }
    }
}

/// Names the workload a node speaks for; text form `SA.NS (NAME)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadInfo {
    /// Instance name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

impl fmt::Display for WorkloadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{} ({})",
            self.service_account, self.namespace, self.name
        )
    }
}
