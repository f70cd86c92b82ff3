//! A run as text for the terminal.

use std::fmt::Write as _;

use super::figures::{Measure, measures, number, with_spread};
use crate::profile::Share;
use crate::results::{Results, Series};
use crate::stats::Spread;
use crate::targets::{self, Verdict};

/// The whole report.
#[must_use]
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    head(results, &mut text);
    for work in results.works() {
        let series: Vec<&Series> = results.series.iter().filter(|s| s.work == work).collect();
        text.push('\n');
        text.push_str(&work_table(work, &series));
        if let Some(line) = floor_line(results, work) {
            text.push_str(&line);
        }
        for profile in results.profiles.iter().filter(|p| p.work == work) {
            let _ = writeln!(
                text,
                "  time of {}: {}",
                profile.peer,
                shares(&profile.parts)
            );
        }
    }
    text.push('\n');
    text.push_str(&targets_table(&results.targets));
    for (peer, how) in &results.skipped {
        let _ = writeln!(text, "skipped: {peer}: {how}");
    }
    for series in &results.series {
        for error in &series.errors {
            let first = error.lines().next().unwrap_or_default();
            let _ = writeln!(text, "failed: {} {}: {first}", series.work, series.label());
        }
    }
    text
}

/// `AES-GCM 12 %, copies 10 %`, down to one percent.
pub(super) fn shares(parts: &[Share]) -> String {
    let parts = parts.iter().filter(|part| part.percent >= 1.0);
    let parts: Vec<_> = parts
        .map(|part| format!("{} {:.0} %", part.name, part.percent))
        .collect();
    parts.join(", ")
}

/// All profiles, with their functions.
pub(super) fn profiles(results: &Results) -> String {
    let mut text = String::from(
        "CPU time of the tunnel processes of both nodes, by part and by the functions that took most\n\
         themselves, in one round of each work that is not in the figures\n",
    );
    for profile in &results.profiles {
        let _ = writeln!(text, "\n{}, {}", profile.work, profile.peer);
        for part in &profile.parts {
            let _ = writeln!(text, "{:7.2} %  {}", part.percent, part.name);
        }
        text.push_str("    of which\n");
        for function in &profile.functions {
            let _ = writeln!(text, "{:7.2} %    {}", function.percent, function.name);
        }
    }
    text
}

fn head(results: &Results, text: &mut String) {
    let (machine, plan) = (&results.machine, &results.plan);
    let lines = [
        format!(
            "{} · {} · kernel {} · {} x {} · {} MiB · load {}",
            machine.date,
            machine.revision,
            machine.kernel,
            machine.cpus,
            machine.cpu,
            machine.memory_mib,
            machine.load
        ),
        format!(
            "{} form: {} rounds of {} s, {} shard(s) a node, access logs {}, took {:.0} s",
            plan.form,
            plan.rounds,
            plan.seconds,
            plan.shards,
            if plan.access_log { "on" } else { "off" },
            plan.took
        ),
    ];
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    for (name, version) in &machine.versions {
        let _ = writeln!(text, "  {name}: {version}");
    }
    text.push_str("median (min–max) of the rounds; CPU of the tunnel processes of both nodes\n");
}

fn work_table(work: &str, series: &[&Series]) -> String {
    let unit = series.first().map_or("", |s| s.unit.as_str());
    let measures = measures(work, unit);
    let mut rows = vec![heading(work, measures)];
    for series in series {
        let mut row = vec![series.label()];
        row.extend(measures.iter().map(|m| with_spread(m.spread(series))));
        let failed = series
            .samples
            .iter()
            .flatten()
            .map(|s| s.failures)
            .sum::<u64>();
        row.push(if failed > 0 {
            format!("{failed} failed")
        } else {
            String::new()
        });
        rows.push(row);
    }
    table(&rows)
}

fn heading(work: &str, measures: &[Measure]) -> Vec<String> {
    let names = measures.iter().map(|m| format!("{}, {}", m.name, m.unit));
    let mut row = vec![work.to_owned()];
    row.extend(names);
    row.push(String::new());
    row
}

fn floor_line(results: &Results, work: &str) -> Option<String> {
    let floor = Spread::of(targets::floor(results, work).into_iter().flatten())?;
    let ciphers = &results.cipher;
    let of = |value: fn(&crate::cipher::Cost) -> f64| Spread::of(ciphers.iter().map(value));
    Some(format!(
        "  floor {} s/GiB: two copy relays and one seal and open of 16 KiB records \
         (AES-256-GCM {}, AES-128-GCM {})\n",
        with_spread(Some(floor)),
        with_spread(of(|cost| cost.aes_256)),
        with_spread(of(|cost| cost.aes_128)),
    ))
}

/// The targets, one a line.
#[must_use]
pub(crate) fn targets_table(targets: &[Verdict]) -> String {
    let heading = ["target", "against", "limit", "measured", ""].map(str::to_owned);
    let mut rows = vec![heading.to_vec()];
    for verdict in targets {
        let sign = if verdict.at_most { "≤" } else { "≥" };
        rows.push(vec![
            verdict.what.clone(),
            verdict.against.clone(),
            format!("{sign} {}", number(verdict.limit)),
            with_spread(verdict.measured),
            verdict_word(verdict).to_owned(),
        ]);
    }
    table(&rows)
}

/// `met`, `MISSED` or `not measured`.
pub(super) fn verdict_word(verdict: &Verdict) -> &'static str {
    match verdict.is_met() {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not measured",
    }
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                line = format!("{cell}{padding}");
            } else {
                let _ = write!(line, "  {padding}{cell}");
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
