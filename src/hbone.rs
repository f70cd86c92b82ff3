//! HBONE over any [`crate::transport::Transport`]: CONNECT streams in HTTP/2, spoken by our own frame
//! engine or by the `h2` crate ([`Engine`]).
//!
//! [`client::handshake`] and [`server::handshake`] start a tunnel on a byte stream that is already
//! authenticated; [`stream::Stream`] is one CONNECT in it. Single-threaded (`Rc`), no runtime named:
//! clock, timers and yielding come in through [`Settings`]. Deliberately absent: dialling, identities,
//! pooling, retries.

pub mod blocks;
pub mod client;
pub mod connect;
mod engine;
mod guard;
mod h2_engine;
mod keepalive;
mod scan;
pub mod server;
pub mod settings;
pub mod stream;

#[cfg(fuzzing)]
pub(crate) use engine::fuzz::run as play_frames;
pub use settings::{
    ControlBudget, Engine, Event, LimitKind, ParkedBudget, Settings, Sleep, Timer, Yield,
};

/// Why a tunnel ended, for every stream in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HboneError {
    /// The tunnel never came up.
    #[error("http2 handshake failed: {0}")]
    Handshake(String),
    /// The peer broke the protocol, sent GOAWAY with an error, or the transport failed.
    #[error("h2 failed: {0}")]
    Failed(String),
    /// No PONG within [`Settings::ping_timeout`].
    #[error("h2 failed: keepalive timed out")]
    PingTimeout,
    /// The peer exceeded one of our limits.
    #[error("h2 failed: {0}")]
    Limit(LimitKind),
    /// Ended by us at once ([`client::Opener::abort`], [`server::DrainHandle::abort`]).
    #[error("h2 failed: connection aborted")]
    Aborted,
}

/// Error code of RST_STREAM (RFC 9113 section 7); `Other` holds the rare ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// 0x0: stop sending, nothing went wrong.
    NoError,
    /// 0x1: the peer found our frames malformed.
    ProtocolError,
    /// 0x2: internal error.
    InternalError,
    /// 0x5: frame for a stream that is closed.
    StreamClosed,
    /// 0x7: never processed, safe to retry.
    RefusedStream,
    /// 0x8: no longer wanted.
    Cancel,
    /// 0xa: the TCP connection was reset or failed (RFC 9113 section 8.5).
    ConnectError,
    /// 0xb: too much load.
    EnhanceYourCalm,
    /// Any other code.
    Other(u32),
}

impl ResetCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::NoError => 0x0,
            Self::ProtocolError => 0x1,
            Self::InternalError => 0x2,
            Self::StreamClosed => 0x5,
            Self::RefusedStream => 0x7,
            Self::Cancel => 0x8,
            Self::ConnectError => 0xa,
            Self::EnhanceYourCalm => 0xb,
            Self::Other(code) => code,
        }
    }
}

impl ResetCode {
    /// From the number on the wire.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            0x0 => Self::NoError,
            0x1 => Self::ProtocolError,
            0x2 => Self::InternalError,
            0x5 => Self::StreamClosed,
            0x7 => Self::RefusedStream,
            0x8 => Self::Cancel,
            0xa => Self::ConnectError,
            0xb => Self::EnhanceYourCalm,
            other => Self::Other(other),
        }
    }
}

impl From<h2::Reason> for ResetCode {
    fn from(reason: h2::Reason) -> Self {
        Self::from_code(reason.into())
    }
}

impl std::fmt::Display for ResetCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        h2::Reason::from(self.code()).fmt(f)
    }
}

#[cfg(test)]
mod tests;
