//! The control side of telemetry: hands out the shards' ends, sums their cells, expires series.
//!
//! A label set that several shards use is one group here. When one shard's series ends, its counts
//! stay in the group, so a sum never goes down while the group lives. A group ends when all its
//! series are idle; what exceeds the cap is summed into one overflow group a reporter.

mod sums;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::counters::ShardCounters;
use super::families as f;
use super::flow::Direction;
use super::labels::LabelText;
use super::log_writer::LogSink;
use super::page::Page;
use super::series::{FLAGS, Interner, Series};
use super::shard::ShardTelemetry;
use crate::config::limits::{ACCESS_LOG_LINES_MAX, METRIC_SERIES_IDLE, METRIC_SERIES_MAX};
use crate::model::close::ResponseFlag;

/// Bounds of telemetry an operator may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// Label sets of the traffic metrics.
    pub series_max: usize,
    /// A label set nobody used for this long, and no connection holds, is dropped.
    pub series_idle: Duration,
    /// Access-log lines a shard may queue.
    pub access_log_lines: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            series_max: METRIC_SERIES_MAX,
            series_idle: METRIC_SERIES_IDLE,
            access_log_lines: ACCESS_LOG_LINES_MAX,
        }
    }
}

/// Meeting point of the shards' telemetry. Shared by the servers of the control thread.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    log: LogSink,
    announce: Sender<Arc<Series>>,
    #[cfg(feature = "otlp")]
    spans: Option<super::spans::SpanQueue>,
    #[expect(
        clippy::disallowed_types,
        reason = "taken by scrapes on the control side only; a shard never sees it"
    )]
    state: std::sync::Mutex<State>,
}

#[derive(Debug)]
struct State {
    announced: Receiver<Arc<Series>>,
    shards: BTreeMap<usize, Arc<ShardCounters>>,
    groups: BTreeMap<LabelText, Group>,
    overflow: [Group; 2],
}

/// One label set over all shards.
#[derive(Debug, Default)]
struct Group {
    ended: Totals,
    members: Vec<Member>,
}

/// One shard's series in a group, and when its counts last changed.
#[derive(Debug)]
struct Member {
    series: Arc<Series>,
    seen: Totals,
    since: Instant,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Totals {
    opened: u64,
    to_server: u64,
    to_client: u64,
    closed: [u64; FLAGS.len()],
}

impl Totals {
    fn of(series: &Series) -> Self {
        // Closed before opened, so that no scrape shows more closed than opened.
        let closed = series.closed_counts();
        Self {
            closed,
            opened: series.opened.get(),
            to_server: series.to_server.get(),
            to_client: series.to_client.get(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.to_server += other.to_server;
        self.to_client += other.to_client;
        for (sum, n) in self.closed.iter_mut().zip(other.closed) {
            *sum += n;
        }
    }
}

impl Group {
    fn totals(&self) -> Totals {
        let mut totals = self.ended.clone();
        for member in &self.members {
            totals.add(&Totals::of(&member.series));
        }
        totals
    }

    /// Ends the series nobody holds and nobody used since `idle` before `now`.
    fn expire(&mut self, now: Instant, idle: Duration) {
        let ended = &mut self.ended;
        self.members.retain_mut(|member| {
            let totals = Totals::of(&member.series);
            if totals != member.seen || member.series.is_held() {
                member.seen = totals;
                member.since = now;
                return true;
            }
            if now.saturating_duration_since(member.since) < idle || !member.series.end() {
                return true;
            }
            // Read again: the last holder may have counted until it let go.
            ended.add(&Totals::of(&member.series));
            false
        });
    }
}

/// What the status page says of a shard.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Number of the shard.
    pub shard: usize,
    /// I/O driver; empty until the shard has started.
    pub driver: String,
    /// Why it is not the first choice; empty when it is.
    pub fallback: String,
    /// Connections in its table.
    pub connections: i64,
    /// Tunnels it opened.
    pub tunnels_outbound: i64,
    /// Tunnels it accepted.
    pub tunnels_inbound: i64,
    /// Questions of the watchdog that it has answered.
    pub heartbeat: u64,
    /// Panics it contained.
    pub panics: u64,
    /// Access-log lines it dropped.
    pub log_lines_dropped: u64,
}

impl Hub {
    /// Makes a hub whose shards log to `log`.
    #[must_use]
    pub fn new(options: HubOptions, log: LogSink) -> Self {
        let (announce, announced) = channel();
        let state = State {
            announced,
            shards: BTreeMap::new(),
            groups: BTreeMap::new(),
            overflow: Default::default(),
        };
        Self {
            options,
            log,
            announce,
            #[cfg(feature = "otlp")]
            spans: None,
            state: state.into(),
        }
    }

    /// The connections of all shards made from now on have spans.
    #[cfg(feature = "otlp")]
    #[must_use]
    pub fn with_spans(self, queue: super::spans::SpanQueue) -> Self {
        Self {
            spans: Some(queue),
            ..self
        }
    }

