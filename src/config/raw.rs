//! What the operator wrote: texts and where each comes from. Sole reader of environment and files.
//!
//! In: flags, environment, `--config` file, mesh configuration, the host's CPUs and quota. Out: for
//! each setting its candidates, highest precedence first. Nothing is judged here except shape and
//! names: values are checked by `Config::try_from`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::limits::{CONFIG_FILE_BYTES_MAX, SHARDS_MAX};
use super::mesh::{self, Document, ProxyConfig};
use super::problem::{Origin, Position, Problem, ProblemKind, nearest};
use super::schema::{self, Key, SETTINGS};
use super::unbuilt::{self, Rule};
use super::{file, host};

pub use super::file::{RawLocalWorkload, is_local_state};
pub use super::host::{IPV6_FILE, quota as cpu_quota};

/// Mesh configuration file, relative to the working directory.
pub const MESH_FILE: &str = "./etc/istio/config/mesh";

/// Port whose connections panic, in builds that can inject faults.
#[cfg(feature = "faults")]
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this module reads the environment"
)]
pub fn fault_panic_port() -> Option<u16> {
    std::env::var("CORELANE_FAULT_PANIC_PORT")
        .ok()?
        .parse()
        .ok()
}

/// Reads a text file. Injected, so that tests name no real path.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Everything a configuration is made from.
pub struct Sources<'a> {
    /// Environment.
    pub env: BTreeMap<String, OsString>,
    /// Reader of the configuration, of the mesh file and of `/proc` and `/sys`.
    pub read_file: ReadFile<'a>,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// `--set NAME=VALUE`, later ones win.
    pub overrides: Vec<(String, String)>,
    /// CPUs this process may use, ascending, never empty.
    pub cpus: Vec<usize>,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secret (tokens in headers), names are not.
        f.debug_struct("Sources")
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("config_file", &self.config_file)
            .field("overrides", &self.overrides)
            .field("cpus", &self.cpus)
            .finish_non_exhaustive()
    }
}

impl<'a> Sources<'a> {
    /// A configuration file that stands for itself, on no particular host. `read_file` is asked for
    /// other files too and should know none but [`IPV6_FILE`].
    #[must_use]
    pub fn of_file(path: PathBuf, read_file: ReadFile<'a>) -> Self {
        Self {
            env: BTreeMap::new(),
            read_file,
            config_file: Some(path),
            overrides: Vec::new(),
            cpus: (0..SHARDS_MAX).collect(),
        }
    }
}

impl Sources<'static> {
    /// The sources of this process. Call it before any thread is pinned to a CPU.
    #[must_use]
    pub fn of_process(config_file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        Self {
            env,
            read_file: &read_config,
            config_file,
            overrides,
            cpus: process_cpus(),
        }
    }
}

fn process_cpus() -> Vec<usize> {
    crate::sys::affinity::allowed_cpus().unwrap_or_else(|_| {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        (0..count).collect()
    })
}

/// Reads a text of at most `bytes_max`.
///
/// # Errors
/// As reading; `InvalidData` for a longer file or one that is not UTF-8.
pub fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut text = String::new();
    let bound = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    std::fs::File::open(path)?
        .take(bound.saturating_add(1))
        .read_to_string(&mut text)?;
    if text.len() > bytes_max {
        let message = format!("longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(text)
}

fn read_config(path: &Path) -> io::Result<String> {
    read_bounded(path, CONFIG_FILE_BYTES_MAX)
}

/// A text somebody gave for a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The text.
    pub text: String,
    /// Who gave it.
    pub origin: Origin,
}

/// A forward as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawForward {
    /// Where it stands.
    pub origin: Origin,
    /// Its three values.
    pub listen: Option<Candidate>,
    /// See `listen`.
    pub to: Option<Candidate>,
    /// See `listen`.
    pub as_workload: Option<Candidate>,
}

