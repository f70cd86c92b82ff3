//! How many shards, and on which CPUs (spec: local-config 4).
//!
//! The reference's rules wherever the operator says anything. When nothing is said we differ: one
//! shard for each CPU this process may use, because a shard shares nothing and costs little idle.

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
    Shards { count, cpus, pin }
}

/// Pinning helps unless shards would share a CPU, or several processes would pick the same ones.
fn pins(count: usize, host: &Host) -> bool {
    count <= host.cpus.len() && !host.is_throttled()
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
    use super::*;

    const NONE: Wishes = Wishes {
        rule: None,
        concurrency: None,
        cpu_limit: None,
        resource_limit: None,
        resource_request: None,
    };

    #[test]
    fn the_table_of_worker_threads_holds() {
        let percent = |cpus, percent| Wishes {
            rule: Some(ShardRule::Percent(percent)),
            cpu_limit: Some(cpus),
            ..NONE
        };
        let limit = |limit| Wishes {
            resource_limit: Some(limit),
            ..NONE
        };
        let request = |request| Wishes {
            resource_request: Some(request),
            ..NONE
        };
        let cases = [
            (
                Wishes {
                    rule: Some(ShardRule::Count(4)),
                    ..NONE
                },
                64,
                4,
            ),
            (percent(8, 50), 64, 4),
            (percent(16, 30), 64, 5),
            (percent(4, 10), 64, 1),
            (limit(16), 4, 16),
            (limit(1), 4, 1),
            (
                Wishes {
                    cpu_limit: Some(32),
                    ..NONE
                },
                4,
                8,
            ),
            (request(8), 4, 8),
            (request(1), 4, 2),
            (request(1), 64, 16),
            (
                Wishes {
                    resource_request: Some(4),
                    ..limit(16)
                },
                4,
                16,
            ),
            (
                Wishes {
                    resource_request: Some(8),
                    ..limit(4)
                },
                4,
                8,
            ),
            (
                Wishes {
                    rule: Some(ShardRule::Cpus),
                    cpu_limit: Some(6),
                    ..NONE
                },
                64,
                6,
            ),
            (
                Wishes {
                    concurrency: Some(0),
                    cpu_limit: Some(6),
                    ..NONE
                },
                64,
                6,
            ),
            (
                Wishes {
                    concurrency: Some(3),
                    cpu_limit: Some(6),
                    ..NONE
                },
                64,
                3,
            ),
            (
                Wishes {
                    cpu_limit: Some(12),
                    rule: Some(ShardRule::Cpus),
                    ..limit(3)
                },
                64,
                3,
            ),
            (
                Wishes {
                    cpu_limit: Some(12),
                    rule: Some(ShardRule::Cpus),
                    ..NONE
                },
                64,
                12,
            ),
            (
                Wishes {
                    rule: Some(ShardRule::Cpus),
                    ..NONE
                },
                64,
                64,
            ),
        ];
        for (wishes, usable, expected) in cases {
            assert_eq!(count(wishes, usable), expected, "{wishes:?} on {usable}");
        }
    }

    #[test]
    fn without_any_wish_every_usable_cpu_gets_a_shard() {
        assert_eq!(count(NONE, 7), 7);
        assert_eq!(count(NONE, 1), 1);
    }

    #[test]
    fn shards_are_pinned_only_where_no_other_process_competes() {
        let host = |quota| Host {
            cpus: vec![0, 1, 2, 3],
            quota,
            ipv6: true,
        };
        assert!(pins(4, &host(None)));
        assert!(!pins(5, &host(None)));
        assert!(!pins(2, &host(Some(2))));
        assert!(pins(4, &host(Some(4))));
    }
}
