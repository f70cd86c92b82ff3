//! One consistent, immutable version of the mesh, and its exchange between threads.

pub mod builder;
pub mod exchange;
pub mod index;

use std::sync::Arc;

use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::identity::Identity;
use crate::model::policy::Policy;
use crate::model::service::Service;
use crate::model::workload::{Workload, WorkloadInfo};

/// What an address or hostname stands for.
#[derive(Clone, Debug)]
pub enum Address {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
}

/// Number of a snapshot; grows by one with each publication.
pub type Generation = u64;

/// Immutable mesh state. Cloning shares structure. SKELETON: the owner fills fields and bodies.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: Generation,
    policy_generation: Generation,
}

impl Snapshot {
    /// Number of this snapshot.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Generation of the newest change that can alter a verdict on an open connection: a policy
    /// was added, replaced or removed, or a workload's policy list changed.
    #[must_use]
    pub const fn policy_generation(&self) -> Generation {
        self.policy_generation
    }

    /// Workload by primary key.
    #[must_use]
    pub fn workload_by_uid(&self, _uid: &str) -> Option<&Arc<Workload>> {
        unimplemented!()
    }

    /// Workload by address (routing 1.6); host-network workloads are not found.
    #[must_use]
    pub fn workload_by_address(&self, _address: &NetworkAddress) -> Option<&Arc<Workload>> {
        unimplemented!()
    }

    /// Local workload with exactly this name, namespace and service account.
    #[must_use]
    pub fn local_workload(&self, _info: &WorkloadInfo) -> Option<&Arc<Workload>> {
        unimplemented!()
    }

    /// Any local workload of this namespace and service account (lowest uid).
    #[must_use]
    pub fn local_workload_of(&self, _namespace: &str, _account: &str) -> Option<&Arc<Workload>> {
        unimplemented!()
    }

    /// Service by exact VIP, else by CIDR VIP, seen from `client_namespace` (routing 1.6).
    #[must_use]
    pub fn service_by_vip(
        &self,
        _address: &NetworkAddress,
        _client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        unimplemented!()
    }

    /// Best service with this hostname, seen from `client_namespace`.
    #[must_use]
    pub fn service_by_host(
        &self,
        _hostname: &str,
        _client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        unimplemented!()
    }

    /// Service by primary key; no visibility filter.
    #[must_use]
    pub fn service(&self, _key: &NamespacedHostname) -> Option<&Arc<Service>> {
        unimplemented!()
    }

    /// Workload by address, else service by VIP.
    #[must_use]
    pub fn find_address(
        &self,
        _address: &NetworkAddress,
        _client_namespace: Option<&str>,
    ) -> Option<Address> {
        unimplemented!()
    }

    /// Service by key, else any workload with that hostname and namespace.
    #[must_use]
    pub fn find_hostname(&self, _key: &NamespacedHostname) -> Option<Address> {
        unimplemented!()
    }

    /// Policy by key `namespace/name`.
    #[must_use]
    pub fn policy(&self, _key: &str) -> Option<&Arc<Policy>> {
        unimplemented!()
    }

    /// Policies of scope Global.
    pub fn global_policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        std::iter::empty()
    }

    /// Policies of scope Namespace in this namespace.
    pub fn namespace_policies(&self, _namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        std::iter::empty()
    }

    /// All workloads, sorted by uid (for dumps).
    #[must_use]
    pub fn workloads(&self) -> Vec<Arc<Workload>> {
        unimplemented!()
    }

    /// All services, sorted by hostname (for dumps).
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        unimplemented!()
    }

    /// All policies, sorted by key (for dumps).
    #[must_use]
    pub fn policies(&self) -> Vec<Arc<Policy>> {
        unimplemented!()
    }

    /// Identities of local workloads, the ones certificates are needed for.
    #[must_use]
    pub fn local_identities(&self) -> Vec<Identity> {
        unimplemented!()
    }
}
