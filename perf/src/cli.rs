//! Arguments, and what they ask for.

mod order;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Error, Result};
use crate::machine::{self, Machine};
use crate::results::Results;
use crate::stop::Stop;
use crate::{ab, apps, benches, experiment, lab, relay, report, run, targets, tool};

/// Measures Corelane and its peers on the same work, in two network namespaces.
#[derive(Debug, Parser)]
#[command(name = "corelane-perf", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures (needs root)
    #[command(bin_name = "perf/run")]
    Run(RunArguments),
    /// Measures two builds of Corelane alternately (needs root)
    #[command(bin_name = "perf/ab")]
    Ab(AbArguments),
    /// Compares values of one knob (needs root)
    #[command(bin_name = "tuning/experiment")]
    Experiment(experiment::Args),
    /// Programs of the lab itself
    #[command(subcommand, hide = true)]
    App(App),
}

/// Arguments that all measurements take.
#[derive(Debug, Args)]
pub struct Measuring {
    /// Rounds of everything
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,
    /// Seconds of each measurement
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: Option<u64>,
    /// Only this work, by name, separated by commas
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub work: Vec<String>,
    /// Data-plane threads of each node, the same for all peers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub shards: usize,
    /// Start everybody without an access log
    #[arg(long)]
    pub no_access_log: bool,
    /// A setting of all Corelane nodes, as `corelane proxy --set` takes it; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub corelane_config: Vec<String>,
}

/// `perf/run`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct RunArguments {
    /// The main work in under five minutes (default)
    #[arg(long, conflicts_with_all = ["full", "smoke"])]
    pub short: bool,
    /// All work, all peers, more and longer rounds
    #[arg(long, conflicts_with = "smoke")]
    pub full: bool,
    /// For CI: everything once and briefly; fails if something does not work, never for its speed
    #[arg(long)]
    pub smoke: bool,
    /// Only these peers, separated by commas
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    pub only: Vec<String>,
    /// One more Corelane: NAME=PEER,KEY=VALUE,… is PEER with other settings; keys that begin with
    /// `sysctl.` are kernel settings of both hosts; can be repeated
    #[arg(long, value_name = "NAME=PEER,KEY=VALUE,…")]
    pub variant: Vec<String>,
    /// Where report.txt, results.json and report.html go; default: the build folder's perf/latest
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Keep the run in perf/results/DATE-NAME
    #[arg(long, value_name = "NAME", conflicts_with = "out")]
    pub name: Option<String>,
    /// Tell where the CPU time goes: one more round of everything, under `perf record`
    #[arg(long)]
    pub profile: bool,
    /// Say which peers and work there are, and end
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "flattened into the command line")]
    pub measuring: Measuring,
    #[command(flatten)]
    #[expect(missing_docs, reason = "flattened into the command line")]
    pub places: Places,
}

/// Where things are; the scripts say so.
#[derive(Debug, Args)]
pub struct Places {
    /// The corelane program to measure
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub corelane: PathBuf,
    /// Cargo's build folder: Envoy is in its `peers`, benchmarks' results in its `criterion`
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub target_dir: PathBuf,
    /// The checkout
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub repository: PathBuf,
}

/// `perf/ab`.
#[derive(Debug, Args)]
pub struct AbArguments {
    /// Name of the first build
    pub name_a: String,
    /// Name of the second build
    pub name_b: String,
    /// The second build's program; --corelane is the first one's
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub corelane_b: PathBuf,
    #[command(flatten)]
    #[expect(missing_docs, reason = "flattened into the command line")]
    pub measuring: Measuring,
    #[command(flatten)]
    #[expect(missing_docs, reason = "flattened into the command line")]
    pub places: Places,
}

#[derive(Debug, Subcommand)]
enum App {
    Serve,
    Hold {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: usize,
    },
    Stall {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        count: usize,
    },
    PingPong {
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        seconds: u64,
    },
    Relay {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        to: SocketAddr,
        #[arg(long)]
        threads: usize,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::App(app) => run_app(&app),
        Command::Run(arguments) => measure(&arguments),
        Command::Ab(arguments) => compare(&arguments),
        Command::Experiment(arguments) => try_values(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::Interrupted) {
                130
            } else {
                1
            })
        }
    }
}

