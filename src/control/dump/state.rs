//! Mesh state as JSON, in the shape operators' tools read (spec: admin.md 3.2 to 3.4).
//!
//! Inputs are model values, outputs `serde_json` values whose object keys are sorted.

mod policy;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::control::spelling::Spelled;
use crate::model::addr::{NamespacedHostname, NetworkCidr};
use crate::model::gateway::GatewayAddress;
use crate::model::policy::Policy;
use crate::model::service::{Endpoint, LoadBalancer, Service, WeightedWaypoint};
use crate::model::workload::{ApplicationTunnel, Locality, PortMap, Workload};

/// One workload.
#[must_use]
pub fn workload(workload: &Workload) -> Value {
    value(&WorkloadView::from(workload))
}

/// One service with its endpoints.
#[must_use]
pub fn service(service: &Service) -> Value {
    value(&ServiceView::from(service))
}

/// One policy.
#[must_use]
pub fn policy(policy: &Policy) -> Value {
    value(&policy::PolicyView::from(policy))
}

/// Endpoints that wait for their service, by service and workload uid.
#[must_use]
pub fn staged(staged: &BTreeMap<NamespacedHostname, BTreeMap<Arc<str>, Endpoint>>) -> Value {
    let services = staged.iter();
    let services = services.map(|(key, waiting)| (key.to_string(), value(&endpoints(waiting))));
    Value::Object(services.collect())
}

fn value(view: &impl Serialize) -> Value {
    // Cannot fail: every map key below is a string or an integer.
    serde_json::to_value(view).unwrap_or_default()
}

fn views<'a, T, V: From<&'a T>>(items: &'a [T]) -> Vec<V> {
    items.iter().map(V::from).collect()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayView {
    destination: String,
    hbone_mtls_port: u16,
}

impl From<&GatewayAddress> for GatewayView {
    fn from(gateway: &GatewayAddress) -> Self {
        Self {
            destination: gateway.destination.to_string(),
            hbone_mtls_port: gateway.hbone_mtls_port,
        }
    }
}

#[derive(Serialize)]
struct TunnelView {
    protocol: &'static str,
    /// Null when there is no override.
    port: Option<u16>,
}

impl From<&ApplicationTunnel> for TunnelView {
    fn from(tunnel: &ApplicationTunnel) -> Self {
        Self {
            protocol: tunnel.protocol.word(),
            port: tunnel.port,
        }
    }
}

#[derive(Serialize)]
struct LocalityView<'a> {
    region: &'a str,
    zone: &'a str,
    subzone: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadView<'a> {
    workload_ips: &'a [IpAddr],
    protocol: &'static str,
    network_mode: &'static str,
    name: &'a str,
    namespace: &'a str,
    status: &'static str,
    cluster_id: &'a str,
    capacity: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trust_domain: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    workload_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    workload_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    canonical_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    canonical_revision: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    native_tunnel: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<TunnelView>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    authorization_policies: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<LocalityView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<GatewayView>,
}

impl<'a> From<&'a Workload> for WorkloadView<'a> {
    fn from(workload: &'a Workload) -> Self {
        let locality = &workload.locality;
        Self {
            workload_ips: &workload.addresses,
            protocol: workload.protocol.word(),
            network_mode: workload.network_mode.word(),
            name: &workload.name,
            namespace: &workload.namespace,
            status: workload.status.word(),
            cluster_id: &workload.cluster_id,
            capacity: workload.capacity,
            uid: &workload.uid,
            trust_domain: &workload.trust_domain,
            service_account: &workload.service_account,
            network: &workload.network,
            workload_name: &workload.workload_name,
            workload_type: &workload.workload_type,
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            hostname: &workload.hostname,
            node: &workload.node,
            native_tunnel: workload.native_tunnel,
            application_tunnel: workload.application_tunnel.as_ref().map(TunnelView::from),
            authorization_policies: &workload.authorization_policies,
            locality: (*locality != Locality::default()).then_some(LocalityView {
                region: &locality.region,
                zone: &locality.zone,
                subzone: &locality.subzone,
            }),
            services: workload.services.keys().map(ToString::to_string).collect(),
            waypoint: workload.waypoint.as_ref().map(GatewayView::from),
            network_gateway: workload.network_gateway.as_ref().map(GatewayView::from),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView<'a> {
    workload_uid: &'a str,
    port: &'a PortMap,
    status: &'static str,
}

impl<'a> From<&'a Endpoint> for EndpointView<'a> {
    fn from(endpoint: &'a Endpoint) -> Self {
        Self {
            workload_uid: &endpoint.workload_uid,
            port: &endpoint.ports,
            status: endpoint.status.word(),
        }
    }
}

fn endpoints(endpoints: &BTreeMap<Arc<str>, Endpoint>) -> BTreeMap<&str, EndpointView<'_>> {
    let entries = endpoints.iter();
    entries
        .map(|(uid, e)| (&**uid, EndpointView::from(e)))
        .collect()
}

#[derive(Serialize)]
struct CidrView<'a> {
    network: &'a str,
    cidr: String,
}

impl<'a> From<&'a NetworkCidr> for CidrView<'a> {
    fn from(cidr: &'a NetworkCidr) -> Self {
        Self {
            network: &cidr.network,
            cidr: cidr.cidr.to_string(),
        }
    }
}

#[derive(Serialize)]
struct WeightedWaypointView {
    destination: GatewayView,
    weight: u32,
}

impl From<&WeightedWaypoint> for WeightedWaypointView {
    fn from(waypoint: &WeightedWaypoint) -> Self {
        Self {
            destination: GatewayView::from(&waypoint.destination),
            weight: waypoint.weight,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancerView {
    routing_preferences: Vec<&'static str>,
    mode: &'static str,
    health_policy: &'static str,
}

impl From<&LoadBalancer> for LoadBalancerView {
    fn from(balancer: &LoadBalancer) -> Self {
        let preferences = balancer.routing_preferences.iter();
        Self {
            routing_preferences: preferences.map(|scope| scope.word()).collect(),
            mode: balancer.mode.word(),
            health_policy: balancer.health_policy.word(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceView<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: Vec<String>,
    ports: &'a PortMap,
    endpoints: BTreeMap<&'a str, EndpointView<'a>>,
    subject_alt_names: &'a [Arc<str>],
    canonical: bool,
    visibility: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidr_vips: Vec<CidrView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weighted_waypoints: Vec<WeightedWaypointView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<LoadBalancerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_families: Option<&'static str>,
}

impl<'a> From<&'a Service> for ServiceView<'a> {
    fn from(service: &'a Service) -> Self {
        Self {
            name: &service.name,
            namespace: &service.namespace,
            hostname: &service.hostname,
            vips: texts(&service.vips),
            ports: &service.ports,
            endpoints: endpoints(&service.endpoints),
            subject_alt_names: &service.subject_alt_names,
            canonical: service.canonical,
            visibility: service.visibility.word(),
            cidr_vips: views(&service.cidr_vips),
            waypoint: service.waypoint.as_ref().map(GatewayView::from),
            weighted_waypoints: views(&service.weighted_waypoints),
            load_balancer: service.load_balancer.as_ref().map(LoadBalancerView::from),
            ip_families: service.ip_families.map(Spelled::word),
        }
    }
}

#[cfg(test)]
mod tests;
