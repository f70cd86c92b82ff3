//! Reports of a small run.

use super::*;
use crate::cipher::Cost;
use crate::machine::Machine;
use crate::results::{FORMAT, Plan, Sample, Series};
use crate::targets;

fn results() -> Results {
    let sample = |rate| {
        Some(Sample {
            units: 2.0,
            rate,
            cpu_user: 1.0,
            nodes: 1,
            resident: 1 << 20,
            ..Sample::default()
        })
    };
    let series = |peer: &str, samples: Vec<Option<Sample>>| Series {
        work: "bulk-up".into(),
        unit: "GiB".into(),
        peer: peer.into(),
        condition: String::new(),
        samples,
        errors: vec!["it <broke>\nmore".into()],
    };
    let mut results = Results {
        format: FORMAT,
        machine: Machine::default(),
        plan: Plan {
            form: "short".into(),
            rounds: 2,
            seconds: 1,
            shards: 1,
            access_log: true,
            took: 1.0,
        },
        series: vec![
            series("corelane", vec![sample(10.0), sample(12.0)]),
            series("haproxy", vec![sample(5.0), None]),
            series("copy", vec![sample(9.0), sample(9.0)]),
        ],
        cipher: vec![
            Cost {
                aes_128: 0.2,
                aes_256: 0.25,
            };
            2
        ],
        skipped: vec![("nginx".into(), "apt-get install nginx".into())],
        targets: Vec::new(),
        profiles: Vec::new(),
    };
    results.targets = targets::judge(&results);
    results
}

#[test]
fn the_text_has_medians_targets_floor_and_what_went_wrong() {
    let text = text(&results());
    for part in [
        "11.0 (10.0–12.0)",
        "MISSED",
        "not measured",
        "skipped: nginx",
        "failed: bulk-up haproxy: it <broke>",
        "floor 0.75 (0.75–0.75) s/GiB",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn all_three_files_are_written_and_the_page_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let results = results();
    write(&results, dir.path()).unwrap();
    let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
    let again: Results = serde_json::from_str(&read("results.json")).unwrap();
    assert_eq!(again.targets, results.targets);
    let page = read("report.html");
    assert!(page.contains("<svg role=\"img\" viewBox=") && page.contains("var(--ours)"));
    assert!(page.contains("&lt;broke&gt;") && !page.contains("<broke>"));
    for foreign in ["<script", "src=", "href=", "@import", "#010203"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn numbers_have_three_digits() {
    for (value, expected) in [
        (0.0, "0.00"),
        (0.0123, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12_345.6, "12 346"),
        (1_234_567.0, "1 234 567"),
        (f64::MAX, "inf"),
    ] {
        assert_eq!(number(value), expected);
    }
}
