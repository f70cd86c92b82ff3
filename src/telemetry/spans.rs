//! Spans of connections: a shard samples and queues them when connections end, the exporter takes
//! them. A full queue drops and counts; nobody waits.
//!
//! Both nodes of a tunnelled connection sample by the trace id, so that they agree. The span of the
//! node that opened the tunnel has the id it sent as parent id; the other node's span is its child.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use super::access_log::{End, FieldSink, FlowRecord};
use super::flow::{Direction, Flow};
use crate::config::limits::SPANS_QUEUED_MAX;
use crate::model::trace::TraceParent;

/// One million: every connection has a span.
pub const ALL_PER_MILLION: u32 = 1_000_000;

/// One connection that has ended.
#[derive(Debug)]
pub struct Span {
    /// Trace it belongs to.
    pub trace_id: u128,
    /// Its own id.
    pub span_id: u64,
    /// Id of the span it is part of, if there is one.
    pub parent_id: Option<u64>,
    /// When it began.
    pub started: SystemTime,
    record: FlowRecord,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A count.
    Number(u64),
}

impl Span {
    /// `outbound` or `inbound`.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.record.flow.direction
    }

    /// When it ended.
    #[must_use]
    pub const fn ended(&self) -> SystemTime {
        self.record.time
    }

    /// Why it failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.record.end.as_ref()?.error.as_deref()
    }

    /// The fields of its access-log line.
    #[must_use]
    pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = Attributes(Vec::new());
        self.record.push_fields(&mut attributes);
        attributes.0
    }
}

