//! The document as written: keys, which of them are required, and their defaults.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::scalar::{Flag, Int, List, Matcher, Ports, Table, Text, Word};
use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::gateway::GatewayDestination;
use crate::model::policy::{PolicyAction, PolicyScope};
use crate::model::service::{BalanceMode, HealthPolicy, IpFamilies, Scope, Visibility};
use crate::model::workload::{AppTunnelProtocol, HealthStatus, NetworkMode, WorkloadProtocol};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) workloads: List<Spanned<RawWorkload>>,
    #[serde(default)]
    pub(super) policies: List<Spanned<RawPolicy>>,
    #[serde(default)]
    pub(super) services: List<Spanned<RawService>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawWorkload {
    pub(super) workload_ips: List<Text<IpAddr>>,
    pub(super) namespace: Arc<str>,
    pub(super) services: Table<Spanned<Text<NamespacedHostname>>, Ports>,
    pub(super) uid: Option<Spanned<Arc<str>>>,
    #[serde(default)]
    pub(super) name: Arc<str>,
    pub(super) protocol: Option<Word<WorkloadProtocol>>,
    pub(super) network_mode: Option<Word<NetworkMode>>,
    #[serde(default)]
    pub(super) trust_domain: Arc<str>,
    #[serde(default)]
    pub(super) service_account: Arc<str>,
    #[serde(default)]
    pub(super) network: Arc<str>,
    #[serde(default)]
    pub(super) node: Arc<str>,
    #[serde(default)]
    pub(super) hostname: Arc<str>,
    #[serde(default)]
    pub(super) workload_name: Arc<str>,
    #[serde(default)]
    pub(super) canonical_name: Arc<str>,
    #[serde(default)]
    pub(super) canonical_revision: Arc<str>,
    #[serde(default)]
    pub(super) workload_type: Arc<str>,
    #[serde(default)]
    pub(super) cluster_id: Arc<str>,
    pub(super) status: Option<Word<HealthStatus>>,
    #[serde(default)]
    pub(super) native_tunnel: Flag,
    pub(super) application_tunnel: Option<RawApplicationTunnel>,
    pub(super) waypoint: Option<RawGateway>,
    pub(super) network_gateway: Option<RawGateway>,
    #[serde(default)]
    pub(super) authorization_policies: List<Spanned<Arc<str>>>,
    pub(super) locality: Option<RawLocality>,
    pub(super) capacity: Option<Int<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawApplicationTunnel {
    pub(super) protocol: Word<AppTunnelProtocol>,
    pub(super) port: Option<Int<u16>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) destination: Text<GatewayDestination>,
    pub(super) hbone_mtls_port: Int<NonZeroU16>,
}

/// Other keys are ignored (local-config 1); a misspelt one is missed as required.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLocality {
    pub(super) region: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) subzone: Arc<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) hostname: Spanned<Arc<str>>,
    pub(super) vips: List<Text<NetworkAddress>>,
    pub(super) ports: Ports,
    #[serde(default)]
    pub(super) cidr_vips: List<RawCidr>,
    #[serde(default)]
    pub(super) endpoints: Table<Spanned<Arc<str>>, RawEndpoint>,
    #[serde(default)]
    pub(super) subject_alt_names: List<Spanned<Arc<str>>>,
    pub(super) waypoint: Option<RawGateway>,
    pub(super) weighted_waypoints: Option<Spanned<List<RawWeightedWaypoint>>>,
    pub(super) load_balancer: Option<RawLoadBalancer>,
    pub(super) ip_families: Option<Word<IpFamilies>>,
    #[serde(default)]
    pub(super) canonical: Flag,
    pub(super) visibility: Option<Word<Visibility>>,
}

/// Other keys are ignored (local-config 1); a misspelt one is missed as required.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawCidr {
    pub(super) network: Arc<str>,
    pub(super) cidr: Text<IpNet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawEndpoint {
    pub(super) workload_uid: Spanned<Arc<str>>,
    pub(super) port: Ports,
    pub(super) status: Option<Word<HealthStatus>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawWeightedWaypoint {
    pub(super) destination: RawGateway,
    pub(super) weight: Int<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLoadBalancer {
    pub(super) routing_preferences: List<Word<Scope>>,
    pub(super) mode: Word<BalanceMode>,
    pub(super) health_policy: Word<HealthPolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) name: Spanned<Arc<str>>,
    pub(super) namespace: Arc<str>,
    pub(super) scope: Word<PolicyScope>,
    pub(super) action: Word<PolicyAction>,
    pub(super) dry_run: Flag,
    pub(super) rules: List<List<List<RawMatch>>>,
}

/// Unknown keys are refused, unlike in the reference: a misspelt condition that is dropped makes
/// an allowing policy allow more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct RawMatch {
    pub(super) namespaces: List<Matcher>,
    pub(super) not_namespaces: List<Matcher>,
    pub(super) principals: List<Matcher>,
    pub(super) not_principals: List<Matcher>,
    pub(super) service_accounts: List<RawServiceAccount>,
    pub(super) not_service_accounts: List<RawServiceAccount>,
    pub(super) source_ips: List<Text<IpNet>>,
    pub(super) not_source_ips: List<Text<IpNet>>,
    pub(super) destination_ips: List<Text<IpNet>>,
    pub(super) not_destination_ips: List<Text<IpNet>>,
    pub(super) destination_ports: List<Int<u16>>,
    pub(super) not_destination_ports: List<Int<u16>>,
}

/// Other keys are ignored (local-config 1); a misspelt one is missed as required.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawServiceAccount {
    pub(super) namespace: Arc<str>,
    pub(super) service_account: Arc<str>,
}
