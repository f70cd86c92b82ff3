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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Option<Baggage> {
        Baggage::parse(lines.iter().map(|line| line.as_bytes()))
    }

    fn full() -> Baggage {
        let set = |text: &str| Some(text.into());
        Baggage {
            cluster: set("Kubernetes"),
            namespace: set("ns"),
            workload_name: set("web"),
            workload_type: set("cronjob"),
            service_name: set("web-svc"),
            service_revision: set("v1"),
            region: set("r1"),
            zone: set("z1"),
        }
    }

    const FULL: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.cronjob.name=web,\
                        service.name=web-svc,service.version=v1,cloud.region=r1,\
                        cloud.availability_zone=z1";

    #[test]
    fn text_form_follows_the_contract_and_survives_a_round_trip() {
        assert_eq!(full().to_string(), FULL);
        assert_eq!(parse(&[FULL]), Some(full()));
        assert_eq!(Baggage::default().to_string(), "");
        assert_eq!(parse(&[""]), Some(Baggage::default()));
    }

    #[test]
    fn every_workload_type_names_the_workload() {
        for kind in WORKLOAD_TYPES {
            let parsed = parse(&[&format!("k8s.{kind}.name=w")]).unwrap();
            assert_eq!(parsed.workload_name.as_deref(), Some("w"));
            assert_eq!(parsed.workload_type.as_deref(), Some(kind));
        }
        assert_eq!(parse(&["k8s.replicaset.name=w"]), Some(Baggage::default()));
    }

    #[test]
    fn header_lines_merge_and_the_last_one_wins() {
        let lines: Vec<&str> = FULL.split(',').collect();
        assert_eq!(parse(&lines), Some(full()));
        let parsed = parse(&["cloud.region=a,cloud.region=b", "cloud.region=c"]).unwrap();
        assert_eq!(parsed.region.as_deref(), Some("c"));
        let parsed = parse(&["k8s.pod.name=a", "k8s.job.name="]).unwrap();
        assert_eq!((parsed.workload_name, parsed.workload_type), (None, None));
    }

    #[test]
    fn odd_items_are_ignored_or_unset_but_never_trimmed() {
        let cases: [(&str, Option<&str>); 8] = [
            ("service.name=", None),
            ("service.name", None),
            ("service.name=a=b", Some("a")),
            (" service.name=a", None),
            ("service.name= a ", Some(" a ")),
            (",,=,service.name=a,", Some("a")),
            ("unknown=x,service.name=a", Some("a")),
            ("service.name=a,service.name=", None),
        ];
        for (line, expected) in cases {
            let parsed = parse(&[line]).unwrap();
            assert_eq!(parsed.service_name.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_line_beyond_visible_ascii_discards_everything() {
        assert_eq!(
            Baggage::parse([b"service.name=a".as_slice(), b"x=\xff"]),
            None
        );
        assert_eq!(parse(&["service.name=\u{e9}"]), None);
        assert_eq!(parse(&["service.name=a\u{1}"]), None);
        assert_eq!(parse(&[]), Some(Baggage::default()));
    }

    #[test]
    fn a_workload_gives_its_own_facts_and_leaves_empty_ones_out() {
        let workload = Workload {
            cluster_id: "Kubernetes".into(),
            namespace: "default".into(),
            workload_name: "client".into(),
            workload_type: "deployment".into(),
            ..Workload::default()
        };
        assert_eq!(
            Baggage::from(&workload).to_string(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client"
        );
    }
}
