//! Every bound of the program, its reason, and how bounds relate.
//!
//! Constants only. Those that an operator may change are defaults of [`Limits`], [`super::Timeouts`]
//! or [`super::Http2`]; code takes such a value from the configuration, never from here.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- TLS records -------------------------------------------------------------------------------

/// Longest plaintext of a TLS record (RFC 8446 §5.1).
pub const TLS_RECORD_PLAINTEXT_BYTES_MAX: usize = 16 * KIB;
/// Longest ciphertext of a TLS 1.3 record (RFC 8446 §5.2); TLS 1.2 allows 2,048 more than plaintext.
pub const TLS_RECORD_CIPHERTEXT_BYTES_MAX: usize = TLS_RECORD_PLAINTEXT_BYTES_MAX + 256;
/// Type, version and length in front of each record.
pub const TLS_RECORD_HEADER_BYTES: usize = 5;
/// A whole TLS 1.3 record as it travels.
pub const TLS_RECORD_BYTES_MAX: usize = TLS_RECORD_HEADER_BYTES + TLS_RECORD_CIPHERTEXT_BYTES_MAX;
/// Receive buffer of a TLS session: several records come with one system call in bulk transfers.
pub const TLS_RECV_BUFFER_BYTES: usize = 256 * KIB;
/// Sealed bytes gathered before a send; more than this only delays the first byte.
pub const TLS_SEND_BUFFER_BYTES: usize = 256 * KIB;
/// Handshake bytes taken from a peer that has proven nothing yet: a long chain fits, a flood not.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 64 * KIB;
const _: () = assert!(TLS_RECV_BUFFER_BYTES >= 4 * TLS_RECORD_BYTES_MAX);
const _: () = assert!(TLS_HANDSHAKE_BYTES_MAX >= TLS_RECORD_BYTES_MAX);

// ---- Relay -------------------------------------------------------------------------------------

/// Buffer a shard lends to one direction of a relay while bytes are available. 64 KiB costs 0.44
/// CPU seconds per GiB, 256 KiB 0.33, 8 KiB 1.1. In front of a tunnel the size matters only together with
/// that of blocks, records and send buffers: alone, 32 to 512 KiB hardly differed (tuning/results,
/// relay-buffer); all at 256 KiB take 0.87 of the CPU of all at 64 and 128 KiB.
pub const RELAY_BUFFER_BYTES: usize = 256 * KIB;
/// Bytes one direction may move before its task lets the others of the shard run.
pub const RELAY_TURN_BYTES_MAX: usize = MIB;
/// Pipe of a spliced direction. 64 KiB costs 0.30 CPU seconds per GiB, 256 KiB 0.24, 1 MiB 0.20;
/// more needs CAP_SYS_RESOURCE (pipe-max-size) and gains nothing (tuning/results, pipe-size).
pub const RELAY_PIPE_BYTES: usize = MIB;
/// A smaller pipe than this moves less at a time than a copy does, so it is not used.
pub const RELAY_PIPE_BYTES_MIN: usize = 256 * KIB;
/// Full buffers in a row that promote a direction to splice: it pays from 32 KiB at a time on. How soon
/// makes no difference to bulk (tuning/results, promotion).
pub const RELAY_PROMOTE_READS: u32 = 4;
/// Waits for the source in a row, each with little moved before, that demote a direction again.
pub const RELAY_DEMOTE_WAITS: u32 = 8;
/// Empty pipes a shard keeps: each holds two descriptors.
pub const RELAY_PIPES_KEPT_MAX: usize = 32;
const _: () = assert!(RELAY_BUFFER_BYTES >= 2 * TLS_RECORD_PLAINTEXT_BYTES_MAX);
const _: () = assert!(RELAY_TURN_BYTES_MAX > RELAY_BUFFER_BYTES);
const _: () = assert!(RELAY_PIPE_BYTES_MIN > TLS_RECORD_BYTES_MAX);
const _: () = assert!(RELAY_PIPE_BYTES >= RELAY_PIPE_BYTES_MIN);

