//! The file of an experiment: what is asked, what is done, which values are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::peers::Way;
use crate::work::{ALL, Amount, Condition, Work};

/// A question and how it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Experiment {
    /// Name, also of the results' folder.
    pub name: String,
    /// What is asked.
    pub question: String,
    /// What is varied, for the chart.
    pub knob: String,
    /// The default that the answer decides: a setting of Corelane, or a line of a profile.
    pub decides: String,
    /// Label of the value that the others are compared with.
    pub baseline: String,
    /// What the nodes do with connections.
    pub way: Way,
    /// Names of the work.
    pub work: Vec<String>,
    /// Whether one bulk stream runs beside the work.
    #[serde(default)]
    pub beside_bulk: bool,
    /// Rate of the link between the hosts, in tc's words, with a buffer of 5 ms; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Rounds of everything.
    pub rounds: usize,
    /// Seconds of a measurement.
    pub seconds: u64,
    /// Data-plane threads of each node, for values that do not say.
    #[serde(default = "one")]
    pub shards: usize,
    /// What is compared.
    pub values: Vec<Value>,
}

/// One value of the knob; all that is left out is as in the lab's other runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Value {
    /// Name in tables and charts.
    pub label: String,
    /// Settings of the nodes, by their names in the configuration file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Kernel settings inside the namespaces of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Kernel settings of the whole host, set for each measurement and put back after it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_sysctl: BTreeMap<String, String>,
    /// Mask of CPUs that take received packets (RPS), of both hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rps: Option<String>,
    /// Data-plane threads of each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<usize>,
    /// `epoll` instead of io_uring.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub epoll: bool,
}

const fn one() -> usize {
    1
}

/// Reads and checks an experiment.
///
/// # Errors
/// If the file cannot be read, is no experiment, or asks for what cannot be done.
pub fn read(path: &Path) -> Result<Experiment> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(Error::io(name.clone()))?;
    parse(&text).map_err(|why| Error::Unreadable { what: name, why })
}

fn parse(text: &str) -> std::result::Result<Experiment, String> {
    let experiment: Experiment = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    experiment.check()?;
    Ok(experiment)
}

impl Experiment {
    /// Checks bounds and names.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> std::result::Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!(
                "name: `{}` is not made of a-z, 0-9 and -",
                self.name
            ));
        }
        for (what, number, most) in [
            ("rounds", self.rounds as u64, 99),
            ("seconds", self.seconds, 60),
            ("shards", self.shards as u64, 1_024),
        ] {
            if !(1..=most).contains(&number) {
                return Err(format!("{what}: {number} is not from 1 to {most}"));
            }
        }
        if !(2..=12).contains(&self.values.len()) {
            return Err("values: not from 2 to 12 of them".to_owned());
        }
        let is_rate = |rate: &String| {
            let number = rate
                .strip_suffix("mbit")
                .and_then(|number| number.parse::<u32>().ok());
            number.is_some_and(|number| (1..=100_000).contains(&number))
        };
        if self.link.as_ref().is_some_and(|rate| !is_rate(rate)) {
            return Err("link: not a rate such as `200mbit`".to_owned());
        }
        let labels: BTreeSet<&str> = self
            .values
            .iter()
            .map(|value| value.label.as_str())
            .collect();
        if labels.len() < self.values.len() || labels.contains("") {
            return Err("values: each needs a label of its own".to_owned());
        }
        if !labels.contains(self.baseline.as_str()) {
            return Err(format!("baseline: no value is called `{}`", self.baseline));
        }
        let work = self.works()?;
        if work.is_empty() {
            return Err("work: nothing to do".to_owned());
        }
        if self.beside_bulk && work.iter().any(|work| work.is_bulk()) {
            return Err("besideBulk: iperf3 serves one client at a time".to_owned());
        }
        Ok(())
    }

    /// The work, by name.
    ///
    /// # Errors
    /// Names that are not work, or work that needs a lab for each of its parts.
    pub fn works(&self) -> std::result::Result<Vec<Work>, String> {
        let usable = |work: &Work| {
            let alone = work.conditions(&self.amount()) == [Condition::Alone];
            alone && !work.own_lab()
        };
        let names = || -> Vec<&str> {
            ALL.iter()
                .filter(|work| usable(work))
                .map(|work| work.name())
                .collect()
        };
        self.work
            .iter()
            .map(|name| {
                let work = ALL
                    .into_iter()
                    .filter(usable)
                    .find(|work| work.name() == name);
                work.ok_or_else(|| format!("work: `{name}` is not one of {}", names().join(", ")))
            })
            .collect()
    }

    /// How much of each work.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        Amount {
            rounds: self.rounds,
            seconds: self.seconds,
            idle: 0,
            few: 0,
            stalled: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
name: pipe-size
question: How large?
knob: pipe of a spliced direction
decides: tuning.pipeBytes
baseline: 1 MiB
way: passthrough
work: [bulk-up, bulk-8]
rounds: 5
seconds: 2
values:
- {label: 1 MiB, set: {tuning.pipeBytes: 1048576}}
- {label: none, set: {tuning.pipeBytes: off}, sysctl: {net.ipv4.tcp_autocorking: 0}, shards: 2}
";

    #[test]
    fn an_experiment_is_read_whole() {
        let experiment = parse(GOOD).unwrap();
        assert_eq!(experiment.works().unwrap(), [Work::BulkUp, Work::BulkEight]);
        assert_eq!((experiment.shards, experiment.beside_bulk), (1, false));
        assert_eq!(experiment.link, None);
        assert_eq!(experiment.values[0].set["tuning.pipeBytes"], "1048576");
        let second = &experiment.values[1];
        assert_eq!(second.set["tuning.pipeBytes"], "off");
        assert_eq!(second.sysctl["net.ipv4.tcp_autocorking"], "0");
        assert_eq!(
            (second.shards, second.epoll, &second.rps),
            (Some(2), false, &None)
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (old, new, told) in [
            ("name: pipe-size", "name: Pipe size", "name:"),
            ("rounds: 5", "rounds: 0", "rounds:"),
            ("seconds: 2", "seconds: 61", "seconds:"),
            ("baseline: 1 MiB", "baseline: 2 MiB", "no value is called"),
            ("label: none", "label: 1 MiB", "label of its own"),
            ("bulk-8]", "bulk-9]", "`bulk-9` is not one of bulk-up"),
            ("bulk-8]", "crowd]", "`crowd` is not one of"),
            (
                "way: passthrough",
                "way: passthrough\nbesideBulk: true",
                "one client at a time",
            ),
            ("way: passthrough", "way: passthrough\nlink: fast", "link:"),
            ("way: passthrough", "way: passthrough\nlink: 0mbit", "link:"),
            ("shards: 2", "shard: 2", "shard"),
        ] {
            assert!(GOOD.contains(old));
            let why = parse(&GOOD.replacen(old, new, 1)).unwrap_err();
            assert!(why.contains(told), "{new}: {why}");
        }
    }

    #[test]
    fn the_experiments_that_ship_are_experiments() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/experiments");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let experiment = read(&path).unwrap();
            assert_eq!(path.file_stem().unwrap(), experiment.name.as_str());
            count += 1;
        }
        assert!(count >= 5, "{count}");
    }
}
