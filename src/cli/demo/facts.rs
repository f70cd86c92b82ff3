//! What the demo found out: the story's material, and with `--json` its whole output.

use std::net::SocketAddr;

use serde::Serialize;

/// One node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeFacts {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    /// What it does in the story.
    pub(super) part: String,
    pub(super) shards: u64,
    /// How its shards wait for the kernel.
    pub(super) driver: String,
    /// Why that is not io_uring, if it is not.
    pub(super) driver_fallback: String,
    pub(super) admin: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) readiness: SocketAddr,
    pub(super) log: String,
}

/// A request that got through.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Allowed {
    pub(super) client: &'static str,
    /// Where the client connected to.
    pub(super) entrance: SocketAddr,
    pub(super) status: u16,
    pub(super) body: String,
    /// Identity the server's node verified.
    pub(super) source_identity: String,
    /// Identity the client's node verified.
    pub(super) destination_identity: String,
    /// Where the tunnel goes.
    pub(super) tunnel_to: String,
    /// What the CONNECT asks for.
    pub(super) authority: String,
    /// Policy that let it through.
    pub(super) policy: String,
    pub(super) tls: Tls,
}

/// A handshake, as the server's node saw it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tls {
    pub(super) version: String,
    pub(super) group: String,
    pub(super) cipher: String,
}

/// A request that did not.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refused {
    pub(super) client: &'static str,
    /// Where the client connected to.
    pub(super) entrance: SocketAddr,
    /// How the client noticed.
    pub(super) client_saw: String,
    pub(super) source_identity: String,
    pub(super) destination_identity: String,
    /// Policy that refused it.
    pub(super) policy: String,
    /// What the server's node says about it.
    pub(super) reason: String,
    /// What the client's node was answered.
    pub(super) client_node_saw: String,
    /// Connections that reached the application meanwhile.
    pub(super) reached_server: u64,
}

/// One way to the application, medians over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Speed {
    pub(super) bulk_gbit_per_s: f64,
    /// One request after the other on one connection.
    pub(super) requests_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Direct and tunnelled, measured in turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) rounds: usize,
    pub(super) direct: Speed,
    pub(super) tunnel: Speed,
}

/// Payload bytes of the allowed client, counted three times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bytes {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Both nodes' metrics say exactly the same.
    pub(super) nodes_agree: bool,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Facts {
    pub(super) ok: bool,
    pub(super) version: &'static str,
    pub(super) release_build: bool,
    pub(super) nodes: Vec<NodeFacts>,
    pub(super) server: SocketAddr,
    pub(super) allowed: Allowed,
    pub(super) refused: Refused,
    pub(super) speed: Comparison,
    pub(super) bytes: Bytes,
    /// Samples on both metrics pages together.
    pub(super) metric_samples: usize,
    pub(super) seconds: f64,
}

/// With `--json`, what is printed when something went wrong.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failure {
    pub(super) ok: bool,
    pub(super) error: String,
    pub(super) logs: Vec<LastLines>,
}

/// The end of a node's log.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LastLines {
    pub(super) log: String,
    pub(super) lines: Vec<String>,
}
