//! The shard threads: started pinned, watched, told of changes, and awaited.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::limits::SHARD_STUCK_AFTER;
use crate::dataplane::rt::DriverReport;
use crate::dataplane::shard::{self, Message, Plan, ShardMailbox};
use crate::sys::affinity;

/// What a shard thread reports.
#[derive(Debug)]
pub enum ShardEvent {
    /// Its driver runs.
    Started {
        /// Number of the shard.
        index: usize,
        /// The driver.
        driver: DriverReport,
    },
    /// It ended: drained, failed, or panicked.
    Ended {
        /// Number of the shard.
        index: usize,
        /// `Err` for anything but a drain.
        result: Result<(), String>,
    },
}

/// All shards of the process.
#[derive(Debug)]
pub struct Shards {
    handles: Vec<Handle>,
    events: UnboundedReceiver<ShardEvent>,
    ended: usize,
}

#[derive(Debug)]
struct Handle {
    mailbox: ShardMailbox,
    heartbeat: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Everything of a [`Plan`] but the parts [`Shards::start`] makes.
pub struct Seed {
    /// The plan, complete.
    pub plan: Plan,
    /// Sends to the plan's inbox.
    pub mailbox: ShardMailbox,
    /// CPU to run on.
    pub cpu: Option<usize>,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("index", &self.plan.index)
            .field("cpu", &self.cpu)
            .finish()
    }
}

impl Shards {
    /// Starts a thread for each seed.
    ///
    /// # Errors
    /// When a thread cannot be made; those already started end with the process.
    pub fn start(seeds: Vec<Seed>) -> io::Result<Self> {
        let (sender, events) = unbounded_channel();
        let mut handles = Vec::with_capacity(seeds.len());
        for Seed { plan, mailbox, cpu } in seeds {
            let heartbeat = Arc::clone(&plan.heartbeat);
            let sender = sender.clone();
            let thread = std::thread::Builder::new()
                .name(format!("shard-{}", plan.index))
                .spawn(move || run(plan, cpu, &sender))?;
            handles.push(Handle {
                mailbox,
                heartbeat,
                thread: Some(thread),
            });
        }
        Ok(Self {
            handles,
            events,
            ended: 0,
        })
    }

    /// Next report of any shard; `None` when all have ended.
    pub async fn event(&mut self) -> Option<ShardEvent> {
        let event = self.events.recv().await?;
        if let ShardEvent::Ended { index, .. } = &event {
            self.ended += 1;
            if let Some(thread) = self.handles[*index].thread.take() {
                let _ = thread.join();
            }
        }
        Some(event)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.handles.len()
    }

    /// Whether every shard has ended.
    #[must_use]
    pub const fn all_ended(&self) -> bool {
        self.ended == self.handles.len()
    }

    /// Mailboxes of all shards, for whoever publishes.
    #[must_use]
    pub fn mailboxes(&self) -> Vec<ShardMailbox> {
        self.handles
            .iter()
            .map(|handle| handle.mailbox.clone())
            .collect()
    }

    /// A watchdog over all shards; make one and clone it.
    #[must_use]
    pub fn watchdog(&self) -> Watchdog {
        let watched = self
            .handles
            .iter()
            .map(|h| (h.mailbox.clone(), Arc::clone(&h.heartbeat)))
            .collect();
        Watchdog {
            watched,
            last: Arc::default(),
        }
    }
}

/// Delivers one message to each shard; a shard that has ended needs none.
pub fn broadcast(mailboxes: &[ShardMailbox], message: impl Fn() -> Message) {
    for mailbox in mailboxes {
        let _ended = mailbox.send(message());
    }
}

fn run(plan: Plan, cpu: Option<usize>, events: &UnboundedSender<ShardEvent>) {
    let index = plan.index;
    if let Some(cpu) = cpu
        && !affinity::pin_current_thread(cpu)
    {
        tracing::warn!(target: "corelane::shard", index, cpu, "cannot pin the shard to its CPU");
    }
    let started = |driver: &DriverReport| {
        let driver = driver.clone();
        let _ = events.send(ShardEvent::Started { index, driver });
    };
    // A panic that escapes every task has left the shard's state unknown: the process must end.
    let run = std::panic::AssertUnwindSafe(|| shard::run(plan, started));
    let result = match std::panic::catch_unwind(run) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("panicked".to_owned()),
    };
    let _ = events.send(ShardEvent::Ended { index, result });
}

