//! What is known about one connection, for its metric labels and its access-log lines.

use std::net::SocketAddr;
use std::sync::Arc;

pub use super::shard::{OpenFlow, ShardTelemetry};
use crate::model::addr::Authority;
use crate::model::baggage::Baggage;
use crate::model::identity::Identity;
use crate::model::service::Service;
use crate::model::trace::TraceParent;
use crate::model::workload::Workload;

/// Which way a connection crosses this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards a local workload.
    Inbound,
    /// From a local workload.
    Outbound,
}

impl Direction {
    /// Both, in the order of their counters.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// Access-log field `direction`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// Metric label `reporter`.
    #[must_use]
    pub const fn reporter(self) -> &'static str {
        match self {
            Self::Inbound => "destination",
            Self::Outbound => "source",
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// One end of a connection, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// Its record. For a source it wins over the baggage.
    pub workload: Option<Arc<Workload>>,
    /// Source: the identity TLS proved, or our own on an outbound tunnel. Destination: the identity
    /// the (inner) TLS proved, where that matters; otherwise the record's identity counts.
    pub identity: Option<Arc<Identity>>,
    /// Source: baggage of the request, when it is used at all. Destination: only across networks,
    /// baggage of the inner answer, which wins over the record (an empty one blanks it).
    pub baggage: Option<Arc<Baggage>>,
}

/// Everything labels and log lines say about a connection (spec: telemetry 2.2 and 3.4).
#[derive(Clone, Debug)]
pub struct Flow {
    /// Which way it goes.
    pub direction: Direction,
    /// Whether it travels in a tunnel.
    pub mutual_tls: bool,
    /// Who sends.
    pub source: Party,
    /// Who is dialled: the next hop on the way out, the local workload on the way in.
    pub destination: Party,
    /// Service the client addressed.
    pub service: Option<Arc<Service>>,
    /// Client.
    pub src_addr: SocketAddr,
    /// Outbound: the dialled address. Inbound tunnel: the workload's address with port 15008.
    /// Plain text: the original destination.
    pub dst_addr: SocketAddr,
    /// CONNECT authority; none for plain TCP.
    pub hbone_addr: Option<Authority>,
    /// Ties the lines of both nodes together; printed on lines with an error.
    pub trace_id: Option<TraceParent>,
}

/// Who was refused by what, for connections refused before a [`Flow`] could be stated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusal<'a> {
    /// The rule: `namespace/name` of the policy.
    pub policy: Option<&'a str>,
    /// Identity the peer proved.
    pub peer_identity: Option<&'a Arc<Identity>>,
    /// Identity of the local workload.
    pub local_identity: Option<&'a Arc<Identity>>,
}
