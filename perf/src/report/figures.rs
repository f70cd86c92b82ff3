//! The measures of a series, each with its unit, and numbers as people read them.

use crate::results::{Sample, Series};
use crate::stats::Spread;

/// One measure that a table column or a chart shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    /// Heading.
    pub(super) name: &'static str,
    /// Unit, maybe completed by the work's own.
    pub(super) unit: &'static str,
    /// How to get it from a sample, in that unit.
    pub(super) value: fn(&Sample) -> Option<f64>,
    /// Whether more is better.
    pub(super) more_is_better: bool,
}

const CPU_PER_GIB: Measure = Measure {
    name: "CPU",
    unit: "s/GiB",
    value: Sample::cpu_each,
    more_is_better: false,
};

const CPU_EACH: Measure = Measure {
    name: "CPU",
    unit: "us each",
    value: |s| Some(s.cpu_each()? * 1e6),
    more_is_better: false,
};

const GBITS: Measure = Measure {
    name: "rate",
    unit: "Gbit/s",
    value: |s| Some(s.rate),
    more_is_better: true,
};

const PER_SECOND: Measure = Measure {
    name: "rate",
    unit: "per s",
    value: |s| Some(s.rate),
    more_is_better: true,
};

const P50: Measure = Measure {
    name: "p50",
    unit: "us",
    value: |s| s.p50_us,
    more_is_better: false,
};

const P99: Measure = Measure {
    name: "p99",
    unit: "us",
    value: |s| s.p99_us,
    more_is_better: false,
};

const RESIDENT: Measure = Measure {
    name: "resident",
    unit: "MiB",
    value: |s| (s.nodes > 0).then(|| s.resident as f64 / 1_048_576.0),
    more_is_better: false,
};

const PER_CONNECTION: Measure = Measure {
    name: "memory",
    unit: "KiB/connection",
    value: |s| Some(s.bytes_per_connection? / 1_024.0),
    more_is_better: false,
};

/// What is told of a kind of work with that unit.
pub(super) fn measures(work: &str, unit: &str) -> &'static [Measure] {
    match (work, unit) {
        ("idle-memory", _) => &[PER_CONNECTION, RESIDENT, CPU_EACH],
        (_, "GiB") => &[GBITS, CPU_PER_GIB, RESIDENT],
        _ => &[PER_SECOND, P50, P99, CPU_EACH, RESIDENT],
    }
}

/// Those of them worth a chart.
pub(super) fn charted(work: &str, unit: &str) -> &'static [Measure] {
    match (work, unit) {
        ("idle-memory", _) => &[PER_CONNECTION],
        (_, "GiB") => &[GBITS, CPU_PER_GIB],
        ("wrk-1" | "ping-pong", _) => &[P50, P99],
        _ => &[PER_SECOND, P99, CPU_EACH],
    }
}

impl Measure {
    pub(super) fn spread(&self, series: &Series) -> Option<Spread> {
        series.spread(self.value)
    }
}

/// A number with three significant digits, and thousands kept whole.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size > 1e15 {
        "inf".into()
    } else if size >= 1_000.0 {
        grouped(value)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

/// `median (min–max)`; `-` for nothing.
#[must_use]
pub fn with_spread(spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return "-".into();
    };
    let median = number(spread.median);
    if spread.n < 2 {
        return median;
    }
    format!("{median} ({}–{})", number(spread.min), number(spread.max))
}
