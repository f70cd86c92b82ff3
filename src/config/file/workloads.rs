//! The list of workloads of this host, as it stands in the configuration file.

use std::collections::BTreeMap;

use super::super::limits::LOCAL_WORKLOADS_MAX;
use super::super::problem::{Origin, ProblemKind, nearest};
use super::super::raw::Candidate;
use super::super::schema::{LOCAL_WORKLOAD_KEYS, LOCAL_WORKLOADS};
use super::super::yaml::{Node, Value};
use super::FileReader;

/// A workload of this host as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLocalWorkload {
    /// Where it stands.
    pub origin: Origin,
    /// The texts of each key of [`LOCAL_WORKLOAD_KEYS`].
    pub values: BTreeMap<&'static str, Vec<Candidate>>,
}

impl FileReader<'_> {
    pub(super) fn local_workloads(&mut self, node: &Node) {
        let Value::List(items) = &node.value else {
            self.shape(node, LOCAL_WORKLOADS, "a list of workloads");
            return;
        };
        if items.len() > LOCAL_WORKLOADS_MAX {
            let message = format!("more than {LOCAL_WORKLOADS_MAX} workloads");
            self.problem(node.at, LOCAL_WORKLOADS, ProblemKind::Conflict(message));
            return;
        }
        for item in items {
            self.local_workload(item);
        }
    }

    fn local_workload(&mut self, item: &Node) {
        let Value::Map(entries) = &item.value else {
            self.shape(item, LOCAL_WORKLOADS, "a mapping that names a workload");
            return;
        };
        let problems = self.raw.problems.len();
        let mut values = BTreeMap::new();
        for (name, node) in entries {
            let path = format!("{LOCAL_WORKLOADS}.{}", name.text);
            let known = LOCAL_WORKLOAD_KEYS.iter().find(|key| **key == name.text);
            let Some(key) = known else {
                let nearest = nearest(&name.text, LOCAL_WORKLOAD_KEYS);
                self.problem(name.at, &path, ProblemKind::UnknownKey { nearest });
                continue;
            };
            let items = match (&node.value, is_list(key)) {
                (Value::List(items), true) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            let texts = items.iter().filter_map(|item| self.text(item, &path));
            values.insert(*key, texts.collect());
        }
        let origin = self.origin(item.at);
        // What is missing in one that is not understood may be what was not understood.
        if self.raw.problems.len() == problems {
            let workload = RawLocalWorkload { origin, values };
            self.raw.local_workloads.push(workload);
        }
    }

    fn text(&mut self, node: &Node, path: &str) -> Option<Candidate> {
        let Value::Text(text) = &node.value else {
            self.shape(node, path, "a single value");
            return None;
        };
        Some(Candidate {
            text: text.clone(),
            origin: self.origin(node.at),
        })
    }
}

fn is_list(key: &str) -> bool {
    matches!(key, "cgroups" | "uids" | "addresses" | "ports")
}
