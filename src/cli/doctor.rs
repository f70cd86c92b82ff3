//! `corelane doctor`: compares the host with what a node needs and with the tuning profiles.
//!
//! Reads only: `/proc`, `/sys`, limits of this process, and one small ring that is closed at once.
//! In: those facts, and a configuration if one is named. Out: findings, each with its effect and the
//! command that changes it. Facts that cannot be read are findings too.

mod checks;
mod finding;
mod host;
mod needs;
mod profile;
mod report;
mod tree;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{EXIT_FINDINGS, EXIT_START, SettingArguments, output, proxy};
use finding::{Finding, Level};
use host::Host;
use needs::Needs;
use profile::Profile;

/// Arguments of `corelane doctor`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Compare with one profile and warn where the host differs; without it all are compared and
    /// differences are notes
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Configuration file (YAML), read as `proxy` would: ports, shards and limits count
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print without colour; the variable NO_COLOR does the same
    #[arg(long, env = "NO_COLOR", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    no_color: bool,
}

/// Checks the host: 0 no problem, 1 the configuration is wrong, 2 a problem.
#[must_use]
pub(super) fn run(args: Args) -> ExitCode {
    let mut host = Host::of_this_process();
    let needs = match args.config {
        None => Needs::usual(&host),
        Some(file) => {
            let settings = SettingArguments {
                config: Some(file),
                set: Vec::new(),
            };
            match proxy::configuration(settings) {
                Ok(checked) => Needs::of(&checked.config),
                Err(errors) => {
                    proxy::report(&errors);
                    return ExitCode::from(EXIT_START);
                }
            }
        }
    };
    host.try_rings();
    let findings = examine(&host, &needs, args.profile);
    if args.json {
        output::line(&report::json(&findings, args.profile));
    } else {
        let colour = !args.no_color && io::stdout().is_terminal();
        for line in report::text(&findings, colour) {
            output::line(&line);
        }
    }
    if findings
        .iter()
        .any(|finding| finding.level == Level::Problem)
    {
        ExitCode::from(EXIT_FINDINGS)
    } else {
        ExitCode::SUCCESS
    }
}

/// Every finding, in the order of the groups.
fn examine(host: &Host, needs: &Needs, profile: Option<Profile>) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::all(host, needs, &mut findings);
    profile::compare(&host.tree, profile, &mut findings);
    findings.sort_by_key(|finding| finding.group);
    findings
}

#[cfg(test)]
mod tests;
