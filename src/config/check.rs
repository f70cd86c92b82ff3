//! `RawConfig` → `Config`: every value parsed, every bound and contradiction checked, all problems
//! collected. Pure.

mod authority;
mod discovery;
mod dns;
mod listeners;
mod node;
mod resolver;
mod sections;
mod shards;
mod shared;
mod spans;
mod tuning;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::limits::{RING_ENTRIES, RING_ENTRIES_MAX, RING_ENTRIES_MIN};
use super::problem::{ConfigErrors, Origin, Problem, ProblemKind};
use super::raw::RawConfig;
use super::schema::Key;
use super::value::{AnyText, Bool, Choice, Kind as _, Name, PathText, PowerOfTwo, WorkloadName};
use super::{Config, DriverChoice, LocalStateSource, NodeMode};
use resolver::Resolver;

/// A checked configuration with what an operator may want to know about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// What has no effect or may surprise.
    pub warnings: Vec<Problem>,
    /// Every setting with its value and where that came from.
    pub settings: Vec<Effective>,
}

/// The value of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// Meaning of the setting.
    pub about: &'static str,
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigErrors;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigErrors> {
        check(raw).map(|checked| checked.config)
    }
}

/// Checks everything the operator wrote.
///
/// # Errors
/// All problems, in the order of the sources and then of the settings.
pub fn check(raw: RawConfig) -> Result<Checked, ConfigErrors> {
    let mut resolver = Resolver::new(raw);
    let config = config(&mut resolver);
    resolver.finish(config)
}

fn config(r: &mut Resolver) -> Option<Config> {
    let mode = mode(r);
    let ipv6_enabled = r.get(Key::Ipv6Enabled, true, &Bool) && r.raw.host.ipv6;
    let enable_proxy = r.get(Key::EnableProxy, true, &Bool);
    let network = r.get(Key::Network, "".into(), &Name);
    let node_name = r.optional(Key::NodeName, &Name);
    let cluster_id = r.get(Key::ClusterId, "Kubernetes".into(), &Name);
    let cluster_domain = r.get(Key::ClusterDomain, "cluster.local".into(), &Name);
    let trust_domain = r.get(Key::TrustDomain, "cluster.local".into(), &Name);
    let shards = shards::shards(r);
    let tuning = tuning::tuning(r, shards.pin);
    let driver = r.get(Key::Driver, DriverChoice::Auto, &DRIVERS);
    let entries = PowerOfTwo(RING_ENTRIES_MIN..=RING_ENTRIES_MAX);
    let ring_entries = r.get(Key::RingEntries, RING_ENTRIES, &entries);
    let listeners = listeners::listeners(r, mode.as_ref(), ipv6_enabled, enable_proxy);
    let illegal_ports = listeners::illegal_ports(&listeners);
    let answers_names = !listeners.dns.is_empty();
    let discovery = discovery::discovery(r, mode.as_ref(), node_name.as_ref(), answers_names);
    let (identity_dir, authority) = authority::source(r);
    let crl_path = r
        .optional_with_origin(Key::CrlPath, &PathText)
        .map(|(path, origin)| resolve(&r.raw.base_dir, &origin, path));
    let auth_token = discovery::auth_token(r, discovery.is_some() || authority.is_some());
    let local_state = local_state(r, discovery.is_some());
    let istio_version = r.raw.mesh.metadata.get("ISTIO_VERSION");
    let istio_version = istio_version
        .map_or("unknown", |version| &version.text)
        .into();
    Some(Config {
        network,
        node_name: node_name.filter(|name| !name.is_empty()),
        cluster_id,
        trust_domain,
        cluster_domain,
        enable_proxy,
        ipv6_enabled,
        shards,
        tuning,
        driver,
        ring_entries,
        listeners,
        illegal_ports,
        local_state,
        discovery,
        auth_token,
        identity_dir,
        authority,
        crl_path,
        tls: sections::tls(r),
        http2: sections::http2(r),
        pool: sections::pool(r),
        socket: sections::socket(r, mode.as_ref()),
        timeouts: sections::timeouts(r),
        limits: sections::limits(r),
        dns: dns::names(r),
        localhost_app_tunnel: r.get(Key::LocalhostAppTunnel, true, &Bool),
        response_baggage: r.get(Key::ResponseBaggage, true, &Bool),
        authz_info_logging: r.only_true(Key::AuthzInfoLogging),
        log: sections::log(r),
        spans: spans::spans(r),
        istio_version,
        mode: mode?,
    })
}

