//! Expert settings: what the experiments of `tuning/` vary. The defaults are right for nearly everyone.

use super::limits::{
    LISTEN_BACKLOG, RELAY_BUFFER_BYTES, RELAY_PIPE_BYTES, RELAY_PROMOTE_READS,
    TUNED_BUFFER_BYTES_MIN, TUNNEL_NOTSENT_LOWAT_BYTES,
};

/// How rings, relays and sockets are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Flags of rings.
    pub ring_flags: RingFlags,
    /// Bytes of the pipe of a spliced direction; `None`: bulk is copied too.
    pub pipe_bytes: Option<usize>,
    /// Full buffers in a row that promote a direction to splice.
    pub promote_reads: u32,
    /// Bytes of the buffer a shard lends to a relay.
    pub relay_buffer_bytes: usize,
    /// SO_RCVBUF of connections and tunnels; `None`: the kernel adapts it.
    pub receive_buffer_bytes: Option<usize>,
    /// SO_SNDBUF of connections and tunnels; `None`: the kernel adapts it.
    pub send_buffer_bytes: Option<usize>,
    /// TCP_NOTSENT_LOWAT of tunnels; `None`: `net.ipv4.tcp_notsent_lowat`.
    pub notsent_lowat_bytes: Option<u32>,
    /// SO_BUSY_POLL of connections and tunnels; `None`: `net.core.busy_read`.
    pub busy_poll_micros: Option<u32>,
    /// Connections that may wait in the queue of each listener and shard.
    pub listen_backlog: i32,
    /// Which shard a new connection goes to.
    pub steering: Steering,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            ring_flags: RingFlags::Best,
            pipe_bytes: Some(RELAY_PIPE_BYTES),
            promote_reads: RELAY_PROMOTE_READS,
            relay_buffer_bytes: RELAY_BUFFER_BYTES,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            notsent_lowat_bytes: Some(TUNNEL_NOTSENT_LOWAT_BYTES),
            busy_poll_micros: None,
            listen_backlog: LISTEN_BACKLOG,
            steering: Steering::Hash,
        }
    }
}

/// Flags that rings are set up with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingFlags {
    /// SINGLE_ISSUER and DEFER_TASKRUN, COOP_TASKRUN where the kernel refuses those.
    #[default]
    Best,
    /// COOP_TASKRUN.
    Coop,
    /// None: for comparison only.
    Plain,
}

/// Which shard of those that share a port gets a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steering {
    /// By a hash of the addresses, the kernel's way.
    #[default]
    Hash,
    /// The shard pinned to the CPU that received the packet; needs pinned shards.
    Cpu,
}

const _: () = assert!(RELAY_BUFFER_BYTES >= TUNED_BUFFER_BYTES_MIN);
