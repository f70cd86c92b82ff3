//! Each target is met by good figures and missed by bad ones.

use super::*;
use crate::machine::Machine;
use crate::results::{FORMAT, Plan};

fn sample(cpu: f64, rate: f64) -> Sample {
    Sample {
        units: 1.0,
        rate,
        p50_us: Some(100.0),
        p99_us: Some(200.0),
        cpu_user: cpu,
        nodes: 2,
        ..Sample::default()
    }
}

fn series(work: &str, unit: &str, peer: &str, condition: &str, samples: &[Sample]) -> Series {
    Series {
        work: work.into(),
        unit: unit.into(),
        peer: peer.into(),
        condition: condition.into(),
        samples: samples.iter().copied().map(Some).collect(),
        errors: Vec::new(),
    }
}

fn results(series: Vec<Series>) -> Results {
    let cost = Cost {
        aes_128: 0.2,
        aes_256: 0.25,
    };
    Results {
        format: FORMAT,
        machine: Machine::default(),
        plan: Plan {
            form: "test".into(),
            rounds: 1,
            seconds: 1,
            shards: 1,
            access_log: true,
            took: 0.0,
        },
        series,
        cipher: vec![cost, cost],
        skipped: Vec::new(),
        targets: Vec::new(),
        profiles: Vec::new(),
    }
}

#[track_caller]
fn verdict(results: &Results, what: &str, against: &str) -> Option<bool> {
    let verdicts = judge(results);
    let found: Vec<_> = verdicts
        .iter()
        .filter(|v| v.what == what && v.against == against)
        .collect();
    assert_eq!(found.len(), 1, "{what} against {against}");
    found[0].is_met()
}

#[test]
fn what_was_not_measured_is_neither_met_nor_missed() {
    let verdicts = judge(&results(Vec::new()));
    assert!(verdicts.len() > 15);
    for verdict in &verdicts {
        assert_eq!(verdict.is_met(), None, "{verdict:?}");
    }
}

#[test]
fn passthrough_is_held_against_each_peer() {
    let results = results(vec![
        series("bulk-up", "GiB", "corelane", "", &[sample(0.3, 1.0)]),
        series("bulk-up", "GiB", "haproxy", "", &[sample(0.5, 1.0)]),
        series("bulk-up", "GiB", "envoy", "", &[sample(0.5, 1.0)]),
    ]);
    let what = "passthrough bulk-up, CPU per GiB";
    assert_eq!(verdict(&results, what, "haproxy"), Some(true));
    assert_eq!(verdict(&results, what, "envoy"), Some(false));
}

#[test]
fn the_floor_is_both_relays_and_the_cipher() {
    let results = results(vec![
        series("bulk-up", "GiB", "corelane-hbone", "", &[sample(1.1, 1.0)]),
        series("bulk-up", "GiB", "copy", "", &[sample(0.75, 1.0)]),
    ]);
    assert_eq!(floor(&results, "bulk-up"), [Some(1.0)]);
    let what = "HBONE bulk-up, CPU per GiB";
    assert_eq!(verdict(&results, what, "floor"), Some(true));
    assert_eq!(verdict(&results, what, "envoy-hbone"), None);
}

#[test]
fn a_rate_must_be_at_least_its_share() {
    for (rate, met) in [(1.8, true), (1.6, false)] {
        let results = results(vec![
            series(
                "bulk-down",
                "GiB",
                "corelane-hbone",
                "",
                &[sample(1.0, rate)],
            ),
            series("bulk-down", "GiB", "envoy-hbone", "", &[sample(1.0, 1.0)]),
        ]);
        assert_eq!(
            verdict(&results, "HBONE bulk-down, rate", "envoy-hbone"),
            Some(met)
        );
    }
}

#[test]
fn latency_is_compared_by_what_is_added_to_direct() {
    let at = |p50| Sample {
        p50_us: Some(p50),
        ..sample(1.0, 1.0)
    };
    for (own, met) in [(150.0, true), (180.0, false)] {
        let results = results(vec![
            series("wrk-1", "request", "direct", "", &[at(100.0)]),
            series("wrk-1", "request", "corelane-hbone", "", &[at(own)]),
            series("wrk-1", "request", "envoy-hbone", "", &[at(200.0)]),
        ]);
        let what = "wrk-1 over HBONE, p50 added to direct";
        assert_eq!(verdict(&results, what, "envoy-hbone"), Some(met));
    }
}

#[test]
fn a_victim_without_any_answer_misses_both_targets() {
    let starved = Sample {
        rate: 0.0,
        p99_us: None,
        ..sample(1.0, 0.0)
    };
    for (beside, met) in [(sample(1.0, 0.9), true), (starved, false)] {
        let results = results(vec![
            series(
                "stalled",
                "request",
                "corelane-hbone",
                "",
                &[sample(1.0, 1.0)],
            ),
            series(
                "stalled",
                "request",
                "corelane-hbone",
                "10 stalled",
                &[beside],
            ),
        ]);
        for measure in ["requests", "p99"] {
            let what = format!("victim beside stalled streams, {measure}");
            assert_eq!(verdict(&results, &what, "alone"), Some(met), "{what}");
        }
    }
}

#[test]
fn memory_is_counted_for_each_node() {
    let grown = |bytes| Sample {
        bytes_per_connection: Some(bytes),
        ..sample(1.0, 0.0)
    };
    for (bytes, met) in [(8_000.0, true), (9_000.0, false)] {
        let idle = series(
            "idle-memory",
            "connection",
            "corelane-hbone",
            "5000 idle",
            &[grown(bytes)],
        );
        let results = results(vec![idle]);
        let what = "idle HBONE stream, bytes on each node";
        assert_eq!(verdict(&results, what, ""), Some(met));
    }
}

#[test]
fn benchmarks_are_judged_when_they_were_run() {
    let bench = |name: &str, ns| Bench {
        name: name.into(),
        median_ns: ns,
        low_ns: ns,
        high_ns: ns,
    };
    let benches = [
        bench("one workload replaced/1000", 10.0),
        bench("one workload replaced/100000", 29.0),
        bench("workload by address/1000", 10.0),
        bench("workload by address/100000", 14.0),
    ];
    let met: Vec<_> = judge_benches(&benches)
        .iter()
        .map(Verdict::is_met)
        .collect();
    assert_eq!(met, [None, None, Some(false), Some(true)]);
}
