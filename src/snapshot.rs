//! One consistent, immutable version of the mesh, and its exchange between threads.
//!
//! A [`builder::Builder`] on the control thread folds changes into the next [`Snapshot`]; shards
//! read it through [`exchange`]. The maps inside share structure: publishing a change of `k`
//! resources copies `O(k log n)` of it. Nothing here waits, logs, or knows a clock.

pub mod builder;
pub mod exchange;
mod index;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::identity::Identity;
use crate::model::policy::Policy;
use crate::model::service::{Endpoint, Service};
use crate::model::workload::{Workload, WorkloadInfo};
pub use index::PolicyGroup;
use index::{Map, OrderedMap, PolicyIndex, ServiceIndex, WorkloadIndex};

/// What an address or hostname stands for.
#[derive(Clone, Debug)]
pub enum Address {
    /// A workload.
    Workload(Arc<Workload>),
    /// A service.
    Service(Arc<Service>),
}

/// What policies can ask of a connection; addresses are canonical.
#[derive(Clone, Copy, Debug)]
pub struct Traits<'a> {
    /// Text of the identity, `TD/ns/NS/sa/SA`; none without one.
    pub principal: Option<&'a [u8]>,
    /// Its namespace; empty without one.
    pub namespace: &'a [u8],
    /// Its service account; none without one.
    pub service_account: Option<&'a [u8]>,
    /// TCP peer.
    pub source_ip: IpAddr,
    /// Local address.
    pub destination_ip: IpAddr,
    /// Port of the application.
    pub destination_port: u16,
}

/// Number of a snapshot; grows by one with each publication.
pub type Generation = u64;

/// How much a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workloads.
    pub workloads: usize,
    /// Services.
    pub services: usize,
    /// Endpoints of all services; staged ones are not counted.
    pub endpoints: usize,
    /// Policies.
    pub policies: usize,
}

