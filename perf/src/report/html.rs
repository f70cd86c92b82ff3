//! A run as one page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write as _;

use super::chart;
use super::figures::{charted, measures, number, with_spread};
use super::text::{shares, verdict_word};
use crate::error::Result;
use crate::results::{Results, Series};
use crate::work;

const STYLE: &str = "
:root { color-scheme: light dark; --ours: #1f7a5c; --theirs: #8a93a6; --line: #d5d9e0; --bad: #b3261e; --good: #1f7a5c; }
@media (prefers-color-scheme: dark) { :root { --ours: #4cc79a; --theirs: #7b8496; --line: #3a404c; --bad: #ff8a80; --good: #4cc79a; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 76rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: .5rem 1.5rem; }
svg { width: 100%; height: auto; max-width: 36rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
summary { cursor: pointer; }
";

/// The page.
pub(super) fn page(results: &Results) -> Result<String> {
    let mut body = String::new();
    head(results, &mut body);
    targets(results, &mut body);
    for name in results.works() {
        let series: Vec<&Series> = results.series.iter().filter(|s| s.work == name).collect();
        section(name, &series, &mut body)?;
        profiles(results, name, &mut body);
    }
    notes(results, &mut body);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Corelane perf, {}</title><style>{STYLE}</style></head><body>\n{body}</body></html>\n",
        escape(&results.machine.date)
    ))
}

fn head(results: &Results, body: &mut String) {
    let (machine, plan) = (&results.machine, &results.plan);
    let _ = write!(
        body,
        "<h1>Corelane perf</h1>\n<p>{} · revision {} · kernel {} · {} × {} · {} MiB · load {}<br>\
         {} form: {} rounds of {} s, {} shard(s) a node, access logs {}</p>\n",
        escape(&machine.date),
        escape(&machine.revision),
        escape(&machine.kernel),
        machine.cpus,
        escape(&machine.cpu),
        machine.memory_mib,
        escape(&machine.load),
        escape(&plan.form),
        plan.rounds,
        plan.seconds,
        plan.shards,
        if plan.access_log { "on" } else { "off" }
    );
    body.push_str("<p>Bars are medians, whiskers the least and greatest of the rounds. CPU is that of the tunnel processes of both nodes.</p>\n");
}

fn targets(results: &Results, body: &mut String) {
    body.push_str("<h2>Targets</h2>\n<div class=\"wide\"><table><tr><th>target</th><th>against</th><th>limit</th><th>measured</th><th></th></tr>\n");
    for verdict in &results.targets {
        let class = match verdict.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td>{} {}</td><td>{}</td><td class=\"{class}\">{}</td></tr>",
            escape(&verdict.what),
            escape(&verdict.against),
            if verdict.at_most { "≤" } else { "≥" },
            number(verdict.limit),
            with_spread(verdict.measured),
            verdict_word(verdict)
        );
    }
    body.push_str("</table></div>\n");
}

fn section(name: &str, series: &[&Series], body: &mut String) -> Result<()> {
    let unit = series.first().map_or("", |s| s.unit.as_str());
    let known = work::ALL.iter().find(|work| work.name() == name);
    let what = known.map_or("", |work| work.what());
    let _ = write!(body, "<h2>{}</h2>\n<p>{}</p>\n", escape(name), escape(what));
    body.push_str("<div class=\"charts\">\n");
    for measure in charted(name, unit) {
        if let Some(svg) = chart::bars(measure, series)? {
            body.push_str(&svg);
        }
    }
    body.push_str("</div>\n<details><summary>all figures</summary><div class=\"wide\"><table><tr><th>peer</th>");
    for measure in measures(name, unit) {
        let _ = write!(body, "<th>{}, {}</th>", measure.name, measure.unit);
    }
    body.push_str("<th>failed</th></tr>\n");
    for series in series {
        let _ = write!(body, "<tr><td>{}</td>", escape(&series.label()));
        for measure in measures(name, unit) {
            let _ = write!(body, "<td>{}</td>", with_spread(measure.spread(series)));
        }
        let failed: u64 = series.samples.iter().flatten().map(|s| s.failures).sum();
        let _ = writeln!(body, "<td>{failed}</td></tr>");
    }
    body.push_str("</table></div></details>\n");
    Ok(())
}

fn profiles(results: &Results, work: &str, body: &mut String) {
    let profiles: Vec<_> = results.profiles.iter().filter(|p| p.work == work).collect();
    if profiles.is_empty() {
        return;
    }
    body.push_str("<details><summary>where the CPU time goes</summary><div class=\"wide\"><table><tr><th>peer</th><th>parts</th></tr>\n");
    for profile in profiles {
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td></tr>",
            escape(&profile.peer),
            escape(&shares(&profile.parts))
        );
    }
    body.push_str("</table></div></details>\n");
}

fn notes(results: &Results, body: &mut String) {
    body.push_str("<h2>Versions</h2>\n<ul>\n");
    for (name, version) in &results.machine.versions {
        let _ = writeln!(body, "<li>{}: {}</li>", escape(name), escape(version));
    }
    body.push_str("</ul>\n");
    for (peer, how) in &results.skipped {
        let _ = writeln!(body, "<p>Skipped: {}: {}</p>", escape(peer), escape(how));
    }
    for series in &results.series {
        for error in &series.errors {
            let label = format!("{} {}", series.work, series.label());
            let _ = writeln!(
                body,
                "<p class=\"missed\">{}: {}</p>",
                escape(&label),
                escape(error)
            );
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
