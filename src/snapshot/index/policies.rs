//! Policies by key, and by scope, so that a decision never scans policies of other namespaces.

use std::fmt;
use std::sync::Arc;

use super::sieve::Sieve;
use super::{Map, OrderedMap};
use crate::model::policy::{Policy, PolicyAction, PolicyScope};
use crate::snapshot::Traits;

/// Policies that apply to the same workloads: the global ones, or those of one namespace.
#[derive(Clone, Default)]
pub struct PolicyGroup {
    all: OrderedMap<Arc<str>, Arc<Policy>>,
    sieve: Sieve,
    /// Allow policies: enforced, dry run.
    allows: [usize; 2],
}

impl PolicyGroup {
    /// In the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.all.values()
    }

    /// Those that a connection with these traits may match, in the order of their keys. None that
    /// matches is missing; few others are there.
    #[must_use]
    pub fn candidates(&self, traits: &Traits<'_>) -> Vec<&Arc<Policy>> {
        self.sieve.candidates(traits)
    }

    /// Whether there are allow policies, enforced ones or such in dry run.
    #[must_use]
    pub const fn has_allow(&self, dry_run: bool) -> bool {
        self.allows[dry_run as usize] > 0
    }

    fn put(&mut self, key: &Arc<str>, policy: &Arc<Policy>) {
        self.all.insert_mut(Arc::clone(key), Arc::clone(policy));
        self.sieve.put(key, policy);
        if policy.action == PolicyAction::Allow {
            self.allows[usize::from(policy.dry_run)] += 1;
        }
    }

    /// `policy` is what was put under this key.
    fn remove(&mut self, key: &str, policy: &Policy) {
        self.all.remove_mut(key);
        self.sieve.remove(key, policy);
        if policy.action == PolicyAction::Allow {
            self.allows[usize::from(policy.dry_run)] -= 1;
        }
    }
}

impl fmt::Debug for PolicyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all.keys()).finish()
    }
}

#[derive(Clone, Default)]
pub(in crate::snapshot) struct PolicyIndex {
    by_key: Map<Arc<str>, Arc<Policy>>,
    global: PolicyGroup,
    by_namespace: Map<Arc<str>, PolicyGroup>,
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

    /// Those of scope Global.
    pub(in crate::snapshot) const fn global(&self) -> &PolicyGroup {
        &self.global
    }

    /// Those of scope Namespace in this namespace, if there are any.
    pub(in crate::snapshot) fn of_namespace(&self, namespace: &str) -> Option<&PolicyGroup> {
        self.by_namespace.get(namespace)
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
                self.global.put(&key, &policy);
            }
            PolicyScope::Namespace => {
                let namespace = Arc::clone(&policy.namespace);
                let mut group = self
                    .by_namespace
                    .get(&namespace)
                    .cloned()
                    .unwrap_or_default();
                group.put(&key, &policy);
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
                self.global.remove(key, &old);
            }
            PolicyScope::Namespace => {
                if let Some(group) = self.by_namespace.get_mut(&old.namespace) {
                    group.remove(key, &old);
                    if group.all.is_empty() {
                        self.by_namespace.remove_mut(&old.namespace);
                    }
                }
            }
            PolicyScope::WorkloadSelector => {}
        }
        true
    }
}