/// Immutable mesh state. Cloning shares structure.
#[derive(Clone, Default)]
pub struct Snapshot {
    generation: Generation,
    policy_generation: Generation,
    workloads: WorkloadIndex,
    services: ServiceIndex,
    /// Endpoints of services not received yet, by workload uid.
    staged: Map<NamespacedHostname, OrderedMap<Arc<str>, Endpoint>>,
    policies: PolicyIndex,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation)
            .field("policy_generation", &self.policy_generation)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Number of this snapshot.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Generation of the newest change that can alter a verdict on an open connection: a policy
    /// was added, replaced or removed, or a local workload appeared or changed its policy list,
    /// namespace, trust domain or service account.
    #[must_use]
    pub const fn policy_generation(&self) -> Generation {
        self.policy_generation
    }

    /// Workload by primary key.
    #[must_use]
    pub fn workload_by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.by_uid(uid)
    }

    /// Workload by address (routing 1.6); host-network workloads are not found.
    #[must_use]
    pub fn workload_by_address(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.workloads.by_address(address)
    }

    /// Local workload with exactly this name, namespace and service account (lowest uid).
    #[must_use]
    pub fn local_workload(&self, info: &WorkloadInfo) -> Option<&Arc<Workload>> {
        self.workloads.local_by_info(info)
    }

    /// Whether the workload runs on this node: on the configured node, or on any when none is.
    #[must_use]
    pub fn is_local(&self, workload: &Workload) -> bool {
        self.workloads.is_local(workload)
    }

    /// Any local workload of this namespace and service account (lowest uid).
    #[must_use]
    pub fn local_workload_of(&self, namespace: &str, account: &str) -> Option<&Arc<Workload>> {
        self.workloads.local_by_account(namespace, account)
    }

    /// Service by exact VIP, else by CIDR VIP, seen from `client_namespace` (routing 1.6).
    #[must_use]
    pub fn service_by_vip(
        &self,
        address: &NetworkAddress,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        self.services.by_vip(address, client_namespace)
    }

    /// Best service with this hostname, seen from `client_namespace`.
    #[must_use]
    pub fn service_by_host(
        &self,
        hostname: &str,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        self.services
            .by_host(hostname, client_namespace, None, &|_| true)
    }

    /// As [`Self::service_by_host`], among the `usable` services only and with a namespace that wins
    /// over the first stored service (`PREFERED_SERVICE_NAMESPACE`, for DNS).
    #[must_use]
    pub fn service_by_host_preferring(
        &self,
        hostname: &str,
        client_namespace: Option<&str>,
        preferred_namespace: Option<&str>,
        usable: &dyn Fn(&Service) -> bool,
    ) -> Option<&Arc<Service>> {
        self.services
            .by_host(hostname, client_namespace, preferred_namespace, usable)
    }

    /// Service by primary key; no visibility filter.
    #[must_use]
    pub fn service(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// Workload by address, else service by VIP.
    #[must_use]
    pub fn find_address(
        &self,
        address: &NetworkAddress,
        client_namespace: Option<&str>,
    ) -> Option<Address> {
        if let Some(workload) = self.workload_by_address(address) {
            return Some(Address::Workload(Arc::clone(workload)));
        }
        let service = self.service_by_vip(address, client_namespace)?;
        Some(Address::Service(Arc::clone(service)))
    }

    /// Service by key, else any workload with that hostname and namespace (lowest uid).
    #[must_use]
    pub fn find_hostname(&self, key: &NamespacedHostname) -> Option<Address> {
        if let Some(service) = self.service(key) {
            return Some(Address::Service(Arc::clone(service)));
        }
        let workload = self.workloads.by_hostname(key)?;
        Some(Address::Workload(Arc::clone(workload)))
    }

    /// Policy by key `namespace/name`.
    #[must_use]
    pub fn policy(&self, key: &str) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// Policies of scope Global, in the order of their keys.
    pub fn global_policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.global().iter()
    }

    /// Policies of scope Namespace in this namespace, in the order of their keys.
    pub fn namespace_policies(&self, namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        let group = self.policies.of_namespace(namespace);
        group.into_iter().flat_map(PolicyGroup::iter)
    }

    /// Policies that apply to workloads of a namespace by their scope: those of the namespace, if it
    /// has any, then the global ones.
    pub fn policy_groups(&self, namespace: &str) -> impl Iterator<Item = &PolicyGroup> {
        let own = self.policies.of_namespace(namespace);
        own.into_iter().chain([self.policies.global()])
    }

    /// All workloads, sorted by uid (for dumps).
    #[must_use]
    pub fn workloads(&self) -> Vec<Arc<Workload>> {
        let mut all: Vec<_> = self.workloads.iter().cloned().collect();
        all.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        all
    }

    /// All services, sorted by hostname, then namespace (for dumps).
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        let mut all: Vec<_> = self.services.iter().cloned().collect();
        all.sort_unstable_by(|a, b| (&a.hostname, &a.namespace).cmp(&(&b.hostname, &b.namespace)));
        all
    }

    /// All policies, sorted by key (for dumps).
    #[must_use]
    pub fn policies(&self) -> Vec<Arc<Policy>> {
        let mut all: Vec<_> = self.policies.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
            .map(|(_, policy)| Arc::clone(policy))
            .collect()
    }

    /// Endpoints that wait for their service, by service and workload uid (for dumps).
    #[must_use]
    pub fn staged(&self) -> BTreeMap<NamespacedHostname, BTreeMap<Arc<str>, Endpoint>> {
        let copy = |endpoints: &OrderedMap<Arc<str>, Endpoint>| {
            let entries = endpoints.iter();
            entries
                .map(|(uid, endpoint)| (Arc::clone(uid), endpoint.clone()))
                .collect()
        };
        self.staged
            .iter()
            .map(|(key, endpoints)| (key.clone(), copy(endpoints)))
            .collect()
    }

    /// How much it holds; constant time.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            workloads: self.workloads.len(),
            services: self.services.len(),
            endpoints: self.services.endpoints(),
            policies: self.policies.len(),
        }
    }

    /// Whether a local workload has this identity.
    #[must_use]
    pub fn has_local_identity(&self, identity: &Identity) -> bool {
        self.workloads.has_local_identity(identity)
    }

    /// Identities of local workloads that take tunnels, the ones certificates are fetched ahead for;
    /// sorted.
    #[must_use]
    pub fn tunnelled_identities(&self) -> Vec<Identity> {
        let mut all: Vec<_> = self.workloads.tunnelled_identities().cloned().collect();
        all.sort_unstable();
        all
    }

    /// Identities of local workloads, the ones certificates are needed for; sorted.
    #[must_use]
    pub fn local_identities(&self) -> Vec<Identity> {
        let mut all: Vec<_> = self.workloads.local_identities().cloned().collect();
        all.sort_unstable();
        all
    }
}