const DRIVERS: Choice<DriverChoice> = Choice(&[
    ("auto", DriverChoice::Auto),
    ("io_uring", DriverChoice::IoUring),
    ("epoll", DriverChoice::Epoll),
]);

/// What `mode` may say.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Shared,
    Dedicated,
    Node,
}

const MODES: Choice<Mode> = Choice(&[
    ("dedicated", Mode::Dedicated),
    ("node", Mode::Node),
    ("shared", Mode::Shared),
]);

fn superfluous(r: &mut Resolver, message: &str) {
    let origin = r.origin_of(Key::Workload);
    let kind = ProblemKind::Conflict(message.to_owned());
    r.problem(origin, Key::Workload, kind);
}

fn mode(r: &mut Resolver) -> Option<NodeMode> {
    let workload = r.optional(Key::Workload, &WorkloadName);
    let given = r.winner(Key::Mode, &MODES);
    if given.is_none() && r.is_given(Key::Mode) {
        return None;
    }
    let (mode, origin) = given.unwrap_or((Mode::Shared, Origin::Default));
    r.record(Key::Mode, MODES.show(&mode), origin);
    if mode != Mode::Shared {
        shared::without(r);
    }
    if mode != Mode::Node {
        node::without(r);
    }
    match mode {
        Mode::Shared => {
            if workload.is_some() {
                superfluous(
                    r,
                    "a workload is named, but the node's agent names those of a shared node",
                );
            }
            Some(NodeMode::Shared(shared::shared(r)))
        }
        Mode::Node => {
            if workload.is_some() {
                superfluous(
                    r,
                    "a workload is named, but mode `node` speaks for all local ones",
                );
            }
            Some(NodeMode::Node(node::node(r)))
        }
        Mode::Dedicated => {
            if !r.is_given(Key::Workload) {
                r.missing(Key::Workload, &WorkloadName.expected());
            }
            workload.map(|workload| NodeMode::Dedicated { workload })
        }
    }
}

fn local_state(r: &mut Resolver, has_control_plane: bool) -> Option<LocalStateSource> {
    let path = r.optional_with_origin(Key::LocalState, &PathText);
    let inline = r.optional_with_origin(Key::LocalStateInline, &AnyText);
    match (path, inline) {
        (Some((path, from)), Some((text, other))) => {
            if from.rank() == other.rank() {
                let message = format!("contradicts {}", Key::LocalStateInline.name());
                r.problem(from, Key::LocalState, ProblemKind::Conflict(message));
                return None;
            }
            let path_wins = from.rank() > other.rank();
            Some(if path_wins {
                path_source(r, &from, path)
            } else {
                LocalStateSource::Inline(text)
            })
        }
        (Some((path, from)), None) => Some(path_source(r, &from, path)),
        (None, Some((text, _))) => Some(LocalStateSource::Inline(text)),
        (None, None) => {
            if !has_control_plane && !r.is_given(Key::LocalState) {
                let expected = "a file with workloads, services and policies (LOCAL_XDS_PATH), or a \
                                control plane (XDS_ADDRESS)";
                r.missing(Key::LocalState, expected);
            }
            None
        }
    }
}

fn path_source(r: &Resolver, origin: &Origin, path: PathBuf) -> LocalStateSource {
    LocalStateSource::Path(resolve(&r.raw.base_dir, origin, path))
}

/// A relative path in the configuration file starts from the file's folder, so that a folder with
/// everything a node needs can be moved; elsewhere it starts from the working directory.
fn resolve(base_dir: &Path, origin: &Origin, path: PathBuf) -> PathBuf {
    if matches!(origin, Origin::File(..)) {
        base_dir.join(path)
    } else {
        path
    }
}

/// For types that share a text.
type Text = Arc<str>;

#[cfg(test)]
mod tests;