/// Smallest and largest buffer of a relay an operator may choose (`tuning.relayBufferBytes`).
pub const TUNED_BUFFER_BYTES_MIN: usize = 32 * KIB;
/// See [`TUNED_BUFFER_BYTES_MIN`]; larger ones would not fit into a turn.
pub const TUNED_BUFFER_BYTES_MAX: usize = 512 * KIB;
/// Smallest and largest pipe an operator may choose (`tuning.pipeBytes`): the kernel's own default,
/// and what nobody has gained from.
pub const TUNED_PIPE_BYTES_MIN: u32 = 64 * 1024;
/// See [`TUNED_PIPE_BYTES_MIN`].
pub const TUNED_PIPE_BYTES_MAX: u32 = 16 * 1024 * 1024;
const _: () = assert!(RELAY_TURN_BYTES_MAX >= 2 * TUNED_BUFFER_BYTES_MAX);
const _: () = assert!(TUNED_BUFFER_BYTES_MIN >= 2 * TLS_RECORD_PLAINTEXT_BYTES_MAX);

// ---- HTTP/2 ------------------------------------------------------------------------------------

/// Smallest and largest SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2).
pub const HTTP2_FRAME_BYTES_MIN: u32 = 16_384;
/// See [`HTTP2_FRAME_BYTES_MIN`].
pub const HTTP2_FRAME_BYTES_MAX: u32 = 16_777_215;
/// Largest flow-control window (RFC 9113 §6.9.1).
pub const HTTP2_WINDOW_BYTES_MAX: u32 = 0x7fff_ffff;
/// Window every HTTP/2 connection starts with (RFC 9113 §6.9.2); a smaller one cannot be announced
/// for the connection.
pub const HTTP2_WINDOW_BYTES_INITIAL: u32 = 65_535;
/// Default stream window, the reference's. 64 KiB cost half as much CPU again (tuning/results, windows).
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Default connection window, the reference's.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A connection window below this multiple of the stream window lets one unread stream starve the
/// other streams of its tunnel.
pub const HTTP2_CONNECTION_WINDOW_STREAMS_MIN: u32 = 4;
/// Frame size offered by default; with the protocol's 16 KiB bulk transfers cost a third more
/// (tuning/results, frame-size).
pub const HTTP2_FRAME_BYTES: u32 = 1024 * 1024;
/// Default for streams a peer may have open in one tunnel.
pub const STREAMS_PER_TUNNEL: u32 = 200;
/// Default for streams we open in one tunnel before we open a second tunnel.
pub const POOL_STREAMS_PER_TUNNEL: u16 = 100;
/// Tunnels one shard may have opened: four times the node pairs we plan for, all on one shard.
pub const POOL_TUNNELS_MAX: usize = 4_096;
/// Tunnels to one peer beyond which a congested one takes new streams after all: more would not help.
pub const POOL_CONGESTED_TUNNELS_MAX: usize = 8;
/// Default time an unused tunnel stays open.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// Default bytes a stream may have queued for sending once its tunnel has 2 MiB queued: 200 streams that
/// never read hold 14.5 MiB.
pub const STREAM_SEND_BUFFER_BYTES: usize = 64 * KIB;
/// Received bytes that may wait for slow readers in the whole node, shared out evenly to its shards.
/// Beyond that the windows of streams shrink to 64 KiB. Thirty-two streams that are not read hold as
/// much with the default window.
pub const PARKED_BYTES_MAX: usize = 128 * MIB;
/// Default size of a decoded header list. CONNECT with baggage needs less than 2 KiB.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Default number of header fields in a request or response.
pub const HEADERS_MAX: usize = 32;
/// Default length of `:authority`: a DNS name of 253 bytes, a port, and room for a zone.
pub const AUTHORITY_BYTES_MAX: usize = 300;
/// Default resets we send for a peer's errors before the tunnel is closed.
pub const LOCAL_ERROR_RESETS_MAX: usize = 64;
/// Default streams reset before we accepted them (rapid reset, CVE-2023-44487).
pub const PENDING_ACCEPT_RESETS_MAX: usize = 20;
/// Default resets by the peer in one [`PEER_RESETS_WINDOW`].
pub const PEER_RESETS_MAX: u32 = 200;
/// Window in which [`PEER_RESETS_MAX`] is counted.
pub const PEER_RESETS_WINDOW: Duration = Duration::from_secs(10);
/// Default control frames (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, unknown) a peer may send ahead.
pub const CONTROL_FRAMES_MAX: u32 = 1_000;
/// Control frames a peer earns with each DATA frame we send: it must be able to answer them.
pub const CONTROL_FRAMES_PER_DATA: u32 = 10;
/// Control frames a peer earns each second.
pub const CONTROL_FRAMES_PER_SECOND: u32 = 100;
/// Share of the control frame budget that triggers a polite GOAWAY; all of it closes the tunnel.
pub const CONTROL_FRAMES_GOAWAY_PERCENT: u32 = 75;
/// Polite GOAWAY and hard close must differ.
const _: () = assert!(CONTROL_FRAMES_GOAWAY_PERCENT < 100);
const _: () = assert!(
    HTTP2_CONNECTION_WINDOW_BYTES
        >= HTTP2_CONNECTION_WINDOW_STREAMS_MIN * HTTP2_STREAM_WINDOW_BYTES
);
const _: () = assert!(HTTP2_CONNECTION_WINDOW_BYTES <= HTTP2_WINDOW_BYTES_MAX);
const _: () = assert!(HTTP2_FRAME_BYTES >= HTTP2_FRAME_BYTES_MIN);
const _: () = assert!(HTTP2_FRAME_BYTES <= HTTP2_FRAME_BYTES_MAX);
const _: () = assert!(POOL_STREAMS_PER_TUNNEL as u32 <= STREAMS_PER_TUNNEL);
const _: () = assert!(AUTHORITY_BYTES_MAX < HEADER_LIST_BYTES_MAX as usize);

