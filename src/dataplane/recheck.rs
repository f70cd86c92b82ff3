//! Authorizes open connections again when the policies or a workload's policy list change.
//!
//! Runs beside the traffic in bounded slices. A connection that lost its permit is told to close
//! and not waited for, so one slow close delays nobody.

use std::rc::Rc;
use std::sync::Arc;

use super::rt;
use super::shard::Shard;
use super::table::Entry;
use crate::config::limits::RECHECK_CONNECTIONS_PER_TURN;
use crate::decision::authorize::{ConnectionFacts, Denied, authorize};
use crate::model::close::CloseReason;
use crate::snapshot::Snapshot;

/// Follows the snapshot until the last connection may have ended: while the shard drains, policies
/// still hold.
pub(crate) async fn run(shard: Rc<Shard>) {
    // The shard waits for its tasks; this one must not keep it from ending.
    rt::race(shard.only_recheck_left(), follow(&shard)).await;
}

async fn follow(shard: &Shard) {
    let mut checked = shard.snapshot().policy_generation();
    loop {
        let changed = shard.changed.next();
        let generation = shard.snapshot().policy_generation();
        if generation == checked {
            changed.await;
            continue;
        }
        checked = generation;
        walk(shard).await;
        shard.telemetry.counters().policy_rechecks.add(1);
    }
}

async fn walk(shard: &Shard) {
    let mut from = Some(0);
    while let Some(number) = from {
        // The newest for each slice: connections that arrive during the walk were authorized by it,
        // and an older one might close what it allowed.
        let snapshot = shard.snapshot();
        let (entries, next) = shard.table.slice(number, RECHECK_CONNECTIONS_PER_TURN);
        for entry in entries {
            recheck(shard, &entry, &snapshot);
        }
        from = next;
        if from.is_some() {
            rt::yield_now().await;
        }
    }
}

fn recheck(shard: &Shard, entry: &Entry, snapshot: &Snapshot) {
    let facts = refreshed(&entry.facts, snapshot);
    match authorize(&facts, snapshot).verdict {
        // A policy that is attached but still on its way decides when it arrives: that arrival is a
        // change of its own. Closing live traffic on it would be an outage.
        Ok(_) | Err(Denied::PolicyUnknown { .. }) => {}
        Err(denied @ (Denied::Explicit { .. } | Denied::NoneAllowed)) => {
            if !entry.close.is_given() {
                shard.telemetry.counters().policy_closed.add(1);
                let (source, port) = (facts.source_ip, facts.destination_port);
                let (destination, identity) = (facts.destination_ip, facts.identity.as_deref());
                tracing::info!(
                    target: "corelane::authorization", %source, %destination, port,
                    identity = identity.map(tracing::field::display),
                    "connection closed due to policy change: {denied}"
                );
            }
            entry
                .close
                .give(CloseReason::PolicyChange(denied.to_string()));
        }
    }
}

/// The facts with the destination workload as it is now; its policy list may have changed.
fn refreshed(facts: &ConnectionFacts, snapshot: &Snapshot) -> ConnectionFacts {
    let mut facts = facts.clone();
    if let Some(now) = snapshot.workload_by_uid(&facts.destination.uid) {
        facts.destination = Arc::clone(now);
    }
    facts
}
