//! What a tunnel needs to know: HTTP/2 settings, limits, and the clock, timers and hooks of its shard.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use super::engine::ParkedBudget;

/// A timer that is running.
pub type Sleep = Pin<Box<dyn Future<Output = ()>>>;

/// Starts a timer on the shard's runtime.
pub type Timer = Rc<dyn Fn(Duration) -> Sleep>;

/// Makes a future that is ready once the shard has looked at its I/O again. It must not be a plain
/// self-wake, which starves the ring (spec: traps.md 5).
pub type Yield = Rc<dyn Fn() -> Sleep>;

/// Allowance for frames that cost work and carry nothing: PING, SETTINGS, WINDOW_UPDATE, PRIORITY and
/// unknown types. A WINDOW_UPDATE answers our DATA, so each DATA frame sent earns some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlBudget {
    /// Frames allowed at once.
    pub base: u32,
    /// Further frames allowed for each DATA frame we sent.
    pub per_data: u32,
    /// Frames forgiven a second.
    pub refill_per_s: u32,
    /// Share of the allowance, in percent, at which the tunnel is drained politely.
    pub polite_percent: u32,
}

/// A limit that a peer reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LimitKind {
    /// Most of the control-frame allowance is gone: the tunnel is drained.
    #[error("control frames nearly exhausted")]
    ControlFramesPolite,
    /// The control-frame allowance is gone: the tunnel is closed.
    #[error("too many control frames")]
    ControlFrames,
    /// More RST_STREAM frames than allowed in the period.
    #[error("too many stream resets")]
    PeerResets,
    /// DATA frames without payload or END_STREAM.
    #[error("too many empty data frames")]
    EmptyData,
    /// A header block stayed incomplete too long.
    #[error("header block timed out")]
    HeaderBlockTimeout,
    /// No preface or no first SETTINGS in time.
    #[error("preface timed out")]
    PrefaceTimeout,
    /// Our SETTINGS were not acknowledged in time.
    #[error("settings acknowledgement timed out")]
    SettingsAckTimeout,
    /// A request had too many or too large header fields.
    #[error("request headers too large")]
    RequestHeaders,
    /// Too many received bytes wait for their readers: windows shrink until they are fewer.
    #[error("too many bytes wait for their readers")]
    ParkedBytes,
    /// A request's authority was too long.
    #[error("authority too long")]
    Authority,
}

/// Something a shard counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer reached a limit.
    LimitHit(LimitKind),
    /// A PING was answered after this long.
    PingRtt(Duration),
    /// A PING went unanswered too long; the tunnel is dead.
    PingTimeout,
    /// The peer said GOAWAY.
    GoawayReceived,
}

/// Who speaks HTTP/2 in a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Our frame engine for CONNECT.
    #[default]
    Own,
    /// The `h2` crate.
    H2,
}

/// Settings of a tunnel, the same value for both roles. Cheap to clone apart from its three hooks.
#[derive(Clone)]
pub struct Settings {
    /// Who speaks HTTP/2.
    pub engine: Engine,
    /// Received bytes that may wait for their readers; shared by the tunnels of a shard. Our own
    /// engine only: with `h2` the windows alone bound them.
    pub parked: ParkedBudget,
    /// SETTINGS_INITIAL_WINDOW_SIZE, bytes.
    pub stream_window: u32,
    /// Connection window, bytes. With `h2` it grows with open streams up to
    /// [`Settings::connection_window_max`]; our own engine need not, because it gives connection
    /// credit back as soon as bytes are parked in their stream.
    pub connection_window: u32,
    /// Bound of that growth, bytes.
    pub connection_window_max: u32,
    /// SETTINGS_MAX_FRAME_SIZE, bytes.
    pub frame_size: u32,
    /// Header list we accept, bytes: advertised as client; as server larger ones are answered 431.
    pub max_header_list: u32,
    /// Header list advertised as server (spec: hbone.md 3.1), bytes.
    pub advertised_header_list: u32,
    /// Header fields of one request.
    pub max_headers: usize,
    /// Bytes of `:authority`.
    pub max_authority: usize,
    /// SETTINGS_MAX_CONCURRENT_STREAMS (server).
    pub max_streams: u32,
    /// Streams opened before the server's SETTINGS arrive (client).
    pub initial_send_streams: usize,
    /// Bytes buffered for sending in one stream. Our own engine lets a stream have a whole turn
    /// (256 KiB) while its tunnel has less than 2 MiB queued for all.
    pub send_buffer: usize,
    /// Streams reset for protocol errors over the life of a tunnel.
    pub local_error_resets: usize,
    /// Streams the peer reset before they were accepted.
    pub pending_accept_resets: usize,
    /// RST_STREAM frames allowed in a period.
    pub peer_resets: (u32, Duration),
    /// Allowance for control frames.
    pub control_frames: ControlBudget,
    /// Pause before each PING.
    pub ping_interval: Duration,
    /// Wait for a PONG.
    pub ping_timeout: Duration,
    /// Wait for the peer's preface and first SETTINGS.
    pub preface_timeout: Duration,
    /// Wait for the acknowledgement of our SETTINGS.
    pub settings_ack_timeout: Duration,
    /// Wait for END_HEADERS.
    pub header_block_timeout: Duration,
    /// Starts timers.
    pub timer: Timer,
    /// Yields after a batch of frames.
    pub yield_now: Yield,
    /// Reads the shard's clock.
    pub now: Rc<dyn Fn() -> Instant>,
    /// Counts what happened. Called while the tunnel is polled: must not call back into it.
    pub events: Rc<dyn Fn(Event)>,
}

impl Settings {
    /// The defaults of the contract (spec: hbone.md 3.1, 3.3; limits: traps.md) on a shard's hooks.
    #[must_use]
    pub fn new(
        timer: Timer,
        yield_now: Yield,
        now: Rc<dyn Fn() -> Instant>,
        events: Rc<dyn Fn(Event)>,
    ) -> Self {
        Self {
            engine: Engine::default(),
            parked: ParkedBudget::new(64 << 20),
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            connection_window_max: 256 << 20,
            frame_size: 1 << 20,
            max_header_list: 16 << 10,
            advertised_header_list: 64 << 10,
            max_headers: 32,
            max_authority: 300,
            max_streams: 200,
            initial_send_streams: 100,
            send_buffer: 64 << 10,
            local_error_resets: 64,
            pending_accept_resets: 20,
            peer_resets: (200, Duration::from_secs(10)),
            control_frames: ControlBudget {
                base: 1_000,
                per_data: 10,
                refill_per_s: 100,
                polite_percent: 75,
            },
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            preface_timeout: Duration::from_secs(5),
            settings_ack_timeout: Duration::from_secs(10),
            header_block_timeout: Duration::from_secs(5),
            timer,
            yield_now,
            now,
            events,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("stream_window", &self.stream_window)
            .field("connection_window", &self.connection_window)
            .field("frame_size", &self.frame_size)
            .field("max_streams", &self.max_streams)
            .field("control_frames", &self.control_frames)
            .finish_non_exhaustive()
    }
}
