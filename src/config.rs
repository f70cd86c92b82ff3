//! The configuration of a node. Holding a [`Config`] proves that every bound has been checked.
//!
//! What the operator wrote is a [`raw::RawConfig`]; `Config::try_from` checks it, once, in `main`.
//! Plain data: nothing here reads the environment, a file or a clock.

pub mod check;
pub mod limits;
pub mod problem;
pub mod raw;
pub mod schema;
pub mod server;
pub mod spans;
pub mod supervisor;
pub mod tuning;

mod defaults;
mod dns;
mod file;
mod host;
mod mesh;
mod mode;
mod shown;
mod unbuilt;
mod value;
mod yaml;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use dns::{DNS_PORT, Dns};
pub use mode::{Node, NodeMode, Shared};

use limits::Limits;
use server::{CertificateAuthority, Discovery, TokenSource};
use spans::Spans;
use tuning::Tuning;

/// Port of captured outbound connections.
pub const OUTBOUND_PORT: u16 = 15_001;
/// Port of captured inbound plain text.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15_006;
/// Port of HBONE.
pub const INBOUND_PORT: u16 = 15_008;
/// Port of SOCKS5.
pub const SOCKS5_PORT: u16 = 15_080;
/// Port of the admin endpoint.
pub const ADMIN_PORT: u16 = 15_000;
/// Port of the metrics endpoint.
pub const STATS_PORT: u16 = 15_020;
/// Port of the readiness endpoint.
pub const READINESS_PORT: u16 = 15_021;

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whom the node speaks for.
    pub mode: NodeMode,
    /// Own network; empty is the default network.
    pub network: Arc<str>,
    /// Own node; `None`: workloads of any node may be local.
    pub node_name: Option<Arc<str>>,
    /// Own cluster.
    pub cluster_id: Arc<str>,
    /// Own trust domain, for logs and the identity of forwards; verification uses the workload's.
    pub trust_domain: Arc<str>,
    /// DNS domain of the cluster.
    pub cluster_domain: Arc<str>,
    /// Whether the capturing listeners, HBONE and SOCKS5 run; if not, those listeners are `None`.
    pub enable_proxy: bool,
    /// Whether IPv6 is used: switched on and known to the kernel.
    pub ipv6_enabled: bool,
    /// Data-plane threads.
    pub shards: Shards,
    /// How shards wait for the kernel.
    pub driver: DriverChoice,
    /// Size of a shard's ring, a power of two.
    pub ring_entries: u32,
    /// Where the node listens.
    pub listeners: Listeners,
    /// Ports that would make the node connect to itself, sorted (spec: hbone 1).
    pub illegal_ports: Vec<u16>,
    /// Workloads, services and policies from a file.
    pub local_state: Option<LocalStateSource>,
    /// Workloads, services and policies from a control plane.
    pub discovery: Option<Discovery>,
    /// Token that control plane and certificate authority are shown.
    pub auth_token: TokenSource,
    /// Certificates: `DIR/ns/NAMESPACE/sa/SERVICE_ACCOUNT/{tls.crt,tls.key,ca.crt}`.
    pub identity_dir: Option<PathBuf>,
    /// Revocation lists that peers are checked against.
    pub crl_path: Option<PathBuf>,
    /// Certificates from an authority; never together with `identity_dir`.
    pub authority: Option<CertificateAuthority>,
    /// Versions and groups.
    pub tls: TlsConfig,
    /// Windows and frames we offer.
    pub http2: Http2,
    /// Tunnels we open.
    pub pool: Pool,
    /// Options of sockets.
    pub socket: SocketOptions,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// Expert settings.
    pub tuning: Tuning,
    /// Names of the mesh and of others.
    pub dns: Dns,
    /// An application tunnel with PROXY protocol is dialled on loopback (spec: hbone 8).
    pub localhost_app_tunnel: bool,
    /// Whether responses carry baggage and request baggage is used.
    pub response_baggage: bool,
    /// Policy decisions are logged at info instead of debug.
    pub authz_info_logging: bool,
    /// Levels and shape of the log.
    pub log: LogConfig,
    /// Where spans of connections go.
    pub spans: Option<Spans>,
    /// Value of the `tag` label of `istio_build`.
    pub istio_version: Arc<str>,
}

impl Config {
    /// Port nodes of this mesh take HBONE on: our own listener's, the usual one without.
    #[must_use]
    pub fn hbone_port(&self) -> u16 {
        let own = self.listeners.inbound.map_or(0, |addr| addr.port());
        if own == 0 { INBOUND_PORT } else { own }
    }
}

/// Data-plane threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// How many, at least one.
    pub count: usize,
    /// CPUs this process may use, ascending, never empty. Shard `i` belongs on
    /// `cpus[i % cpus.len()]`.
    pub cpus: Vec<usize>,
    /// Whether shards are pinned to those CPUs.
    pub pin: bool,
    /// Whether a busy shard hands fresh connections to a clearly less busy one.
    pub balance: bool,
}

/// How shards wait for the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring with the best flags the kernel takes, else epoll.
    #[default]
    Auto,
    /// io_uring, or the start fails.
    IoUring,
    /// epoll.
    Epoll,
}

