//! Why a connection ended: the closed set that logs and metrics speak of.

use std::fmt;

/// Response flag of a finished connection (metric label `response_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlag {
    /// `-`: success, or cut by drain.
    None,
    /// `DENY`: refused by policy, at open or later.
    Deny,
    /// `CONNECT`: dial, TLS, non-200 answer or relay failure.
    Connect,
    /// `NETWORK_POLICY`: dialling port 15008 timed out.
    NetworkPolicy,
    /// `IDENTITY_ERROR`: own certificate missing.
    IdentityError,
    /// `H2_HANDSHAKE_FAILURE`: HTTP/2 failed outside the relay.
    H2HandshakeFailure,
    /// `CERT_REVOKED`: revoked during the connection.
    CertRevoked,
    /// `TLS_FAILURE`: the TLS configuration could not be built.
    TlsFailure,
}

impl ResponseFlag {
    /// Label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::CertRevoked => "CERT_REVOKED",
            Self::TlsFailure => "TLS_FAILURE",
        }
    }
}

/// How one connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both directions ended in order.
    Complete,
    /// The client side sent a reset; it was passed on.
    ClientReset,
    /// The server side sent a reset; it was passed on.
    ServerReset,
    /// Refused by policy; text as `decision::authorize::Denied` shows it.
    Denied(String),
    /// A policy change withdrew the permit; the text names the rule.
    PolicyChange(String),
    /// The peer of its tunnel was revoked.
    Revoked,
    /// Drain deadline or cancellation.
    Drain,
    /// Inbound dial of the application failed.
    Dial(String),
    /// Outbound dial failed.
    Connect(String),
    /// Outbound HBONE dial timed out.
    ConnectTimeout(String),
    /// TLS handshake failed.
    Tls(String),
    /// Own certificate missing or unusable.
    Identity(String),
    /// HTTP/2 handshake or stream failure before the relay.
    Http2(String),
    /// The peer answered the CONNECT with another status than 200; its text, e.g. `401 Unauthorized`.
    Status(String),
    /// Routing failed.
    Route(String),
    /// The relay failed; the text names the side.
    Relay(String),
    /// A limit of ours was reached; the text names it.
    Limit(String),
    /// The connection's task panicked and was contained.
    Panic,
}

impl CloseReason {
    /// Flag for metrics.
    #[must_use]
    pub const fn flag(&self) -> ResponseFlag {
        match self {
            Self::Complete | Self::ClientReset | Self::ServerReset | Self::Drain => {
                ResponseFlag::None
            }
            Self::Denied(_) | Self::PolicyChange(_) => ResponseFlag::Deny,
            Self::ConnectTimeout(_) => ResponseFlag::NetworkPolicy,
            Self::Revoked => ResponseFlag::CertRevoked,
            Self::Identity(_) => ResponseFlag::IdentityError,
            Self::Http2(_) => ResponseFlag::H2HandshakeFailure,
            Self::Dial(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::Status(_)
            | Self::Route(_)
            | Self::Relay(_)
            | Self::Limit(_)
            | Self::Panic => ResponseFlag::Connect,
        }
    }

    /// Whether the access log line carries an `error` field.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        !matches!(self, Self::Complete | Self::ClientReset | Self::ServerReset)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::ClientReset => f.write_str("connection reset by the client side"),
            Self::ServerReset => f.write_str("connection reset by the server side"),
            Self::Denied(why) => write!(f, "connection closed due to policy rejection: {why}"),
            Self::PolicyChange(why) => write!(f, "connection closed due to policy change: {why}"),
            Self::Revoked => f.write_str("connection closed: peer certificate revoked by CRL"),
            Self::Drain => f.write_str("connection closed due to connection drain"),
            Self::Dial(why) => write!(f, "connection failed: {why}"),
            Self::Connect(why) => write!(f, "io error: {why}"),
            Self::ConnectTimeout(why) => write!(
                f,
                "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: {why}"
            ),
            Self::Tls(why) => write!(f, "io error: tls handshake: {why}"),
            Self::Identity(why) => write!(f, "identity error: {why}"),
            Self::Http2(why) => write!(f, "h2 failed: {why}"),
            Self::Status(status) => write!(f, "http status: {status}"),
            Self::Route(why) | Self::Relay(why) | Self::Limit(why) => f.write_str(why),
            Self::Panic => f.write_str("internal error: the connection's task panicked"),
        }
    }
}
