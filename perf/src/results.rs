//! What a run measured, as it is written to `results.json`.

use serde::{Deserialize, Serialize};

use crate::cipher::Cost;
use crate::machine::Machine;
use crate::profile::Profile;
use crate::stats::Spread;
use crate::targets::Verdict;

/// Changes when a reader of older files would misread newer ones.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Where and with what.
    pub machine: Machine,
    /// How much.
    pub plan: Plan,
    /// Work by work, in order.
    pub series: Vec<Series>,
    /// Cost of AES-GCM, a value for each round of bulk work.
    pub cipher: Vec<Cost>,
    /// Peers that were not measured, and what to install.
    pub skipped: Vec<(String, String)>,
    /// The targets held against the figures.
    pub targets: Vec<Verdict>,
    /// Where the CPU time went, if that was asked for.
    #[serde(default)]
    pub profiles: Vec<Profile>,
}

/// How a run was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// `smoke`, `short` or `full`.
    pub form: String,
    /// Rounds.
    pub rounds: usize,
    /// Seconds of a measurement.
    pub seconds: u64,
    /// Data-plane threads of each node.
    pub shards: usize,
    /// Whether access logs were written.
    pub access_log: bool,
    /// How long it all took, seconds.
    pub took: f64,
}

/// One peer's samples of one kind of work under one condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Name of the work.
    pub work: String,
    /// What is counted.
    pub unit: String,
    /// Name of the peer.
    pub peer: String,
    /// What else the lab held; empty for nothing.
    pub condition: String,
    /// One for each round; `None` where it failed.
    pub samples: Vec<Option<Sample>>,
    /// Why it failed, once for each failure.
    pub errors: Vec<String>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How much was done.
    pub units: f64,
    /// Gbit/s for GiB, else units per second; 0 where a rate means nothing.
    pub rate: f64,
    /// Median latency, microseconds.
    pub p50_us: Option<f64>,
    /// 99th percentile of the latency, microseconds.
    pub p99_us: Option<f64>,
    /// User time of the tunnel processes, seconds.
    pub cpu_user: f64,
    /// System time of the tunnel processes, seconds.
    pub cpu_system: f64,
    /// Resident memory of the tunnel processes afterwards, bytes.
    pub resident: u64,
    /// Resident memory that a connection added, bytes.
    pub bytes_per_connection: Option<f64>,
    /// Requests or connections that failed.
    pub failures: u64,
    /// Tunnel processes.
    pub nodes: usize,
}

impl Sample {
    /// CPU seconds for each unit; `None` without tunnel processes, or where nothing was done.
    #[must_use]
    pub fn cpu_each(&self) -> Option<f64> {
        (self.nodes > 0 && self.units > 0.0).then(|| (self.cpu_user + self.cpu_system) / self.units)
    }
}

impl Series {
    /// One value of each round.
    pub fn values(&self, value: impl Fn(&Sample) -> Option<f64>) -> Vec<Option<f64>> {
        let samples = self.samples.iter();
        samples.map(|s| s.as_ref().and_then(&value)).collect()
    }

    /// Median and spread of a value.
    pub fn spread(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.values(value).into_iter().flatten())
    }

    /// Name of peer and condition.
    #[must_use]
    pub fn label(&self) -> String {
        if self.condition.is_empty() {
            self.peer.clone()
        } else {
            format!("{}, {}", self.peer, self.condition)
        }
    }
}

impl Results {
    /// The series of that work, peer and condition; any condition of an empty list of words.
    #[must_use]
    pub fn find(&self, work: &str, peer: &str, condition: &str) -> Option<&Series> {
        let mut series = self.series.iter();
        series.find(|s| s.work == work && s.peer == peer && s.condition == condition)
    }

    /// The conditions under which a peer did some work, in order.
    #[must_use]
    pub fn conditions(&self, work: &str, peer: &str) -> Vec<&Series> {
        let series = self.series.iter();
        series
            .filter(|s| s.work == work && s.peer == peer)
            .collect()
    }

    /// Names of the work done, in order.
    #[must_use]
    pub fn works(&self) -> Vec<&str> {
        let mut works: Vec<&str> = Vec::new();
        for series in &self.series {
            if !works.contains(&series.work.as_str()) {
                works.push(&series.work);
            }
        }
        works
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_shared_out_among_the_units() {
        let sample = Sample {
            units: 4.0,
            cpu_user: 1.0,
            cpu_system: 1.0,
            nodes: 2,
            ..Sample::default()
        };
        assert_eq!(sample.cpu_each(), Some(0.5));
        let nothing_done = Sample {
            units: 0.0,
            ..sample
        };
        assert_eq!(nothing_done.cpu_each(), None);
        let without_nodes = Sample { nodes: 0, ..sample };
        assert_eq!(without_nodes.cpu_each(), None);
    }

    #[test]
    fn failed_rounds_are_not_in_the_median() {
        let sample = |rate| {
            Some(Sample {
                rate,
                ..Sample::default()
            })
        };
        let series = Series {
            work: "w".into(),
            unit: "GiB".into(),
            peer: "p".into(),
            condition: "5 idle".into(),
            samples: vec![sample(3.0), None, sample(1.0)],
            errors: Vec::new(),
        };
        let spread = series.spread(|s| Some(s.rate)).unwrap();
        assert_eq!((spread.n, spread.median), (2, 2.0));
        assert_eq!(series.label(), "p, 5 idle");
    }
}