/// What the operator wrote.
#[derive(Clone, Debug, Default)]
pub struct RawConfig {
    /// Candidates of each setting, highest precedence first.
    pub(super) values: BTreeMap<Key, Vec<Candidate>>,
    /// Forwards of the configuration file.
    pub(super) forwards: Vec<RawForward>,
    /// Workloads of the configuration file.
    pub(super) local_workloads: Vec<RawLocalWorkload>,
    /// Merged mesh configuration.
    pub(super) mesh: ProxyConfig,
    /// Extra headers for the control plane, by the end of their variables' names (`XDS_HEADER_*`).
    pub(super) xds_headers: BTreeMap<String, Candidate>,
    /// Extra headers for the certificate authority, the same way (`CA_HEADER_*`).
    pub(super) ca_headers: BTreeMap<String, Candidate>,
    /// Metadata as JSON, by the end of its variables' names (`ISTIO_METAJSON_*`).
    pub(super) metadata_json: BTreeMap<String, Candidate>,
    /// Whether the process runs in Kubernetes (`KUBERNETES_SERVICE_HOST`).
    pub(super) in_cluster: bool,
    /// Folder that relative paths in the configuration file start from.
    pub(super) base_dir: PathBuf,
    /// Whether the configuration file could not be read or parsed, so that what it may say is not
    /// missing.
    pub(super) file_lost: bool,
    /// The host.
    pub(super) host: host::Host,
    /// Names and shapes that are wrong.
    pub(super) problems: Vec<Problem>,
    /// What has no effect.
    pub(super) warnings: Vec<Problem>,
}

