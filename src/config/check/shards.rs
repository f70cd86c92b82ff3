//! How many shards, and on which CPUs (spec: local-config 4).
//!
//! The reference's rules wherever the operator says anything. When nothing is said we differ: one
//! shard for each CPU this process may use, because a shard shares nothing and costs little idle.
//! Count and pinning: tuning/results, shards.

use super::super::limits::SHARDS_MAX;
use super::super::problem::{Origin, ProblemKind};
use super::super::schema::Key;
use super::super::value::{Bool, Cpus, Integer, ShardCount, ShardRule};
use super::super::{Shards, host::Host};
use super::resolver::Resolver;

/// Part of the CPUs the reference uses by default.
const DEFAULT_PARTS: usize = 4;
/// Threads the reference uses at least by default.
const DEFAULT_MIN: usize = 2;

/// What the operator said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) rule: Option<ShardRule>,
    pub(super) concurrency: Option<usize>,
    pub(super) cpu_limit: Option<usize>,
    pub(super) resource_limit: Option<usize>,
    pub(super) resource_request: Option<usize>,
}

pub(super) fn shards(r: &mut Resolver) -> Shards {
    let wishes = Wishes {
        rule: r.winner(Key::ShardCount, &ShardCount).map(|(rule, _)| rule),
        concurrency: r.optional(Key::Concurrency, &Integer(0..=SHARDS_MAX)),
        cpu_limit: r.optional(Key::CpuLimit, &Integer(1..=SHARDS_MAX)),
        resource_limit: r.optional(Key::CpuResourceLimit, &Cpus),
        resource_request: r.optional(Key::CpuResourceRequest, &Cpus),
    };
    let count = count(wishes, r.raw.host.usable_cpus());
    let origin = r.origin_of(Key::ShardCount);
    r.record(Key::ShardCount, count.to_string(), origin);
    let cpus = if r.raw.host.cpus.is_empty() {
        vec![0]
    } else {
        r.raw.host.cpus.clone()
    };
    let pin = r.get(Key::ShardPin, pins(count, &r.raw.host), &Bool);
    if count > cpus.len() {
        let message = format!("{count} shards share {} CPUs", cpus.len());
        let origin = r.origin_of(Key::ShardCount);
        if origin != Origin::Default {
            r.warn(origin, Key::ShardCount, ProblemKind::Surprise(message));
        }
    }
    let balance = r.get(Key::ShardBalance, true, &Bool);
    Shards {
        count,
        cpus,
        pin,
        balance,
    }
}

/// Pinning helps when there is a shard for every CPU. With fewer, whoever else pins its threads would have
/// picked the same first CPUs, and the scheduler finds idle ones.
fn pins(count: usize, host: &Host) -> bool {
    count == host.cpus.len() && !host.is_throttled()
}

/// Shards for these wishes on a host with `usable` CPUs; first hit wins.
pub(super) fn count(wishes: Wishes, usable: usize) -> usize {
    let cpus = wishes.resource_limit.or(wishes.cpu_limit).unwrap_or(usable);
    let request = wishes.resource_request.unwrap_or(0);
    let count = match (wishes.rule, wishes.concurrency, wishes.resource_limit) {
        (Some(ShardRule::Count(count)), _, _) => count,
        (Some(ShardRule::Percent(percent)), _, _) => (cpus * percent).div_ceil(100),
        (Some(ShardRule::Cpus), _, _) | (None, Some(0), _) => cpus,
        (None, Some(count), _) => count,
        (None, None, Some(limit)) => limit.max(request),
        (None, None, None) if wishes == Wishes::default() => usable,
        (None, None, None) => cpus.div_ceil(DEFAULT_PARTS).max(request).max(DEFAULT_MIN),
    };
    count.clamp(1, SHARDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::value::Kind as _;
    use super::*;

    /// `threads`, `concurrency`, `cpus`, `limit` and `request` as `name=value`.
    fn wishes(text: &str) -> Wishes {
        let mut wishes = Wishes::default();
        for (name, value) in text.split(' ').filter_map(|part| part.split_once('=')) {
            let cpus = || Some(Cpus.parse(value).unwrap());
            match name {
                "threads" => wishes.rule = ShardCount.parse(value),
                "concurrency" => wishes.concurrency = value.parse().ok(),
                "cpus" => wishes.cpu_limit = value.parse().ok(),
                "limit" => wishes.resource_limit = cpus(),
                "request" => wishes.resource_request = cpus(),
                other => panic!("{other}"),
            }
        }
        wishes
    }

    #[test]
    fn the_table_of_thread_counts_holds() {
        for (text, usable, expected) in [
            ("threads=4", 64, 4),
            ("threads=50% cpus=8", 64, 4),
            ("threads=30% cpus=16", 64, 5),
            ("threads=10% cpus=4", 64, 1),
            ("limit=16", 4, 16),
            ("limit=1", 4, 1),
            ("limit=500m", 4, 1),
            ("limit=2500m", 4, 3),
            ("limit=1.5", 4, 2),
            ("cpus=32", 4, 8),
            ("request=8", 4, 8),
            ("request=1", 4, 2),
            ("request=1", 64, 16),
            ("limit=16 request=4", 4, 16),
            ("limit=4 request=8", 4, 8),
            ("threads=0 cpus=6", 64, 6),
            ("concurrency=0 cpus=6", 64, 6),
            ("concurrency=3 cpus=6", 64, 3),
            ("threads=0 cpus=12 limit=3", 64, 3),
            ("threads=0 cpus=12", 64, 12),
            ("threads=0", 64, 64),
        ] {
            assert_eq!(count(wishes(text), usable), expected, "{text} on {usable}");
        }
    }

    #[test]
    fn without_any_wish_every_usable_cpu_gets_a_shard() {
        assert_eq!(count(Wishes::default(), 7), 7);
        assert_eq!(count(Wishes::default(), 1), 1);
    }

    #[test]
    fn shards_are_pinned_only_where_no_other_process_competes() {
        let host = |quota| Host {
            cpus: vec![0, 1, 2, 3],
            quota,
            ipv6: true,
            ipv6_loopback: true,
        };
        assert!(pins(4, &host(None)));
        assert!(!pins(5, &host(None)));
        assert!(!pins(3, &host(None)));
        assert!(!pins(2, &host(Some(2))));
        assert!(pins(4, &host(Some(4))));
    }
}