// ---- Deadlines ---------------------------------------------------------------------------------

/// Default from accept to the peer's Finished.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Default for the HTTP/2 preface and first SETTINGS after the handshake.
pub const HTTP2_PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Default for the acknowledgement of our SETTINGS.
pub const HTTP2_SETTINGS_ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// Default for a complete header block once it has begun.
pub const HTTP2_HEADER_BLOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Default for the answer to a CONNECT.
pub const CONNECT_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Default for a TCP connection to be established.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Default wait for the local workload to become known (spec: routing 1).
pub const WORKLOAD_WAIT: Duration = Duration::from_secs(5);
/// Default wait for a policy that a workload names and that is not known yet; then: denied.
pub const POLICY_WAIT: Duration = Duration::from_secs(1);
/// Default time open connections get when the node stops.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Default between two PINGs on a tunnel.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Default for the answer to a PING; then the tunnel is dead.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest duration any setting takes; a longer one is a typing mistake.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A shard that has not turned its loop for this long is stuck; the process ends loudly.
pub const SHARD_STUCK_AFTER: Duration = Duration::from_secs(2);
const _: () = assert!(POLICY_WAIT.as_millis() < CONNECT_ANSWER_TIMEOUT.as_millis());
const _: () = assert!(WORKLOAD_WAIT.as_millis() < CONNECT_ANSWER_TIMEOUT.as_millis());

// ---- Look-ups on demand ------------------------------------------------------------------------

/// Longest wait of a connection for the control plane to say what its destination is. The control
/// thread itself gives up after 5 s; this is for a control thread that is busy.
pub const DEMAND_WAIT: Duration = Duration::from_secs(6);
/// Look-ups one shard may have waiting: more than it opens connections in the time they wait.
pub const DEMAND_SHARD_WAITERS_MAX: usize = 4_096;
/// Questions of all shards on their way to the control thread.
pub const DEMAND_QUEUE_MAX: usize = 1_024;
/// Questions asked for one connection: its destination, a waypoint, that one's gateway, one to spare.
pub const DEMAND_ROUNDS_MAX: usize = 4;