impl RawConfig {
    /// Reads all sources once. What cannot be read is remembered and reported by the check.
    #[must_use]
    pub fn read(sources: &Sources<'_>) -> Self {
        let mut raw = Self {
            host: host::Host::read(&sources.cpus, sources.read_file),
            ..Self::default()
        };
        raw.read_overrides(&sources.overrides);
        raw.read_environment(&sources.env);
        raw.read_mesh(sources);
        let named = raw
            .text_of(&sources.env, schema::CONFIG_VARIABLE)
            .filter(|t| !t.is_empty());
        if let Some(path) = sources
            .config_file
            .clone()
            .or_else(|| named.map(PathBuf::from))
        {
            raw.base_dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
            file::read(&mut raw, path, sources.read_file);
        }
        for candidates in raw.values.values_mut() {
            // Stable: of several variables the first one listed stays in front.
            candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.origin.rank()));
        }
        raw
    }

    pub(super) fn add(&mut self, key: Key, text: String, origin: Origin) {
        self.values
            .entry(key)
            .or_default()
            .push(Candidate { text, origin });
    }

    pub(super) fn problem(&mut self, origin: Origin, setting: &str, kind: ProblemKind) {
        self.problems.push(Problem {
            origin,
            setting: setting.to_owned(),
            kind,
        });
    }

    fn read_overrides(&mut self, overrides: &[(String, String)]) {
        for (name, text) in overrides.iter().rev() {
            let origin = Origin::Flag(name.clone());
            if let Some(setting) = schema::by_path(name) {
                self.add(setting.key, text.clone(), origin);
            } else {
                let paths = SETTINGS.iter().map(|setting| setting.path);
                let nearest = nearest(name, paths.filter(|path| !path.is_empty()));
                self.problem(origin, "", ProblemKind::UnknownKey { nearest });
            }
        }
    }

    /// The text of a variable; not being text is a problem.
    fn text_of(&mut self, env: &BTreeMap<String, OsString>, name: &str) -> Option<String> {
        let value = env.get(name)?;
        let text = value.to_str().map(str::to_owned);
        if text.is_none() {
            self.problem(Origin::Env(name.to_owned()), "", ProblemKind::NotText);
        }
        text
    }

    fn read_environment(&mut self, env: &BTreeMap<String, OsString>) {
        for setting in SETTINGS {
            for name in setting.env {
                let Some(text) = self.text_of(env, name) else {
                    continue;
                };
                if !text.is_empty() || !setting.key.empty_is_unset() {
                    self.add(setting.key, text, Origin::Env((*name).to_owned()));
                }
            }
        }
        self.in_cluster = env.contains_key("KUBERNETES_SERVICE_HOST");
        for name in env.keys() {
            if !is_setting(name) {
                self.judge_variable(env, name);
            }
        }
    }

    /// Says what becomes of a variable that is not a setting.
    fn judge_variable(&mut self, env: &BTreeMap<String, OsString>, name: &str) {
        let origin = || Origin::Env(name.to_owned());
        let warning = |kind| Problem {
            origin: origin(),
            setting: String::new(),
            kind,
        };
        let family = [
            (mesh::METADATA_JSON_PREFIX, &mut self.metadata_json),
            (mesh::XDS_HEADER_PREFIX, &mut self.xds_headers),
            (mesh::CA_HEADER_PREFIX, &mut self.ca_headers),
        ];
        let family = family
            .into_iter()
            .find_map(|(prefix, values)| Some((name.strip_prefix(prefix)?, values)));
        if let Some((end, values)) = family {
            match env.get(name).and_then(|value| value.to_str()) {
                Some(text) => {
                    let candidate = Candidate {
                        text: text.to_owned(),
                        origin: origin(),
                    };
                    values.insert(end.to_owned(), candidate);
                }
                None => self.problem(origin(), "", ProblemKind::NotText),
            }
        } else if name.starts_with(mesh::METADATA_PREFIX) {
            // Read with the mesh configuration, which it overrides.
        } else if let Some(variable) = unbuilt::find(name) {
            let Some(text) = self.text_of(env, name) else {
                return;
            };
            if text.is_empty() {
                return;
            }
            let boolean = matches!(variable.rule, Rule::RefuseTrue);
            match (variable.rule, text.as_str()) {
                (Rule::RefuseTrue, "false") => {}
                (_, other) if boolean && other != "true" => {
                    let kind = ProblemKind::Invalid {
                        value: super::problem::excerpt(other),
                        expected: "`true` or `false`".to_owned(),
                        nearest: None,
                    };
                    self.problem(origin(), "", kind);
                }
                (Rule::RefuseTrue, _) => {
                    let (what, instead) = (variable.what.to_owned(), variable.instead);
                    self.problem(origin(), "", ProblemKind::NotBuilt { what, instead });
                }
                (Rule::Warn, _) => {
                    self.warnings
                        .push(warning(ProblemKind::NoEffect(variable.what)));
                }
            }
        } else if unbuilt::FAMILIES
            .iter()
            .any(|family| name.starts_with(family))
        {
            let nearest = nearest(name, variable_names());
            self.warnings
                .push(warning(ProblemKind::UnknownVariable { nearest }));
        }
    }

    fn read_mesh(&mut self, sources: &Sources<'_>) {
        let path = Arc::new(PathBuf::from(MESH_FILE));
        match (sources.read_file)(&path) {
            Ok(text) => {
                let document = Document::MeshFile(path);
                self.mesh = document.read(&text, &mut self.problems);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let origin = Origin::MeshFile(path, Position::START);
                self.problem(origin, "", ProblemKind::Unreadable(error.to_string()));
            }
        }
        let text = self
            .text_of(&sources.env, "PROXY_CONFIG")
            .unwrap_or_default();
        if !text.is_empty() {
            let over = Document::ProxyConfig.read(&text, &mut self.problems);
            self.mesh.merge(over);
        }
        for name in sources.env.keys() {
            let Some(key) = name.strip_prefix(mesh::METADATA_PREFIX) else {
                continue;
            };
            if let Some(text) = self.text_of(&sources.env, name) {
                let origin = Origin::Env(name.clone());
                self.mesh
                    .metadata
                    .insert(key.to_owned(), Candidate { text, origin });
            }
        }
        // What comes from the environment is a candidate already.
        let written = |key: &str| {
            let value = self.mesh.metadata.get(key).cloned();
            value.filter(|value| !matches!(value.origin, Origin::Env(_)))
        };
        for (key, value) in [
            (Key::DnsCapture, written("DNS_CAPTURE")),
            (Key::DnsProxyAddr, written("DNS_PROXY_ADDR")),
            (Key::AdminPort, self.mesh.admin_port.clone()),
            (Key::StatsPort, self.mesh.stats_port.clone()),
            (Key::Concurrency, self.mesh.concurrency.clone()),
            (Key::XdsAddress, self.mesh.discovery_address.clone()),
        ] {
            self.values.entry(key).or_default().extend(value);
        }
    }
}

fn is_setting(name: &str) -> bool {
    let known = [schema::CONFIG_VARIABLE, "PROXY_CONFIG"];
    known.contains(&name) || SETTINGS.iter().any(|setting| setting.env.contains(&name))
}

/// Names of all variables that have a meaning, families left out.
fn variable_names() -> impl Iterator<Item = &'static str> {
    let settings = SETTINGS
        .iter()
        .flat_map(|setting| setting.env.iter().copied());
    let unbuilt = unbuilt::VARIABLES.iter().map(|variable| variable.name);
    settings
        .chain(unbuilt.filter(|name| !name.ends_with('_')))
        .chain([schema::CONFIG_VARIABLE, "PROXY_CONFIG"])
}
