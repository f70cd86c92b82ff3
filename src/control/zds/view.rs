//! What operators see of the node's workloads: `workloadState` of the dump (spec: zds.md 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use crate::model::workload::WorkloadInfo;

/// How a workload is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Its listeners could not be made yet.
    Pending,
    /// It is served.
    Up,
}

/// All workloads by uid.
pub type Workloads = BTreeMap<Arc<str>, (Served, Arc<WorkloadInfo>)>;

/// The newest picture, for other threads to read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<ArcSwap<Workloads>>);

impl View {
    /// Replaces the picture.
    pub(super) fn publish(&self, workloads: Workloads) {
        self.0.store(Arc::new(workloads));
    }

    /// As the dump shows it.
    #[must_use]
    pub fn dump(&self) -> Value {
        let workloads = self.0.load();
        let entries = workloads.iter().map(|(uid, (served, info))| {
            let state = match served {
                Served::Pending => "Pending",
                Served::Up => "Up",
            };
            let entry = json!({
                "state": state,
                "info": {
                    "name": &*info.name,
                    "namespace": &*info.namespace,
                    "serviceAccount": &*info.service_account,
                },
            });
            (uid.to_string(), entry)
        });
        Value::Object(entries.collect())
    }
}
