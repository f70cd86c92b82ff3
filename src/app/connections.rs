//! Asks the shards which connections are open, for the dump.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::config::limits::CONNECTIONS_SHOWN_MAX;
use crate::dataplane::shard::{Message, OpenReport, ShardMailbox};
use crate::telemetry::open::OpenConnections;

/// Time the shards get together; what a busy one does not tell is not shown.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// The open connections of all shards. Waits for them: not to be called on the control thread.
#[expect(
    clippy::disallowed_methods,
    reason = "measures its own wait, beside the control thread"
)]
pub(super) fn open(shards: &[ShardMailbox]) -> OpenConnections {
    let (told, answers) = sync_channel(shards.len());
    let each = CONNECTIONS_SHOWN_MAX / shards.len().max(1);
    let asked = shards.iter().filter(|shard| {
        let told = told.clone();
        let report = OpenReport::new(each, move |open| {
            // Too late: nobody waits any more.
            let _ = told.try_send(open);
        });
        shard.send(Message::ListOpen(report)).is_ok()
    });
    let asked = asked.count();
    let deadline = Instant::now() + ANSWER_WAIT;
    let mut all = OpenConnections::default();
    for _ in 0..asked {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(open) = answers.recv_timeout(left) else {
            tracing::warn!(target: "corelane::app", "a shard is too busy to list its connections");
            break;
        };
        all.list.extend(open.list);
        all.left_out += open.left_out;
    }
    all
}
