//! Access log: one record for each connection event, formatted on the log writer's thread
//! (spec: telemetry 3.3 to 3.5).
//!
//! A shard moves shared references into a record and queues it; the text is made elsewhere. After
//! the contract's fields come ours, on refusals and errors only: `policy` (the rule), both
//! identities, and `trace_id`, which is the same on the lines of both nodes.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use super::flow::{Direction, Flow};
use super::labels::Facts;
use super::line::{Fields, Head, Level, LineFormat, push_line};

/// Log target of connection lines.
pub const TARGET: &str = "access";

/// Most verbose level of the target `access`, read by shards before they build a record.
#[derive(Clone, Debug)]
pub struct AccessLevel(Arc<AtomicU8>);

impl AccessLevel {
    /// A level that can be changed later.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self(Arc::new(AtomicU8::new(level as u8)))
    }

    /// Changes the level for all shards at once.
    pub fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }

    /// Whether lines of this level are wanted.
    #[must_use]
    pub fn allows(&self, level: Level) -> bool {
        level as u8 <= self.0.load(Ordering::Relaxed)
    }
}

/// What a shard queues for the log writer.
#[derive(Debug)]
pub(super) enum Record {
    /// An opened or finished connection.
    Flow(Box<FlowRecord>),
    /// A connection refused before it was opened.
    Failed(Box<FailedRecord>),
}

/// A connection, with what is known at its end.
#[derive(Debug)]
pub(super) struct FlowRecord {
    pub(super) time: SystemTime,
    pub(super) flow: Flow,
    pub(super) end: Option<End>,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) to_server: u64,
    pub(super) to_client: u64,
    pub(super) duration: Duration,
    pub(super) error: Option<String>,
    /// Refused or cut by policy; the rule, where one is known.
    pub(super) denied: Option<Option<Arc<str>>>,
}

/// An early refusal.
#[derive(Debug)]
pub(super) struct FailedRecord {
    pub(super) time: SystemTime,
    pub(super) direction: Direction,
    pub(super) src: SocketAddr,
    pub(super) dst: Option<SocketAddr>,
    pub(super) error: String,
    pub(super) policy: Option<String>,
    pub(super) peer_identity: Option<String>,
    pub(super) local_identity: Option<String>,
}

impl Record {
    /// Appends the record as one line.
    pub(super) fn push(&self, out: &mut String, format: LineFormat) {
        match self {
            Self::Flow(record) => record.push(out, format),
            Self::Failed(record) => record.push(out, format),
        }
    }
}

/// Takes fields in order: a line of the log, or the attributes of a span.
pub(super) trait FieldSink {
    /// A value that needs no quotes.
    fn bare(&mut self, key: &'static str, value: impl Display);
    /// A text.
    fn text(&mut self, key: &'static str, value: &str);
    /// A count.
    fn number(&mut self, key: &'static str, value: u64);
}

impl FieldSink for Fields<'_> {
    fn bare(&mut self, key: &'static str, value: impl Display) {
        Fields::bare(self, key, value);
    }

    fn text(&mut self, key: &'static str, value: &str) {
        Fields::text(self, key, value);
    }

    fn number(&mut self, key: &'static str, value: u64) {
        Fields::number(self, key, value);
    }
}

fn head(time: SystemTime, level: Level, message: &str) -> Head<'_> {
    Head {
        time,
        level,
        target: TARGET,
        spans: &[],
        message: Some(message),
    }
}

impl FlowRecord {
    fn push(&self, out: &mut String, format: LineFormat) {
        let (level, message) = match &self.end {
            None => (Level::Debug, "connection opened"),
            Some(End { error: None, .. }) => (Level::Info, "connection complete"),
            Some(End { error: Some(_), .. }) => (Level::Error, "connection complete"),
        };
        push_line(
            out,
            format,
            &head(self.time, level, message),
            true,
            |fields| self.push_fields(fields),
        );
    }

    /// All fields.
    pub(super) fn push_fields(&self, fields: &mut impl FieldSink) {
        self.push_parties(fields);
        if let Some(end) = &self.end {
            self.push_end(end, fields);
        }
    }

    /// Fields 1 to 13.
    fn push_parties(&self, fields: &mut impl FieldSink) {
        let flow = &self.flow;
        let source = Facts::of_source(flow);
        let destination = Facts::of_destination(flow);
        fields.bare("src.addr", flow.src_addr);
        let pod = flow
            .source
            .workload
            .as_ref()
            .map(|workload| &*workload.name);
        text(
            fields,
            "src.workload",
            set(pod).or(source.canonical_service),
        );
        text(fields, "src.namespace", source.namespace);
        if flow.mutual_tls {
            text(fields, "src.identity", source.principal.as_deref());
        }
        text(fields, "src.cluster", source.cluster);
        fields.bare("dst.addr", flow.dst_addr);
        if let Some(authority) = &flow.hbone_addr {
            fields.bare("dst.hbone_addr", authority);
        }
        text(
            fields,
            "dst.service",
            flow.service.as_ref().map(|service| &*service.hostname),
        );
        let workload = if let Some(baggage) = &flow.destination.baggage {
            baggage.workload_name.as_deref()
        } else {
            let pod = flow
                .destination
                .workload
                .as_ref()
                .map(|workload| &*workload.name);
            set(pod).or(destination.canonical_service)
        };
        text(fields, "dst.workload", workload);
        text(fields, "dst.namespace", destination.namespace);
        if flow.mutual_tls {
            text(fields, "dst.identity", destination.principal.as_deref());
        }
        text(fields, "dst.cluster", destination.cluster);
        fields.text("direction", flow.direction.as_str());
    }

    /// Fields 14 to 17, then ours.
    fn push_end(&self, end: &End, fields: &mut impl FieldSink) {
        // What the local application sent: it is the client on the way out, the server on the way in.
        let (sent, received) = match self.flow.direction {
            Direction::Outbound => (end.to_server, end.to_client),
            Direction::Inbound => (end.to_client, end.to_server),
        };
        fields.number("bytes_sent", sent);
        fields.number("bytes_recv", received);
        fields.text("duration", &format!("{}ms", end.duration.as_millis()));
        text(fields, "error", end.error.as_deref());
        if let Some(policy) = &end.denied {
            text(fields, "policy", policy.as_deref());
            let flow = &self.flow;
            let peer = flow.source.identity.as_ref().map(ToString::to_string);
            text(fields, "peer_identity", peer.as_deref());
            let local = flow.destination.workload.as_ref();
            let local = local.map(|workload| workload.identity().to_string());
            text(fields, "local_identity", local.as_deref());
        }
        if end.error.is_some()
            && let Some(trace) = &self.flow.trace_id
        {
            fields.text("trace_id", &trace.trace_id());
        }
    }
}

impl FailedRecord {
    fn push(&self, out: &mut String, format: LineFormat) {
        let head = head(self.time, Level::Warn, "connection failed");
        push_line(out, format, &head, true, |fields| {
            fields.bare("src.addr", self.src);
            if let Some(dst) = self.dst {
                fields.bare("dst.addr", dst);
            }
            fields.text("direction", self.direction.as_str());
            fields.text("error", &self.error);
            text(fields, "policy", self.policy.as_deref());
            text(fields, "peer_identity", self.peer_identity.as_deref());
            text(fields, "local_identity", self.local_identity.as_deref());
        });
    }
}

fn set(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

/// A string field, left out when it is not known.
fn text(fields: &mut impl FieldSink, key: &'static str, value: Option<&str>) {
    if let Some(value) = set(value) {
        fields.text(key, value);
    }
}

#[cfg(test)]
mod tests;
