//! The node's agent: workloads that come and go, each with its network namespace (spec: zds.md).
//!
//! [`session`] holds the rules and does no I/O, `message` turns packets into requests, [`run`]
//! drives both over the agent's socket. Who starts and stops what a workload needs is the caller's:
//! [`Host`].

mod connection;
mod message;
pub mod session;
pub mod view;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::readiness::{Readiness, Task};
use crate::sys::netns::{self, Namespace};
use connection::{Connection, Received};
use message::Ack;
use session::{Failure, Host, Session};
use view::View;

/// Name of the readiness task.
pub const TASK: &str = "workload proxy manager";

/// Time between attempts to start what failed to start.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Time the remains of a workload get before the agent is answered.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// First wait after a connect that failed.
const CONNECT_WAIT_MIN: Duration = Duration::from_millis(20);
/// First wait after a connection that brought nothing, before the node was ever ready.
const BARREN_WAIT: Duration = Duration::from_millis(500);
/// The same once it has been ready.
const BARREN_WAIT_READY: Duration = Duration::from_millis(5);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// The agent broke the rules in a way that leaves unknown which workloads there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node agent broke the protocol: {0}")]
pub struct ProtocolError(String);

/// What [`run`] needs.
#[derive(Debug)]
pub struct Options {
    /// Where the agent listens.
    pub socket: PathBuf,
    /// The way out of workloads' namespaces.
    pub home: netns::Home,
    /// Turns true when the node drains: no request is read any more.
    pub stop: watch::Receiver<bool>,
    /// Complete while this node has everything the agent knows.
    pub readiness: Readiness,
    /// What operators see.
    pub view: View,
}

/// Talks to the agent until the node drains; an agent that goes away is looked for again.
///
/// # Errors
/// [`ProtocolError`]: the process must end.
pub async fn run(
    mut options: Options,
    host: impl Host<Namespace = Namespace>,
) -> Result<(), ProtocolError> {
    let mut stop = options.stop.clone();
    let mut agent = Agent {
        session: Session::new(host),
        armed: Armed::new(options.readiness.clone()),
        view: std::mem::take(&mut options.view),
        retry_at: None,
        told: session::Counts::default(),
    };
    agent.show();
    let talk = agent.talk(&options);
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        ended = talk => return ended,
    }
    agent.armed.pending();
    Ok(())
}

/// How a connection to the agent ended.
enum End {
    /// Before the agent said anything.
    Barren,
    /// Later.
    Closed,
}

/// The session with what surrounds it.
struct Agent<H: Host> {
    session: Session<H>,
    armed: Armed,
    view: View,
    retry_at: Option<Instant>,
    /// Counted by the metrics already.
    told: session::Counts,
}

