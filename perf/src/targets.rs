//! The project's targets: ratios between peers of one run, and whether they are met.

use serde::{Deserialize, Serialize};

use crate::benches::Bench;
use crate::cipher::Cost;
use crate::results::{Results, Sample, Series};
use crate::stats::Spread;

/// Names of the peers that targets are about.
const PLAIN: &str = "corelane";
const HBONE: &str = "corelane-hbone";
const ENVOY: &str = "envoy";
const ENVOY_HBONE: &str = "envoy-hbone";

/// Memory of an idle passthrough connection, bytes of its one node.
const IDLE_PLAIN_BYTES: f64 = 1_024.0;
/// Memory of an idle HBONE stream, bytes of each of its two nodes.
const IDLE_STREAM_BYTES: f64 = 4_096.0;
/// A decision that was made before in the same generation.
const NANOSECONDS_REPEATED_DECISION: f64 = 1_000.0;

/// One target held against the figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which work and measure.
    pub what: String,
    /// Against what.
    pub against: String,
    /// Whether less is better.
    pub at_most: bool,
    /// The limit.
    pub limit: f64,
    /// What was measured, each round a value; `None` if something was not measured.
    pub measured: Option<Spread>,
}

impl Verdict {
    /// Whether the median is within the limit; `None` if it was not measured.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let median = self.measured?.median;
        Some(if self.at_most {
            median <= self.limit
        } else {
            median >= self.limit
        })
    }
}

fn at_most(what: &str, against: &str, limit: f64, measured: Option<Spread>) -> Verdict {
    Verdict {
        what: what.into(),
        against: against.into(),
        at_most: true,
        limit,
        measured,
    }
}

fn at_least(what: &str, against: &str, limit: f64, measured: Option<Spread>) -> Verdict {
    Verdict {
        at_most: false,
        ..at_most(what, against, limit, measured)
    }
}

type Values = Vec<Option<f64>>;

