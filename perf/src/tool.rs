//! Programs that the lab starts: found in the path, run on a host, watched until they end.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use corelane_harness::hosts::Host;
use corelane_harness::process::Process;

use crate::error::{Error, Result};
use crate::stop::Stop;

/// Group of the client applications: what capture rules tell them by. They stay root, so that they
/// may run whatever the one who measures may run.
pub const CLIENT_GID: u32 = 65_532;

/// Lines of output that an error carries.
const LINES_SHOWN: usize = 12;

static STARTED: AtomicU32 = AtomicU32::new(0);

/// Where a program is; `sbin` folders count, which an ordinary user's path leaves out.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// This program, as children can start it even when a build has replaced its file since.
#[must_use]
pub fn own_program() -> PathBuf {
    format!("/proc/{}/exe", std::process::id()).into()
}

/// First line that a program prints about its version, without the folder it lies in.
#[must_use]
pub fn version(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let folder = program
        .parent()
        .map(|folder| format!("{}/", folder.display()));
    Some(match folder.filter(|folder| folder.len() > 1) {
        Some(folder) => line.replace(&folder, ""),
        None => line.to_owned(),
    })
}

/// A command for `program` on `host`. It ends when this process does, and a Ctrl-C at the terminal
/// reaches only us, who end it in order. To be started on the main thread: the kernel sends the
/// parent's death when the starting thread ends.
#[must_use]
pub fn command(host: &Host, program: &str) -> Command {
    let mut command = host.command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command.process_group(0);
    command
}

/// Like [`command`], as an application whose connections are captured.
#[must_use]
pub fn client_command(host: &Host, program: &str) -> Command {
    let mut command = host.command("setpriv");
    let gid = CLIENT_GID.to_string();
    command.args(["--pdeathsig", "KILL", "--regid", &gid, "--clear-groups"]);
    command.args(["--", program]);
    command.process_group(0);
    command
}

/// Starts a command; its output goes to a file of its own in `dir`.
#[must_use]
pub fn start(name: &str, command: Command, dir: &Path) -> Process {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    Process::start(&format!("{number:05}-{name}"), command, dir)
}

/// Waits until a program ends and returns what it printed.
///
/// # Errors
/// If it fails, takes longer than `limit`, or the run is interrupted.
pub fn finish(name: &str, mut process: Process, limit: Duration, stop: &Stop) -> Result<String> {
    let status = stop.wait(limit, || Ok(process.ended()))?;
    match status {
        Some(status) if status.success() => Ok(process.output()),
        Some(status) => Err(Error::Failed {
            what: name.into(),
            status: status.to_string(),
            output: last_lines(&process.output()),
        }),
        None => Err(Error::TimedOut {
            what: format!("the end of {name}"),
            limit,
            output: last_lines(&process.output()),
        }),
    }
}

/// Waits until a program that goes on running has printed `text`.
///
/// # Errors
/// If it ends first, does not say so within `limit`, or the run is interrupted.
pub fn await_output(
    name: &str,
    process: &mut Process,
    text: &str,
    limit: Duration,
    stop: &Stop,
) -> Result<()> {
    let seen = stop.wait(limit, || {
        if process.output().contains(text) {
            return Ok(Some(()));
        }
        match process.ended() {
            None => Ok(None),
            Some(status) => Err(Error::Failed {
                what: name.into(),
                status: status.to_string(),
                output: last_lines(&process.output()),
            }),
        }
    })?;
    seen.ok_or_else(|| Error::TimedOut {
        what: format!("{text:?} from {name}"),
        limit,
        output: last_lines(&process.output()),
    })
}

/// The end of a program's output.
#[must_use]
pub fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }

    #[test]
    fn only_the_end_of_an_output_is_shown() {
        let output: String = (0..20).map(|i| format!("{i}\n")).collect();
        let shown = last_lines(&output);
        assert!(shown.starts_with("8\n") && shown.ends_with("19"));
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo why; exit 3"]);
        let process = start("sh", command, dir.path());
        let limit = Duration::from_secs(20);
        let error = finish("sh", process, limit, &Stop::default()).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_program_that_ends_before_it_is_ready_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = start("true", Command::new("true"), dir.path());
        let limit = Duration::from_secs(20);
        let result = await_output("true", &mut process, "ready", limit, &Stop::default());
        assert!(matches!(result, Err(Error::Failed { .. })));
    }
}
