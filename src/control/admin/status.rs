//! `/status`: how this node is doing, in one page of JSON.

use std::fmt::{self, Debug};
use std::sync::Arc;

use serde::Serialize;

use crate::control::exposition::CertificateLife;
use crate::control::readiness::Readiness;
use crate::telemetry::Hub;
use crate::telemetry::hub::ShardStatus;

/// What the page is made of.
pub struct StatusSources {
    /// The shards' cells.
    pub hub: Arc<Hub>,
    /// Start-up tasks.
    pub readiness: Readiness,
    /// Whether a shard answered its watchdog lately, by number.
    pub alive: Box<dyn Fn(usize) -> bool + Send + Sync>,
    /// Certificates.
    pub certificates: Box<dyn Fn() -> Vec<CertificateLife> + Send + Sync>,
    /// Number of the state in force.
    pub generation: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Debug for StatusSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusSources")
            .field("hub", &self.hub)
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// The page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    version: &'static str,
    ready: bool,
    pending: Vec<&'static str>,
    generation: u64,
    connections: i64,
    tunnels: i64,
    shards: Vec<Shard>,
    certificates: Vec<Certificate>,
    log_lines_dropped: u64,
    /// Latest error lines of the log, oldest first.
    last_errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Shard {
    alive: bool,
    #[serde(flatten)]
    status: ShardStatus,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    identity: String,
    seconds_left: i64,
}

impl StatusSources {
    /// Looks at everything once.
    #[must_use]
    pub fn report(&self) -> Status {
        let pending = self.readiness.pending();
        let shards = self.hub.shards();
        let log = self.hub.log();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            ready: pending.is_empty(),
            pending,
            generation: (self.generation)(),
            connections: shards.iter().map(|shard| shard.connections).sum(),
            tunnels: shards
                .iter()
                .map(|shard| shard.tunnels_inbound + shard.tunnels_outbound)
                .sum(),
            log_lines_dropped: log.control_lines_dropped()
                + shards
                    .iter()
                    .map(|shard| shard.log_lines_dropped)
                    .sum::<u64>(),
            shards: shards
                .into_iter()
                .map(|status| Shard {
                    alive: (self.alive)(status.shard),
                    status,
                })
                .collect(),
            certificates: (self.certificates)()
                .into_iter()
                .map(|life| Certificate {
                    identity: life.identity,
                    seconds_left: life.seconds_left,
                })
                .collect(),
            last_errors: log.recent_errors(),
        }
    }
}
