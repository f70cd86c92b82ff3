//! Who is measured: Corelane in its variants, and its peers, each started between two hosts the same
//! way. All of them keep an access log or none does.

mod copy;
mod corelane;
mod envoy;
mod haproxy;
mod nginx;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corelane_harness::node::{Driver, Node};
use corelane_harness::process::Process;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lab::{Capture, Lab};
use crate::procfs::{self, Usage};
use crate::stop::Stop;
use crate::tool;

/// How long a program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end when asked.
const END_LIMIT: Duration = Duration::from_secs(5);

/// One subject of a comparison.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Name in reports and on the command line.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a peer is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing between client and server.
    Direct,
    /// Corelane.
    Corelane(Corelane),
    /// Envoy, relaying or tunnelling.
    Envoy(Way),
    /// HAProxy, relaying with splice.
    Haproxy,
    /// nginx's stream module, relaying.
    Nginx,
    /// The lab's plain copy relay on both hosts: half of the floor.
    Copy,
}

/// One Corelane variant.
#[derive(Clone, Debug)]
pub struct Corelane {
    /// Program.
    pub binary: PathBuf,
    /// How it waits.
    pub driver: Driver,
    /// What it does with a connection.
    pub way: Way,
    /// Settings, as `--set NAME=VALUE` takes them.
    pub settings: Vec<(String, String)>,
    /// Kernel settings of both hosts, as paths below `/proc/sys`.
    pub sysctls: Vec<(String, String)>,
}

/// What a node does with a captured connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Relays it as it is; one node.
    Passthrough,
    /// Sends it through HTTP/2 CONNECT over mutual TLS; two nodes.
    Tunnel,
}

/// How all peers of a run are started.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Data-plane threads of each node.
    pub shards: usize,
    /// Whether access logs are written.
    pub access_log: bool,
    /// Whether connections share tunnels; without, each gets one of its own.
    pub pooled: bool,
}

/// What peers are made of on this machine.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program, for its applications and the plain relay.
    pub own: PathBuf,
    /// Envoy, if installed.
    pub envoy: Option<PathBuf>,
    /// HAProxy, if installed.
    pub haproxy: Option<PathBuf>,
    /// nginx, if installed.
    pub nginx: Option<PathBuf>,
    /// nginx's stream module; not needed if it is built in.
    pub nginx_stream: Option<PathBuf>,
}

impl Peer {
    /// `None` if the peer can run here, else what to install.
    #[must_use]
    pub fn missing(&self, programs: &Programs) -> Option<String> {
        match &self.kind {
            Kind::Direct | Kind::Copy => None,
            Kind::Corelane(corelane) => (!corelane.binary.is_file())
                .then(|| format!("{} does not exist", corelane.binary.display())),
            Kind::Envoy(_) => programs.envoy.is_none().then(|| "cargo xtask peers".into()),
            Kind::Haproxy => (programs.haproxy.is_none()).then(|| "apt-get install haproxy".into()),
            Kind::Nginx => nginx::missing(programs),
        }
    }

    /// How its clients are captured.
    #[must_use]
    pub const fn capture(&self) -> Capture {
        match self.kind {
            Kind::Direct => Capture::Nothing,
            Kind::Corelane(_) | Kind::Envoy(_) | Kind::Haproxy => Capture::OriginalDestination,
            Kind::Nginx | Kind::Copy => Capture::PerPort,
        }
    }

    /// Whether it carries connections in encrypted tunnels.
    #[must_use]
    pub const fn tunnels(&self) -> bool {
        match &self.kind {
            Kind::Corelane(corelane) => matches!(corelane.way, Way::Tunnel),
            Kind::Envoy(way) => matches!(way, Way::Tunnel),
            Kind::Direct | Kind::Haproxy | Kind::Nginx | Kind::Copy => false,
        }
    }

    /// Whether it is a Corelane.
    #[must_use]
    pub const fn is_corelane(&self) -> bool {
        matches!(self.kind, Kind::Corelane(_))
    }
}

