//! Small meshes for the tests of decisions.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::gateway::{GatewayAddress, GatewayDestination};
use crate::model::policy::{Policy, PolicyAction, PolicyScope, StringMatch};
use crate::model::service::Service;
use crate::model::workload::{PortMap, Workload};
use crate::snapshot::Snapshot;
use crate::snapshot::builder::{Builder, Change};

/// What a snapshot is to hold; every workload is local.
#[derive(Default)]
pub(super) struct Mesh(Change);

impl Mesh {
    pub(super) fn workload(mut self, workload: Workload) -> Self {
        self.0.workloads.push(workload);
        self
    }

    pub(super) fn service(mut self, service: Service) -> Self {
        self.0.services.push(service);
        self
    }

    /// Adds a policy under its own key.
    pub(super) fn policy(mut self, policy: Policy) -> Self {
        self.0.policies.push((policy.key().into(), policy));
        self
    }

    pub(super) fn snapshot(self) -> Arc<Snapshot> {
        Builder::new("".into()).apply(self.0)
    }
}

/// A healthy TCP workload of capacity 1 with the uid `cluster//Pod/NAMESPACE/NAME`.
pub(super) fn workload(namespace: &str, name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: uid(namespace, name),
        name: name.into(),
        namespace: namespace.into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        trust_domain: "cluster.local".into(),
        service_account: "default".into(),
        cluster_id: "Kubernetes".into(),
        capacity: 1,
        ..Workload::default()
    }
}

pub(super) fn uid(namespace: &str, name: &str) -> Arc<str> {
    format!("cluster//Pod/{namespace}/{name}").into()
}

/// A service `NAME.NAMESPACE.svc.cluster.local`.
pub(super) fn service(namespace: &str, name: &str, vips: &[&str], ports: &[(u16, u16)]) -> Service {
    Service {
        name: name.into(),
        namespace: namespace.into(),
        hostname: format!("{name}.{namespace}.svc.cluster.local").into(),
        vips: vips.iter().map(|vip| network_address(vip)).collect(),
        ports: ports.iter().copied().collect(),
        ..Service::default()
    }
}

/// Adds `workload` to `service` with a port map of its own.
pub(super) fn backing(service: &Service, ports: &[(u16, u16)], mut workload: Workload) -> Workload {
    let ports: PortMap = ports.iter().copied().collect();
    workload.services.insert(service.key(), ports);
    workload
}

/// `10.0.0.1` in the default network, or `network/10.0.0.1`.
pub(super) fn network_address(text: &str) -> NetworkAddress {
    if text.contains('/') {
        return text.parse().unwrap();
    }
    NetworkAddress {
        network: "".into(),
        ip: text.parse::<IpAddr>().unwrap(),
    }
}

/// A reference by address, as [`network_address`] reads it.
pub(super) fn gateway_at(address: &str, port: u16) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Address(network_address(address)),
        hbone_mtls_port: port,
    }
}

/// A reference by `namespace/hostname`.
pub(super) fn gateway_named(key: &str, port: u16) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(key.parse::<NamespacedHostname>().unwrap()),
        hbone_mtls_port: port,
    }
}

/// An enforced ALLOW of scope namespace without rules; `key` is `namespace/name`.
pub(super) fn policy(key: &str) -> Policy {
    let (namespace, name) = key.split_once('/').unwrap();
    Policy {
        name: name.into(),
        namespace: namespace.into(),
        scope: PolicyScope::Namespace,
        action: PolicyAction::Allow,
        rules: Vec::new(),
        dry_run: false,
    }
}

pub(super) fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

/// A random source that repeats itself for equal seeds.
pub(super) fn seeded(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    move |bound| random.u64(0..bound)
}