/// Values of a series, one for each round; none if there is no such series.
fn values(
    results: &Results,
    work: &str,
    peer: &str,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Values {
    let series = results.find(work, peer, "");
    series.map_or_else(Vec::new, |series| series.values(value))
}

fn cpu(results: &Results, work: &str, peer: &str) -> Values {
    values(results, work, peer, Sample::cpu_each)
}

/// All targets of the lab, measured or not, in the order of the issue.
#[must_use]
pub fn judge(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    passthrough(results, &mut verdicts);
    tunnelled_bulk(results, &mut verdicts);
    requests(results, &mut verdicts);
    connections(results, &mut verdicts);
    neighbours(results, &mut verdicts);
    memory(results, &mut verdicts);
    verdicts
}

fn passthrough(results: &Results, verdicts: &mut Vec<Verdict>) {
    for work in ["bulk-up", "bulk-down"] {
        let own = cpu(results, work, PLAIN);
        for (peer, limit) in [("haproxy", 0.8), (ENVOY, 0.5)] {
            let ratio = Spread::of_ratios(&own, &cpu(results, work, peer));
            verdicts.push(at_most(
                &format!("passthrough {work}, CPU per GiB"),
                peer,
                limit,
                ratio,
            ));
        }
    }
}

fn tunnelled_bulk(results: &Results, verdicts: &mut Vec<Verdict>) {
    for work in ["bulk-up", "bulk-down"] {
        let own = cpu(results, work, HBONE);
        let what = format!("HBONE {work}, CPU per GiB");
        let envoy = cpu(results, work, ENVOY_HBONE);
        verdicts.push(at_most(
            &what,
            ENVOY_HBONE,
            0.5,
            Spread::of_ratios(&own, &envoy),
        ));
        let floor = floor(results, work);
        verdicts.push(at_most(
            &what,
            "floor",
            1.2,
            Spread::of_ratios(&own, &floor),
        ));
    }
    for work in ["bulk-up", "bulk-down"] {
        let rate = |peer| values(results, work, peer, |s| Some(s.rate));
        let ratio = Spread::of_ratios(&rate(HBONE), &rate(ENVOY_HBONE));
        verdicts.push(at_least(
            &format!("HBONE {work}, rate"),
            ENVOY_HBONE,
            1.7,
            ratio,
        ));
    }
}

/// CPU seconds per GiB that two plain copy relays and one seal and open of each byte take, round by
/// round. The cipher is the one Corelane's nodes agree on: they prefer AES-256.
#[must_use]
pub fn floor(results: &Results, work: &str) -> Values {
    let relays = cpu(results, work, "copy");
    let done: Vec<&str> = results
        .works()
        .into_iter()
        .filter(|w| is_bulk(results, w))
        .collect();
    // Each bulk work measured the cipher once a round.
    let before = done.iter().position(|w| *w == work).unwrap_or(0) * results.plan.rounds;
    let ciphers = results.cipher.iter().skip(before).map(cipher_of_tunnels);
    let sums = relays.iter().zip(ciphers);
    sums.map(|(relay, cipher)| relay.map(|relay| relay + cipher))
        .collect()
}

/// What of the cipher's cost the floor counts.
#[must_use]
pub const fn cipher_of_tunnels(cost: &Cost) -> f64 {
    cost.aes_256
}

fn is_bulk(results: &Results, work: &str) -> bool {
    results
        .series
        .iter()
        .any(|s| s.work == work && s.unit == "GiB")
}

fn requests(results: &Results, verdicts: &mut Vec<Verdict>) {
    let of = |work, limit, what: &str, measure: fn(&Sample) -> Option<f64>| {
        let of = |peer| values(results, work, peer, measure);
        at_most(
            what,
            ENVOY_HBONE,
            limit,
            Spread::of_ratios(&of(HBONE), &of(ENVOY_HBONE)),
        )
    };
    verdicts.push(of(
        "wrk-64",
        0.5,
        "wrk-64 over HBONE, CPU per request",
        Sample::cpu_each,
    ));
    verdicts.push(of("wrk-64", 0.6, "wrk-64 over HBONE, p99", |s| s.p99_us));
    let p50 = |peer| values(results, "wrk-1", peer, |s| s.p50_us);
    let direct = p50("direct");
    let added = |peer| -> Values {
        let pairs = p50(peer).into_iter().zip(&direct);
        pairs.map(|(own, direct)| Some(own? - (*direct)?)).collect()
    };
    let ratio = Spread::of_ratios(&added(HBONE), &added(ENVOY_HBONE));
    verdicts.push(at_most(
        "wrk-1 over HBONE, p50 added to direct",
        ENVOY_HBONE,
        0.6,
        ratio,
    ));
}

fn connections(results: &Results, verdicts: &mut Vec<Verdict>) {
    for (work, what, limit) in [
        ("connect", "new connection, pooled HBONE, CPU each", 0.5),
        ("tunnel", "new tunnel for each connection, CPU each", 0.6),
    ] {
        let envoy = cpu(results, work, ENVOY_HBONE);
        let ratio = Spread::of_ratios(&cpu(results, work, HBONE), &envoy);
        verdicts.push(at_most(what, ENVOY_HBONE, limit, ratio));
    }
    for peer in [PLAIN, HBONE] {
        let ratio = second_to_first(results, "crowd", peer, Sample::cpu_each);
        let what = format!("{peer}: CPU per request beside many idle connections");
        verdicts.push(at_most(&what, "beside few", 1.2, ratio));
    }
}

fn neighbours(results: &Results, verdicts: &mut Vec<Verdict>) {
    let ratio =
        |value: fn(&Sample) -> Option<f64>| second_to_first(results, "stalled", HBONE, value);
    let requests = ratio(|s| Some(s.rate));
    verdicts.push(at_least(
        "victim beside stalled streams, requests",
        "alone",
        0.8,
        requests,
    ));
    // Without an answer there is no percentile, and no p99 is not a good one.
    let p99 = ratio(|s| Some(s.p99_us.unwrap_or(f64::MAX)));
    verdicts.push(at_most(
        "victim beside stalled streams, p99",
        "alone",
        2.0,
        p99,
    ));
}

/// A peer's series under its second condition, in units of that under its first.
fn second_to_first(
    results: &Results,
    work: &str,
    peer: &str,
    value: fn(&Sample) -> Option<f64>,
) -> Option<Spread> {
    let series = results.conditions(work, peer);
    let &[first, second] = series.as_slice() else {
        return None;
    };
    Spread::of_ratios(&second.values(value), &first.values(value))
}

fn memory(results: &Results, verdicts: &mut Vec<Verdict>) {
    for (peer, what, limit) in [
        (
            PLAIN,
            "idle passthrough connection, bytes",
            IDLE_PLAIN_BYTES,
        ),
        (
            HBONE,
            "idle HBONE stream, bytes on each node",
            IDLE_STREAM_BYTES,
        ),
    ] {
        let series: Option<&Series> = results.conditions("idle-memory", peer).first().copied();
        let per_node = |s: &Sample| Some(s.bytes_per_connection? / s.nodes.max(1) as f64);
        let bytes = series.and_then(|series| series.spread(per_node));
        verdicts.push(at_most(what, "", limit, bytes));
    }
}

/// Targets about single functions, from the benchmarks' results.
#[must_use]
pub fn judge_benches(benches: &[Bench]) -> Vec<Verdict> {
    let find = |name: &str| benches.iter().find(|bench| bench.name == name);
    let ratio = |above: &str, below: &str| {
        let (a, b) = (find(above)?, find(below)?);
        Some(Spread {
            median: a.median_ns / b.median_ns,
            min: a.low_ns / b.high_ns,
            max: a.high_ns / b.low_ns,
            n: 1,
        })
    };
    let time = |name: &str| {
        let bench = find(name)?;
        Some(Spread {
            median: bench.median_ns,
            min: bench.low_ns,
            max: bench.high_ns,
            n: 1,
        })
    };
    // Decisions are not remembered: a repeated one costs what the first did.
    let denies = "no global deny matches/indexed/10000";
    vec![
        at_most(
            "authorization against 10,000 DENY policies",
            "a linear walk",
            0.1,
            ratio(denies, "no global deny matches/linear walk/10000"),
        ),
        at_most(
            "a repeated decision of the same generation, ns",
            "",
            NANOSECONDS_REPEATED_DECISION,
            time(denies),
        ),
        at_most(
            "state read, 100k workloads",
            "1k workloads",
            1.3,
            ratio("workload by address/100000", "workload by address/1000"),
        ),
        at_most(
            "one-workload delta, 100k workloads",
            "1k workloads",
            3.0,
            ratio("one workload replaced/100000", "one workload replaced/1000"),
        ),
    ]
}

#[cfg(test)]
mod tests;
