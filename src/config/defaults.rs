//! Defaults of the sections of a configuration: the values of [`limits`], put together.

use super::{HboneEngine, Http2, Keepalive, OriginalSource, Pool, SocketOptions, Timeouts, limits};

impl Default for Http2 {
    fn default() -> Self {
        Self {
            stream_window: limits::HTTP2_STREAM_WINDOW_BYTES,
            connection_window: limits::HTTP2_CONNECTION_WINDOW_BYTES,
            frame_size: limits::HTTP2_FRAME_BYTES,
            engine: HboneEngine::default(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max_streams_per_connection: limits::POOL_STREAMS_PER_TUNNEL,
            unused_release_timeout: limits::POOL_IDLE_TIMEOUT,
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            time: limits::KEEPALIVE_TIME,
            interval: limits::KEEPALIVE_INTERVAL,
            retries: limits::KEEPALIVE_RETRIES,
        }
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            keepalive: Some(Keepalive::default()),
            user_timeout_enabled: false,
            packet_mark: None,
            original_source: OriginalSource::Auto,
            reuse_port: false,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: limits::HANDSHAKE_TIMEOUT,
            http2_preface: limits::HTTP2_PREFACE_TIMEOUT,
            http2_settings_ack: limits::HTTP2_SETTINGS_ACK_TIMEOUT,
            http2_header_block: limits::HTTP2_HEADER_BLOCK_TIMEOUT,
            connect_answer: limits::CONNECT_ANSWER_TIMEOUT,
            dial: limits::DIAL_TIMEOUT,
            workload_wait: limits::WORKLOAD_WAIT,
            policy_wait: limits::POLICY_WAIT,
            ping_interval: limits::PING_INTERVAL,
            ping: limits::PING_TIMEOUT,
            drain: limits::DRAIN_DEADLINE,
        }
    }
}
