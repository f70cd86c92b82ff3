//! Sections of the configuration that stand for themselves: TLS, HTTP/2, sockets, deadlines, bounds.

use std::time::Duration;

use super::super::limits::{
    DURATION_MAX, HTTP2_CONNECTION_WINDOW_STREAMS_MIN, HTTP2_FRAME_BYTES_MAX,
    HTTP2_FRAME_BYTES_MIN, HTTP2_WINDOW_BYTES_INITIAL, HTTP2_WINDOW_BYTES_MAX,
    KEEPALIVE_RETRIES_MAX, KEEPALIVE_SECONDS_MAX, Limits,
};
use super::super::problem::{Origin, ProblemKind, excerpt};
use super::super::schema::Key;
use super::super::value::{Bool, Choice, Integer, Kind, LogDirectives, Or, Span};
use super::super::{
    HboneEngine, Http2, Keepalive, LogConfig, LogFormat, NodeMode, OriginalSource, Pool,
    SocketOptions, Timeouts, TlsConfig, TlsRecords,
};
use super::Text;
use super::resolver::Resolver;

pub(super) fn tls(r: &mut Resolver) -> TlsConfig {
    const POLICIES: Choice<bool> = Choice(&[("pqc", true), ("off", false)]);
    const RECORDS: Choice<TlsRecords> = Choice(&[
        ("in-place", TlsRecords::InPlace),
        ("rustls", TlsRecords::Rustls),
    ]);
    TlsConfig {
        tls12: r.only_true(Key::Tls12),
        pqc_only: r.get(Key::CompliancePolicy, false, &POLICIES),
        records: r.get(Key::TlsRecords, TlsRecords::default(), &RECORDS),
    }
}

pub(super) fn http2(r: &mut Resolver) -> Http2 {
    const ENGINES: Choice<HboneEngine> =
        Choice(&[("own", HboneEngine::Own), ("h2", HboneEngine::H2)]);
    let default = Http2::default();
    let stream = Integer(1..=HTTP2_WINDOW_BYTES_MAX);
    let connection = Integer(HTTP2_WINDOW_BYTES_INITIAL..=HTTP2_WINDOW_BYTES_MAX);
    let frame = Integer(HTTP2_FRAME_BYTES_MIN..=HTTP2_FRAME_BYTES_MAX);
    let http2 = Http2 {
        stream_window: r.get(Key::Http2StreamWindow, default.stream_window, &stream),
        connection_window: r.get(
            Key::Http2ConnectionWindow,
            default.connection_window,
            &connection,
        ),
        frame_size: r.get(Key::Http2FrameSize, default.frame_size, &frame),
        engine: r.get(Key::HboneEngine, default.engine, &ENGINES),
    };
    let needed = http2
        .stream_window
        .saturating_mul(HTTP2_CONNECTION_WINDOW_STREAMS_MIN);
    if http2.connection_window < needed {
        let message = format!(
            "less than {HTTP2_CONNECTION_WINDOW_STREAMS_MIN} stream windows: one stream that is \
             not read can stop the others of its tunnel"
        );
        let given = [Key::Http2ConnectionWindow, Key::Http2StreamWindow];
        let key = given
            .into_iter()
            .find(|key| r.is_given(*key))
            .unwrap_or(given[0]);
        let origin = r.origin_of(key);
        r.warn(
            origin,
            Key::Http2ConnectionWindow,
            ProblemKind::Surprise(message),
        );
    }
    http2
}

pub(super) fn pool(r: &mut Resolver) -> Pool {
    let default = Pool::default();
    let any = Span(Duration::ZERO..=DURATION_MAX);
    Pool {
        max_streams_per_connection: r.get(
            Key::PoolStreams,
            default.max_streams_per_connection,
            &Integer(1..=u16::MAX),
        ),
        unused_release_timeout: r.get(Key::PoolIdle, default.unused_release_timeout, &any),
    }
}

/// Besides the words of the file, the boolean of the environment.
struct OriginalSourceText;

const ORIGINAL_SOURCES: Choice<OriginalSource> = Choice(&[
    ("auto", OriginalSource::Auto),
    ("required", OriginalSource::Required),
    ("never", OriginalSource::Never),
]);

