//! Addresses of waypoints and network gateways.

use std::fmt;

use super::addr::{NamespacedHostname, NetworkAddress};

/// How a waypoint or gateway is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// By address: a VIP or a workload address.
    Address(NetworkAddress),
    /// By name: a service, or a workload with that hostname.
    Hostname(NamespacedHostname),
}

/// Reference to a waypoint or network gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// Who it is.
    pub destination: GatewayDestination,
    /// Its HBONE port.
    pub hbone_mtls_port: u16,
}

impl fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(hostname) => hostname.fmt(f),
        }
    }
}
