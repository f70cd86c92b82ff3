//! Two hosts with one link between them: clients and their node on one, servers and theirs on the
//! other. Dropping a lab ends every process in it and removes the hosts.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corelane_harness::hosts::{Host, Network};
use corelane_harness::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::apps::{self, IPERF_PORT, PORTS};
use crate::error::{Error, Result};
use crate::stop::Stop;
use crate::tool;

/// Names of the hosts, and so the end of their namespaces' names, by which remains of a killed run
/// are told from other tests' namespaces.
const HOSTS: [&str; 2] = ["perfclient", "perfserver"];

/// Begins the name of a run's folder; the process id follows.
const SCRATCH: &str = "corelane-perf-";

/// Where captured connections arrive.
pub const CAPTURE_PORT: u16 = 15_001;
/// Added to a port for peers that cannot ask where a connection meant to go.
pub const STATIC_OFFSET: u16 = 10_000;

/// How long the servers may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long one attempt to reach them may take.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);

/// Settings of both hosts: many short connections need ports and must not fill the tables. A kernel
/// without one of them does without.
const SYSCTLS: [(&str, &str); 6] = [
    ("net/ipv4/ip_local_port_range", "26000 64999"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "8192"),
    ("net/ipv4/tcp_max_syn_backlog", "8192"),
    ("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "2"),
    ("net/netfilter/nf_conntrack_tcp_timeout_close", "2"),
];

/// Which connections of the clients go to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// None.
    Nothing,
    /// All, to one port; the node asks the kernel where they meant to go.
    OriginalDestination,
    /// All, each to a port that stands for its destination.
    PerPort,
}

/// The hosts with their servers.
#[derive(Debug)]
pub struct Lab {
    servers: Vec<Process>,
    /// Where clients and the first node run.
    pub client: Host,
    /// Where servers and the second node run.
    pub server: Host,
    dir: PathBuf,
    _network: Network,
}

impl Lab {
    /// Makes the hosts and starts the servers; files go to `dir`, our own program is `program`.
    ///
    /// # Errors
    /// If the servers do not come up.
    pub fn new(dir: &Path, program: &Path, capture: Capture, stop: &Stop) -> Result<Self> {
        let network = Network::direct(HOSTS);
        let [client, server] = HOSTS.map(|name| network.host(name));
        let mut lab = Self {
            servers: Vec::new(),
            client,
            server,
            dir: dir.to_owned(),
            _network: network,
        };
        for host in [&lab.client, &lab.server] {
            host.enter(|| {
                for (key, value) in SYSCTLS {
                    let _ = fs::write(format!("/proc/sys/{key}"), value);
                }
            });
        }
        lab.capture(capture);
        let mut command = tool::command(&lab.server, &program.to_string_lossy());
        command.args(["app", "serve"]);
        lab.serve("servers", command, apps::READY, stop)?;
        if let Some(iperf) = tool::find("iperf3") {
            let mut command = tool::command(&lab.server, &iperf.to_string_lossy());
            let port = IPERF_PORT.to_string();
            command.args(["--server", "--forceflush", "--port", &port]);
            lab.serve("iperf3-server", command, "listening", stop)?;
        }
        lab.wait_for_link(stop)?;
        Ok(lab)
    }

    /// The kernel brings a new link up within about a second, and drops what is sent before: whoever
    /// was first would pay for it.
    fn wait_for_link(&self, stop: &Stop) -> Result<()> {
        let to = self.at(apps::ECHO_PORT);
        let connected = stop.wait(START_LIMIT, || {
            let attempt = || TcpStream::connect_timeout(&to, CONNECT_LIMIT).is_ok();
            Ok(self.client.enter(attempt).then_some(()))
        })?;
        connected.ok_or_else(|| Error::TimedOut {
            what: "the link between the hosts".into(),
            limit: START_LIMIT,
            output: String::new(),
        })
    }

    fn serve(&mut self, name: &str, command: Command, ready: &str, stop: &Stop) -> Result<()> {
        let mut process = tool::start(name, command, &self.dir);
        tool::await_output(name, &mut process, ready, START_LIMIT, stop)?;
        self.servers.push(process);
        Ok(())
    }

