//! Runs the client of one measurement and reads the tunnel processes' usage around it.

use std::time::Duration;

use corelane_harness::process::Process;

use super::GIB;
use crate::apps::{self, ECHO_PORT, HTTP_PORT, IPERF_PORT, SOURCE_PORT};
use crate::error::{Error, Result};
use crate::peers::Running;
use crate::procfs::Usage;
use crate::results::Sample;
use crate::stop::Stop;
use crate::{iperf, tool, wrk};

/// How much longer than planned a client may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long many connections may take to open.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Connections that warm a node's own buffers up before its memory is read.
const WARM_UP: usize = 64;

/// One measurement.
pub(super) struct Measure<'a> {
    pub(super) running: &'a Running,
    pub(super) seconds: u64,
    pub(super) stop: &'a Stop,
}

/// Clients that hold connections; dropping it closes them.
#[derive(Debug)]
pub struct Held {
    _process: Option<Process>,
}

impl Held {
    pub(super) const fn nothing() -> Self {
        Self { _process: None }
    }
}

/// Opens idle connections.
pub(super) fn hold(running: &Running, count: usize, stop: &Stop) -> Result<Held> {
    open(running, "hold", ECHO_PORT, count, stop)
}

/// Opens connections whose reader stops.
pub(super) fn stall(running: &Running, count: usize, stop: &Stop) -> Result<Held> {
    open(running, "stall", SOURCE_PORT, count, stop)
}

fn open(running: &Running, what: &str, port: u16, count: usize, stop: &Stop) -> Result<Held> {
    let lab = &running.lab;
    let own = tool::own_program();
    let mut command = tool::client_command(&lab.client, &own.to_string_lossy());
    command.args(["app", what, "--to", &lab.at(port).to_string()]);
    command.args(["--count", &count.to_string()]);
    let mut process = tool::start(what, command, lab.dir());
    let ready = format!("{} {count}", apps::READY);
    tool::await_output(what, &mut process, &ready, OPEN_LIMIT, stop)?;
    Ok(Held {
        _process: Some(process),
    })
}

impl Measure<'_> {
    /// Runs a client and returns its output with what the tunnel processes used meanwhile.
    fn client(&self, program: &str, arguments: &[&str]) -> Result<(String, Usage, Usage)> {
        let lab = &self.running.lab;
        let mut command = tool::client_command(&lab.client, program);
        command.args(arguments);
        let before = self.running.usage()?;
        let process = tool::start("client", command, lab.dir());
        let limit = Duration::from_secs(self.seconds) + PATIENCE;
        let output = tool::finish(program, process, limit, self.stop)?;
        let after = self.running.usage()?;
        Ok((output, before, after))
    }

    /// One iperf3 transfer.
    pub(super) fn iperf(&self, options: &[&str]) -> Result<Sample> {
        let (host, port) = (
            self.running.lab.server.v4().to_string(),
            IPERF_PORT.to_string(),
        );
        let seconds = self.seconds.to_string();
        let mut arguments = vec![
            "--client", &host, "--port", &port, "--time", &seconds, "--json",
        ];
        arguments.extend(options);
        let (output, before, after) = self.client("iperf3", &arguments)?;
        let transfer = iperf::parse(&output)?;
        Ok(Sample {
            units: transfer.bytes / GIB,
            rate: transfer.bytes * 8.0 / 1e9 / transfer.seconds,
            ..self.used(before, after)
        })
    }

    /// One run of wrk.
    pub(super) fn wrk(&self, threads: u32, connections: u32, options: &[&str]) -> Result<Sample> {
        let url = format!("http://{}/", self.running.lab.at(HTTP_PORT));
        let (threads, connections) = (threads.to_string(), connections.to_string());
        let duration = format!("{}s", self.seconds);
        let mut arguments = vec![
            "--latency",
            "-t",
            &threads,
            "-c",
            &connections,
            "-d",
            &duration,
        ];
        arguments.extend(options);
        arguments.push(&url);
        let (output, before, after) = self.client("wrk", &arguments)?;
        let report = wrk::parse(&output)?;
        Ok(Sample {
            units: report.requests,
            rate: report.requests / report.seconds,
            p50_us: (report.requests > 0.0).then_some(report.p50_us),
            p99_us: (report.requests > 0.0).then_some(report.p99_us),
            failures: report.failures,
            ..self.used(before, after)
        })
    }

    /// 64 bytes back and forth.
    pub(super) fn ping_pong(&self) -> Result<Sample> {
        let (own, to) = (tool::own_program(), self.running.lab.at(ECHO_PORT));
        let (own, to) = (own.to_string_lossy(), to.to_string());
        let seconds = self.seconds.to_string();
        let arguments = ["app", "ping-pong", "--to", &to, "--seconds", &seconds];
        let (output, before, after) = self.client(&own, &arguments)?;
        let result: apps::PingPong =
            serde_json::from_str(output.trim()).map_err(|e| Error::Unreadable {
                what: "ping-pong".into(),
                why: e.to_string(),
            })?;
        Ok(Sample {
            units: result.round_trips,
            rate: result.round_trips / result.seconds,
            p50_us: Some(result.p50_us),
            p99_us: Some(result.p99_us),
            ..self.used(before, after)
        })
    }

    /// How much resident memory `count` idle connections take.
    pub(super) fn memory(&self, count: usize) -> Result<Sample> {
        drop(hold(self.running, WARM_UP, self.stop)?);
        let before = self.running.usage()?;
        let held = hold(self.running, count, self.stop)?;
        let after = self.running.usage()?;
        drop(held);
        let grown = (after - before).resident as f64;
        Ok(Sample {
            units: count as f64,
            rate: 0.0,
            bytes_per_connection: Some(grown / count as f64),
            ..self.used(before, after)
        })
    }

    fn used(&self, before: Usage, after: Usage) -> Sample {
        let used = after - before;
        Sample {
            cpu_user: used.user,
            cpu_system: used.system,
            resident: after.resident,
            nodes: self.running.node_count(),
            ..Sample::default()
        }
    }
}
