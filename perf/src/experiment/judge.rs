//! What is read from the samples: which measures matter for a work, and whether values differ.

use super::Outcome;
use crate::results::{Sample, Series};
use crate::stats::Spread;
use crate::work::{ALL, Work};

/// Differences below this part are not worth a change.
const WORTH: f64 = 0.03;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// CPU time of the nodes for each unit.
    Cpu,
    /// Units, or Gbit, each second.
    Rate,
    /// Median latency.
    Median,
    /// 99th percentile of the latency.
    Tail,
}

/// How a value compares with the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Less cost or more speed, in every round.
    Better,
    /// More cost or less speed, in every round.
    Worse,
    /// Rounds disagree, or the difference is too small to matter.
    Same,
    /// It is the baseline, or there are no figures.
    Nothing,
}

impl Verdict {
    /// For people.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Nothing => "",
        }
    }
}

impl Measure {
    /// Those that matter for a work, the most important first.
    pub(super) fn of(work: &str) -> &'static [Self] {
        match ALL.into_iter().find(|other| other.name() == work) {
            Some(work) if work.is_bulk() => &[Self::Cpu, Self::Rate],
            Some(Work::Connect) => &[Self::Cpu, Self::Rate, Self::Tail],
            _ => &[Self::Cpu, Self::Rate, Self::Median, Self::Tail],
        }
    }

    /// Name with unit, for a unit of work.
    pub(super) fn name(self, unit: &str) -> String {
        match (self, unit) {
            (Self::Cpu, "GiB") => "CPU s/GiB".to_owned(),
            (Self::Cpu, _) => format!("CPU us/{unit}"),
            (Self::Rate, "GiB") => "Gbit/s".to_owned(),
            (Self::Rate, _) => format!("{unit}s/s"),
            (Self::Median, _) => "p50 us".to_owned(),
            (Self::Tail, _) => "p99 us".to_owned(),
        }
    }

    /// Its value in a sample, in the unit of its name.
    pub(super) fn value(self, sample: &Sample, unit: &str) -> Option<f64> {
        match self {
            Self::Cpu => sample
                .cpu_each()
                .map(|each| if unit == "GiB" { each } else { each * 1e6 }),
            Self::Rate => Some(sample.rate),
            Self::Median => sample.p50_us,
            Self::Tail => sample.p99_us,
        }
    }

    const fn lower_is_better(self) -> bool {
        !matches!(self, Self::Rate)
    }

    /// One value of each round.
    pub(super) fn values(self, series: &Series) -> Vec<Option<f64>> {
        series.values(|sample| self.value(sample, &series.unit))
    }
}

/// Ratio to the baseline, round by round, and what it means.
pub(super) fn compare(
    measure: Measure,
    series: &Series,
    baseline: &Series,
) -> (Option<Spread>, Verdict) {
    if series.peer == baseline.peer {
        return (None, Verdict::Nothing);
    }
    let ratio = Spread::of_ratios(&measure.values(series), &measure.values(baseline));
    let verdict = ratio.map_or(Verdict::Nothing, |ratio| verdict(measure, &ratio));
    (ratio, verdict)
}

fn verdict(measure: Measure, ratio: &Spread) -> Verdict {
    let worth = (ratio.median - 1.0).abs() >= WORTH;
    let less = ratio.max < 1.0;
    let more = ratio.min > 1.0;
    match (worth, less, more) {
        (true, true, _) if measure.lower_is_better() => Verdict::Better,
        (true, _, true) if !measure.lower_is_better() => Verdict::Better,
        (true, true, _) | (true, _, true) => Verdict::Worse,
        _ => Verdict::Same,
    }
}

/// Series of one work, in the order of the values, and the baseline's among them.
pub(super) fn of_work<'a>(
    outcome: &'a Outcome,
    work: &str,
) -> Option<(Vec<&'a Series>, &'a Series)> {
    let series: Vec<&Series> = outcome.series.iter().filter(|s| s.work == work).collect();
    let baseline = series
        .iter()
        .find(|s| s.peer == outcome.experiment.baseline)?;
    let baseline = *baseline;
    Some((series, baseline))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(min: f64, median: f64, max: f64) -> Spread {
        Spread {
            median,
            min,
            max,
            n: 3,
        }
    }

    #[test]
    fn a_difference_counts_when_all_rounds_agree_and_it_is_large_enough() {
        for (measure, ratio, expected) in [
            (Measure::Cpu, ratio(0.7, 0.8, 0.9), Verdict::Better),
            (Measure::Cpu, ratio(1.1, 1.2, 1.3), Verdict::Worse),
            (Measure::Rate, ratio(0.7, 0.8, 0.9), Verdict::Worse),
            (Measure::Rate, ratio(1.1, 1.2, 1.3), Verdict::Better),
            (Measure::Cpu, ratio(0.7, 0.8, 1.1), Verdict::Same),
            (Measure::Cpu, ratio(0.97, 0.98, 0.99), Verdict::Same),
            (Measure::Tail, ratio(0.9, 1.1, 1.2), Verdict::Same),
        ] {
            assert_eq!(verdict(measure, &ratio), expected, "{measure:?} {ratio:?}");
        }
    }

    #[test]
    fn cpu_is_told_in_seconds_for_bytes_and_microseconds_for_requests() {
        let sample = Sample {
            units: 2.0,
            cpu_user: 1.0,
            nodes: 1,
            rate: 9.0,
            ..Sample::default()
        };
        assert_eq!(Measure::Cpu.value(&sample, "GiB"), Some(0.5));
        assert_eq!(Measure::Cpu.value(&sample, "request"), Some(500_000.0));
        assert_eq!(Measure::Cpu.name("GiB"), "CPU s/GiB");
        assert_eq!(Measure::Rate.name("request"), "requests/s");
        assert_eq!(Measure::of("bulk-up"), [Measure::Cpu, Measure::Rate]);
        assert_eq!(Measure::of("wrk-64").len(), 4);
    }
}