struct Attributes(Vec<(&'static str, Attribute)>);

impl FieldSink for Attributes {
    fn bare(&mut self, key: &'static str, value: impl Display) {
        self.0.push((key, Attribute::Text(value.to_string())));
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.0.push((key, Attribute::Text(value.to_owned())));
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.0.push((key, Attribute::Number(value)));
    }
}

/// A queue that takes this share of all connections, and its other end. Clones of the queue feed the
/// same end.
#[must_use]
pub fn queue(sampled_per_million: u32) -> (SpanQueue, Receiver<Span>) {
    let (sender, spans) = sync_channel(SPANS_QUEUED_MAX);
    let bound = u64::MAX / u64::from(ALL_PER_MILLION) * u64::from(sampled_per_million);
    let everything = sampled_per_million >= ALL_PER_MILLION;
    let queue = SpanQueue {
        sender,
        below: if everything { u64::MAX } else { bound },
    };
    (queue, spans)
}

/// Where shards put the spans of their connections.
#[derive(Clone, Debug)]
pub struct SpanQueue {
    sender: SyncSender<Span>,
    /// Trace ids whose lower half is below this, or anything if it is the largest, are sampled.
    below: u64,
}

/// A shard's end of the queue.
#[derive(Debug)]
pub(super) struct SpanSender {
    queue: SpanQueue,
    random: RefCell<fastrand::Rng>,
}

impl SpanSender {
    pub(super) fn new(queue: SpanQueue) -> Self {
        Self {
            queue,
            random: RefCell::new(fastrand::Rng::new()),
        }
    }

    /// Queues the span of a connection that has ended, if it is sampled. False: there was no room.
    pub(super) fn ended(&self, flow: &Flow, end: &End) -> bool {
        let (trace_id, span_id, parent_id) = self.ids(flow);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let lower = trace_id as u64;
        if lower >= self.queue.below && self.queue.below != u64::MAX {
            return true;
        }
        let time = SystemTime::now();
        let span = Span {
            trace_id,
            span_id,
            parent_id,
            started: time.checked_sub(end.duration).unwrap_or(time),
            record: FlowRecord {
                time,
                flow: flow.clone(),
                end: Some(end.clone()),
            },
        };
        self.queue.sender.try_send(span).is_ok()
    }

    fn ids(&self, flow: &Flow) -> (u128, u64, Option<u64>) {
        let mut random = self.random.borrow_mut();
        match (flow.trace_id.map(|trace| trace.ids()), flow.direction) {
            (Some((trace_id, sent)), Direction::Outbound) => (trace_id, sent, None),
            (Some((trace_id, sent)), Direction::Inbound) => (trace_id, random.u64(1..), Some(sent)),
            (None, _) => {
                let (trace_id, span_id) = TraceParent::random(&mut || random.u64(1..)).ids();
                (trace_id, span_id, None)
            }
        }
    }
}

/// Time between two looks at the queue.
pub const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{inbound, outbound};

    const SENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn end() -> End {
        End {
            to_server: 11,
            to_client: 22,
            duration: Duration::from_millis(1_500),
            error: Some("io error: gone".to_owned()),
            denied: None,
        }
    }

    #[test]
    fn both_nodes_of_a_connection_have_spans_of_one_trace() {
        let (queue, spans) = queue(ALL_PER_MILLION);
        let sender = SpanSender::new(queue);
        let trace_id = TraceParent::parse(SENT);
        for flow in [outbound(), inbound()] {
            assert!(sender.ended(&Flow { trace_id, ..flow }, &end()));
        }
        let [client, server]: [Span; 2] = spans.try_iter().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(client.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(
            (client.span_id, client.parent_id),
            (0x00f0_67aa_0ba9_02b7, None)
        );
        assert_eq!(server.trace_id, client.trace_id);
        assert_eq!(server.parent_id, Some(client.span_id));
        assert_ne!(server.span_id, client.span_id);
        let took = client.ended().duration_since(client.started).unwrap();
        assert_eq!(took, Duration::from_millis(1_500));
        assert_eq!(client.error(), Some("io error: gone"));
    }

    #[test]
    fn attributes_are_the_fields_of_the_access_log() {
        let (queue, spans) = queue(ALL_PER_MILLION);
        assert!(SpanSender::new(queue).ended(&outbound(), &end()));
        let attributes = spans.recv().unwrap().attributes();
        let text = |key: &str| {
            attributes
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, v)| v)
        };
        assert_eq!(
            text("src.addr"),
            Some(&Attribute::Text("10.1.0.2:40000".to_owned()))
        );
        assert_eq!(
            text("dst.hbone_addr"),
            Some(&Attribute::Text("10.1.0.3:8080".to_owned()))
        );
        assert_eq!(
            text("direction"),
            Some(&Attribute::Text("outbound".to_owned()))
        );
        assert_eq!(text("bytes_sent"), Some(&Attribute::Number(11)));
        assert_eq!(text("bytes_recv"), Some(&Attribute::Number(22)));
    }

    #[test]
    fn a_share_of_the_connections_is_sampled_and_both_nodes_agree_on_it() {
        let ids = 0..4_000_u64;
        let kept = |share: u32, flow: Flow| -> Vec<u128> {
            let (queue, spans) = queue(share);
            let sender = SpanSender::new(queue);
            let mut kept = Vec::new();
            for id in ids.clone() {
                let mut parts = [id, id.wrapping_mul(0x9e37_79b9_7f4a_7c15), 7].into_iter();
                let trace = TraceParent::random(&mut || parts.next().unwrap());
                let trace_id = Some(trace);
                assert!(sender.ended(
                    &Flow {
                        trace_id,
                        ..flow.clone()
                    },
                    &end()
                ));
                kept.extend(spans.try_iter().map(|span| span.trace_id));
            }
            kept
        };
        let tenth = kept(100_000, outbound());
        assert!((300..=500).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(kept(100_000, inbound()), tenth);
        assert_eq!(kept(0, outbound()).len(), 0);
        assert_eq!(kept(ALL_PER_MILLION, outbound()).len(), 4_000);
    }

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let (queue, spans) = queue(ALL_PER_MILLION);
        let sender = SpanSender::new(queue);
        for _ in 0..SPANS_QUEUED_MAX {
            assert!(sender.ended(&outbound(), &end()));
        }
        assert!(!sender.ended(&outbound(), &end()));
        let _ = spans.recv().unwrap();
        assert!(sender.ended(&outbound(), &end()));
    }
}
