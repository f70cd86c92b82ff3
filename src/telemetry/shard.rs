//! The shard's end of telemetry: what the data plane calls.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::access_log::{AccessLevel, End, FailedRecord, FlowRecord, Record};
use super::counters::{Limit, ShardCounters};
use super::flow::{Direction, Ends, Flow, Kept, Party, Refusal};
use super::line::Level;
use super::log_writer::RecordSender;
use super::open::{OpenConnections, Places};
use super::series::{Interner, Series};
use crate::model::close::{CloseReason, ResponseFlag};

/// Telemetry of one shard. Made on the control thread, then moved to the shard's thread and kept in
/// an `Rc` there.
pub struct ShardTelemetry {
    counters: Arc<ShardCounters>,
    interner: RefCell<Interner>,
    records: RecordSender,
    level: AccessLevel,
    open: Places,
    #[cfg(feature = "otlp")]
    spans: Option<super::spans::SpanSender>,
    /// Start of the first connection: what the others tell their start by, in half the room.
    epoch: OnceCell<Instant>,
}

impl fmt::Debug for ShardTelemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardTelemetry")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl ShardTelemetry {
    pub(super) fn new(
        counters: Arc<ShardCounters>,
        interner: Interner,
        records: RecordSender,
        level: AccessLevel,
    ) -> Self {
        Self {
            counters,
            interner: RefCell::new(interner),
            records,
            level,
            open: Places::default(),
            #[cfg(feature = "otlp")]
            spans: None,
            epoch: OnceCell::new(),
        }
    }

    /// The spans of its connections go there.
    #[cfg(feature = "otlp")]
    pub(super) fn with_spans(self, queue: super::spans::SpanQueue) -> Self {
        Self {
            spans: Some(super::spans::SpanSender::new(queue)),
            ..self
        }
    }

    /// The shard's own counters. Only the shard's thread may write them.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// The same counters, to be read by a watchdog.
    #[must_use]
    pub fn shared_counters(&self) -> Arc<ShardCounters> {
        Arc::clone(&self.counters)
    }

    /// A socket was accepted; [`ShardTelemetry::socket_closed`] must follow when its task ends.
    pub fn socket_opened(&self, direction: Direction) {
        self.counters.socket_opened(direction);
    }

    /// The task of such a socket ended, however it ended.
    pub fn socket_closed(&self, direction: Direction) {
        self.counters.socket_closed(direction);
    }

    /// Counts and logs a connection whose context is complete (before authorization and dial).
    /// `started` is where its duration begins: accept on the way out and for plain text, the
    /// stream's context in a tunnel.
    #[must_use]
    pub fn opened(self: &Rc<Self>, flow: Flow, started: Instant) -> OpenFlow {
        let held = self.interner.borrow_mut().hold(&flow, &self.counters);
        let (series, parties) = held;
        series.opened.add(1);
        if self.level.allows(Level::Debug) {
            self.queue(Record::Flow(Box::new(FlowRecord {
                time: SystemTime::now(),
                flow: flow.clone(),
                end: None,
            })));
        }
        let kept = Arc::new(Kept::new(flow, parties));
        OpenFlow {
            shard: Rc::clone(self),
            series,
            place: self.open.enter(&kept),
            kept: Some(kept),
            to_server: Cell::new(0),
            to_client: Cell::new(0),
            started: nanos(*self.epoch.get_or_init(|| started), started),
        }
    }

    /// Up to `max` of the open connections.
    #[must_use]
    pub fn open_connections(&self, max: usize) -> OpenConnections {
        self.open.list(max)
    }

    /// Logs a connection refused before its context was complete. Touches no traffic metric.
    pub fn refused(
        &self,
        direction: Direction,
        src: SocketAddr,
        dst: Option<SocketAddr>,
        error: &dyn Display,
    ) {
        self.refused_by(direction, src, dst, error, Refusal::default());
    }

    /// As [`ShardTelemetry::refused`], naming the rule and both identities as far as they are known.
    pub fn refused_by(
        &self,
        direction: Direction,
        src: SocketAddr,
        dst: Option<SocketAddr>,
        error: &dyn Display,
        refusal: Refusal<'_>,
    ) {
        if !self.level.allows(Level::Warn) {
            return;
        }
        self.queue(Record::Failed(Box::new(FailedRecord {
            time: SystemTime::now(),
            direction,
            src,
            dst,
            error: error.to_string(),
            policy: refusal.policy.map(str::to_owned),
            peer_identity: refusal.peer_identity.map(ToString::to_string),
            local_identity: refusal.local_identity.map(ToString::to_string),
        })));
    }

    /// Whether connections have spans.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(clippy::unused_self, reason = "without the feature there are none")
    )]
    const fn has_spans(&self) -> bool {
        #[cfg(feature = "otlp")]
        return self.spans.is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }

    #[cfg(feature = "otlp")]
    fn span(&self, flow: &Flow, end: &End) {
        if let Some(spans) = &self.spans
            && !spans.ended(flow, end)
        {
            self.counters.spans_dropped.add(1);
        }
    }

    fn queue(&self, record: Record) {
        if !self.records.send(record) {
            self.counters.log_lines_dropped.add(1);
            self.counters.limit(Limit::LogQueue).add(1);
        }
    }
}

