//! What is known about one connection, for its metric labels and its access-log lines.

use std::net::{SocketAddr, SocketAddrV6};
use std::sync::{Arc, OnceLock};

use once_cell::race::OnceBox;

use super::open::Original;
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

/// The part of a [`Flow`] that connections between the same workloads share.
#[derive(Debug)]
pub(super) struct Parties {
    pub(super) direction: Direction,
    pub(super) mutual_tls: bool,
    pub(super) source: Party,
    pub(super) destination: Party,
    pub(super) service: Option<Arc<Service>>,
}

impl Parties {
    pub(super) fn of(flow: &Flow) -> Self {
        Self {
            direction: flow.direction,
            mutual_tls: flow.mutual_tls,
            source: flow.source.clone(),
            destination: flow.destination.clone(),
            service: flow.service.clone(),
        }
    }
}

/// A [`Flow`] as an open connection keeps it: small, because tens of thousands may be open.
///
/// Shared with the shard's list of open connections, which is made on another thread.
#[derive(Debug)]
pub(super) struct Kept {
    parties: Arc<Parties>,
    src: PackedAddr,
    dst: PackedAddr,
    /// In one word, where a `OnceLock` takes two.
    more: OnceBox<More>,
}

/// What not every connection has.
#[derive(Debug, Default)]
struct More {
    hbone_addr: Option<Authority>,
    trace_id: Option<TraceParent>,
    policy: OnceLock<Arc<str>>,
    ends: OnceLock<Ends>,
}

/// Where a connection was to go and where it goes, as far as its [`Flow`] does not say it.
#[derive(Clone, Debug)]
pub struct Ends {
    /// What the client wanted.
    pub(super) original: Option<Original>,
    /// Whom we dialled, if not the flow's destination.
    pub(super) actual: Option<SocketAddr>,
    /// Its tunnel is inside another one.
    pub(super) double: bool,
}

impl Kept {
    pub(super) fn new(flow: Flow, parties: Arc<Parties>) -> Self {
        let (hbone_addr, trace_id) = (flow.hbone_addr, flow.trace_id);
        let more = OnceBox::new();
        if hbone_addr.is_some() || trace_id.is_some() {
            more.get_or_init(|| {
                Box::new(More {
                    hbone_addr,
                    trace_id,
                    ..More::default()
                })
            });
        }
        Self {
            parties,
            src: flow.src_addr.into(),
            dst: flow.dst_addr.into(),
            more,
        }
    }

    /// Names the policy that refused; the first one is the reason.
    pub(super) fn set_policy(&self, policy: Arc<str>) {
        let _ = self.more.get_or_init(Box::default).policy.set(policy);
    }

    pub(super) fn policy(&self) -> Option<Arc<str>> {
        self.more.get()?.policy.get().cloned()
    }

    /// States where the connection was to go and where it goes; the first statement counts.
    pub(super) fn set_ends(&self, ends: Option<Ends>) {
        if let Some(ends) = ends {
            let _ = self.more.get_or_init(Box::default).ends.set(ends);
        }
    }

    pub(super) fn ends(&self) -> Option<&Ends> {
        self.more.get()?.ends.get()
    }

    /// The flow again.
    pub(super) fn flow(&self) -> Flow {
        let (parties, more) = (&self.parties, self.more.get());
        Flow {
            direction: parties.direction,
            mutual_tls: parties.mutual_tls,
            source: parties.source.clone(),
            destination: parties.destination.clone(),
            service: parties.service.clone(),
            src_addr: self.src.into(),
            dst_addr: self.dst.into(),
            hbone_addr: more.and_then(|more| more.hbone_addr.clone()),
            trace_id: more.and_then(|more| more.trace_id),
        }
    }
}

/// What is shown of a socket address, in 24 bytes instead of 32.
#[derive(Clone, Copy, Debug)]
struct PackedAddr {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    v4: bool,
}

impl From<SocketAddr> for PackedAddr {
    fn from(addr: SocketAddr) -> Self {
        let (v4, ip, scope) = match addr {
            SocketAddr::V4(addr) => (true, addr.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(addr) => (false, *addr.ip(), addr.scope_id()),
        };
        Self {
            ip: ip.octets(),
            scope,
            port: addr.port(),
            v4,
        }
    }
}

impl From<PackedAddr> for SocketAddr {
    fn from(packed: PackedAddr) -> Self {
        let PackedAddr {
            ip,
            scope,
            port,
            v4,
        } = packed;
        match ip {
            [.., a, b, c, d] if v4 => Self::new([a, b, c, d].into(), port),
            ip => SocketAddrV6::new(ip.into(), port, 0, scope).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_was_kept_is_the_same_again() {
        let traced = crate::telemetry::testing::outbound();
        let mut six = crate::telemetry::testing::inbound();
        six.src_addr = "[fe80::7%3]:4000".parse().unwrap();
        six.dst_addr = "[::ffff:10.0.0.1]:15008".parse().unwrap();
        let mut plain = traced.clone();
        (plain.hbone_addr, plain.trace_id) = (None, None);
        for flow in [traced, six, plain] {
            let parties = Arc::new(Parties::of(&flow));
            let shown = format!("{flow:?}");
            assert_eq!(format!("{:?}", Kept::new(flow, parties).flow()), shown);
        }
    }
}
