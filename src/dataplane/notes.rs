//! Counts and logs what an authorization saw: policies that matched, and dry-run ones that would.

use super::shard::Shard;
use crate::decision::authorize::{ConnectionFacts, Note};

/// Reports one decision's notes. Level debug, or info when the operator asked for it.
pub(crate) fn report(shard: &Shard, facts: &ConnectionFacts, notes: &[Note]) {
    let counters = shard.telemetry.counters();
    for note in notes {
        match note.text {
            "dry-run: deny policy match" => counters.policy_dry_run_deny.add(1),
            "dry-run: allow policy match" => counters.policy_dry_run_allow_match.add(1),
            _ => {}
        }
        let policy = note.policy.as_ref().map(|policy| policy.key());
        let policy = policy.as_deref();
        let (source, destination) = (facts.source_ip, facts.destination_ip);
        if shard.config.authz_info_logging {
            tracing::info!(
                target: "corelane::authorization", policy, %source, %destination, "{}", note.text
            );
        } else {
            tracing::debug!(
                target: "corelane::authorization", policy, %source, %destination, "{}", note.text
            );
        }
    }
}