// ---- Sockets -----------------------------------------------------------------------------------

/// Queue of connections the kernel holds for a listener (spec: lifecycle 8).
pub const LISTEN_BACKLOG: i32 = 128;
/// Default idle time before the first keepalive probe, the reference's.
pub const KEEPALIVE_TIME: Duration = Duration::from_mins(3);
/// Default between keepalive probes, the reference's.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(3);
/// Default unanswered keepalive probes, the reference's.
pub const KEEPALIVE_RETRIES: u32 = 9;
/// Largest values the kernel takes for keepalive seconds and probes (tcp(7): MAX_TCP_KEEPIDLE,
/// MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT).
pub const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
/// See [`KEEPALIVE_SECONDS_MAX`].
pub const KEEPALIVE_RETRIES_MAX: u32 = 127;
/// TCP_USER_TIMEOUT of tunnels: data a peer does not acknowledge for this long ends the tunnel.
pub const TUNNEL_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Keepalive of tunnels, idle and interval.
pub const TUNNEL_KEEPALIVE: Duration = Duration::from_secs(15);
/// Keepalive probes of tunnels.
pub const TUNNEL_KEEPALIVE_RETRIES: u32 = 3;
/// Default TCP_NOTSENT_LOWAT of tunnels: what waits unsent in the kernel cannot be overtaken by another
/// stream. On a full 200 Mbit/s link requests beside a bulk stream took 44 ms without it, 19 ms with it;
/// bulk costs the same (tuning/results, notsent-lowat and notsent-bulk).
pub const TUNNEL_NOTSENT_LOWAT_BYTES: u32 = 128 * 1024;
/// Accept back-off after descriptors run out: first pause. A naive loop burns a core.
pub const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest accept back-off.
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_millis(100);
/// Connections accepted before a shard serves what it has.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;
const _: () = assert!(ACCEPT_BACKOFF_MIN.as_millis() < ACCEPT_BACKOFF_MAX.as_millis());
const _: () = assert!(KEEPALIVE_TIME.as_secs() <= KEEPALIVE_SECONDS_MAX);

// ---- Connections -------------------------------------------------------------------------------

/// Default for connections from one address that have not authenticated yet.
pub const UNAUTHENTICATED_PER_SOURCE_MAX: u32 = 64;
/// Unauthenticated connections may hold one part in this many of the descriptors.
pub const UNAUTHENTICATED_DESCRIPTOR_PARTS: u64 = 4;
/// Connections may hold one part in this many of the descriptors: each needs two.
pub const CONNECTION_DESCRIPTOR_PARTS: u64 = 2;
/// Share of a certificate's life after which its tunnels take no new streams.
pub const TUNNEL_LIFE_GRACEFUL_PERCENT: u32 = 90;
/// Open connections a shard authorizes again before it serves traffic.
pub const RECHECK_CONNECTIONS_PER_TURN: usize = 256;
const _: () = assert!(UNAUTHENTICATED_DESCRIPTOR_PARTS > CONNECTION_DESCRIPTOR_PARTS);

// ---- Shards ------------------------------------------------------------------------------------

/// More shards than any machine has CPUs is a typing mistake.
pub const SHARDS_MAX: usize = 1_024;
/// Default entries of a shard's ring, the size of its submission queue (tuning/results, ring-entries).
pub const RING_ENTRIES: u32 = 4_096;
/// Smallest ring that makes progress with the operations a shard always has in flight.
pub const RING_ENTRIES_MIN: u32 = 64;
/// Largest ring the kernel makes (IORING_MAX_ENTRIES).
pub const RING_ENTRIES_MAX: u32 = 32_768;
const _: () = assert!(RING_ENTRIES >= RING_ENTRIES_MIN && RING_ENTRIES <= RING_ENTRIES_MAX);
const _: () = assert!(RING_ENTRIES.is_power_of_two());

// ---- Telemetry ---------------------------------------------------------------------------------

