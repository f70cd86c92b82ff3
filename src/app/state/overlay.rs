//! The control plane's resources on top of the state file's, where both have one of the same name.
//!
//! The control plane's record counts while it exists. The file's comes back when the control plane
//! removes its own; what only the file has, the control plane cannot remove.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::addr::NamespacedHostname;
use crate::model::policy::Policy;
use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::snapshot::builder::Change;

/// What the file says, and which names the control plane has.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    workloads: HashMap<Arc<str>, Workload>,
    services: HashMap<NamespacedHostname, Service>,
    policies: HashMap<Arc<str>, Policy>,
    remote_workloads: HashSet<Arc<str>>,
    remote_services: HashSet<NamespacedHostname>,
    remote_policies: HashSet<Arc<str>>,
}

impl Overlay {
    /// What a change of the file does to the state.
    pub(super) fn local(&mut self, mut change: Change) -> Change {
        for workload in &change.workloads {
            self.workloads
                .insert(Arc::clone(&workload.uid), workload.clone());
        }
        for service in &change.services {
            self.services.insert(service.key(), service.clone());
        }
        for (key, policy) in &change.policies {
            self.policies.insert(Arc::clone(key), policy.clone());
        }
        let remote = &self.remote_workloads;
        change.workloads.retain(|w| !remote.contains(&w.uid));
        let remote = &self.remote_services;
        change.services.retain(|s| !remote.contains(&s.key()));
        let remote = &self.remote_policies;
        change.policies.retain(|(key, _)| !remote.contains(key));
        change.removed_policies.retain(|key| {
            self.policies.remove(key);
            !self.remote_policies.contains(key)
        });
        change.removed_addresses.retain(|name| {
            if self.workloads.remove(name).is_some() {
                return !self.remote_workloads.contains(name);
            }
            let Ok(key) = name.parse::<NamespacedHostname>() else {
                return true;
            };
            self.services.remove(&key);
            !self.remote_services.contains(&key)
        });
        change
    }

    /// What a change of the control plane does to the state.
    pub(super) fn remote(&mut self, mut change: Change) -> Change {
        let uids = change.workloads.iter().map(|w| Arc::clone(&w.uid));
        self.remote_workloads.extend(uids);
        let keys = change.services.iter().map(Service::key);
        self.remote_services.extend(keys);
        let keys = change.policies.iter().map(|(key, _)| Arc::clone(key));
        self.remote_policies.extend(keys);
        let removed = std::mem::take(&mut change.removed_policies);
        for key in removed {
            let own = self.remote_policies.remove(&key);
            match self.policies.get(&key) {
                Some(policy) if own => change.policies.push((key, policy.clone())),
                Some(_) => {}
                None => change.removed_policies.push(key),
            }
        }
        let removed = std::mem::take(&mut change.removed_addresses);
        for name in removed {
            self.remove_address(name, &mut change);
        }
        change
    }

    fn remove_address(&mut self, name: Arc<str>, change: &mut Change) {
        let own = self.remote_workloads.remove(&name);
        if own || self.workloads.contains_key(&name) {
            match self.workloads.get(&name) {
                Some(workload) if own => change.workloads.push(workload.clone()),
                Some(_) => {}
                None => change.removed_addresses.push(name),
            }
            return;
        }
        let Ok(key) = name.parse::<NamespacedHostname>() else {
            change.removed_addresses.push(name);
            return;
        };
        let own = self.remote_services.remove(&key);
        match self.services.get(&key) {
            Some(service) if own => change.services.push(service.clone()),
            Some(_) => {}
            None => change.removed_addresses.push(name),
        }
    }
}