    /// Makes the telemetry of one shard, to be moved to its thread.
    #[must_use]
    pub fn shard(&self, index: usize) -> ShardTelemetry {
        let counters = Arc::new(ShardCounters::default());
        self.lock().shards.insert(index, Arc::clone(&counters));
        let shard = ShardTelemetry::new(
            counters,
            Interner::new(self.announce.clone(), self.options.series_max),
            self.log.shard_queue(self.options.access_log_lines),
            self.log.access_level().clone(),
        );
        #[cfg(feature = "otlp")]
        if let Some(queue) = &self.spans {
            return shard.with_spans(queue.clone());
        }
        shard
    }

    /// Joins new series and drops idle ones. Called before each scrape and every minute.
    pub fn housekeep(&self, now: Instant) {
        self.lock().housekeep(now, &self.options);
    }

    /// Appends every family the shards feed.
    pub fn render(&self, page: &mut Page, now: Instant) {
        let mut state = self.lock();
        state.housekeep(now, &self.options);
        state.render_traffic(page);
        sums::render_shards(&state.shards, page);
        let shards: Vec<_> = state.shards.values().map(Arc::clone).collect();
        let series = state.groups.len();
        drop(state);
        sums::render_sums(&shards, page);
        page.family(&f::METRIC_SERIES, |samples| samples.sample(&[], series));
        page.family(&f::LOG_LINES_DROPPED, |samples| {
            let dropped: u64 = shards
                .iter()
                .map(|shard| shard.log_lines_dropped.get())
                .sum();
            samples.sample(&["access"], dropped);
            samples.sample(&["control"], self.log.control_lines_dropped());
        });
        #[cfg(feature = "otlp")]
        if self.spans.is_some() {
            let dropped: u64 = shards.iter().map(|shard| shard.spans_dropped.get()).sum();
            page.family(&f::SPANS_DROPPED, |samples| samples.sample(&[], dropped));
        }
        page.family(&f::LOG_WRITE_FAILURES, |samples| {
            samples.sample(&[], self.log.write_failures());
        });
    }

    /// State of each shard, by number.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardStatus> {
        let state = self.lock();
        let status = |(index, counters): (&usize, &Arc<ShardCounters>)| {
            let driver = counters.driver();
            ShardStatus {
                shard: *index,
                driver: driver.map_or("", |driver| driver.name).to_owned(),
                fallback: driver.map_or("", |driver| &driver.fallback).to_owned(),
                connections: counters.connections_open.get(),
                tunnels_outbound: counters.tunnels_client_open.get(),
                tunnels_inbound: counters.tunnels_server_open.get(),
                heartbeat: counters.heartbeat.get(),
                panics: counters.panics.get(),
                log_lines_dropped: counters.log_lines_dropped.get(),
            }
        };
        state.shards.iter().map(status).collect()
    }

    /// The log the shards write to.
    #[must_use]
    pub const fn log(&self) -> &LogSink {
        &self.log
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while the lock was held leaves sums at worst one scrape old.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn housekeep(&mut self, now: Instant, options: &HubOptions) {
        while let Ok(series) = self.announced.try_recv() {
            self.join(series, now, options.series_max);
        }
        for group in self.overflow.iter_mut().chain(self.groups.values_mut()) {
            group.expire(now, options.series_idle);
        }
        self.groups.retain(|_, group| !group.members.is_empty());
    }

    fn join(&mut self, series: Arc<Series>, now: Instant, series_max: usize) {
        let direction = series.direction();
        let is_overflow = *series.labels() == LabelText::overflow(direction);
        let full = self.groups.len() >= series_max && !self.groups.contains_key(series.labels());
        let group = if is_overflow || full {
            &mut self.overflow[direction.index()]
        } else {
            self.groups.entry(series.labels().clone()).or_default()
        };
        group.members.push(Member {
            series,
            seen: Totals::default(),
            since: now,
        });
    }

    fn render_traffic(&self, page: &mut Page) {
        let overflow = Direction::ALL.map(LabelText::overflow);
        let extra = overflow.iter().zip(&self.overflow);
        let all: Vec<(&LabelText, Totals)> = self
            .groups
            .iter()
            .chain(extra)
            .map(|(labels, group)| (labels, group.totals()))
            .collect();
        let plain = [
            (
                &f::CONNECTIONS_OPENED,
                (|totals| totals.opened) as fn(&Totals) -> u64,
            ),
            (&f::RECEIVED_BYTES, |totals| totals.to_server),
            (&f::SENT_BYTES, |totals| totals.to_client),
        ];
        for (family, count) in plain {
            page.family(family, |samples| {
                for (labels, totals) in &all {
                    let count = count(totals);
                    if count > 0 || totals.opened > 0 {
                        let (before, after) = labels.around_flag();
                        samples.ready([before, ResponseFlag::None.as_str(), after], count);
                    }
                }
            });
        }
        for (family, first_flag) in [(&f::CONNECTIONS_CLOSED, 0), (&f::CONNECTIONS_FAILED, 1)] {
            page.family(family, |samples| {
                for (labels, totals) in &all {
                    let (before, after) = labels.around_flag();
                    for (flag, count) in FLAGS.iter().zip(totals.closed).skip(first_flag) {
                        if count > 0 {
                            samples.ready([before, flag.as_str(), after], count);
                        }
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
