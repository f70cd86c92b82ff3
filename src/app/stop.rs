//! The orderly stop: connections and queries end by themselves until a deadline, then by force
//! (spec: lifecycle.md 4).

use std::time::Duration;

use super::RunError;
use super::dns;
use super::shards::{ShardEvent, Shards, broadcast};
use super::signals::Signals;
use crate::dataplane::shard::Message;

/// Time shards get to end once everything was forced.
const FORCE_GRACE: Duration = Duration::from_secs(2);

/// Lets connections end until the deadline or a second signal, then ends them.
pub(super) async fn drain(
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
