//! Results as tables: plain text, and the `README.md` of a folder of results.

use std::fmt::Write as _;

use super::Outcome;
use super::judge::{Measure, Verdict, compare, of_work};
use crate::results::Series;
use crate::stats::Spread;

/// Tables for a terminal.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = format!("{}\n", outcome.experiment.question);
    for work in works(outcome) {
        let _ = writeln!(text, "\n{work}");
        let rows = rows(outcome, work);
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            let _ = writeln!(
                text,
                "  {}",
                cells.collect::<Vec<_>>().join("  ").trim_end()
            );
        }
    }
    text
}

/// The folder's own page.
pub(super) fn markdown(outcome: &Outcome) -> String {
    let experiment = &outcome.experiment;
    let way = match experiment.way {
        crate::peers::Way::Passthrough => "plain text relayed by one node",
        crate::peers::Way::Tunnel => "HBONE between two nodes",
    };
    let beside = if experiment.beside_bulk {
        ", beside one bulk stream"
    } else {
        ""
    };
    let link = experiment.link.as_ref();
    let link = link.map_or_else(String::new, |rate| format!(", over a link of {rate}"));
    let mut text = format!(
        "# {}, {}\n\n{}\n\nDecides: {}. Baseline: {}.\n\n{} rounds of {} s for each value, in turns; {way}{beside}{link}; \
         {} of each node unless said. {}. The run took {:.0} s. Medians, in brackets the least and the \
         greatest round; \"x\" is the ratio to the baseline, taken round by round. A value is *better* or \
         *worse* when every round agrees and the median differs by 3 % or more.\n\n\
         ![chart](chart.svg)\n",
        experiment.name,
        outcome.date,
        experiment.question,
        experiment.decides,
        experiment.baseline,
        experiment.rounds,
        experiment.seconds,
        plural(experiment.shards, "shard"),
        machine(outcome),
        outcome.took,
    );
    for work in works(outcome) {
        let rows = rows(outcome, work);
        let _ = writeln!(text, "\n## {work}\n");
        for (number, row) in rows.iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
    }
    let errors: Vec<String> = outcome
        .series
        .iter()
        .flat_map(|s| {
            s.errors
                .iter()
                .map(move |error| format!("- {}, {}: {error}", s.work, s.peer))
        })
        .collect();
    if !errors.is_empty() {
        let _ = writeln!(
            text,
            "\n## Measurements that failed\n\n{}",
            errors.join("\n")
        );
    }
    text
}

/// What the figures were taken on.
fn machine(outcome: &Outcome) -> String {
    let machine = &outcome.machine;
    format!(
        "{} with {}, kernel {}, load {} before, revision {}",
        plural(machine.cpus, "CPU"),
        machine.cpu,
        machine.kernel,
        machine.load,
        machine.revision
    )
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 {
        format!("{count} {what}")
    } else {
        format!("{count} {what}s")
    }
}

fn works(outcome: &Outcome) -> Vec<&str> {
    let mut works: Vec<&str> = outcome
        .series
        .iter()
        .map(|series| series.work.as_str())
        .collect();
    works.dedup();
    works
}

/// A heading and a row for each value.
fn rows(outcome: &Outcome, work: &str) -> Vec<Vec<String>> {
    let Some((series, baseline)) = of_work(outcome, work) else {
        return Vec::new();
    };
    let measures = Measure::of(work);
    let names = measures.iter().map(|measure| measure.name(&baseline.unit));
    let mut rows = vec![
        std::iter::once(outcome.experiment.knob.clone())
            .chain(names)
            .collect(),
    ];
    for series in series {
        let cells = measures
            .iter()
            .map(|measure| cell(*measure, series, baseline));
        rows.push(std::iter::once(series.peer.clone()).chain(cells).collect());
    }
    rows
}

fn cell(measure: Measure, series: &Series, baseline: &Series) -> String {
    let Some(spread) = Spread::of(measure.values(series).into_iter().flatten()) else {
        return "failed".to_owned();
    };
    let figures = format!(
        "{} ({} to {})",
        number(spread.median),
        number(spread.min),
        number(spread.max)
    );
    match compare(measure, series, baseline) {
        (Some(ratio), Verdict::Same) => format!("{figures}, x{:.2}", ratio.median),
        (Some(ratio), verdict) => format!("{figures}, x{:.2} {}", ratio.median, verdict.as_str()),
        (None, _) => figures,
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Sample;

    fn series(peer: &str, cpu: &[f64]) -> Series {
        let sample = |cpu: &f64| {
            Some(Sample {
                units: 1.0,
                rate: 8.0,
                cpu_user: *cpu,
                nodes: 1,
                ..Sample::default()
            })
        };
        Series {
            work: "bulk-up".to_owned(),
            unit: "GiB".to_owned(),
            peer: peer.to_owned(),
            condition: String::new(),
            samples: cpu.iter().map(sample).collect(),
            errors: Vec::new(),
        }
    }

    #[test]
    fn a_cell_tells_median_spread_ratio_and_verdict() {
        let (baseline, other) = (
            series("a", &[0.2, 0.22, 0.24]),
            series("b", &[0.4, 0.44, 0.48]),
        );
        assert_eq!(
            cell(Measure::Cpu, &baseline, &baseline),
            "0.220 (0.200 to 0.240)"
        );
        assert_eq!(
            cell(Measure::Cpu, &other, &baseline),
            "0.440 (0.400 to 0.480), x2.00 worse"
        );
        assert_eq!(
            cell(Measure::Rate, &other, &baseline),
            "8.00 (8.00 to 8.00), x1.00"
        );
        assert_eq!(cell(Measure::Tail, &other, &baseline), "failed");
    }
}