impl Kind for OriginalSourceText {
    type Value = OriginalSource;

    fn parse(&self, text: &str) -> Option<OriginalSource> {
        match text {
            "true" => Some(OriginalSource::Required),
            "false" => Some(OriginalSource::Never),
            word => ORIGINAL_SOURCES.parse(word),
        }
    }

    fn expected(&self) -> String {
        "one of `auto`, `required` (or `true`), `never` (or `false`)".to_owned()
    }

    fn show(&self, value: &OriginalSource) -> String {
        ORIGINAL_SOURCES.show(value)
    }

    fn words(&self) -> Vec<&'static str> {
        ORIGINAL_SOURCES.words()
    }
}

/// In mode `node` the applications' answers to a foreign address would leave through the default
/// route instead of coming back to us, unless the host routes them by policy: so somebody must ask.
const fn original_source(mode: Option<&NodeMode>) -> OriginalSource {
    match mode {
        Some(NodeMode::Node(_)) => OriginalSource::Never,
        Some(NodeMode::Dedicated { .. } | NodeMode::Shared(_)) | None => OriginalSource::Auto,
    }
}

/// Mark of a shared node's packets, which the rules in its workloads' namespaces know.
const SHARED_MARK: u32 = 1_337;

pub(super) fn socket(r: &mut Resolver, mode: Option<&NodeMode>) -> SocketOptions {
    let original_source = original_source(mode);
    let shared = mode.is_some_and(|mode| mode.shared().is_some());
    let mark = shared.then_some(SHARED_MARK);
    let default = Keepalive::default();
    let seconds = Span(Duration::from_secs(1)..=Duration::from_secs(KEEPALIVE_SECONDS_MAX));
    let enabled = r.get(Key::KeepaliveEnabled, true, &Bool);
    let keepalive = Keepalive {
        time: whole_seconds(r.get(Key::KeepaliveTime, default.time, &seconds)),
        interval: whole_seconds(r.get(Key::KeepaliveInterval, default.interval, &seconds)),
        retries: r.get(
            Key::KeepaliveRetries,
            default.retries,
            &Integer(1..=KEEPALIVE_RETRIES_MAX),
        ),
    };
    SocketOptions {
        keepalive: enabled.then_some(keepalive),
        user_timeout_enabled: r.get(Key::UserTimeout, false, &Bool),
        packet_mark: r.get(Key::PacketMark, mark, &Or("none", Integer(0..=u32::MAX))),
        original_source: r.get(Key::OriginalSource, original_source, &OriginalSourceText),
        reuse_port: r.get(Key::ReusePort, false, &Bool),
    }
}

/// The kernel counts keepalive in seconds; a part of one is rounded up.
fn whole_seconds(duration: Duration) -> Duration {
    let part = u64::from(duration.subsec_nanos() > 0);
    Duration::from_secs(duration.as_secs() + part)
}

pub(super) fn timeouts(r: &mut Resolver) -> Timeouts {
    let default = Timeouts::default();
    let mut get = |key, default| r.get(key, default, &Span::positive());
    let timeouts = Timeouts {
        handshake: get(Key::TimeoutHandshake, default.handshake),
        http2_preface: get(Key::TimeoutPreface, default.http2_preface),
        http2_settings_ack: get(Key::TimeoutSettingsAck, default.http2_settings_ack),
        http2_header_block: get(Key::TimeoutHeaderBlock, default.http2_header_block),
        connect_answer: get(Key::TimeoutConnectAnswer, default.connect_answer),
        dial: get(Key::TimeoutDial, default.dial),
        workload_wait: get(Key::TimeoutWorkload, default.workload_wait),
        policy_wait: get(Key::TimeoutPolicy, default.policy_wait),
        ping_interval: get(Key::PingInterval, default.ping_interval),
        ping: get(Key::TimeoutPing, default.ping),
        drain: default.drain,
    };
    Timeouts {
        drain: drain(r, default.drain),
        ..timeouts
    }
}