/// Where a node listens; `None` or empty is off. Port 0 lets the kernel choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Captured connections leaving a workload.
    pub outbound: Option<SocketAddr>,
    /// Captured plain text arriving at a workload.
    pub inbound_plaintext: Option<SocketAddr>,
    /// HBONE.
    pub inbound: Option<SocketAddr>,
    /// SOCKS5.
    pub socks5: Option<SocketAddr>,
    /// DNS proxy, UDP and TCP on each; off when empty.
    pub dns: Vec<SocketAddr>,
    /// Admin endpoint; never a public address by default.
    pub admin: Vec<SocketAddr>,
    /// Metrics endpoint.
    pub stats: Option<SocketAddr>,
    /// Readiness endpoint.
    pub readiness: Option<SocketAddr>,
    /// Explicit listeners for hosts without capture.
    pub forwards: Vec<Forward>,
}

/// A listener whose connections all go to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its connections go.
    pub to: ForwardTarget,
    /// Workload it speaks for; `None` only in dedicated mode: the one workload.
    pub as_workload: Option<ServiceAccountRef>,
}

/// Where a forward goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardTarget {
    /// A workload's or service's address.
    Address(SocketAddr),
    /// A service's hostname and port.
    Hostname(Arc<str>, u16),
}

/// A service account; with a trust domain it is an identity. Text form `NAMESPACE/ACCOUNT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccountRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

/// Where workloads, services and policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalStateSource {
    /// A file, watched for changes.
    Path(PathBuf),
    /// The document itself.
    Inline(Arc<str>),
}

/// TLS versions and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// TLS 1.2 is taken besides 1.3.
    pub tls12: bool,
    /// Only X25519MLKEM768 is offered and taken.
    pub pqc_only: bool,
    /// Who moves records after the handshake.
    pub records: TlsRecords,
}

/// Who seals and opens TLS records. With TLS 1.2 allowed it is always the TLS library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsRecords {
    /// Our own record layer.
    #[default]
    InPlace,
    /// The TLS library, for comparison.
    Rustls,
}

/// HTTP/2 settings we announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Bytes a peer may send ahead in one stream.
    pub stream_window: u32,
    /// Bytes a peer may send ahead in all streams of a tunnel.
    pub connection_window: u32,
    /// Largest frame we take.
    pub frame_size: u32,
    /// Who speaks it in tunnels.
    pub engine: HboneEngine,
}

/// Who speaks HTTP/2 in tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HboneEngine {
    /// Our own frame engine for CONNECT.
    #[default]
    Own,
    /// The `h2` crate.
    H2,
}

/// Tunnels we open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Streams in one tunnel before another is opened, at least one.
    pub max_streams_per_connection: u16,
    /// How long an unused tunnel stays open.
    pub unused_release_timeout: Duration,
}

/// Options of accepted and dialled sockets (spec: hbone 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// TCP keepalive; `None` is off.
    pub keepalive: Option<Keepalive>,
    /// Sets TCP_USER_TIMEOUT to keepalive time + retries × interval.
    pub user_timeout_enabled: bool,
    /// SO_MARK of dialled sockets.
    pub packet_mark: Option<u32>,
    /// Dial applications from the client's address.
    pub original_source: OriginalSource,
    /// Another process of the same user may hold the same ports while one replaces the other.
    /// `false`: a port that is taken fails the start, also when its holder set SO_REUSEPORT.
    pub reuse_port: bool,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe, whole seconds.
    pub time: Duration,
    /// Time between probes, whole seconds.
    pub interval: Duration,
    /// Unanswered probes that end a connection.
    pub retries: u32,
}

impl SocketOptions {
    /// TCP_USER_TIMEOUT to set, if any.
    #[must_use]
    pub fn user_timeout(&self) -> Option<Duration> {
        let keepalive = self.keepalive.filter(|_| self.user_timeout_enabled)?;
        Some(keepalive.time + keepalive.interval * keepalive.retries)
    }
}

/// Whether applications see the client's address (IP_TRANSPARENT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginalSource {
    /// If the kernel lets us.
    #[default]
    Auto,
    /// Or the start fails.
    Required,
    /// Never.
    Never,
}

/// Deadlines; all positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TLS, from accept to Finished.
    pub handshake: Duration,
    /// HTTP/2 preface and first SETTINGS.
    pub http2_preface: Duration,
    /// Acknowledgement of our SETTINGS.
    pub http2_settings_ack: Duration,
    /// A header block, from its first frame to its last.
    pub http2_header_block: Duration,
    /// Answer to our CONNECT.
    pub connect_answer: Duration,
    /// TCP connect.
    pub dial: Duration,
    /// For the local workload to become known.
    pub workload_wait: Duration,
    /// For a policy that a workload names to become known.
    pub policy_wait: Duration,
    /// Between PINGs on a tunnel.
    pub ping_interval: Duration,
    /// For the answer to a PING.
    pub ping: Duration,
    /// For open connections to end when the node stops.
    pub drain: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `RUST_LOG` or its default, for `tracing_subscriber::EnvFilter`; known to be well formed.
    pub filter: Arc<str>,
    /// Shape of a line.
    pub format: LogFormat,
}

/// Shape of a log line (spec: telemetry 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Fields separated by tabs.
    #[default]
    Plain,
    /// One JSON object.
    Json,
}

/// The wildcard address listeners bind by default.
#[must_use]
pub const fn wildcard(ipv6_enabled: bool, port: u16) -> SocketAddr {
    if ipv6_enabled {
        SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
    } else {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
    }
}
