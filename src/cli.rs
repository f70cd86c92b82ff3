//! The command line: arguments and printing; the work is done elsewhere.
//!
//! Exit codes: 0 done or stopped in order · 1 wrong arguments, wrong configuration or failed start ·
//! 2 `config check` found something, or `doctor` a problem · 3 a shard died · 4 a shard is stuck · 130 `demo` interrupted.

mod config_check;
mod demo;
mod dev_pki;
mod doctor;
mod output;
mod proxy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Wrong arguments, wrong configuration, or a start that failed.
const EXIT_START: u8 = 1;
/// A check found something.
const EXIT_FINDINGS: u8 = 2;

const AFTER_HELP: &str = "\
Settings come from flags, the environment (Istio ztunnel's variables), a configuration file and \
defaults, in this order. `corelane config show --origin` lists them all.

Exit codes: 0 done, 1 wrong arguments, configuration or start, 2 `config check` found something or \
`doctor` a problem, 3 a shard died, 4 a shard is stuck, 130 `demo` was interrupted.";

#[derive(Parser)]
#[command(
    name = "corelane",
    version,
    about = "Zero-trust node tunnel: carries a node's TCP traffic in HBONE with SPIFFE identities",
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: SettingArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node (the default)
    Proxy {
        #[command(flatten)]
        settings: SettingArguments,
        /// Accepted and not interpreted, as in `corelane proxy ztunnel`
        #[arg(value_name = "ARGS")]
        rest: Vec<String>,
    },
    /// Show two nodes at work on this machine (no root, about ten seconds)
    Demo(demo::Args),
    /// Check this host against what a node needs and against the tuning profiles (reads only)
    Doctor(doctor::Args),
    /// Check and show configurations
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Tools for demos and tests, not for production
    #[command(subcommand)]
    Dev(DevCommand),
    /// Print the version and how this program was built
    Version,
}

#[derive(Subcommand)]
enum DevCommand {
    /// Make a throw-away certificate authority and an identity directory
    Pki(dev_pki::Args),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a configuration file or a local state file without starting anything
    ///
    /// The file stands for itself: neither the environment nor defaults of this host are looked at.
    /// Prints FILE:LINE:COLUMN, what was expected and the nearest valid name for each finding.
    Check {
        /// File to check
        file: PathBuf,
    },
    /// Show every setting the node would start with
    Show {
        #[command(flatten)]
        settings: SettingArguments,
        /// Show where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

#[derive(Args, Debug, Default)]
struct SettingArguments {
    /// Configuration file (YAML); CORELANE_CONFIG names one as well
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one value by its name in the configuration file, such as `log.format=json`
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => {
            // Help and version are printed by way of an "error" that is none.
            let code = if error.use_stderr() { EXIT_START } else { 0 };
            output::ignore_closed(error.print());
            ExitCode::from(code)
        }
    }
}

fn run(arguments: Arguments) -> ExitCode {
    let default = Command::Proxy {
        settings: arguments.settings,
        rest: Vec::new(),
    };
    match arguments.command.unwrap_or(default) {
        Command::Proxy { settings, rest: _ } => proxy::run(settings),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Config(ConfigCommand::Check { file }) => config_check::check(&file),
        Command::Config(ConfigCommand::Show { settings, origin }) => {
            config_check::show(settings, origin)
        }
        Command::Dev(DevCommand::Pki(arguments)) => dev_pki::run(&arguments),
        Command::Version => {
            output::line(&version());
            ExitCode::SUCCESS
        }
    }
}

/// Version and build, one fact a line.
fn version() -> String {
    let allocator = if cfg!(feature = "jemalloc") {
        "jemalloc"
    } else {
        "system"
    };
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "corelane {}\ntarget: {}-{}\nprofile: {profile}\nallocator: {allocator}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(text: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["corelane"].into_iter().chain(text.split_whitespace()))
    }

    #[test]
    fn the_argument_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_runs_the_node_with_the_given_settings() {
        let arguments = parse("--config c.yaml --set log.format=json").unwrap();
        assert!(arguments.command.is_none());
        assert_eq!(arguments.settings.config, Some("c.yaml".into()));
        assert_eq!(
            arguments.settings.set,
            [("log.format".into(), "json".into())]
        );
    }

    #[test]
    fn the_arguments_of_the_reference_chart_are_accepted() {
        for text in [
            "proxy ztunnel",
            "proxy",
            "proxy ztunnel more --config c.yaml",
        ] {
            assert!(
                matches!(parse(text).unwrap().command, Some(Command::Proxy { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_commands_and_broken_flags_are_refused() {
        for text in [
            "bogus",
            "--set name",
            "config",
            "config check",
            "proxy --bogus",
            "doctor --profile bogus",
        ] {
            assert!(parse(text).is_err_and(|error| error.use_stderr()), "{text}");
        }
        for text in [
            "help",
            "--help",
            "--version",
            "config show --help",
            "doctor --help",
        ] {
            assert!(
                parse(text).is_err_and(|error| !error.use_stderr()),
                "{text}"
            );
        }
    }

    #[test]
    fn the_version_names_the_package_version_first() {
        assert!(version().starts_with(concat!("corelane ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}