/// Default access-log lines a shard may queue; more are dropped and counted.
pub const ACCESS_LOG_LINES_MAX: usize = 8_192;
/// Default series per metric family; more go to one overflow series.
pub const METRIC_SERIES_MAX: usize = 10_000;
/// Default after which an untouched series is dropped.
pub const METRIC_SERIES_IDLE: Duration = Duration::from_mins(10);
/// A label value longer than this is cut: peers choose it (baggage).
pub const METRIC_LABEL_BYTES_MAX: usize = 256;

// ---- State and files ---------------------------------------------------------------------------

/// Longest name of a workload, service or policy.
pub const RESOURCE_NAME_BYTES_MAX: usize = 2 * KIB;
/// Size of a local state document: 100,000 workloads take about 60 MB.
pub const LOCAL_STATE_BYTES_MAX: usize = 256 * MIB;
/// Size of a configuration file: what people write by hand is far below.
pub const CONFIG_FILE_BYTES_MAX: usize = MIB;
/// A certificate chain, key or bundle file.
pub const IDENTITY_FILE_BYTES_MAX: usize = MIB;
/// Quiet time after which a changed file is read; editors and symlink swaps write in steps.
pub const FILE_SETTLE_TIME: Duration = Duration::from_millis(200);
/// Forwards one configuration may list: each is a listener on every shard.
pub const FORWARDS_MAX: usize = 256;
/// Workloads that a node of many may list; each needs a certificate.
pub const LOCAL_WORKLOADS_MAX: usize = 4_096;
/// Paths of control groups a shard remembers: as many as a large host has units and containers.
pub const CGROUPS_KNOWN_MAX: usize = 4_096;
const _: () = assert!(CONFIG_FILE_BYTES_MAX <= LOCAL_STATE_BYTES_MAX);

// ---- DNS ---------------------------------------------------------------------------------------

/// Queries of the DNS proxy that wait at once for the workload's record or for a name server; one more
/// is answered SERVFAIL, so that its sender asks elsewhere.
pub const DNS_PENDING_MAX: usize = 1_024;
/// Longest time a forwarded query takes, whatever resolv.conf says; stub resolvers give up before.
pub const DNS_FORWARD_TIMEOUT: Duration = Duration::from_secs(15);
/// Queries in flight on one TCP connection to a name server; with fewer a burst would be refused.
pub const DNS_FORWARDS_PER_CONNECTION_MAX: usize = DNS_PENDING_MAX;
/// Time to connect to a name server by TCP, unless resolv.conf says less.
pub const DNS_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Replies of name servers that are kept.
pub const DNS_CACHE_ENTRIES: u64 = 8_192;
/// Longest query taken by UDP; a longer one is answered FORMERR. Real ones need less than 512 bytes.
pub const DNS_UDP_QUERY_BYTES_MAX: usize = 4_096;
/// Longest reply by UDP to a client that states no size (spec: dns-socks.md A2).
pub const DNS_UDP_REPLY_BYTES: u16 = 4_096;
/// Smallest size of a reply a client can ask for (RFC 6891 §6.2.3).
pub const DNS_UDP_REPLY_BYTES_MIN: u16 = 512;
/// TCP connections to the DNS proxy at once; one more is closed.
pub const DNS_TCP_CONNECTIONS_MAX: usize = 256;
/// A TCP connection without a whole query, or that does not take its replies, for this long is closed.
pub const DNS_TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Unanswered queries of one TCP connection; the next one waits in the kernel.
pub const DNS_TCP_PIPELINE_MAX: usize = 32;
/// Time to live of what the DNS proxy answers by itself, in seconds (spec: dns-socks.md A3.3).
pub const DNS_TTL_SECONDS: u32 = 30;
/// Size of a resolv.conf; the C library reads six short lines of it.
pub const RESOLV_CONF_BYTES_MAX: usize = 64 * KIB;
/// Hostnames of workloads that are resolved at once; connections to one more are refused.
pub const HOSTNAME_LOOKUPS_MAX: usize = 256;
/// Connections that wait for one hostname; one more is refused.
pub const HOSTNAME_WAITERS_MAX: usize = 4_096;
/// Answers for hostnames of workloads that are kept (spec: dns-socks.md A6).
pub const HOSTNAME_CACHE_ENTRIES: u64 = 4_096;
/// Time a connection waits for a hostname: a little less than applications wait for a connection.
pub const HOSTNAME_TIMEOUT: Duration = Duration::from_secs(10);
/// What part of places and cache one workload of a shared node may have; of places, all have the whole.
pub const DNS_POD_PARTS: u16 = 4;
const _: () = assert!(DNS_UDP_QUERY_BYTES_MAX >= DNS_UDP_REPLY_BYTES_MIN as usize);
const _: () = assert!(DNS_TCP_PIPELINE_MAX < DNS_PENDING_MAX);

