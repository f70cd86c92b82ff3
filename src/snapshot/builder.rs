//! Folds updates into the next snapshot (routing 1.5).
//!
//! Endpoints reach a service from two sides: workloads list the services they back, and a service
//! record may name endpoints itself (state files do). Those of workloads outlive a new record of
//! the service; those named by a record live as long as the record does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Snapshot;
use super::index::{OrderedMap, WorkloadIndex};
use crate::model::addr::NamespacedHostname;
use crate::model::policy::Policy;
use crate::model::service::{Endpoint, Service};
use crate::model::workload::{PortMap, Workload};

/// Owned by the control thread: the current state and what the next snapshot will hold.
#[derive(Debug, Default)]
pub struct Builder {
    current: Snapshot,
    /// What was folded in since the last snapshot can alter a verdict.
    verdicts_may_change: bool,
}

impl Change {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workloads.is_empty()
            && self.services.is_empty()
            && self.policies.is_empty()
            && self.removed_addresses.is_empty()
            && self.removed_policies.is_empty()
    }
}

/// One push: updates first, then removals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Workloads to insert or replace.
    pub workloads: Vec<Workload>,
    /// Services to insert or replace.
    pub services: Vec<Service>,
    /// Policies to insert or replace, by their key.
    pub policies: Vec<(Arc<str>, Policy)>,
    /// Resource names (workload uid or `namespace/hostname`) to remove.
    pub removed_addresses: Vec<Arc<str>>,
    /// Policy keys to remove.
    pub removed_policies: Vec<Arc<str>>,
}

/// What one push does to the endpoints of one service, by workload uid.
#[derive(Default)]
struct EndpointChange {
    removed: BTreeSet<Arc<str>>,
    added: BTreeMap<Arc<str>, Endpoint>,
}

type EndpointChanges = FxHashMap<NamespacedHostname, EndpointChange>;

impl Builder {
    /// Empty state. `local_node` empty: every workload is local.
    #[must_use]
    pub fn new(local_node: Arc<str>) -> Self {
        let current = Snapshot {
            workloads: WorkloadIndex::new(local_node),
            ..Snapshot::default()
        };
        Self {
            current,
            verdicts_may_change: false,
        }
    }

    /// Applies one atomic change (routing 1.5) and returns the next snapshot.
    pub fn apply(&mut self, change: Change) -> Arc<Snapshot> {
        self.fold(change);
        self.seal()
    }

    /// Makes everything folded in so far the next snapshot.
    pub fn seal(&mut self) -> Arc<Snapshot> {
        self.current.generation += 1;
        if std::mem::take(&mut self.verdicts_may_change) {
            self.current.policy_generation = self.current.generation;
        }
        Arc::new(self.current.clone())
    }

    /// Takes in a part of the next snapshot. Parts of one response are folded in one by one and become
    /// visible together, by [`Self::seal`]; what they share with no snapshot is changed in place.
    pub fn fold(&mut self, change: Change) {
        let mut verdicts_may_change = false;
        for (key, policy) in change.policies {
            verdicts_may_change |= self.current.policies.put(key, policy);
        }
        for key in &change.removed_policies {
            verdicts_may_change |= self.current.policies.remove(key);
        }
        let mut endpoints = EndpointChanges::default();
        for workload in change.workloads {
            verdicts_may_change |= self.put_workload(workload, &mut endpoints);
        }
        let removed = self.remove_addresses(&change.removed_addresses, &mut endpoints);
        for service in last_of_each(change.services) {
            if !removed.contains(&service.key()) {
                self.put_service(service, &mut endpoints);
            }
        }
        for key in &removed {
            self.current.services.remove(key);
            self.current.staged.remove_mut(key);
        }
        for (key, change) in endpoints {
            self.change_endpoints(key, change);
        }
        self.verdicts_may_change |= verdicts_may_change;
    }

    /// Returns whether verdicts on open connections may change.
    fn put_workload(&mut self, workload: Workload, endpoints: &mut EndpointChanges) -> bool {
        let index = &mut self.current.workloads;
        let old = index.by_uid(&workload.uid).cloned();
        if let Some(old) = &old {
            withdraw_endpoints(old, endpoints);
        }
        // Even an unchanged record brings its endpoints again: a service may have dropped them.
        for (service, ports) in &workload.services {
            let change = endpoints.entry(service.clone()).or_default();
            let endpoint = endpoint(&workload, ports);
            change.added.insert(Arc::clone(&workload.uid), endpoint);
        }
        if old.as_deref() == Some(&workload) {
            return false;
        }
        let concerns = |w: &Workload| index.is_local(w);
        // A workload that is new may be one that left while its connections stayed open.
        let verdicts_may_change = match &old {
            None => concerns(&workload),
            Some(old) => {
                (concerns(old) || concerns(&workload)) && judged_differently(old, &workload)
            }
        };
        index.put(Arc::new(workload));
        verdicts_may_change
    }

