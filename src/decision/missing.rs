//! What a connection leads to and the snapshot does not hold: keys to ask the control plane for
//! (spec: xds.md 3.3).

use std::sync::Arc;

use super::route::{RouteRequest, Target, referenced};
use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::gateway::{GatewayAddress, GatewayDestination};
use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::snapshot::{Address, Snapshot};

/// Gateways that stand behind gateways are looked at up to here; deeper chains are not routed.
const DEPTH_MAX: u8 = 2;

/// The first key a route to the target would miss, leaving out those in `asked`.
#[must_use]
pub fn missing(
    request: &RouteRequest,
    snapshot: &Snapshot,
    asked: &[Arc<str>],
) -> Option<Arc<str>> {
    let namespace = &request.source.namespace;
    let found = match &request.target {
        Target::Address(to) => {
            let key = NetworkAddress {
                network: Arc::clone(&request.network),
                ip: to.ip(),
            };
            let found = snapshot.find_address(&key, Some(namespace));
            found.ok_or_else(|| key.to_string())
        }
        Target::Hostname(host, _) => {
            let service = snapshot.service_by_host(host, Some(namespace)).cloned();
            let key = hostname_key(host, namespace);
            let found = service.map(Address::Service);
            let found = found.or_else(|| snapshot.find_hostname(&key));
            found.ok_or_else(|| key.to_string())
        }
    };
    match found {
        Ok(found) => behind(&found, (snapshot, asked), DEPTH_MAX),
        Err(key) => unasked(key, asked),
    }
}

/// The key of an address.
#[must_use]
pub fn address_key(network: &Arc<str>, ip: std::net::IpAddr) -> Arc<str> {
    let network = Arc::clone(network);
    NetworkAddress { network, ip }.to_string().into()
}

/// The key of a hostname: Kubernetes says the namespace in the name, others mean the client's.
#[must_use]
pub fn hostname_key(host: &Arc<str>, namespace: &Arc<str>) -> NamespacedHostname {
    let mut labels = host.split('.').skip(1);
    let namespace = match (labels.next(), labels.next()) {
        (Some(named), Some("svc")) => named.into(),
        _ => Arc::clone(namespace),
    };
    NamespacedHostname {
        namespace,
        hostname: Arc::clone(host),
    }
}

/// Waypoints and gateways that `found` names and nobody knows.
fn behind(found: &Address, search: (&Snapshot, &[Arc<str>]), depth: u8) -> Option<Arc<str>> {
    if depth == 0 {
        return None;
    }
    match found {
        Address::Workload(workload) => of_workload(workload, search, depth),
        Address::Service(service) => of_service(service, search, depth),
    }
}

fn of_service(service: &Service, search: (&Snapshot, &[Arc<str>]), depth: u8) -> Option<Arc<str>> {
    let weighted = service.weighted_waypoints.iter().map(|w| &w.destination);
    let mut waypoints = weighted.chain(&service.waypoint);
    waypoints
        .find_map(|waypoint| reference(waypoint, search, depth))
        .or_else(|| {
            let endpoints = service.endpoints.keys();
            let mut workloads = endpoints.filter_map(|uid| search.0.workload_by_uid(uid));
            workloads.find_map(|workload| {
                let gateway = workload.network_gateway.as_ref()?;
                reference(gateway, search, depth)
            })
        })
}

fn of_workload(
    workload: &Workload,
    search: (&Snapshot, &[Arc<str>]),
    depth: u8,
) -> Option<Arc<str>> {
    let mut references = workload.waypoint.iter().chain(&workload.network_gateway);
    references.find_map(|gateway| reference(gateway, search, depth))
}

fn reference(
    gateway: &GatewayAddress,
    (snapshot, asked): (&Snapshot, &[Arc<str>]),
    depth: u8,
) -> Option<Arc<str>> {
    match referenced(&gateway.destination, snapshot) {
        Some(found) => behind(&found, (snapshot, asked), depth - 1),
        None => unasked(
            match &gateway.destination {
                GatewayDestination::Address(address) => address.to_string(),
                GatewayDestination::Hostname(key) => key.to_string(),
            },
            asked,
        ),
    }
}

fn unasked(key: String, asked: &[Arc<str>]) -> Option<Arc<str>> {
    let known = asked.iter().any(|other| **other == *key);
    (!known).then(|| key.into())
}

#[cfg(test)]
mod tests;