impl<H: Host<Namespace = Namespace>> Agent<H> {
    async fn talk(&mut self, options: &Options) -> Result<(), ProtocolError> {
        let mut barren = 0;
        loop {
            let connection = connect(options).await;
            self.session.connected();
            self.retry_at = None;
            self.show();
            tracing::info!(target: "corelane::zds", "connected to the node agent");
            let end = self.converse(connection, options).await;
            self.armed.pending();
            match end? {
                End::Closed => {
                    barren = 0;
                    tracing::info!(target: "corelane::zds", "the node agent closed; connecting again");
                }
                End::Barren => {
                    let wait = barren_wait(self.armed.was_ready, barren, fastrand::f64());
                    barren = barren.saturating_add(1);
                    tracing::warn!(
                        target: "corelane::zds", ?wait,
                        "announce error: the node agent closed before it said anything"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// One connection, from the hello to its end.
    async fn converse(
        &mut self,
        connection: Connection,
        options: &Options,
    ) -> Result<End, ProtocolError> {
        if let Err(error) = connection.send(&message::hello()).await {
            tracing::warn!(target: "corelane::zds", %error, "cannot announce this node to its agent");
            return Ok(End::Barren);
        }
        let mut end = End::Barren;
        loop {
            // Nothing of a packet is lost when the timer wins: it is taken in one call.
            let received = tokio::select! {
                biased;
                () = due(self.retry_at) => {
                    self.retry();
                    continue;
                }
                received = connection.receive(&options.home) => received,
            };
            let (ack, goes_on) = match received {
                Received::Closed => return Ok(end),
                Received::Failed(error) => {
                    tracing::warn!(target: "corelane::zds", %error, "the node agent's socket failed");
                    return Ok(end);
                }
                Received::Unreadable(error) => {
                    tracing::warn!(target: "corelane::zds", %error, "failed to read message");
                    (Ack::Unreadable(error), false)
                }
                Received::Request(request) => match self.session.handle(request) {
                    Ok(()) => {
                        self.armed.set(self.session.is_ready());
                        (Ack::Success, true)
                    }
                    Err(Failure::Start(error)) => {
                        tracing::warn!(
                            target: "corelane::zds", %error,
                            "failed to start a workload's listeners; trying again every \
                             {RETRY_INTERVAL:?}"
                        );
                        (Ack::NotStarted(error), true)
                    }
                    Err(Failure::Protocol(why)) => {
                        let error = ProtocolError(why.to_owned());
                        // Whether it arrives makes no difference: we end.
                        let _ = connection.send(&Ack::Protocol(why).encode()).await;
                        return Err(error);
                    }
                },
            };
            end = End::Closed;
            // The agent may add a workload again as soon as we answer: its ports must be free then.
            let settled = tokio::time::timeout(SETTLE_MAX, self.session.settled());
            if settled.await.is_err() {
                tracing::warn!(target: "corelane::zds", "a workload that has gone is not cleared yet");
            }
            self.arm_retry();
            self.show();
            if connection.send(&ack.encode()).await.is_err() || !goes_on {
                return Ok(end);
            }
        }
    }

    fn retry(&mut self) {
        self.session.retry();
        self.retry_at = None;
        self.arm_retry();
        self.show();
        self.armed.set(self.session.is_ready());
    }

    /// One timer for all; started by the first failure, stopped with the last.
    fn arm_retry(&mut self) {
        if !self.session.has_pending() {
            self.retry_at = None;
        } else if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + RETRY_INTERVAL);
        }
    }

    /// Tells operators how things stand.
    fn show(&mut self) {
        let counts = self.session.counts();
        metrics::gauge!("workload_manager_active_proxy_count").set(number(counts.active));
        metrics::gauge!("workload_manager_pending_proxy_count").set(number(counts.pending));
        metrics::counter!("workload_manager_proxies_started")
            .increment(counts.started - self.told.started);
        metrics::counter!("workload_manager_proxies_stopped")
            .increment(counts.stopped - self.told.stopped);
        self.told = counts;
        self.view.publish(self.session.shown());
    }
}

/// A count as a gauge shows it: exact below 2^32 workloads.
fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Tries for ever.
async fn connect(options: &Options) -> Connection {
    let mut wait = CONNECT_WAIT_MIN;
    loop {
        match Connection::open(&options.socket) {
            Ok(connection) => return connection,
            Err(error) => {
                let socket = options.socket.display();
                if wait == CONNECT_WAIT_MIN {
                    tracing::warn!(target: "corelane::zds", %socket, %error, "cannot reach the node agent");
                } else {
                    tracing::debug!(target: "corelane::zds", %socket, %error, ?wait, "cannot reach the node agent");
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Wait after the `failures`-th connection in a row (from 0) that brought nothing; `random` in 0..1
/// spreads it by a fifth to either side.
fn barren_wait(was_ready: bool, failures: u32, random: f64) -> Duration {
    let first = if was_ready {
        BARREN_WAIT_READY
    } else {
        BARREN_WAIT
    };
    let wait = first.saturating_mul(2_u32.saturating_pow(failures));
    wait.min(WAIT_MAX).mul_f64(0.8 + 0.4 * random)
}

/// The readiness task, armed and completed over and over.
struct Armed {
    readiness: Readiness,
    task: Option<Task>,
    was_ready: bool,
}

impl Armed {
    fn new(readiness: Readiness) -> Self {
        let task = Some(readiness.task(TASK));
        Self {
            readiness,
            task,
            was_ready: false,
        }
    }

    fn set(&mut self, ready: bool) {
        if !ready {
            return self.pending();
        }
        self.was_ready = true;
        if let Some(task) = self.task.take() {
            task.done(Instant::now());
        }
    }

    fn pending(&mut self) {
        if self.task.is_none() {
            self.task = Some(self.readiness.task(TASK));
        }
    }
}

#[cfg(test)]
mod tests;