    /// Where a server is, for the clients.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.server.v4(), port))
    }

    /// Folder for the files of this lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn capture(&self, capture: Capture) {
        let redirect = |port: u16| match capture {
            Capture::Nothing => None,
            Capture::OriginalDestination => Some(CAPTURE_PORT),
            Capture::PerPort => Some(port + STATIC_OFFSET),
        };
        let rules: Vec<String> = PORTS
            .iter()
            .filter_map(|port| Some((port, redirect(*port)?)))
            .map(|(port, to)| {
                let gid = tool::CLIENT_GID;
                format!("        meta skgid {gid} tcp dport {port} redirect to :{to}\n")
            })
            .collect();
        if !rules.is_empty() {
            self.client.apply_nft(&format!(
                "table inet corelane_perf {{
    chain outbound {{
        type nat hook output priority -100; policy accept;
{}    }}
}}
",
                rules.concat()
            ));
        }
    }

    /// Limits the link to `rate` with a buffer of 5 ms, in both directions, until it is dropped.
    ///
    /// # Errors
    /// If tc refuses.
    pub fn slow_link(&self, rate: &str) -> Result<SlowLink<'_>> {
        let link = SlowLink { lab: self };
        for host in [&self.client, &self.server] {
            let line = "qdisc replace dev eth0 root tbf burst 128kb latency 5ms rate";
            tc(host, &format!("{line} {rate}"))?;
        }
        Ok(link)
    }
}

impl Drop for Lab {
    /// Servers and nodes that fork would leave children behind.
    fn drop(&mut self) {
        for host in [&self.client, &self.server] {
            kill_inside(host.namespace());
        }
    }
}

/// A limited link; dropping it lifts the limit.
#[derive(Debug)]
pub struct SlowLink<'a> {
    lab: &'a Lab,
}

impl Drop for SlowLink<'_> {
    fn drop(&mut self) {
        for host in [&self.lab.client, &self.lab.server] {
            let _ = tc(host, "qdisc del dev eth0 root");
        }
    }
}

fn tc(host: &Host, line: &str) -> Result<()> {
    let output = host
        .command("tc")
        .args(line.split(' '))
        .output()
        .map_err(Error::io("tc"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        what: format!("tc {line}"),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Namespaces of this process's labs that exist.
#[must_use]
pub fn remaining() -> Vec<String> {
    let me = std::process::id();
    let ours = all_namespaces().into_iter();
    ours.filter(|(_, pid)| *pid == me)
        .map(|(name, _)| name)
        .collect()
}

/// Removes what a run that was killed outright has left behind; returns what it was.
#[must_use]
pub fn sweep() -> Vec<String> {
    let dead = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
    let left: Vec<String> = all_namespaces()
        .into_iter()
        .filter(|(_, pid)| dead(*pid))
        .map(|(name, _)| name)
        .collect();
    for name in &left {
        kill_inside(name);
        let _ = Command::new("ip").args(["netns", "del", name]).status();
    }
    for (path, pid) in scratch_folders() {
        if dead(pid) {
            let _ = fs::remove_dir_all(path);
        }
    }
    left
}

/// Makes a folder for a run's files; its name says whose it is.
///
/// # Errors
/// If the file system refuses.
pub fn scratch() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("{SCRATCH}{}-", std::process::id()))
        .tempdir()
        .map_err(Error::io("scratch folder"))
}

/// Scratch folders of runs, of any process, with the id of the process that made them.
fn scratch_folders() -> Vec<(PathBuf, u32)> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter_map(|path| {
            let rest = path.file_name()?.to_str()?.strip_prefix(SCRATCH)?;
            let pid = rest.split('-').next()?.parse().ok()?;
            Some((path, pid))
        })
        .collect()
}

/// Namespaces of labs, of any process, with the id of the process that made them.
fn all_namespaces() -> Vec<(String, u32)> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let pid = maker(&name)?;
            Some((name, pid))
        })
        .collect()
}

/// `cl42-0-perfclient` was made by process 42.
fn maker(namespace: &str) -> Option<u32> {
    let mut parts = namespace.strip_prefix("cl")?.splitn(3, '-');
    let (pid, _number, host) = (parts.next()?, parts.next()?, parts.next()?);
    HOSTS.contains(&host).then(|| pid.parse().ok())?
}

fn kill_inside(namespace: &str) {
    let Ok(output) = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
    else {
        return;
    };
    let pids = String::from_utf8_lossy(&output.stdout).into_owned();
    for pid in pids.split_whitespace().filter_map(|id| id.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_labs_are_ours() {
        assert_eq!(maker("cl42-3-perfserver"), Some(42));
        for other in [
            "cl42-3-client",
            "perfserver",
            "cl-3-perfclient",
            "clx-0-perfclient",
        ] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
