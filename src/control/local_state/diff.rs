//! The change that turns one state file into the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::LocalState;
use crate::model::addr::NamespacedHostname;
use crate::model::service::{HealthPolicy, Service};
use crate::snapshot::builder::Change;

/// What to apply so that the state of `previous` becomes that of `next`: changed and new resources,
/// and the names of those gone. A reload then costs, and disturbs, only what was edited.
#[must_use]
pub fn change_from(previous: &LocalState, next: &LocalState) -> Change {
    let old_services: BTreeMap<_, _> = by_key(&previous.services).collect();
    let new_services: BTreeMap<_, _> = by_key(&next.services).collect();
    let services: Vec<&Service> = next
        .services
        .iter()
        .filter(|service| old_services.get(&service.key()) != Some(service))
        .collect();
    let gone_services: Vec<_> = old_services
        .keys()
        .filter(|key| !new_services.contains_key(key))
        .collect();
    // A service that comes or goes, or admits others than before, has the right endpoints only
    // once the workloads that back it are sent again (routing 1.5).
    let hungry: BTreeSet<NamespacedHostname> = services
        .iter()
        .map(|service| (service.key(), *service))
        .filter(|(key, service)| {
            let old = old_services.get(key);
            old.is_none_or(|old| health_policy(old) != health_policy(service))
        })
        .map(|(key, _)| key)
        .chain(gone_services.iter().map(|key| (*key).clone()))
        .collect();

    let old_workloads: BTreeMap<_, _> = previous.workloads.iter().map(|w| (&w.uid, w)).collect();
    let new_uids: BTreeSet<_> = next.workloads.iter().map(|w| &w.uid).collect();
    let workloads = next.workloads.iter().filter(|workload| {
        old_workloads.get(&workload.uid) != Some(workload)
            || workload.services.keys().any(|key| hungry.contains(key))
    });

    let old_policies: BTreeMap<_, _> = previous.policies.iter().map(|(k, p)| (k, p)).collect();
    let new_policies: BTreeSet<_> = next.policies.iter().map(|(key, _)| key).collect();
    let policies = next
        .policies
        .iter()
        .filter(|(key, policy)| old_policies.get(key) != Some(&policy));

    let gone_workloads = old_workloads.keys().filter(|uid| !new_uids.contains(*uid));
    let gone_services = gone_services.iter().map(|key| Arc::from(key.to_string()));
    let gone_policies = old_policies.keys().filter(|k| !new_policies.contains(*k));
    Change {
        workloads: workloads.cloned().collect(),
        services: services.into_iter().cloned().collect(),
        policies: policies.cloned().collect(),
        removed_addresses: gone_workloads
            .map(|uid| Arc::clone(uid))
            .chain(gone_services)
            .collect(),
        removed_policies: gone_policies.map(|key| Arc::clone(key)).collect(),
    }
}

fn by_key(services: &[Service]) -> impl Iterator<Item = (NamespacedHostname, &Service)> {
    services.iter().map(|service| (service.key(), service))
}

fn health_policy(service: &Service) -> HealthPolicy {
    let balancer = service.load_balancer.as_ref();
    balancer.map_or_else(HealthPolicy::default, |lb| lb.health_policy)
}