/// Finds shards that no longer turn their loop.
#[derive(Clone, Debug)]
pub struct Watchdog {
    watched: Vec<(ShardMailbox, Arc<AtomicU64>)>,
    last: Arc<AtomicU64>,
}

impl Watchdog {
    /// Asks every shard for a sign of life; true when all answer within `limit`.
    pub async fn alive_within(&self, limit: Duration) -> bool {
        self.stuck_after(limit).await.is_none()
    }

    /// Pings all shards once and waits for their answers; names the first that stays silent.
    async fn stuck_after(&self, limit: Duration) -> Option<usize> {
        // Pings may overlap (watchdog and readiness): a later answer answers the earlier ping too.
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        for (mailbox, _) in &self.watched {
            let _ended = mailbox.send(Message::Ping(number));
        }
        let mut pause = Duration::from_millis(1);
        // Counted in waits, not read from a clock: when the whole machine was paused or starved, this
        // thread was too, and the shards get their time after all.
        let mut waited = Duration::ZERO;
        loop {
            let silent = self
                .watched
                .iter()
                .position(|(_, heartbeat)| heartbeat.load(Ordering::Relaxed) < number);
            if silent.is_none() || waited >= limit {
                return silent;
            }
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether a shard has answered a recent ping.
    #[must_use]
    pub fn answered_last(&self, index: usize) -> bool {
        let newest = self.last.load(Ordering::Relaxed);
        // The newest ping may be under way.
        self.watched
            .get(index)
            .is_some_and(|(_, heartbeat)| heartbeat.load(Ordering::Relaxed) + 1 >= newest)
    }

    /// Watches for ever; returns the number of a shard that was silent for too long.
    pub async fn stuck(&self) -> usize {
        loop {
            if let Some(index) = self.stuck_after(SHARD_STUCK_AFTER).await {
                return index;
            }
            tokio::time::sleep(SHARD_STUCK_AFTER / 4).await;
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::dataplane::rt;

    /// Shards that do nothing, and answer pings by their heartbeats being set.
    pub(crate) struct Watched {
        pub(crate) heartbeats: Vec<Arc<AtomicU64>>,
        _inboxes: Vec<rt::Inbox<Message>>,
    }

    pub(crate) fn watched(shards: usize) -> (Watchdog, Watched) {
        let (mailboxes, inboxes): (Vec<_>, _) = (0..shards).map(|_| rt::mailbox().unwrap()).unzip();
        let heartbeats: Vec<Arc<AtomicU64>> = (0..shards).map(|_| Arc::default()).collect();
        let watchdog = Watchdog {
            watched: mailboxes.into_iter().zip(heartbeats.clone()).collect(),
            last: Arc::default(),
        };
        let watched = Watched {
            heartbeats,
            _inboxes: inboxes,
        };
        (watchdog, watched)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Watched, watched};
    use super::*;
    use crate::dataplane::rt;

    fn watchdog(shards: usize) -> (Watchdog, Watched) {
        watched(shards)
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn the_shard_that_stays_silent_is_named() {
        let (watchdog, _inboxes) = watchdog(3);
        for answering in [0, 2] {
            watchdog.watched[answering].1.store(1, Ordering::Relaxed);
        }
        let stuck = block_on(watchdog.stuck_after(Duration::from_millis(20)));
        assert_eq!(stuck, Some(1));
    }

    #[test]
    fn shards_that_answer_are_alive_without_a_wait() {
        let (watchdog, _inboxes) = watchdog(2);
        for (_, heartbeat) in &watchdog.watched {
            heartbeat.store(1, Ordering::Relaxed);
        }
        let never = Duration::from_secs(u64::from(u32::MAX));
        assert!(block_on(watchdog.alive_within(never)));
    }

    #[test]
    fn a_pause_of_the_whole_machine_is_not_taken_for_a_stuck_shard() {
        let (watchdog, _inboxes) = watchdog(1);
        let limit = Duration::from_millis(300);
        let alive = block_on(async {
            // Stops this thread, and with it the watchdog's waits, for longer than the limit.
            let paused = async {
                tokio::task::yield_now().await;
                let since = rt::now();
                while rt::now() - since < 2 * limit {
                    std::hint::spin_loop();
                }
                watchdog.watched[0].1.store(1, Ordering::Relaxed);
            };
            tokio::join!(watchdog.alive_within(limit), paused).0
        });
        assert!(alive, "the shard answers as soon as it can");
    }
}
