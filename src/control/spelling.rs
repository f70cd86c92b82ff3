//! Spelling of the closed sets in state files and dumps: one table for both directions.

/// A set of values with one exact, case-sensitive word each.
pub(super) trait Spelled: Copy + PartialEq + 'static {
    /// All words.
    const WORDS: &'static [&'static str];
    /// The value of each word, in the same order.
    const VALUES: &'static [Self];

    fn from_word(word: &str) -> Option<Self> {
        let position = Self::WORDS.iter().position(|known| *known == word)?;
        Self::VALUES.get(position).copied()
    }

    fn word(self) -> &'static str {
        let position = Self::VALUES.iter().position(|value| *value == self);
        // The macro below lists every value: its match stops compiling when one is missing.
        position.map_or("", |position| Self::WORDS[position])
    }
}

macro_rules! spelled {
    ($($type:ty { $($value:ident = $word:literal),+ $(,)? })+) => {$(
        impl Spelled for $type {
            const WORDS: &'static [&'static str] = &[$($word),+];
            const VALUES: &'static [Self] = &[$(Self::$value),+];
        }

        const _: fn($type) = |value| match value {
            $(<$type>::$value => {})+
        };
    )+};
}

use crate::model::policy::{PolicyAction, PolicyScope};
use crate::model::service::{BalanceMode, HealthPolicy, IpFamilies, Scope, Visibility};
use crate::model::workload::{AppTunnelProtocol, HealthStatus, NetworkMode, WorkloadProtocol};

spelled! {
    WorkloadProtocol { Tcp = "TCP", Hbone = "HBONE" }
    NetworkMode { Standard = "Standard", HostNetwork = "HostNetwork" }
    HealthStatus { Healthy = "Healthy", Unhealthy = "Unhealthy" }
    AppTunnelProtocol { None = "NONE", Proxy = "PROXY" }
    Scope {
        Region = "Region",
        Zone = "Zone",
        Subzone = "Subzone",
        Node = "Node",
        Cluster = "Cluster",
        Network = "Network",
    }
    BalanceMode {
        Standard = "Standard",
        Strict = "Strict",
        Failover = "Failover",
        Passthrough = "Passthrough",
    }
    HealthPolicy { OnlyHealthy = "OnlyHealthy", AllowAll = "AllowAll" }
    IpFamilies { Dual = "Dual", Ipv4 = "IPv4", Ipv6 = "IPv6" }
    Visibility { Public = "Public", Namespace = "Namespace" }
    PolicyScope { Global = "Global", Namespace = "Namespace", WorkloadSelector = "WorkloadSelector" }
    PolicyAction { Allow = "Allow", Deny = "Deny" }
}
