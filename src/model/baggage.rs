//! Workload facts that travel in the `baggage` header (spec: hbone.md 4.2): encode and parse, no I/O.
//!
//! Values come from a peer: telemetry only, never policy. Nothing is escaped on the wire, as the
//! contract has it.

use std::fmt;
use std::sync::Arc;

use super::workload::Workload;

/// What a node tells its peer about the workload it speaks for. An unset field is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Baggage {
    /// `k8s.cluster.name`.
    pub cluster: Option<Arc<str>>,
    /// `k8s.namespace.name`.
    pub namespace: Option<Arc<str>>,
    /// `k8s.<workload type>.name`.
    pub workload_name: Option<Arc<str>>,
    /// Owner's kind in lower case, `deployment` when unset.
    pub workload_type: Option<Arc<str>>,
    /// `service.name`: canonical service.
    pub service_name: Option<Arc<str>>,
    /// `service.version`: canonical revision.
    pub service_revision: Option<Arc<str>>,
    /// `cloud.region`.
    pub region: Option<Arc<str>>,
    /// `cloud.availability_zone`.
    pub zone: Option<Arc<str>>,
}

/// Kinds that may stand in the key of the workload name.
const WORKLOAD_TYPES: [&str; 4] = ["deployment", "cronjob", "pod", "job"];

fn set(value: &Arc<str>) -> Option<Arc<str>> {
    (!value.is_empty()).then(|| Arc::clone(value))
}

impl From<&Workload> for Baggage {
    fn from(workload: &Workload) -> Self {
        Self {
            cluster: set(&workload.cluster_id),
            namespace: set(&workload.namespace),
            workload_name: set(&workload.workload_name),
            workload_type: set(&workload.workload_type),
            service_name: set(&workload.canonical_name),
            service_revision: set(&workload.canonical_revision),
            region: set(&workload.locality.region),
            zone: set(&workload.locality.zone),
        }
    }
}

impl Baggage {
    /// Parses the lines of a `baggage` header. Items without `=` and unknown keys are ignored, an
    /// empty value unsets, later wins; no line gives an empty value. A byte outside visible ASCII
    /// discards everything: `None`.
    #[must_use]
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut baggage = Self::default();
        for line in lines {
            for item in visible_ascii(line)?.split(',') {
                let mut parts = item.split('=');
                if let (Some(key), Some(value)) = (parts.next(), parts.next()) {
                    baggage.take(key, (!value.is_empty()).then(|| value.into()));
                }
            }
        }
        Some(baggage)
    }

    fn take(&mut self, key: &str, value: Option<Arc<str>>) {
        match key {
            "k8s.cluster.name" => self.cluster = value,
            "k8s.namespace.name" => self.namespace = value,
            "service.name" => self.service_name = value,
            "service.version" => self.service_revision = value,
            "cloud.region" => self.region = value,
            "cloud.availability_zone" => self.zone = value,
            _ => {
                let kind = key
                    .strip_prefix("k8s.")
                    .and_then(|rest| rest.strip_suffix(".name"))
                    .and_then(|kind| WORKLOAD_TYPES.into_iter().find(|known| *known == kind));
                if let Some(kind) = kind {
                    self.workload_type = value.is_some().then(|| kind.into());
                    self.workload_name = value;
                }
            }
        }
    }
}

/// The text of a header value whose bytes are visible ASCII, space or tab.
fn visible_ascii(line: &[u8]) -> Option<&str> {
    let visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    if line.iter().all(visible) {
        std::str::from_utf8(line).ok()
    } else {
        None
    }
}

impl fmt::Display for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.workload_type.as_deref().unwrap_or(WORKLOAD_TYPES[0]);
        let fields = [
            ("k8s.cluster", "name", &self.cluster),
            ("k8s.namespace", "name", &self.namespace),
            ("k8s.", kind, &self.workload_name),
            ("service", "name", &self.service_name),
            ("service", "version", &self.service_revision),
            ("cloud", "region", &self.region),
            ("cloud", "availability_zone", &self.zone),
        ];
        let mut separator = "";
        for (group, key, value) in fields {
            let Some(value) = value else { continue };
            f.write_str(separator)?;
            separator = ",";
            if group.ends_with('.') {
                write!(f, "{group}{key}.name={value}")?;
            } else {
                write!(f, "{group}.{key}={value}")?;
            }
        }
        Ok(())
    }
}
