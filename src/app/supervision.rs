//! The node and the service manager that started it: readiness, reloads on SIGHUP, signs of life.
//!
//! Ready means that the sockets are bound and the shards run: connections wait in the listeners'
//! queues until the state is there, so whatever is started after the node may connect. What is still
//! waited for stands in the status line. A sign of life is given only while every shard answers.

use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::ending::FORCE_GRACE;
use super::shards::Watchdog;
use super::state::State;
use crate::config::Config;
use crate::config::supervisor::Supervisor;
use crate::control::readiness::Readiness;
use crate::control::supervisor::{Notifier, Report};

/// How often the status line is compared with what holds.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for files to be read again.
const RELOAD_MAX: Duration = Duration::from_secs(10);
/// Signs of life in the time after which the manager acts: one may be lost, or late.
const SIGNS: u32 = 3;

/// Asks the owner of the local state to read its file again, and waits until it has.
#[derive(Debug, Default)]
pub(crate) struct Reload {
    asked: Notify,
    done: Notify,
}

impl Reload {
    /// Waits until somebody asks. Dropping the future loses no question.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// What was asked for has been done, well or not.
    pub(crate) fn done(&self) {
        self.done.notify_one();
    }

    async fn run(&self) {
        self.asked.notify_one();
        if timeout(RELOAD_MAX, self.done.notified()).await.is_err() {
            tracing::warn!(target: "corelane::app", "the state file is still being read");
        }
    }
}

/// What is reported, and by what.
pub(super) struct Supervision {
    hangups: Signal,
    watchdog: Watchdog,
    readiness: Readiness,
    reload: Rc<Reload>,
    stopped: watch::Receiver<bool>,
    /// Time connections get to end.
    drain: Duration,
}

impl Supervision {
    /// Of a node that reads its state file again at each of `hangups` and ends when `stopped` is true.
    pub(super) fn new(
        hangups: Signal,
        watchdog: &Watchdog,
        readiness: &Readiness,
        state: &State,
        stopped: &watch::Receiver<bool>,
        config: &Config,
    ) -> Self {
        Self {
            hangups,
            watchdog: watchdog.clone(),
            readiness: readiness.clone(),
            reload: state.reload(),
            stopped: stopped.clone(),
            drain: config.timeouts.drain,
        }
    }

    /// Reports until the node stops. To be started once it accepts connections.
    pub(super) async fn keep(self) {
        let Supervisor { socket, watchdog } = Supervisor::of_process();
        let notifier = Notifier::new(socket.as_deref()).or_else(|error| {
            tracing::warn!(target: "corelane::app", %error, "NOTIFY_SOCKET is not usable");
            Notifier::new(None)
        });
        let Ok(notifier) = notifier else { return };
        self.report(&notifier, watchdog).await;
    }

    async fn report(self, notifier: &Notifier, watchdog: Option<Duration>) {
        let Self {
            mut hangups,
            watchdog: shards,
            readiness,
            reload,
            mut stopped,
            drain,
        } = self;
        notifier.send(&Report::Ready).await;
        let mut status = ticks(STATUS_INTERVAL);
        let sign_every = watchdog.map_or(Duration::MAX, |limit| limit / SIGNS);
        let mut signs = ticks(sign_every.clamp(Duration::from_millis(1), RELOAD_MAX));
        let mut shown = String::new();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                _ = hangups.recv() => read_again(&reload, notifier).await,
                _ = signs.tick(), if watchdog.is_some() => {
                    if shards.alive_within(sign_every).await {
                        notifier.send(&Report::Alive).await;
                    }
                }
                _ = status.tick(), if notifier.is_heard() => {
                    let line = status_line(&readiness.pending());
                    if line != shown {
                        notifier.send(&Report::Status(&line)).await;
                        shown = line;
                    }
                }
            }
        }
        notifier
            .send(&Report::Stopping(drain + 2 * FORCE_GRACE))
            .await;
        notifier.send(&Report::Status("draining")).await;
    }
}

