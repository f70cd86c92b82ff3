//! Mesh configuration: `./etc/istio/config/mesh` and the text of `PROXY_CONFIG`.
//!
//! Foreign documents: fields we do not know are ignored, and what is known is merged field by field,
//! `PROXY_CONFIG` over the file (spec: local-config 2).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::{Origin, Position, Problem, ProblemKind};
use super::raw::Candidate;
use super::yaml::{self, Node, Value};

/// Beginning of metadata keys that is left out.
pub(super) const METADATA_PREFIX: &str = "ISTIO_META_";
/// Beginning of the variables that carry metadata as JSON.
pub(super) const METADATA_JSON_PREFIX: &str = "ISTIO_METAJSON_";
/// Beginning of the variables that carry headers for the control plane.
pub(super) const XDS_HEADER_PREFIX: &str = "XDS_HEADER_";

/// Beginning of the variables that carry headers for the certificate authority.
pub(super) const CA_HEADER_PREFIX: &str = "CA_HEADER_";

/// One ProxyConfig, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<Candidate>,
    pub(super) admin_port: Option<Candidate>,
    pub(super) stats_port: Option<Candidate>,
    pub(super) concurrency: Option<Candidate>,
    /// Keys without their prefix.
    pub(super) metadata: BTreeMap<String, Candidate>,
}

/// Which document is read.
#[derive(Clone, Debug)]
pub(super) enum Document {
    /// A mesh configuration; the ProxyConfig is its `defaultConfig`.
    MeshFile(Arc<PathBuf>),
    /// A ProxyConfig.
    ProxyConfig,
}

impl Document {
    fn origin(&self, at: Position) -> Origin {
        match self {
            Self::MeshFile(path) => Origin::MeshFile(Arc::clone(path), at),
            Self::ProxyConfig => Origin::ProxyConfig(at),
        }
    }

    fn problem(&self, at: Position, setting: &str, kind: ProblemKind) -> Problem {
        Problem {
            origin: self.origin(at),
            setting: setting.to_owned(),
            kind,
        }
    }

    /// Reads `text`; what is wrong is added to `problems`.
    pub(super) fn read(&self, text: &str, problems: &mut Vec<Problem>) -> ProxyConfig {
        let root =
            match yaml::parse(text) {
                Ok(root) => root,
                Err(errors) => {
                    problems.extend(errors.into_iter().map(|error| {
                        self.problem(error.at, "", ProblemKind::Syntax(error.message))
                    }));
                    return ProxyConfig::default();
                }
            };
        let Some(root) = root else {
            return ProxyConfig::default();
        };
        match self {
            Self::ProxyConfig => self.proxy_config(&root, "", problems),
            Self::MeshFile(_) => {
                let Some(fields) = self.mapping(&root, "", problems) else {
                    return ProxyConfig::default();
                };
                match fields.get("defaultConfig") {
                    Some(node) => self.proxy_config(node, "defaultConfig", problems),
                    None => ProxyConfig::default(),
                }
            }
        }
    }

    fn mapping<'n>(
        &self,
        node: &'n Node,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<BTreeMap<&'n str, &'n Node>> {
        if let Value::Map(entries) = &node.value {
            return Some(
                entries
                    .iter()
                    .map(|(name, node)| (name.text.as_str(), node))
                    .collect(),
            );
        }
        let kind = ProblemKind::Shape {
            found: node.value.describe(),
            expected: "a mapping".to_owned(),
        };
        problems.push(self.problem(node.at, name, kind));
        None
    }

    fn proxy_config(&self, node: &Node, name: &str, problems: &mut Vec<Problem>) -> ProxyConfig {
        let Some(fields) = self.mapping(node, name, problems) else {
            return ProxyConfig::default();
        };
        let Some(metadata) = fields.get("proxyMetadata") else {
            let kind = ProblemKind::Missing {
                expected: "a mapping, `{}` if need be".to_owned(),
            };
            problems.push(self.problem(node.at, "proxyMetadata", kind));
            return ProxyConfig::default();
        };
        let mut text =
            |field: &str| -> Option<Candidate> { self.text(field, fields.get(field)?, problems) };
        let mut config = ProxyConfig {
            discovery_address: text("discoveryAddress"),
            admin_port: text("proxyAdminPort"),
            stats_port: text("statsPort"),
            concurrency: text("concurrency"),
            metadata: BTreeMap::new(),
        };
        let entries = self
            .mapping(metadata, "proxyMetadata", problems)
            .unwrap_or_default();
        for (key, node) in entries {
            if let Some(value) = self.text(key, node, problems) {
                let short = key.strip_prefix(METADATA_PREFIX).unwrap_or(key);
                config.metadata.insert(short.to_owned(), value);
            }
        }
        config
    }

    fn text(&self, name: &str, node: &Node, problems: &mut Vec<Problem>) -> Option<Candidate> {
        let found = match &node.value {
            Value::Text(text) => {
                return Some(Candidate {
                    text: text.clone(),
                    origin: self.origin(node.at),
                });
            }
            // An absent value, as generated manifests write it.
            Value::Null => return None,
            Value::List(_) | Value::Map(_) => node.value.describe(),
        };
        let kind = ProblemKind::Shape {
            found,
            expected: "a single value".to_owned(),
        };
        problems.push(self.problem(node.at, name, kind));
        None
    }
}

impl ProxyConfig {
    /// Lays `over` on top of this one, field by field and key by key.
    pub(super) fn merge(&mut self, over: Self) {
        let lay = |under: &mut Option<Candidate>, over: Option<Candidate>| {
            if over.is_some() {
                *under = over;
            }
        };
        lay(&mut self.discovery_address, over.discovery_address);
        lay(&mut self.admin_port, over.admin_port);
        lay(&mut self.stats_port, over.stats_port);
        lay(&mut self.concurrency, over.concurrency);
        self.metadata.extend(over.metadata);
    }
}