    /// Removes the workloads named and returns the services named.
    fn remove_addresses(
        &mut self,
        names: &[Arc<str>],
        endpoints: &mut EndpointChanges,
    ) -> FxHashSet<NamespacedHostname> {
        let mut services = FxHashSet::default();
        for name in names {
            if let Some(old) = self.current.workloads.remove(name) {
                withdraw_endpoints(&old, endpoints);
            } else if let Some((namespace, hostname)) = name.split_once('/')
                && !hostname.contains('/')
            {
                services.insert(NamespacedHostname {
                    namespace: namespace.into(),
                    hostname: hostname.into(),
                });
            }
        }
        services
    }

    /// Stores a service with the endpoints it names, those that workloads gave its former record,
    /// those that waited for it and those of this push.
    fn put_service(&mut self, mut service: Service, endpoints: &mut EndpointChanges) {
        let key = service.key();
        let named = std::mem::take(&mut service.endpoints);
        let old = self.current.services.get(&key).cloned();
        if let Some(old) = &old {
            let kept = old
                .endpoints
                .iter()
                .filter(|(uid, endpoint)| service.admits(endpoint.status) && self.backs(uid, &key));
            service.endpoints = kept.map(|(uid, e)| (Arc::clone(uid), e.clone())).collect();
        }
        if let Some(staged) = self.current.staged.get(&key) {
            admit(
                &mut service,
                staged.iter().map(|(u, e)| (Arc::clone(u), e.clone())),
            );
            self.current.staged.remove_mut(&key);
        }
        if let Some(change) = endpoints.remove(&key) {
            apply_to(&mut service, change);
        }
        for (uid, endpoint) in named {
            if service.admits(endpoint.status) {
                service.endpoints.entry(uid).or_insert(endpoint);
            }
        }
        if old.as_deref() != Some(&service) {
            self.current.services.put(Arc::new(service));
        }
    }

    fn change_endpoints(&mut self, key: NamespacedHostname, change: EndpointChange) {
        if let Some(old) = self.current.services.get(&key) {
            let mut service = Service::clone(old);
            apply_to(&mut service, change);
            if **old != service {
                self.current.services.put(Arc::new(service));
            }
            return;
        }
        let mut staged: OrderedMap<_, _> =
            self.current.staged.get(&key).cloned().unwrap_or_default();
        for uid in &change.removed {
            staged.remove_mut(uid);
        }
        for (uid, endpoint) in change.added {
            staged.insert_mut(uid, endpoint);
        }
        if staged.is_empty() {
            self.current.staged.remove_mut(&key);
        } else {
            self.current.staged.insert_mut(key, staged);
        }
    }

    /// Whether the workload lists the service.
    fn backs(&self, uid: &str, service: &NamespacedHostname) -> bool {
        let workload = self.current.workloads.by_uid(uid);
        workload.is_some_and(|workload| workload.services.contains_key(service))
    }
}

/// Takes back what this record gave to services, before this push or in it.
fn withdraw_endpoints(old: &Workload, endpoints: &mut EndpointChanges) {
    for service in old.services.keys() {
        let change = endpoints.entry(service.clone()).or_default();
        change.added.remove(&old.uid);
        change.removed.insert(Arc::clone(&old.uid));
    }
}

fn endpoint(workload: &Workload, ports: &PortMap) -> Endpoint {
    Endpoint {
        workload_uid: Arc::clone(&workload.uid),
        ports: ports.clone(),
        status: workload.status,
    }
}

/// Removals come first: a workload sent again keeps its new endpoint.
fn apply_to(service: &mut Service, change: EndpointChange) {
    for uid in &change.removed {
        service.endpoints.remove(uid);
    }
    admit(service, change.added);
}

fn admit(service: &mut Service, endpoints: impl IntoIterator<Item = (Arc<str>, Endpoint)>) {
    for (uid, endpoint) in endpoints {
        if service.admits(endpoint.status) {
            service.endpoints.insert(uid, endpoint);
        }
    }
}

/// Whether authorization can judge a connection to one record otherwise than to the other.
fn judged_differently(a: &Workload, b: &Workload) -> bool {
    a.authorization_policies != b.authorization_policies
        || a.namespace != b.namespace
        || a.trust_domain != b.trust_domain
        || a.service_account != b.service_account
}

/// Each service once: in the place of its first record, with the content of its last.
fn last_of_each(services: Vec<Service>) -> Vec<Service> {
    let mut places = FxHashMap::default();
    let mut unique: Vec<Service> = Vec::with_capacity(services.len());
    for service in services {
        let place = *places.entry(service.key()).or_insert(unique.len());
        match unique.get_mut(place) {
            Some(former) => *former = service,
            None => unique.push(service),
        }
    }
    unique
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