/// The deadline itself, or what the orchestrator's grace period leaves for it (spec: lifecycle 4.2).
fn drain(r: &mut Resolver, default: Duration) -> Duration {
    let any = Span(Duration::ZERO..=DURATION_MAX);
    let seconds_max = DURATION_MAX.as_secs();
    let grace = r.optional_with_origin(Key::GracePeriod, &Integer(0..=seconds_max));
    let deadline = r.winner(Key::TimeoutDrain, &any);
    let (drain, origin) = match (deadline, grace) {
        (Some((_, from)), Some((grace, by))) if by.rank() > from.rank() => (within(grace), by),
        (Some((deadline, from)), _) => (deadline, from),
        (None, Some((grace, by))) => (within(grace), by),
        (None, None) => (default, Origin::Default),
    };
    r.record(Key::TimeoutDrain, any.show(&drain), origin);
    drain
}

/// Leaves the orchestrator's last seconds for the rest of the shutdown.
fn within(grace_seconds: u64) -> Duration {
    let seconds = if grace_seconds > 10 {
        grace_seconds - 5
    } else {
        grace_seconds.saturating_sub(1).max(1)
    };
    Duration::from_secs(seconds)
}

pub(super) fn limits(r: &mut Resolver) -> Limits {
    const AUTO: &str = "auto";
    let d = Limits::default();
    // Upper bounds only stop typing mistakes; lower ones keep the mechanism working at all.
    let connections = Or(AUTO, Integer(1..=100_000_000_u64));
    Limits {
        connections: r.get(Key::LimitConnections, d.connections, &connections),
        unauthenticated: r.get(Key::LimitUnauthenticated, d.unauthenticated, &connections),
        unauthenticated_per_source: r.get(
            Key::LimitUnauthenticatedPerSource,
            d.unauthenticated_per_source,
            &Integer(1..=1_000_000),
        ),
        streams_per_tunnel: r.get(
            Key::LimitStreams,
            d.streams_per_tunnel,
            &Integer(1..=1_000_000),
        ),
        header_list_bytes: r.get(
            Key::LimitHeaderList,
            d.header_list_bytes,
            &Integer(1_024..=1_048_576),
        ),
        headers: r.get(Key::LimitHeaders, d.headers, &Integer(8..=1_024)),
        authority_bytes: r.get(Key::LimitAuthority, d.authority_bytes, &Integer(64..=4_096)),
        local_error_resets: r.get(
            Key::LimitErrorResets,
            d.local_error_resets,
            &Integer(1..=65_536),
        ),
        pending_accept_resets: r.get(
            Key::LimitPendingResets,
            d.pending_accept_resets,
            &Integer(1..=65_536),
        ),
        peer_resets: r.get(Key::LimitPeerResets, d.peer_resets, &Integer(1..=1_000_000)),
        control_frames: r.get(
            Key::LimitControlFrames,
            d.control_frames,
            &Integer(100..=1_000_000),
        ),
        stream_send_buffer_bytes: r.get(
            Key::LimitSendBuffer,
            d.stream_send_buffer_bytes,
            &Integer(16_384..=16_777_216),
        ),
        access_log_lines: r.get(
            Key::LimitAccessLog,
            d.access_log_lines,
            &Integer(16..=1_048_576),
        ),
        metric_series: r.get(Key::LimitSeries, d.metric_series, &Integer(10..=1_000_000)),
    }
}

pub(super) fn log(r: &mut Resolver) -> LogConfig {
    const FORMATS: Choice<LogFormat> =
        Choice(&[("plain", LogFormat::Plain), ("json", LogFormat::Json)]);
    // In the environment the reference takes any other text for plain.
    let mut odd = None;
    for candidate in r.raw.values.get_mut(&Key::LogFormat).into_iter().flatten() {
        let from_env = matches!(candidate.origin, Origin::Env(_));
        if from_env && FORMATS.parse(&candidate.text).is_none() {
            odd = Some((candidate.origin.clone(), excerpt(&candidate.text)));
            "plain".clone_into(&mut candidate.text);
        }
    }
    if let Some((origin, text)) = odd {
        let message = format!("`{text}` means `plain`, the other format is `json`");
        r.warn(origin, Key::LogFormat, ProblemKind::Surprise(message));
    }
    let filter: Text = r.get(Key::LogFilter, "info".into(), &LogDirectives);
    LogConfig {
        filter,
        format: r.get(Key::LogFormat, LogFormat::Plain, &FORMATS),
    }
}