async fn read_again(reload: &Reload, notifier: &Notifier) {
    tracing::info!(
        target: "corelane::app",
        "SIGHUP: the state file is read again; certificates and revocation lists are followed \
         without it, and a changed configuration needs a restart"
    );
    notifier.send(&Report::Reloading).await;
    reload.run().await;
    notifier.send(&Report::Ready).await;
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn status_line(pending: &[&str]) -> String {
    if pending.is_empty() {
        "serving".to_owned()
    } else {
        format!("waiting for: {}", pending.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::Ordering;

    use tokio::signal::unix::{SignalKind, signal};
    use tokio::task::LocalSet;

    use super::*;
    use crate::app::shards;

    /// A manager's socket, the notifier that reaches it, and what keeps them.
    fn listener() -> (tempfile::TempDir, tokio::net::UnixDatagram, Notifier) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UnixDatagram::from_std(socket).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        (dir, socket, notifier)
    }

    async fn next(socket: &tokio::net::UnixDatagram) -> String {
        let mut buffer = [0; 1_024];
        let length = socket.recv(&mut buffer).await.unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Waits for `wanted`; whatever else is reported meanwhile is returned.
    async fn until(socket: &tokio::net::UnixDatagram, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        let limit = Duration::from_secs(10);
        let found = timeout(limit, async {
            loop {
                let text = next(socket).await;
                if text == wanted {
                    return;
                }
                before.push(text);
            }
        });
        assert!(found.await.is_ok(), "no {wanted:?} in {before:?}");
        before
    }

    struct Story {
        supervision: Supervision,
        readiness: Readiness,
        stop: watch::Sender<bool>,
        shards: shards::testing::Watched,
    }

    fn story() -> Story {
        let (watchdog, shards) = shards::testing::watched(2);
        let readiness = Readiness::new(tokio::time::Instant::now());
        let (stop, stopped) = watch::channel(false);
        let supervision = Supervision {
            // A signal nobody sends: the tests of this crate share one process.
            hangups: signal(SignalKind::window_change()).unwrap(),
            watchdog,
            readiness: readiness.clone(),
            reload: Rc::default(),
            stopped,
            drain: Duration::from_secs(5),
        };
        Story {
            supervision,
            readiness,
            stop,
            shards,
        }
    }

    #[tokio::test]
    async fn a_node_is_ready_then_says_what_it_waits_for_and_that_it_stops() {
        let local = LocalSet::new();
        let (_dir, socket, notifier) = listener();
        let story = story();
        let task = story.readiness.task("state manager");
        let keep =
            local.spawn_local(async move { story.supervision.report(&notifier, None).await });
        local
            .run_until(async {
                assert_eq!(until(&socket, "READY=1\n").await, [""; 0]);
                until(&socket, "STATUS=waiting for: state manager\n").await;
                task.done(tokio::time::Instant::now());
                until(&socket, "STATUS=serving\n").await;
                story.stop.send(true).unwrap();
                until(&socket, "STOPPING=1\nEXTEND_TIMEOUT_USEC=9000000\n").await;
                until(&socket, "STATUS=draining\n").await;
                keep.await.unwrap();
            })
            .await;
    }

    #[tokio::test]
    async fn signs_of_life_are_given_while_every_shard_answers_and_no_longer() {
        let local = LocalSet::new();
        let (_dir, socket, notifier) = listener();
        let story = story();
        let limit = Some(Duration::from_millis(150));
        let shards = story.shards;
        for heartbeat in &shards.heartbeats {
            heartbeat.store(u64::MAX - 1, Ordering::Relaxed);
        }
        let _keep =
            local.spawn_local(async move { story.supervision.report(&notifier, limit).await });
        local
            .run_until(async {
                until(&socket, "WATCHDOG=1\n").await;
                until(&socket, "WATCHDOG=1\n").await;
                // One of the two falls silent; a sign that was under way may still come.
                shards.heartbeats[1].store(0, Ordering::Relaxed);
                let silence = async {
                    while timeout(Duration::from_millis(600), next(&socket))
                        .await
                        .is_ok()
                    {}
                };
                assert!(timeout(Duration::from_secs(5), silence).await.is_ok());
                shards.heartbeats[1].store(u64::MAX - 1, Ordering::Relaxed);
                until(&socket, "WATCHDOG=1\n").await;
            })
            .await;
    }

    #[tokio::test]
    async fn a_reload_is_over_when_the_file_was_read() {
        let local = LocalSet::new();
        let (_dir, socket, notifier) = listener();
        let reload = Rc::<Reload>::default();
        let asking = Rc::clone(&reload);
        let _reading = local.spawn_local(async move { read_again(&asking, &notifier).await });
        local
            .run_until(async {
                until(&socket, "RELOADING=1\n").await;
                reload.asked().await;
                let early = timeout(Duration::from_millis(50), next(&socket)).await;
                assert!(early.is_err(), "{early:?}");
                reload.done();
                assert_eq!(next(&socket).await, "READY=1\n");
            })
            .await;
    }
}