/// Where distributions put nginx's stream module, if it is there.
#[must_use]
pub fn nginx_module() -> Option<PathBuf> {
    nginx::module()
}

/// A peer at work in a lab of its own. Its processes end before the hosts go.
#[derive(Debug)]
pub struct Running {
    nodes: Vec<NodeProcess>,
    /// The hosts.
    pub lab: Lab,
}

/// A process that carries connections.
#[derive(Debug)]
pub(crate) enum NodeProcess {
    Corelane(Box<Node>),
    Other(Process),
}

impl NodeProcess {
    fn pid(&self) -> u32 {
        let process = match self {
            Self::Corelane(node) => node.process(),
            Self::Other(process) => process,
        };
        process.pid().as_raw_nonzero().get().unsigned_abs()
    }
}

impl Running {
    /// Makes a lab and starts `peer` in it.
    ///
    /// # Errors
    /// If anything of it does not come up.
    pub fn start(
        peer: &Peer,
        shape: &Shape,
        programs: &Programs,
        dir: &Path,
        stop: &Stop,
    ) -> Result<Self> {
        stop.check()?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}-", peer.name))
            .tempdir_in(dir)
            .map_err(Error::io("scratch folder"))?
            .keep();
        let lab = Lab::new(&dir, &programs.own, peer.capture(), stop)?;
        let starter = Starter {
            lab: &lab,
            shape,
            programs,
            stop,
        };
        // The harness reports a node that does not come up by a panic.
        let started = catch_unwind(AssertUnwindSafe(|| starter.nodes(&peer.kind)));
        let nodes = started.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let why = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(Error::NotStarted {
                peer: peer.name.clone(),
                why: why.unwrap_or_default(),
            })
        })?;
        Ok(Self { nodes, lab })
    }

    /// CPU time and memory of the tunnel processes of both hosts.
    ///
    /// # Errors
    /// If one of them has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(&self.pids())
    }

    /// The tunnel processes, with those they started.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let heads = self.nodes.iter().map(NodeProcess::pid);
        heads.flat_map(procfs::family).collect()
    }

    /// Of the nodes alone; programs that fork have one each all the same.
    #[must_use]
    pub const fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

impl Drop for Running {
    /// Asks first: a master ends its own children better than we can.
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let NodeProcess::Other(process) = node
                && process.ended().is_none()
            {
                let _ = rustix::process::kill_process(process.pid(), Signal::TERM);
                let _ = corelane_harness::clock::try_wait_for(END_LIMIT, || process.ended());
            }
        }
    }
}

/// Everything that starting needs.
pub(crate) struct Starter<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) shape: &'a Shape,
    pub(crate) programs: &'a Programs,
    pub(crate) stop: &'a Stop,
}

impl Starter<'_> {
    fn nodes(&self, kind: &Kind) -> Result<Vec<NodeProcess>> {
        match kind {
            Kind::Direct => Ok(Vec::new()),
            Kind::Corelane(variant) => Ok(corelane::start(self, variant)),
            Kind::Envoy(way) => envoy::start(self, *way),
            Kind::Haproxy => haproxy::start(self),
            Kind::Nginx => nginx::start(self),
            Kind::Copy => copy::start(self),
        }
    }

    /// Starts a program that listens on `port` of `host` as soon as it is ready.
    pub(crate) fn listening(
        &self,
        name: &str,
        command: Command,
        host: &corelane_harness::hosts::Host,
        port: u16,
    ) -> Result<NodeProcess> {
        let mut process = tool::start(name, command, self.lab.dir());
        let up = self.stop.wait(START_LIMIT, || {
            if let Some(status) = process.ended() {
                return Err(Error::Failed {
                    what: name.into(),
                    status: status.to_string(),
                    output: tool::last_lines(&process.output()),
                });
            }
            Ok(host.enter(|| procfs::listens(port)).then_some(()))
        })?;
        up.ok_or_else(|| Error::TimedOut {
            what: format!("{name} listening on {port}"),
            limit: START_LIMIT,
            output: tool::last_lines(&process.output()),
        })?;
        Ok(NodeProcess::Other(process))
    }
}
