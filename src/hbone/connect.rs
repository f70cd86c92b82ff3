//! CONNECT request and reply: encode and parse, no I/O (spec: hbone.md 4, 5, 6 checks 1 and 2).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::addr::Authority;
use crate::model::baggage::Baggage;
use crate::model::trace::TraceParent;

/// The `forwarded` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// `for=`: the client's address. Written by a client, never read by a server.
    pub client: Option<SocketAddr>,
    /// `host=`: hostname of the service that was addressed.
    pub host: Option<Arc<str>>,
}

/// A CONNECT request, as sent or as received and validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Where the stream is to lead.
    pub authority: Authority,
    /// The source workload, for telemetry only.
    pub baggage: Baggage,
    /// Client address and addressed service.
    pub forwarded: Forwarded,
    /// Trace context; `None` when the peer sent none or a malformed one (make a fresh one then).
    pub traceparent: Option<TraceParent>,
    /// `x-forwarded-network`: network of the source, on the inner request across networks only.
    pub forwarded_network: Option<String>,
}

/// A successful answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Baggage of the destination workload, if the peer sent any.
    pub baggage: Option<Baggage>,
}

/// A request that must be answered with an error status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Text for the log (spec: routing.md 8).
    pub error: String,
}
