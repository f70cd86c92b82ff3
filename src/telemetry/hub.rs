//! The control side of telemetry: hands out the shards' ends, sums their cells, expires series.
//!
//! A label set that several shards use is one group here. When one shard's series ends, its counts
//! stay in the group, so a sum never goes down while the group lives. A group ends when all its
//! series are idle; what exceeds the cap is summed into one overflow group a reporter.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::counters::{Limit, ListenerKind, Role, ShardCounters};
use super::families as f;
use super::flow::Direction;
use super::histogram::Merged;
use super::labels::LabelText;
use super::log_writer::LogSink;
use super::page::Page;
use super::series::{FLAGS, Interner, Series};
use super::shard::ShardTelemetry;
use crate::config::limits::{ACCESS_LOG_LINES_MAX, METRIC_SERIES_IDLE, METRIC_SERIES_MAX};
use crate::model::close::ResponseFlag;

/// Bucket bounds of every histogram: 10 us to 10 s.
const BOUNDS: [Duration; 19] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

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
    /// Beats of its timer.
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
            state: state.into(),
        }
    }

    /// Makes the telemetry of one shard, to be moved to its thread.
    #[must_use]
    pub fn shard(&self, index: usize) -> ShardTelemetry {
        let counters = Arc::new(ShardCounters::default());
        self.lock().shards.insert(index, Arc::clone(&counters));
        ShardTelemetry::new(
            counters,
            Interner::new(self.announce.clone(), self.options.series_max),
            self.log.shard_queue(self.options.access_log_lines),
            self.log.access_level().clone(),
        )
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
        render_shards(&state.shards, page);
        let shards: Vec<_> = state.shards.values().map(Arc::clone).collect();
        let series = state.groups.len();
        drop(state);
        render_sums(&shards, page);
        render_policy(&shards, page);
        page.family(&f::METRIC_SERIES, |samples| samples.sample(&[], series));
        page.family(&f::LOG_LINES_DROPPED, |samples| {
            let dropped = sum(&shards, |shard| shard.log_lines_dropped.get());
            samples.sample(&["access"], dropped);
            samples.sample(&["control"], self.log.control_lines_dropped());
        });
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

    #[expect(clippy::disallowed_types, reason = "as the field")]
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

fn sum(shards: &[Arc<ShardCounters>], count: impl Fn(&ShardCounters) -> u64) -> u64 {
    shards.iter().map(|shard| count(shard)).sum()
}

fn level(shards: &[Arc<ShardCounters>], count: impl Fn(&ShardCounters) -> i64) -> i64 {
    shards.iter().map(|shard| count(shard)).sum()
}

/// Families with one sample a shard.
fn render_shards(shards: &BTreeMap<usize, Arc<ShardCounters>>, page: &mut Page) {
    page.family(&f::SHARDS, |samples| samples.sample(&[], shards.len()));
    page.family(&f::DRIVER, |samples| {
        for (index, counters) in shards {
            if let Some(driver) = counters.driver() {
                samples.sample(&[&index.to_string(), driver.name, &driver.fallback], 1);
            }
        }
    });
    page.family(&f::SHARD_CONNECTIONS, |samples| {
        for (index, counters) in shards {
            samples.sample(&[&index.to_string()], counters.connections_open.get());
        }
    });
    page.family(&f::SHARD_TURNS, |samples| {
        for (index, counters) in shards {
            samples.sample(&[&index.to_string()], counters.loop_turns.get());
        }
    });
}

/// Sums over the shards: sockets, tunnels, handshakes, latencies.
fn render_sums(shards: &[Arc<ShardCounters>], page: &mut Page) {
    page.family(&f::SOCKETS_OPEN, |samples| {
        for direction in Direction::ALL {
            let pairs = shards.iter().map(|shard| shard.sockets(direction));
            let (opened, closed) = pairs.fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            if opened > 0 {
                samples.sample(&[direction.reporter()], opened - closed);
            }
        }
    });
    page.family(&f::ACCEPTED, |samples| {
        for kind in ListenerKind::ALL {
            samples.sample(
                &[kind.as_str()],
                sum(shards, |shard| shard.accepted(*kind).get()),
            );
        }
    });
    let roles = |count: [fn(&ShardCounters) -> i64; 2]| {
        Role::ALL
            .iter()
            .zip(count)
            .map(|(role, count)| (role.as_str(), level(shards, count)))
    };
    page.family(&f::TUNNELS_OPEN, |samples| {
        for (role, count) in roles([
            |s| s.tunnels_client_open.get(),
            |s| s.tunnels_server_open.get(),
        ]) {
            samples.sample(&[role], count);
        }
    });
    page.family(&f::TUNNELS_OPENED, |samples| {
        samples.sample(&["client"], sum(shards, |s| s.tunnels_client_opened.get()));
        samples.sample(&["server"], sum(shards, |s| s.tunnels_server_opened.get()));
    });
    page.family(&f::TUNNELS_FAILED, |samples| {
        samples.sample(&["client"], sum(shards, |s| s.tunnels_client_failed.get()));
    });
    page.family(&f::STREAMS_OPENED, |samples| {
        samples.sample(&["client"], sum(shards, |s| s.streams_client_opened.get()));
        samples.sample(&["server"], sum(shards, |s| s.streams_server_opened.get()));
    });
    page.family(&f::HANDSHAKES, |samples| {
        for role in Role::ALL {
            let (ok, failed) = (
                ShardCounters::handshakes_ok,
                ShardCounters::handshakes_failed,
            );
            samples.sample(&[role.as_str(), "ok"], sum(shards, |s| ok(s, *role).get()));
            samples.sample(
                &[role.as_str(), "failed"],
                sum(shards, |s| failed(s, *role).get()),
            );
        }
    });
    page.family(&f::HANDSHAKE_SECONDS, |samples| {
        for role in Role::ALL {
            let merged = merge(shards, |shard| shard.handshake_seconds(*role));
            samples.histogram(&[role.as_str()], &merged, &BOUNDS);
        }
    });
    page.family(&f::ADDED_LATENCY_SECONDS, |samples| {
        samples.histogram(
            &[],
            &merge(shards, |shard| &shard.added_latency_seconds),
            &BOUNDS,
        );
    });
    page.family(&f::DIAL_SECONDS, |samples| {
        samples.histogram(&[], &merge(shards, |shard| &shard.dial_seconds), &BOUNDS);
    });
}

fn merge(
    shards: &[Arc<ShardCounters>],
    histogram: impl Fn(&ShardCounters) -> &super::Histogram,
) -> Merged {
    let mut merged = Merged::default();
    for shard in shards {
        merged.add(histogram(shard));
    }
    merged
}

/// Sums over the shards: bytes, limits, faults, policy.
fn render_policy(shards: &[Arc<ShardCounters>], page: &mut Page) {
    page.family(&f::LIMITS_HIT, |samples| {
        for limit in Limit::ALL {
            samples.sample(
                &[limit.as_str()],
                sum(shards, |shard| shard.limit(*limit).get()),
            );
        }
    });
    page.family(&f::POLICY_DRY_RUN, |samples| {
        samples.sample(&["deny"], sum(shards, |s| s.policy_dry_run_deny.get()));
        samples.sample(
            &["allow_match"],
            sum(shards, |s| s.policy_dry_run_allow_match.get()),
        );
    });
    let relays = level(shards, |s| s.relays_open.get());
    page.family(&f::RELAYS_OPEN, |samples| samples.sample(&[], relays));
    let single = [
        (
            &f::RELAYED_BYTES,
            (|s| s.relayed_bytes.get()) as fn(&ShardCounters) -> u64,
        ),
        (&f::ACCEPT_ERRORS, |s| s.accept_errors.get()),
        (&f::PANICS, |s| s.panics.get()),
        (&f::POLICY_RECHECKS, |s| s.policy_rechecks.get()),
        (&f::POLICY_CLOSED, |s| s.policy_closed.get()),
    ];
    for (family, count) in single {
        page.family(family, |samples| samples.sample(&[], sum(shards, count)));
    }
}

#[cfg(test)]
mod tests;
