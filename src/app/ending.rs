//! How a node ends: by a signal, in order; or because a shard is lost, at once (spec: lifecycle.md 4).

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::RunError;
use super::dns;
use super::shards::{ShardEvent, Shards, Watchdog, broadcast};
use super::signals::Signals;
use crate::config::Config;
use crate::config::limits::SHARD_STUCK_AFTER;
use crate::dataplane::shard::Message;

/// Time shards get to end once everything was forced.
pub(super) const FORCE_GRACE: Duration = Duration::from_secs(2);

/// What an end needs.
pub(super) struct Ending<'a> {
    /// `/quitquitquit`.
    pub(super) quit: &'a Notify,
    /// Finds shards that are stuck.
    pub(super) watchdog: Watchdog,
    /// Stops the endpoints for operators.
    pub(super) stop: watch::Sender<bool>,
    /// Time connections get to end.
    pub(super) deadline: Duration,
}

impl Ending<'_> {
    /// Waits for the end, and ends. `beside` runs until the last connection has ended; it ends by
    /// itself only with an error, and then the node ends at once.
    pub(super) async fn await_it(
        self,
        shards: &mut Shards,
        names: &mut dns::Serving,
        signals: &mut Signals,
        beside: impl Future<Output = RunError>,
    ) -> Result<(), RunError> {
        let mut beside = pin!(beside);
        let ended = tokio::select! {
            reason = signals.first(self.quit) => {
                tracing::info!(target: "corelane::app", reason, "shutdown requested, draining");
                Ok(())
            }
            event = shards.event() => Err(died(event)),
            index = self.watchdog.stuck() => {
                Err(RunError::ShardStuck { index, for_at_least: SHARD_STUCK_AFTER })
            }
            error = &mut beside => Err(error),
        };
        let _ = self.stop.send(true);
        ended?;
        tokio::select! {
            drained = drain(shards, names, signals, self.deadline) => drained,
            error = &mut beside => Err(error),
        }
    }
}

fn died(event: Option<ShardEvent>) -> RunError {
    match event {
        Some(ShardEvent::Ended { index, result }) => RunError::ShardDied {
            index,
            why: result
                .err()
                .unwrap_or_else(|| "ended without being asked to".to_owned()),
        },
        Some(ShardEvent::Started { index, .. }) => RunError::ShardDied {
            index,
            why: "started twice".to_owned(),
        },
        None => RunError::ShardDied {
            index: 0,
            why: "all shards are gone".to_owned(),
        },
    }
}

/// Lets connections end until the deadline or a second signal, then ends them.
async fn drain(
    shards: &mut Shards,
    names: &mut dns::Serving,
    signals: &mut Signals,
    deadline: Duration,
) -> Result<(), RunError> {
    let mailboxes = shards.mailboxes();
    broadcast(&mailboxes, || Message::Drain);
    let forced = tokio::select! {
        result = all_answered(shards, names) => return result,
        () = tokio::time::sleep(deadline) => "the deadline passed",
        reason = signals.next() => reason,
    };
    tracing::warn!(target: "corelane::app", reason = forced, "ending the connections still open");
    broadcast(&mailboxes, || Message::Force);
    match tokio::time::timeout(FORCE_GRACE, all_ended(shards)).await {
        Ok(result) => result,
        Err(_) => Err(RunError::ShardStuck {
            index: 0,
            for_at_least: FORCE_GRACE,
        }),
    }
}

/// The last connection has ended, and the last name been told.
async fn all_answered(shards: &mut Shards, names: &mut dns::Serving) -> Result<(), RunError> {
    let ended = all_ended(shards).await;
    names.ended().await;
    ended
}

async fn all_ended(shards: &mut Shards) -> Result<(), RunError> {
    while !shards.all_ended() {
        match shards.event().await {
            Some(ShardEvent::Ended {
                index,
                result: Err(why),
            }) => {
                return Err(RunError::ShardDied { index, why });
            }
            Some(ShardEvent::Ended { .. } | ShardEvent::Started { .. }) => {}
            None => break,
        }
    }
    Ok(())
}

/// One line for each part of the data plane that has ended.
pub(super) fn log_stopped(config: &Config) {
    let listeners = &config.listeners;
    for (component, ran) in [
        ("inbound", listeners.inbound.is_some()),
        ("inbound plaintext", listeners.inbound_plaintext.is_some()),
        ("outbound", listeners.outbound.is_some()),
        ("socks5", listeners.socks5.is_some()),
        ("dns proxy", !listeners.dns.is_empty()),
    ] {
        if ran {
            tracing::info!(target: "corelane::app", component, "shutdown complete");
        }
    }
}
