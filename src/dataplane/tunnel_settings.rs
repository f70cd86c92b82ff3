//! Settings of this shard's tunnels: the configuration, and the hooks into its runtime.

use std::rc::Rc;

use super::rt;
use crate::config::limits::{
    CONTROL_FRAMES_GOAWAY_PERCENT, CONTROL_FRAMES_PER_DATA, CONTROL_FRAMES_PER_SECOND,
    PARKED_BYTES_MAX, PEER_RESETS_WINDOW,
};
use crate::config::{Config, HboneEngine};
use crate::hbone::{ControlBudget, Engine, Event, LimitKind, ParkedBudget, Settings};
use crate::telemetry::ShardTelemetry;
use crate::telemetry::counters::Limit;

/// Builds them once a shard.
pub(crate) fn new(config: &Config, telemetry: &Rc<ShardTelemetry>) -> Settings {
    let counted = Rc::clone(telemetry);
    let mut settings = Settings::new(
        Rc::new(|duration| Box::pin(rt::sleep(duration))),
        Rc::new(|| Box::pin(rt::yield_now())),
        Rc::new(rt::now),
        Rc::new(move |event| count(&counted, event)),
    );
    let (http2, limits, timeouts) = (&config.http2, &config.limits, &config.timeouts);
    settings.engine = match http2.engine {
        HboneEngine::Own => Engine::Own,
        HboneEngine::H2 => Engine::H2,
    };
    settings.parked = ParkedBudget::new(PARKED_BYTES_MAX / config.shards.count.max(1));
    settings.stream_window = http2.stream_window;
    settings.connection_window = http2.connection_window;
    settings.frame_size = http2.frame_size;
    settings.max_header_list = limits.header_list_bytes;
    settings.max_headers = limits.headers;
    settings.max_authority = limits.authority_bytes;
    settings.max_streams = limits.streams_per_tunnel;
    settings.initial_send_streams = usize::from(config.pool.max_streams_per_connection);
    settings.send_buffer = limits.stream_send_buffer_bytes;
    settings.local_error_resets = limits.local_error_resets;
    settings.pending_accept_resets = limits.pending_accept_resets;
    settings.peer_resets = (limits.peer_resets, PEER_RESETS_WINDOW);
    settings.control_frames = ControlBudget {
        base: limits.control_frames,
        per_data: CONTROL_FRAMES_PER_DATA,
        refill_per_s: CONTROL_FRAMES_PER_SECOND,
        polite_percent: CONTROL_FRAMES_GOAWAY_PERCENT,
    };
    settings.ping_interval = timeouts.ping_interval;
    settings.ping_timeout = timeouts.ping;
    settings.preface_timeout = timeouts.http2_preface;
    settings.settings_ack_timeout = timeouts.http2_settings_ack;
    settings.header_block_timeout = timeouts.http2_header_block;
    settings
}

fn count(telemetry: &ShardTelemetry, event: Event) {
    let limit = match event {
        Event::LimitHit(kind) => match kind {
            LimitKind::ControlFramesPolite | LimitKind::ControlFrames | LimitKind::EmptyData => {
                Limit::ControlFrames
            }
            LimitKind::PeerResets => Limit::PeerResets,
            LimitKind::PrefaceTimeout | LimitKind::SettingsAckTimeout => Limit::PrefaceTimeout,
            LimitKind::HeaderBlockTimeout | LimitKind::RequestHeaders => Limit::Headers,
            LimitKind::ParkedBytes => Limit::ParkedBytes,
            LimitKind::Authority => Limit::Authority,
        },
        Event::PingTimeout | Event::PingRtt(_) | Event::GoawayReceived => return,
    };
    telemetry.counters().limit(limit).add(1);
}
