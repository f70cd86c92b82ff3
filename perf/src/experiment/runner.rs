//! Takes the samples: every value in a lab of its own, all of them in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use corelane_harness::node::Driver;
use corelane_harness::process::Process;

use super::file::{Experiment, Value};
use super::host::{Restored, spread_packets};
use crate::apps::IPERF_PORT;
use crate::error::{Error, Result};
use crate::peers::{Corelane, Kind, Peer, Programs, Running, Shape};
use crate::results::{Sample, Series};
use crate::stop::Stop;
use crate::tool;
use crate::work::Work;

/// How long a bulk stream may take to move its first bytes.
const BULK_LIMIT: Duration = Duration::from_secs(10);
/// How often it is started anew while the server still counts the one before.
const BULK_ATTEMPTS: usize = 20;
/// Time between two of these.
const BULK_PAUSE: Duration = Duration::from_millis(250);

/// Takes all samples of an experiment.
///
/// # Errors
/// If a node does not come up, or the run is interrupted.
pub(super) fn measure(
    experiment: &Experiment,
    programs: &Programs,
    corelane: &Path,
    stop: &Stop,
) -> Result<Vec<Series>> {
    let works = experiment.works().map_err(Error::Usage)?;
    let scratch = tempfile::tempdir().map_err(Error::io("scratch folder"))?;
    let mut labs = Vec::new();
    for value in &experiment.values {
        labs.push(start(
            experiment,
            value,
            programs,
            corelane,
            scratch.path(),
            stop,
        )?);
    }
    let mut series: Vec<Series> = works
        .iter()
        .flat_map(|work| experiment.values.iter().map(|value| empty(*work, value)))
        .collect();
    for round in 0..experiment.rounds {
        for (number, work) in works.iter().enumerate() {
            for index in order(round, labs.len()) {
                let value = &experiment.values[index];
                eprintln!(
                    "round {} of {}, {}: {}",
                    round + 1,
                    experiment.rounds,
                    work.name(),
                    value.label
                );
                let sample = sample(experiment, *work, value, &labs[index], stop);
                let series = &mut series[number * labs.len() + index];
                match sample {
                    Ok(sample) => series.samples.push(Some(sample)),
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(error) => {
                        eprintln!("  {error}");
                        series.samples.push(None);
                        series.errors.push(error.to_string());
                    }
                }
            }
        }
    }
    Ok(series)
}

/// Every other round goes backwards, so that no value always follows the same one.
fn order(round: usize, count: usize) -> Vec<usize> {
    let forwards = 0..count;
    if round.is_multiple_of(2) {
        forwards.collect()
    } else {
        forwards.rev().collect()
    }
}

fn empty(work: Work, value: &Value) -> Series {
    Series {
        work: work.name().to_owned(),
        unit: work.unit().to_owned(),
        peer: value.label.clone(),
        condition: String::new(),
        samples: Vec::new(),
        errors: Vec::new(),
    }
}

/// A node with that value.
pub(super) fn peer(experiment: &Experiment, value: &Value, corelane: &Path) -> Peer {
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    Peer {
        name: "corelane".to_owned(),
        kind: Kind::Corelane(Corelane {
            binary: corelane.to_owned(),
            driver: if value.epoll {
                Driver::Epoll
            } else {
                Driver::IoUring
            },
            way: experiment.way,
            settings: pairs(&value.set),
            sysctls: pairs(&value.sysctl),
        }),
    }
}

fn start(
    experiment: &Experiment,
    value: &Value,
    programs: &Programs,
    corelane: &Path,
    scratch: &Path,
    stop: &Stop,
) -> Result<Running> {
    let peer = peer(experiment, value, corelane);
    let shape = Shape {
        shards: value.shards.unwrap_or(experiment.shards),
        access_log: false,
        pooled: true,
    };
    let running = Running::start(&peer, &shape, programs, scratch, stop)?;
    if let Some(mask) = &value.rps {
        spread_packets(&running, mask)?;
    }
    Ok(running)
}

fn sample(
    experiment: &Experiment,
    work: Work,
    value: &Value,
    running: &Running,
    stop: &Stop,
) -> Result<Sample> {
    let _restored = Restored::set(Path::new("/proc/sys"), &value.host_sysctl)?;
    let rate = experiment.link.as_ref();
    let _slow = rate.map(|rate| running.lab.slow_link(rate)).transpose()?;
    let _bulk = experiment
        .beside_bulk
        .then(|| bulk(experiment, running, stop))
        .transpose()?;
    work.sample(running, &experiment.amount(), stop)
}

/// A bulk stream that moves bytes and outlasts the measurement; it ends when it is dropped.
fn bulk(experiment: &Experiment, running: &Running, stop: &Stop) -> Result<Process> {
    let iperf = tool::find("iperf3").ok_or_else(|| Error::Usage("iperf3 is missing".to_owned()))?;
    let lab = &running.lab;
    let (host, port) = (lab.server.v4().to_string(), IPERF_PORT.to_string());
    let time = (experiment.seconds + 30).to_string();
    let mut attempts = BULK_ATTEMPTS;
    loop {
        let mut command = tool::client_command(&lab.client, &iperf.to_string_lossy());
        command.args(["--client", &host, "--port", &port, "--time", &time]);
        command.args(["--interval", "0.5", "--forceflush"]);
        let mut process = tool::start("bulk", command, lab.dir());
        match tool::await_output("bulk", &mut process, "bits/sec", BULK_LIMIT, stop) {
            Ok(()) => return Ok(process),
            Err(Error::Failed { .. }) if attempts > 0 => {
                attempts -= 1;
                stop.pause(BULK_PAUSE)?;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_there_and_back() {
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [2, 1, 0]);
    }
}