/// A counted connection. It must be [finished](OpenFlow::finish); dropped instead, it counts as cut
/// by drain.
#[derive(Debug)]
pub struct OpenFlow {
    shard: Rc<ShardTelemetry>,
    series: Arc<Series>,
    /// Taken when the connection is finished.
    kept: Option<Arc<Kept>>,
    /// Among the shard's open connections.
    place: u32,
    to_server: Cell<u64>,
    to_client: Cell<u64>,
    /// By the shard's epoch.
    started: i64,
}

/// Nanoseconds from `epoch` to `at`, which may be before it.
fn nanos(epoch: Instant, at: Instant) -> i64 {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match at.checked_duration_since(epoch) {
        Some(after) => nanos(after),
        None => -nanos(epoch.saturating_duration_since(at)),
    }
}

impl OpenFlow {
    /// Counts payload bytes written towards the server side.
    pub fn to_server(&self, n: u64) {
        self.series.to_server.add(n);
        self.to_server.set(self.to_server.get() + n);
    }

    /// Counts payload bytes written towards the client side.
    pub fn to_client(&self, n: u64) {
        self.series.to_client.add(n);
        self.to_client.set(self.to_client.get() + n);
    }

    /// Replaces the destination by what became known later; what is counted from now on carries it.
    pub fn set_destination(&mut self, destination: Party) {
        let Some(kept) = &self.kept else { return };
        let mut flow = kept.flow();
        flow.destination = destination;
        let shard = &self.shard;
        let held = shard.interner.borrow_mut().hold(&flow, &shard.counters);
        let (series, parties) = held;
        let ends = kept.ends().cloned();
        let kept = Arc::new(Kept::new(flow, parties));
        kept.set_ends(ends);
        shard.open.replace(self.place, &kept);
        self.kept = Some(kept);
        std::mem::replace(&mut self.series, series).release();
    }

    /// States where the connection was to go and where it goes, for operators who ask.
    #[must_use]
    pub fn with_ends(self, ends: Option<Ends>) -> Self {
        if let Some(kept) = &self.kept {
            kept.set_ends(ends);
        }
        self
    }

    /// Names the policy (`namespace/name`) that refused the connection, for its log line.
    pub fn set_policy(&self, policy: Arc<str>) {
        if let Some(kept) = &self.kept {
            kept.set_policy(policy);
        }
    }

    /// Counts and logs the end of the connection.
    pub fn finish(mut self, reason: &CloseReason, now: Instant) {
        self.end(reason, now);
    }

    fn end(&mut self, reason: &CloseReason, now: Instant) {
        let Some(kept) = self.kept.take() else {
            return;
        };
        self.shard.open.leave(self.place);
        let flag = reason.flag();
        self.series.closed(flag);
        self.series.release();
        let level = if reason.is_error() {
            Level::Error
        } else {
            Level::Info
        };
        let logged = self.shard.level.allows(level);
        if !logged && !self.shard.has_spans() {
            return;
        }
        let end = End {
            to_server: self.to_server.get(),
            to_client: self.to_client.get(),
            duration: self.shard.epoch.get().map_or(Duration::ZERO, |epoch| {
                let nanos = nanos(*epoch, now).saturating_sub(self.started);
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
            }),
            error: reason.is_error().then(|| reason.to_string()),
            denied: (flag == ResponseFlag::Deny).then(|| kept.policy()),
        };
        let flow = kept.flow();
        #[cfg(feature = "otlp")]
        self.shard.span(&flow, &end);
        if logged {
            self.shard.queue(Record::Flow(Box::new(FlowRecord {
                time: SystemTime::now(),
                flow,
                end: Some(end),
            })));
        }
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        if self.kept.is_some() {
            #[expect(
                clippy::disallowed_methods,
                reason = "a dropped task has nobody left to tell the time"
            )]
            let now = Instant::now();
            self.end(&CloseReason::Drain, now);
        }
    }
}
