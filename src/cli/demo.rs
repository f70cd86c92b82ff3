//! `corelane demo`: two real nodes on this machine carry real traffic, and tell a stranger about it.
//!
//! The nodes are child processes running `corelane proxy`; the demo is their application, their
//! client and their operator. It fails when anything differs from what it shows, and leaves nothing
//! behind: processes, folder and namespaces are removed on success, failure, panic and Ctrl-C.

mod backend;
mod error;
mod facts;
mod http;
mod load;
mod log;
mod metrics;
mod netns;
mod node;
mod out;
mod place;
mod report;
mod scratch;
mod setup;
mod story;
mod watch;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use error::DemoError;
use facts::{Failure, LastLines};
use out::Out;
use report::Report;
use scratch::Scratch;
use watch::Watch;
use world::World;

/// The story must be over by then; ending the nodes comes on top.
const STORY_LIMIT: Duration = Duration::from_secs(22);
/// As a shell reports a program that Ctrl-C ended: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Starts two nodes on this machine and shows traffic through them: who may talk to whom, how it is
/// protected, how fast it is.
///
/// Needs no root and no network beyond 127.0.0.0/8, takes about ten seconds, leaves nothing behind.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Leave both nodes running afterwards, with hints what to try, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Print one JSON object instead of the story
    #[arg(long)]
    json: bool,
    /// Use two network namespaces and nftables capture instead of loopback (root only)
    #[arg(long)]
    netns: bool,
    /// Print without colour; the variable NO_COLOR does the same
    #[arg(long, env = "NO_COLOR", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    no_color: bool,
}

/// Runs the demo: 0 everything was as it should be, 1 it was not, 130 interrupted.
#[must_use]
pub(super) fn run(args: &Args) -> ExitCode {
    let out = Out::new(args.no_color, args.json);
    let outcome = in_scratch(args, out);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(DemoError::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Shows the demo in a folder of its own, and tells a failure while the logs are still there.
fn in_scratch(args: &Args, out: Out) -> Result<(), DemoError> {
    let told = |logs: Vec<PathBuf>| {
        move |error: DemoError| {
            tell_failure(&error, args, out, logs);
            error
        }
    };
    // First, so that it is the last to go: until then Ctrl-C must not cut the cleaning short.
    let watch = Watch::start(STORY_LIMIT).map_err(told(Vec::new()))?;
    let scratch = Scratch::new()
        .map_err(DemoError::io("make a temporary folder"))
        .map_err(told(Vec::new()))?;
    let shown = show(args, Report::new(out), out, &scratch, &watch);
    shown.map_err(|error| told(scratch.logs())(error))
}

fn show(
    args: &Args,
    report: Report,
    out: Out,
    scratch: &Scratch,
    watch: &Watch,
) -> Result<(), DemoError> {
    let program = std::env::current_exe().map_err(DemoError::io("find this program's own file"))?;
    setup::write_identities(scratch, SystemTime::now())?;
    let mut world = if args.netns {
        netns::world(scratch, &program, watch)?
    } else {
        World::on_loopback(scratch, &program, watch)?
    };
    let mut facts = story::play(&mut world, report, watch)?;
    if args.keep {
        print_json(args, out, &facts);
        report.hints(&world, &facts.nodes);
        watch.until_interrupted(|| world.a.check_alive().and_then(|()| world.b.check_alive()))?;
        return world.stop(watch);
    }
    world.stop(watch)?;
    facts.seconds = watch.elapsed().as_secs_f64();
    print_json(args, out, &facts);
    report.closing(&facts);
    Ok(())
}

fn print_json<T: Serialize>(args: &Args, out: Out, value: &T) {
    if args.json
        && let Ok(text) = serde_json::to_string_pretty(value)
    {
        out.result(text);
    }
}

fn tell_failure(error: &DemoError, args: &Args, out: Out, logs: Vec<PathBuf>) {
    if matches!(error, DemoError::Interrupted) {
        return out.complain("Interrupted; nodes and files are gone.");
    }
    let logs = logs.into_iter().map(|log| LastLines {
        lines: node::last_lines(&log),
        log: log.display().to_string(),
    });
    let failure = Failure {
        ok: false,
        error: error.to_string(),
        logs: logs.collect(),
    };
    print_json(args, out, &failure);
    if !args.json {
        Report::new(out).failure(&failure);
    }
}
