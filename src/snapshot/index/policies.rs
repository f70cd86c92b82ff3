//! Policies by key, and by scope, so that a decision never scans policies of other namespaces.

use std::sync::Arc;

use super::{Map, OrderedMap};
use crate::model::policy::{Policy, PolicyScope};

type ByKey = OrderedMap<Arc<str>, Arc<Policy>>;

#[derive(Clone, Default)]
pub(in crate::snapshot) struct PolicyIndex {
    by_key: Map<Arc<str>, Arc<Policy>>,
    global: ByKey,
    by_namespace: Map<Arc<str>, ByKey>,
}

impl PolicyIndex {
    pub(in crate::snapshot) fn get(&self, key: &str) -> Option<&Arc<Policy>> {
        self.by_key.get(key)
    }

    pub(in crate::snapshot) fn len(&self) -> usize {
        self.by_key.size()
    }

    /// In no particular order.
    pub(in crate::snapshot) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Policy>)> {
        self.by_key.iter()
    }

    /// In the order of their keys.
    pub(in crate::snapshot) fn global(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.global.values()
    }

    /// In the order of their keys.
    pub(in crate::snapshot) fn of_namespace(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_namespace
            .get(namespace)
            .into_iter()
            .flat_map(|policies| policies.values())
    }

    /// Returns whether anything changed.
    pub(in crate::snapshot) fn put(&mut self, key: Arc<str>, policy: Policy) -> bool {
        if self.get(&key).is_some_and(|old| **old == policy) {
            return false;
        }
        // The scope may differ from the old one: leave no registration behind.
        self.remove(&key);
        let policy = Arc::new(policy);
        match policy.scope {
            PolicyScope::Global => {
                self.global
                    .insert_mut(Arc::clone(&key), Arc::clone(&policy));
            }
            PolicyScope::Namespace => {
                let namespace = Arc::clone(&policy.namespace);
                let mut group = self
                    .by_namespace
                    .get(&namespace)
                    .cloned()
                    .unwrap_or_default();
                group.insert_mut(Arc::clone(&key), Arc::clone(&policy));
                self.by_namespace.insert_mut(namespace, group);
            }
            PolicyScope::WorkloadSelector => {}
        }
        self.by_key.insert_mut(key, policy);
        true
    }

    /// Returns whether there was such a policy.
    pub(in crate::snapshot) fn remove(&mut self, key: &str) -> bool {
        let Some(old) = self.by_key.get(key).cloned() else {
            return false;
        };
        self.by_key.remove_mut(key);
        match old.scope {
            PolicyScope::Global => {
                self.global.remove_mut(key);
            }
            PolicyScope::Namespace => {
                if let Some(group) = self.by_namespace.get_mut(&old.namespace) {
                    group.remove_mut(key);
                    if group.is_empty() {
                        self.by_namespace.remove_mut(&old.namespace);
                    }
                }
            }
            PolicyScope::WorkloadSelector => {}
        }
        true
    }
}
