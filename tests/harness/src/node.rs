//! One `corelane proxy` process, on a host of its own or on the machine's loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::access_log::{self, AccessLine};
use crate::clock;
use crate::hosts::Host;
use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::process::Process;

/// How long a node may take to become ready, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a line or a number may take to appear after the event it tells of.
pub const REPORT_LIMIT: Duration = Duration::from_secs(5);

/// How shards wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring; the node fails to start where it is forbidden.
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// Value of `CORELANE_DRIVER`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    process: Process,
    host: Option<Host>,
    addresses: Addresses,
}

/// Where the node's own endpoints are, seen from its host.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// `/config_dump`, `/logging`, `/quitquitquit`.
    pub admin: SocketAddr,
    /// `/metrics`.
    pub stats: SocketAddr,
    /// `/healthz/ready`.
    pub readiness: SocketAddr,
}

impl Addresses {
    /// The fixed ports on one address.
    #[must_use]
    pub fn at(ip: Ipv4Addr) -> Self {
        let at = |port| SocketAddr::from((ip, port));
        Self {
            admin: at(15_000),
            stats: at(15_020),
            readiness: at(15_021),
        }
    }
}

impl Node {
    /// Starts `command` on `host` (or here) and waits until the node says it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start(
        name: &str,
        command: Command,
        host: Option<Host>,
        addresses: Addresses,
        dir: &Path,
    ) -> Self {
        let mut node = Self::launch(name, command, host, addresses, dir);
        let ready = clock::try_wait_for(START_LIMIT, || {
            assert!(node.process.ended().is_none(), "{name} ended at start");
            let answer = node.get(node.addresses.readiness, "/healthz/ready");
            answer.is_some_and(|a| a.status == 200).then_some(())
        });
        assert!(ready.is_some(), "{name} is not ready after {START_LIMIT:?}");
        node
    }

    /// Starts `command` without waiting, for nodes that are expected to fail.
    #[must_use]
    pub fn launch(
        name: &str,
        command: Command,
        host: Option<Host>,
        addresses: Addresses,
        dir: &Path,
    ) -> Self {
        Self {
            process: Process::start(name, command, dir),
            host,
            addresses,
        }
    }

    /// The process behind it.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// The process behind it, for waiting.
    pub const fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Scrapes the metrics.
    ///
    /// # Panics
    /// If the endpoint does not answer.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self
            .get(self.addresses.stats, "/metrics")
            .expect("metrics endpoint");
        assert_eq!(answer.status, 200, "metrics");
        Metrics::parse(&answer.body)
    }

    /// Asks the admin endpoint.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        let ask = || http::request(method, self.addresses.admin, path);
        self.here(ask).expect("admin endpoint")
    }

    /// Whether the readiness endpoint says 200.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.get(self.addresses.readiness, "/healthz/ready")
            .is_some_and(|a| a.status == 200)
    }

    /// Access-log lines so far.
    #[must_use]
    pub fn access_lines(&self) -> Vec<AccessLine> {
        access_log::parse(&self.process.output())
    }

    /// Waits for an access-log line with that message and those fields.
    ///
    /// # Panics
    /// If none appears.
    #[must_use]
    #[track_caller]
    pub fn wait_access_line(&self, message: &str, fields: &[(&str, &str)]) -> AccessLine {
        let what = format!("access line {message:?} with {fields:?}");
        clock::wait_for(&what, REPORT_LIMIT, || {
            self.access_lines()
                .into_iter()
                .find(|l| l.message == message && l.has(fields))
        })
    }

    /// Waits until a metric has exactly that value.
    ///
    /// # Panics
    /// If it does not come to it.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, labels: &[(&str, &str)], value: u32) {
        let mut last = f64::NAN;
        let reached = clock::try_wait_for(REPORT_LIMIT, || {
            last = self.metrics().sum(name, labels);
            ((last - f64::from(value)).abs() < 1e-9).then_some(())
        });
        assert!(
            reached.is_some(),
            "{name}{labels:?} is {last}, expected {value}"
        );
    }

    fn get(&self, to: SocketAddr, path: &str) -> Option<Answer> {
        self.here(|| http::request("GET", to, path)).ok()
    }

    fn here<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.host {
            Some(host) => host.enter(work),
            None => work(),
        }
    }
}