fn run_app(app: &App) -> Result<()> {
    let done = match *app {
        App::Serve => apps::serve(),
        App::Hold { to, count } => apps::hold(to, count),
        App::Stall { to, count } => apps::stall(to, count),
        App::Relay { port, to, threads } => relay::run(port, to, threads),
        App::PingPong { to, seconds } => {
            let result = apps::ping_pong(to, Duration::from_secs(seconds));
            result.map(|r| println!("{}", serde_json::json!(r)))
        }
    };
    done.map_err(Error::io("application"))
}

fn measure(arguments: &RunArguments) -> Result<()> {
    let order = order::of_run(arguments)?;
    if arguments.list {
        print!("{}", order::list(&order));
        return Ok(());
    }
    let stop = prepare()?;
    let machine = Machine::look(&order.peers, &order.programs, &arguments.places.repository);
    let mut results = run::run(&order, machine, &stop)?;
    let benches = benches::read(&arguments.places.target_dir.join("criterion"));
    results.targets.extend(targets::judge_benches(&benches));
    print!("{}", report::text(&results));
    let out = out_dir(arguments);
    report::write(&results, &out)?;
    println!(
        "written: {}/report.html, report.txt, results.json",
        out.display()
    );
    check_remains()?;
    if arguments.smoke {
        check_smoke(&results)?;
    }
    Ok(())
}

fn compare(arguments: &AbArguments) -> Result<()> {
    let order = order::of_ab(arguments)?;
    let stop = prepare()?;
    let machine = Machine::look(&order.peers, &order.programs, &arguments.places.repository);
    let results = run::run(&order, machine, &stop)?;
    print!(
        "{}",
        ab::table(&results, &arguments.name_a, &arguments.name_b)
    );
    let out = arguments.places.target_dir.join("perf/ab-latest");
    report::write(&results, &out)?;
    println!(
        "written: {}/report.html, report.txt, results.json",
        out.display()
    );
    check_remains()
}

fn try_values(arguments: &experiment::Args) -> Result<()> {
    let stop = prepare()?;
    experiment::run(arguments, &stop)?;
    check_remains()
}

/// What every run needs: root, the programs that make hosts and work, descriptors, no remains of
/// earlier runs.
fn prepare() -> Result<Stop> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Usage(
            "network namespaces and nftables need root: run it with sudo".into(),
        ));
    }
    let needs = [
        ("ip", "iproute2"),
        ("tc", "iproute2"),
        ("nft", "nftables"),
        ("setpriv", "util-linux"),
        ("iperf3", "iperf3"),
        ("wrk", "wrk"),
    ];
    let missing = needs
        .iter()
        .filter(|(program, _)| tool::find(program).is_none());
    let missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        return Err(Error::Usage(format!(
            "missing: {} (Debian: tests/install-deps)",
            missing.join(" ")
        )));
    }
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
    // A peer that does not come up is told in the results; a backtrace of ours says nothing about it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    for name in lab::sweep() {
        eprintln!("removed what an earlier run left behind: {name}");
    }
    Stop::on_signals()
}

fn out_dir(arguments: &RunArguments) -> PathBuf {
    match (&arguments.out, &arguments.name) {
        (Some(out), _) => out.clone(),
        (None, Some(name)) => {
            let date: String = machine::now().chars().take(10).collect();
            let results = arguments.places.repository.join("perf/results");
            results.join(format!("{date}-{name}"))
        }
        (None, None) => arguments.places.target_dir.join("perf/latest"),
    }
}

/// Nothing of the lab may be left.
fn check_remains() -> Result<()> {
    let namespaces = lab::remaining();
    let me = std::process::id();
    let processes: Vec<u32> = crate::procfs::family(me).into_iter().skip(1).collect();
    if namespaces.is_empty() && processes.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "left behind: namespaces {namespaces:?}, processes {processes:?}"
    )))
}

/// Everything that was to be done was done, by everybody who is installed.
fn check_smoke(results: &Results) -> Result<()> {
    let mut wrong = Vec::new();
    for series in &results.series {
        let done = series
            .samples
            .iter()
            .flatten()
            .map(|s| s.units)
            .sum::<f64>();
        if done <= 0.0 || series.samples.iter().any(Option::is_none) {
            wrong.push(format!("{} {}", series.work, series.label()));
        }
    }
    if results.series.is_empty() {
        wrong.push("nothing was measured".into());
    }
    if wrong.is_empty() {
        println!("smoke: {} series, all of them moved", results.series.len());
        return Ok(());
    }
    Err(Error::Usage(format!("did not work: {}", wrong.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
