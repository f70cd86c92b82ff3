//! Where a run was made and with which versions: without it figures say nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::peers::{Kind, Peer, Programs};
use crate::tool;

/// The machine, its programs and its state before the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Date and time, UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Load averages when the run began: above about 0.3, others were at work.
    pub load: String,
    /// Revision of the source, with `+` if it was changed since.
    pub revision: String,
    /// Name and version of each program.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look(peers: &[Peer], programs: &Programs, repository: &Path) -> Self {
        Self {
            date: now(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .split_whitespace()
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                / 1_024,
            load: read("/proc/loadavg")
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
            revision: revision(repository),
            versions: versions(peers, programs),
        }
    }
}

/// Date and time in UTC, as `2026-01-31T23:59Z`.
#[must_use]
pub fn now() -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

fn versions(peers: &[Peer], programs: &Programs) -> Vec<(String, String)> {
    let mut versions: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, program: Option<&Path>, argument: &str| {
        if let Some(text) = program.and_then(|program| tool::version(program, argument))
            && !versions.iter().any(|(known, _)| known == name)
        {
            versions.push((name.to_owned(), text));
        }
    };
    for peer in peers {
        match &peer.kind {
            Kind::Corelane(corelane) => add("corelane", Some(&corelane.binary), "--version"),
            Kind::Envoy(_) => add("envoy", programs.envoy.as_deref(), "--version"),
            Kind::Haproxy => add("haproxy", programs.haproxy.as_deref(), "-v"),
            Kind::Nginx => add("nginx", programs.nginx.as_deref(), "-v"),
            Kind::Direct | Kind::Copy => {}
        }
    }
    add("iperf3", tool::find("iperf3").as_deref(), "--version");
    add("wrk", tool::find("wrk").as_deref(), "--version");
    versions
}

fn revision(repository: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(repository)
            .args(arguments)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if changed.is_some_and(|text| text.is_empty()) {
        ""
    } else {
        "+"
    };
    format!("{head}{mark}")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Value of the first `name: value` line.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values
        .next()
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_knows_its_kernel_and_date() {
        let programs = Programs {
            own: "x".into(),
            envoy: None,
            haproxy: None,
            nginx: None,
            nginx_stream: None,
        };
        let machine = Machine::look(&[], &programs, Path::new("/"));
        assert!(!machine.kernel.is_empty() && machine.cpus > 0);
        assert_eq!(machine.date.len(), "2026-01-31T23:59Z".len());
        assert_eq!(machine.revision, "unknown");
    }
}
