//! What a node needs from its host: from a configuration, or what the defaults need.

use super::host::Host;
use crate::config::limits::{CONNECTION_DESCRIPTOR_PARTS, RELAY_PIPES_KEPT_MAX, RING_ENTRIES};
use crate::config::tuning::Tuning;
use crate::config::{
    Config, DriverChoice, INBOUND_PLAINTEXT_PORT, INBOUND_PORT, OUTBOUND_PORT, OriginalSource,
    READINESS_PORT, STATS_PORT,
};

/// Descriptors a node needs besides connections: rings, listeners, files, logs.
const DESCRIPTORS_BESIDES: u64 = 64;

/// Demands on a host.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// Data-plane threads.
    pub(super) shards: usize,
    /// Entries of each ring.
    pub(super) ring_entries: u32,
    /// How shards wait.
    pub(super) driver: DriverChoice,
    /// Connections the operator asked for; `None`: as many as descriptors allow.
    pub(super) connections: Option<u64>,
    /// Ports the node listens on, sorted; without those that the kernel chooses.
    pub(super) ports: Vec<u16>,
    /// SO_MARK of dialled sockets.
    pub(super) packet_mark: Option<u32>,
    /// Whether applications see the client's address.
    pub(super) original_source: OriginalSource,
    /// Whether a restart shares ports with the process it replaces.
    pub(super) reuse_port: bool,
    /// Whether IPv6 is wanted.
    pub(super) ipv6: bool,
    /// Expert settings.
    pub(super) tuning: Tuning,
}

impl Needs {
    /// A node with this configuration.
    pub(super) fn of(config: &Config) -> Self {
        let listeners = &config.listeners;
        let single = [
            listeners.outbound,
            listeners.inbound_plaintext,
            listeners.inbound,
            listeners.socks5,
            listeners.stats,
            listeners.readiness,
        ];
        let addresses = single
            .into_iter()
            .flatten()
            .chain(listeners.admin.iter().copied())
            .chain(listeners.dns.iter().copied());
        let forwards = listeners.forwards.iter().map(|forward| forward.listen);
        let mut ports: Vec<u16> = addresses.chain(forwards).map(|addr| addr.port()).collect();
        ports.retain(|port| *port != 0);
        ports.sort_unstable();
        ports.dedup();
        Self {
            shards: config.shards.count,
            ring_entries: config.ring_entries,
            driver: config.driver,
            connections: config.limits.connections,
            ports,
            packet_mark: config.socket.packet_mark,
            original_source: config.socket.original_source,
            reuse_port: config.socket.reuse_port,
            ipv6: config.ipv6_enabled,
            tuning: config.tuning,
        }
    }

    /// A node with defaults on this host.
    pub(super) fn usual(host: &Host) -> Self {
        let quota = host.quota.unwrap_or(usize::MAX);
        let mut ports = vec![
            OUTBOUND_PORT,
            INBOUND_PLAINTEXT_PORT,
            INBOUND_PORT,
            crate::config::ADMIN_PORT,
            STATS_PORT,
            READINESS_PORT,
        ];
        ports.sort_unstable();
        Self {
            shards: host.cpus.len().min(quota).max(1),
            ring_entries: RING_ENTRIES,
            driver: DriverChoice::Auto,
            connections: None,
            ports,
            packet_mark: None,
            original_source: OriginalSource::Auto,
            reuse_port: false,
            ipv6: true,
            tuning: Tuning::default(),
        }
    }

    /// Bytes all rings lock: one submission of 64 bytes and its index of 4, four completions of 16,
    /// for each entry, and two partly used pages.
    pub(super) fn ring_bytes(&self, page_bytes: u64) -> u64 {
        let entries = u64::from(self.ring_entries);
        (entries * (64 + 4 + 4 * 16) + 2 * page_bytes) * self.shards as u64
    }

    /// Bytes of the pipes that all shards keep.
    pub(super) fn pipe_bytes(&self) -> u64 {
        let each = self.tuning.pipe_bytes.unwrap_or(0) as u64;
        each * RELAY_PIPES_KEPT_MAX as u64 * self.shards as u64
    }

    /// Descriptors for the connections asked for; `None`: none asked for.
    pub(super) fn descriptors(&self) -> Option<u64> {
        let connections = self.connections?;
        Some(connections.saturating_mul(CONNECTION_DESCRIPTOR_PARTS) + DESCRIPTORS_BESIDES)
    }
}
