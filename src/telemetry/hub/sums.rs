//! Families that are sums (or lists) over the shards' own counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::counters::{Limit, ListenerKind, Role, ShardCounters};
use crate::telemetry::families as f;
use crate::telemetry::flow::Direction;
use crate::telemetry::histogram::{Histogram, Merged};
use crate::telemetry::page::Page;

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

/// Writes the families that are sums over `shards`.
pub(super) fn render_sums(shards: &[Arc<ShardCounters>], page: &mut Page) {
    render_tunnels(shards, page);
    render_durations(shards, page);
    render_policy(shards, page);
}

fn sum(shards: &[Arc<ShardCounters>], count: impl Fn(&ShardCounters) -> u64) -> u64 {
    shards.iter().map(|shard| count(shard)).sum()
}

fn level(shards: &[Arc<ShardCounters>], count: impl Fn(&ShardCounters) -> i64) -> i64 {
    shards.iter().map(|shard| count(shard)).sum()
}

/// Families with one sample a shard.
pub(super) fn render_shards(shards: &BTreeMap<usize, Arc<ShardCounters>>, page: &mut Page) {
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
    page.family(&f::SHARD_HEARTBEATS, |samples| {
        for (index, counters) in shards {
            samples.sample(&[&index.to_string()], counters.heartbeat.get());
        }
    });
}

/// Sums over the shards: sockets and tunnels.
fn render_tunnels(shards: &[Arc<ShardCounters>], page: &mut Page) {
    page.family(&f::SOCKETS_OPEN, |samples| {
        for direction in Direction::ALL {
            let pairs = shards.iter().map(|shard| shard.sockets(direction));
            let (opened, closed) = pairs.fold((0, 0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            if opened > 0 {
                samples.sample(&[direction.reporter()], opened.saturating_sub(closed));
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
}

/// Sums over the shards: handshakes, and how long things take.
fn render_durations(shards: &[Arc<ShardCounters>], page: &mut Page) {
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
    histogram: impl Fn(&ShardCounters) -> &Histogram,
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
    page.family(&f::CRL_REJECTIONS, |samples| {
        for (role, reporter) in [(Role::Client, "source"), (Role::Server, "destination")] {
            let count = sum(shards, |shard| shard.crl_rejections(role).get());
            // As the reference: a series begins with its first event.
            if count > 0 {
                samples.sample(&[reporter], count);
            }
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
        (&f::HANDED_OVER, |s| s.handed_over.get()),
        (&f::ACCEPT_ERRORS, |s| s.accept_errors.get()),
        (&f::PANICS, |s| s.panics.get()),
        (&f::POLICY_RECHECKS, |s| s.policy_rechecks.get()),
        (&f::POLICY_CLOSED, |s| s.policy_closed.get()),
    ];
    for (family, count) in single {
        page.family(family, |samples| samples.sample(&[], sum(shards, count)));
    }
}
