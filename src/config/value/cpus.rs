//! Quantities of CPUs and of shards.

use super::{Integer, Kind};
use crate::config::limits::SHARDS_MAX;

/// A CPU quantity as Kubernetes writes it: `2`, `1.5`, `500m`. Rounded up.
pub(in crate::config) struct Cpus;

impl Kind for Cpus {
    type Value = usize;

    fn parse(&self, text: &str) -> Option<usize> {
        let cpus = match text.strip_suffix('m') {
            Some(thousandths) => thousandths.parse::<f64>().ok()? / 1000.0,
            None => text.parse::<f64>().ok()?,
        };
        // Counting up needs no cast from float: the bound is small.
        (cpus > 0.0).then(|| (1..=SHARDS_MAX).find(|count| cpus <= as_float(*count)))?
    }

    fn expected(&self) -> String {
        format!("a number of CPUs such as `2`, `1.5` or `500m`, up to {SHARDS_MAX}")
    }

    fn show(&self, value: &usize) -> String {
        value.to_string()
    }
}

fn as_float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// How many shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ShardRule {
    /// As many as CPUs.
    Cpus,
    /// This many.
    Count(usize),
    /// This part of the CPUs.
    Percent(usize),
}

/// `0`, a number, or `NN%`.
pub(in crate::config) struct ShardCount;

impl Kind for ShardCount {
    type Value = ShardRule;

    fn parse(&self, text: &str) -> Option<ShardRule> {
        if let Some(percent) = text.strip_suffix('%') {
            return Integer(1..=100).parse(percent).map(ShardRule::Percent);
        }
        match Integer(0..=SHARDS_MAX).parse(text)? {
            0 => Some(ShardRule::Cpus),
            count => Some(ShardRule::Count(count)),
        }
    }

    fn expected(&self) -> String {
        format!("a number of threads from 0 to {SHARDS_MAX}, or a percentage from `1%` to `100%`")
    }

    fn show(&self, value: &ShardRule) -> String {
        match value {
            ShardRule::Cpus => "0".to_owned(),
            ShardRule::Count(count) => count.to_string(),
            ShardRule::Percent(percent) => format!("{percent}%"),
        }
    }
}