// ---- HTTP served to operators ------------------------------------------------------------------

/// Request head of the admin, metrics and readiness endpoints.
pub const ADMIN_HEAD_BYTES_MAX: usize = 8 * KIB;
/// Time to send a request head to those endpoints.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections each of those endpoints serves at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Spans that wait for the exporter, of all shards together; what is too much is counted.
pub const SPANS_QUEUED_MAX: usize = 8_192;
/// Open connections that a dump lists, of all shards together, each in one turn; the rest is counted.
pub const CONNECTIONS_SHOWN_MAX: usize = 10_000;

/// Bounds an operator may change (`limits` in the configuration file). All are positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node at once. `None`: half of the descriptor limit.
    pub connections: Option<u64>,
    /// Connections without a verified peer at once. `None`: a quarter of the descriptor limit.
    pub unauthenticated: Option<u64>,
    /// Connections from one address without a verified peer at once.
    pub unauthenticated_per_source: u32,
    /// Streams a peer may have open in one tunnel.
    pub streams_per_tunnel: u32,
    /// Bytes of a decoded header list.
    pub header_list_bytes: u32,
    /// Fields in a header list.
    pub headers: usize,
    /// Bytes of `:authority`.
    pub authority_bytes: usize,
    /// Resets we send for a peer's errors before the tunnel is closed.
    pub local_error_resets: usize,
    /// Streams a peer resets before we accepted them.
    pub pending_accept_resets: usize,
    /// Resets by the peer in [`PEER_RESETS_WINDOW`].
    pub peer_resets: u32,
    /// Control frames a peer may send ahead.
    pub control_frames: u32,
    /// Bytes a stream may have queued for sending, once its tunnel has much queued.
    pub stream_send_buffer_bytes: usize,
    /// Access-log lines a shard may queue.
    pub access_log_lines: usize,
    /// Series per metric family.
    pub metric_series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            unauthenticated: None,
            unauthenticated_per_source: UNAUTHENTICATED_PER_SOURCE_MAX,
            streams_per_tunnel: STREAMS_PER_TUNNEL,
            header_list_bytes: HEADER_LIST_BYTES_MAX,
            headers: HEADERS_MAX,
            authority_bytes: AUTHORITY_BYTES_MAX,
            local_error_resets: LOCAL_ERROR_RESETS_MAX,
            pending_accept_resets: PENDING_ACCEPT_RESETS_MAX,
            peer_resets: PEER_RESETS_MAX,
            control_frames: CONTROL_FRAMES_MAX,
            stream_send_buffer_bytes: STREAM_SEND_BUFFER_BYTES,
            access_log_lines: ACCESS_LOG_LINES_MAX,
            metric_series: METRIC_SERIES_MAX,
        }
    }
}

impl Limits {
    /// Connections of the node at once, given the process's descriptor limit.
    #[must_use]
    pub fn connections_max(&self, descriptors: u64) -> u64 {
        self.connections
            .unwrap_or(descriptors / CONNECTION_DESCRIPTOR_PARTS)
            .max(1)
    }

    /// Connections without a verified peer at once, given the process's descriptor limit.
    #[must_use]
    pub fn unauthenticated_max(&self, descriptors: u64) -> u64 {
        self.unauthenticated
            .unwrap_or(descriptors / UNAUTHENTICATED_DESCRIPTOR_PARTS)
            .max(1)
    }
}
