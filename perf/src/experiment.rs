//! Experiments: one knob, several values, the same work for each in turns, and what differs.
//! `tuning/README.md` explains the files and the results.

mod chart;
mod file;
mod host;
mod judge;
mod report;
mod runner;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::peers::Programs;
use crate::results::Series;
use crate::stop::Stop;

pub use file::{Experiment, Value};

/// Changes when a reader of older files would misread newer ones.
const FORMAT: u32 = 1;

/// Arguments of `experiment`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The experiment, a file of tuning/experiments
    file: PathBuf,
    /// Folder that gets a folder of results; default: tuning/results of the checkout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Rounds, instead of those of the file
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of a measurement, instead of those of the file
    #[arg(long)]
    seconds: Option<u64>,
    /// The corelane program to measure
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    corelane: PathBuf,
    /// The checkout
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    repository: PathBuf,
}

/// What an experiment measured, as it is written to `results.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// [`FORMAT`].
    pub format: u32,
    /// What was asked.
    pub experiment: Experiment,
    /// Day of the run, UTC.
    pub date: String,
    /// Where and with what.
    pub machine: Machine,
    /// How long it took, seconds.
    pub took: f64,
    /// Work by work, value by value; the peer of a series is the value's label.
    pub series: Vec<Series>,
}

/// Runs an experiment and writes its folder of results.
///
/// # Errors
/// If the file is wrong, a node does not come up, or the run is interrupted. Single measurements that
/// fail are part of the results.
pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    let mut experiment = file::read(&args.file)?;
    experiment.rounds = args.rounds.unwrap_or(experiment.rounds);
    experiment.seconds = args.seconds.unwrap_or(experiment.seconds);
    experiment.check().map_err(Error::Usage)?;
    let own = std::env::current_exe().map_err(Error::io("own program"))?;
    let corelane = &args.corelane;
    if !corelane.is_file() {
        return Err(Error::Usage(format!(
            "{} does not exist",
            corelane.display()
        )));
    }
    let programs = Programs {
        own,
        envoy: None,
        haproxy: None,
        nginx: None,
        nginx_stream: None,
    };
    let started = Instant::now();
    let peer = runner::peer(&experiment, &experiment.values[0], corelane);
    let machine = Machine::look(&[peer], &programs, &args.repository);
    let series = runner::measure(&experiment, &programs, corelane, stop)?;
    let outcome = Outcome {
        format: FORMAT,
        date: machine.date.chars().take(10).collect(),
        machine,
        took: started.elapsed().as_secs_f64(),
        experiment,
        series,
    };
    let results = || args.repository.join("tuning/results");
    let name = format!("{}-{}", outcome.date, outcome.experiment.name);
    let folder = args.out.clone().unwrap_or_else(results).join(name);
    write(&outcome, &folder)?;
    println!("{}", report::text(&outcome));
    println!("written to {}", folder.display());
    Ok(())
}

fn write(outcome: &Outcome, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder.display().to_string()))?;
    let json = serde_json::to_string_pretty(outcome).map_err(|error| Error::Unreadable {
        what: "results".into(),
        why: error.to_string(),
    })?;
    let chart = chart::svg(outcome).map_err(|why| Error::Unreadable {
        what: "chart".into(),
        why,
    })?;
    let files = [
        ("results.json", json + "\n"),
        ("chart.svg", chart),
        ("README.md", report::markdown(outcome)),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::io(path.display().to_string()))?;
    }
    Ok(())
}
