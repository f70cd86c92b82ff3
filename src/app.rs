//! Wiring: starts the control thread's parts and the shards in order, and stops them in order.

mod background;
pub mod bind;
mod connections;
mod credentials;
mod discovery;
mod dns;
mod ending;
mod lifecycle;
mod servers;
pub mod shards;
mod signals;
mod spans;
mod state;
mod supervision;
mod workloads;

use std::time::Duration;

pub use lifecycle::{StartError, run};

use crate::control::zds::ProtocolError;

/// Why a node ended other than by an orderly stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A shard thread ended by itself: its sockets would accept into nothing.
    #[error("shard {index} died: {why}")]
    ShardDied {
        /// Number of the shard.
        index: usize,
        /// Panic or error.
        why: String,
    },
    /// A shard thread no longer turns its loop.
    #[error("shard {index} has been stuck for {for_at_least:?}")]
    ShardStuck {
        /// Number of the shard.
        index: usize,
        /// How long at least.
        for_at_least: Duration,
    },
    /// Which workloads there are is no longer known.
    #[error(transparent)]
    Agent(#[from] ProtocolError),
}

impl RunError {
    /// Exit code of the process: 1 start-up or the node's agent, 3 a shard died, 4 a shard is stuck.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(_) | Self::Agent(_) => 1,
            Self::ShardDied { .. } => 3,
            Self::ShardStuck { .. } => 4,
        }
    }
}
