//! Two builds side by side: the second in units of the first.

use std::fmt::Write as _;

use crate::report::{number, with_spread};
use crate::results::{Results, Sample, Series};
use crate::stats::Spread;

/// A measure of both builds.
struct Measure {
    name: &'static str,
    value: fn(&Sample) -> Option<f64>,
}

const MEASURES: [Measure; 4] = [
    Measure {
        name: "rate",
        value: |s| (s.rate > 0.0).then_some(s.rate),
    },
    Measure {
        name: "p50",
        value: |s| s.p50_us,
    },
    Measure {
        name: "p99",
        value: |s| s.p99_us,
    },
    Measure {
        name: "CPU each",
        value: Sample::cpu_each,
    },
];

/// The table: for each work and measure both medians and the ratio B / A, round by round.
#[must_use]
pub fn table(results: &Results, name_a: &str, name_b: &str) -> String {
    let mut text = format!("A = {name_a}\nB = {name_b}\n");
    let _ = writeln!(
        text,
        "{:<12} {:<6} {:<9} {:>12} {:>12}  B / A (min–max)",
        "work", "way", "measure", "A", "B"
    );
    for work in results.works() {
        for (way, suffix) in [("plain", ""), ("HBONE", "-hbone")] {
            let a = results.conditions(work, &format!("corelane-a{suffix}"));
            let b = results.conditions(work, &format!("corelane-b{suffix}"));
            for (a, b) in a.iter().zip(&b) {
                rows(&mut text, work, way, a, b);
            }
        }
    }
    text
}

fn rows(text: &mut String, work: &str, way: &str, a: &Series, b: &Series) {
    for Measure { name, value } in MEASURES {
        let (of_a, of_b) = (a.values(value), b.values(value));
        let ratio = Spread::of_ratios(&of_b, &of_a);
        let (Some(ratio), Some(a), Some(b)) = (ratio, a.spread(value), b.spread(value)) else {
            continue;
        };
        // Microseconds, where the base unit would only be zeros.
        let shown = |median: f64| {
            if name == "CPU each" && a.median < 0.01 {
                format!("{} us", number(median * 1e6))
            } else {
                number(median)
            }
        };
        let _ = writeln!(
            text,
            "{work:<12} {way:<6} {name:<9} {:>12} {:>12}  {}",
            shown(a.median),
            shown(b.median),
            with_spread(Some(ratio))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::results::{FORMAT, Plan};

    #[test]
    fn the_second_build_is_told_in_units_of_the_first() {
        let series = |peer: &str, rate| Series {
            work: "bulk-up".into(),
            unit: "GiB".into(),
            peer: peer.into(),
            condition: String::new(),
            samples: vec![Some(Sample {
                units: 1.0,
                rate,
                cpu_user: 1.0,
                nodes: 2,
                ..Sample::default()
            })],
            errors: Vec::new(),
        };
        let results = Results {
            format: FORMAT,
            machine: Machine::default(),
            plan: Plan {
                form: "ab".into(),
                rounds: 1,
                seconds: 1,
                shards: 1,
                access_log: true,
                took: 0.0,
            },
            series: vec![
                series("corelane-a-hbone", 4.0),
                series("corelane-b-hbone", 5.0),
            ],
            cipher: Vec::new(),
            skipped: Vec::new(),
            targets: Vec::new(),
            profiles: Vec::new(),
        };
        let table = table(&results, "old", "new");
        assert!(
            table.contains("A = old") && table.contains("1.25"),
            "{table}"
        );
        assert!(
            !table.contains("p99"),
            "nothing is told that was not measured"
        );
    }
}
