//! One node: a real `corelane proxy` process, its log, and its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use super::error::DemoError;
use super::http;
use super::log::Line;
use super::place::Place;
use super::setup::Endpoints;
use super::watch::{Watch, now, pause};
use crate::sys;

/// Time from the start of a node to its readiness.
const READY_LIMIT: Duration = Duration::from_secs(8);
/// Time from SIGTERM to the end: the nodes' drain deadline and some.
const STOP_LIMIT: Duration = Duration::from_secs(7);
/// Time for a line that tells of an event to be in the log.
const LINE_LIMIT: Duration = Duration::from_secs(3);
/// Lines shown when something went wrong.
const LAST_LINES: usize = 15;
/// Bytes that surely hold those lines, however long they are.
const LAST_BYTES: u64 = 64 << 10;
/// A log longer than this is cut at its beginning before it is searched.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// How to start a node.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    /// What the story calls it.
    pub(super) name: &'static str,
    /// Network it runs in.
    pub(super) place: Place,
    /// The program, normally our own.
    pub(super) program: PathBuf,
    /// Arguments after `proxy`.
    pub(super) arguments: Vec<String>,
    /// The whole environment of the process.
    pub(super) environment: BTreeMap<&'static str, String>,
    /// Working directory: one without somebody else's `etc/istio`.
    pub(super) folder: PathBuf,
    /// Its log is written there.
    pub(super) log: PathBuf,
    /// Its HTTP endpoints.
    pub(super) endpoints: Endpoints,
}

/// A running node. Dropping it ends the process.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) plan: NodePlan,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Node {
    /// Starts the process and waits until it says that it is ready.
    pub(super) fn start(plan: NodePlan, watch: &Watch) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Io {
            what: format!("start {}", plan.name),
            source,
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(&plan.log)
            .map_err(failed)?;
        let mut command = plan.place.command(&plan.program);
        command
            .arg("proxy")
            .args(&plan.arguments)
            .current_dir(&plan.folder)
            .env_clear()
            .envs(&plan.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Ctrl-C goes to the demo alone, which then ends the nodes in order.
            .process_group(0);
        sys::process::release_child(&mut command);
        let child = command.spawn().map_err(failed)?;
        let mut node = Self {
            plan,
            child,
            ended: None,
        };
        let what = format!("readiness of {}", node.plan.name);
        watch.until(&what, READY_LIMIT, || {
            node.check_alive()?;
            Ok(node.is_ready(watch)?.then_some(()))
        })?;
        Ok(node)
    }

    /// Process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), DemoError> {
        let status = self
            .child
            .try_wait()
            .map_err(DemoError::io("ask for a node's state"))?;
        self.ended = status;
        match status {
            Some(status) => Err(DemoError::NodeEnded {
                node: self.plan.name,
                status,
            }),
            None => Ok(()),
        }
    }

    fn is_ready(&self, watch: &Watch) -> Result<bool, DemoError> {
        let Ok(stream) = self.plan.place.connect(self.plan.endpoints.readiness) else {
            return Ok(false);
        };
        match http::get(stream, "/healthz/ready", watch) {
            Ok((status, _)) => Ok(status == 200),
            Err(DemoError::Io { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The metrics page.
    pub(super) fn metrics(&self, watch: &Watch) -> Result<String, DemoError> {
        let (name, stats) = (self.plan.name, self.plan.endpoints.stats);
        let stream = self
            .plan
            .place
            .connect(stats)
            .map_err(DemoError::io(format!(
                "reach the metrics of {name} at {stats}"
            )))?;
        match http::get(stream, "/metrics", watch)? {
            (200, body) => Ok(String::from_utf8_lossy(&body).into_owned()),
            (status, _) => Err(DemoError::unexpected(
                format!("200 from {stats}/metrics"),
                status.to_string(),
            )),
        }
    }

    /// Waits for a log line; `what` says of which event it tells.
    pub(super) fn line(
        &self,
        what: &str,
        watch: &Watch,
        wanted: impl Fn(&Line) -> bool,
    ) -> Result<Line, DemoError> {
        let what = format!("a line about {what} in the log of {}", self.plan.name);
        watch.until(&what, LINE_LIMIT, || {
            let text = self.log().map_err(DemoError::io("read a node's log"))?;
            Ok(text
                .lines()
                .filter_map(Line::parse)
                .find(|line| wanted(line)))
        })
    }

    fn log(&self) -> io::Result<String> {
        read_end(&self.plan.log, LOG_BYTES_MAX)
    }

    /// Asks the process to end; [`Self::end`] waits for it.
    pub(super) fn ask_to_stop(&self) {
        if self.ended.is_none() {
            // It fails only when the process is ending already.
            let _ = sys::process::terminate(self.child.id());
        }
    }

    /// Ends the process in order.
    pub(super) fn end(&mut self, watch: &Watch) -> Result<(), DemoError> {
        self.ask_to_stop();
        let outcome = self.wait(Some(watch));
        let node = self.plan.name;
        match outcome {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(DemoError::NodeStop {
                node,
                outcome: format!("ended with {status}"),
            }),
            Ok(None) => {
                let outcome = format!("was still running after {STOP_LIMIT:?}, so it was killed");
                Err(DemoError::NodeStop { node, outcome })
            }
            Err(source) => Err(DemoError::Io {
                what: format!("wait for {node}"),
                source,
            }),
        }
    }

    /// Waits for the end, and enforces it when it does not come; then the result is `None`.
    fn wait(&mut self, watch: Option<&Watch>) -> io::Result<Option<ExitStatus>> {
        let began = now();
        while self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            let impatient = watch.is_some_and(Watch::interrupted_again);
            if self.ended.is_none() && (impatient || began.elapsed() > STOP_LIMIT) {
                self.child.kill()?;
                self.ended = Some(self.child.wait()?);
                return Ok(None);
            }
            pause(Duration::from_millis(5));
        }
        Ok(self.ended)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ask_to_stop();
        // Whoever drops a running node is already reporting a failure.
        let _ = self.wait(None);
    }
}

/// The last lines of a node's log, for explanations.
pub(super) fn last_lines(log: &Path) -> Vec<String> {
    let text = read_end(log, LAST_BYTES).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// The last `limit` bytes of a file.
fn read_end(path: &Path, limit: u64) -> io::Result<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
