//! Folds updates into the next snapshot.

use std::sync::Arc;

use super::Snapshot;
use crate::model::policy::Policy;
use crate::model::service::Service;
use crate::model::workload::Workload;

/// Owned by the control thread: the current state and what the next snapshot will hold.
/// SKELETON: the owner fills fields and bodies.
#[derive(Debug, Default)]
pub struct Builder {}

impl Builder {
    /// Empty state. `local_node` empty: every workload is local.
    #[must_use]
    pub fn new(_local_node: Arc<str>) -> Self {
        unimplemented!()
    }

    /// Applies one atomic change (routing 1.5) and returns the next snapshot.
    pub fn apply(&mut self, _change: Change) -> Arc<Snapshot> {
        unimplemented!()
    }
}

/// One push: updates first, then removals.
#[derive(Debug, Default)]
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
