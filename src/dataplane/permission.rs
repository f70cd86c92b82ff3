//! Stage 3 on a shard: asks the decision, and waits a moment for a policy that is on its way.

use super::notes;
use super::rt;
use super::shard::Shard;
use crate::decision::authorize::{ConnectionFacts, Denied, Permit, authorize};
use crate::telemetry::counters::Limit;

/// Authorizes, waiting a moment for a policy that is attached but not known yet (then: denied).
pub(crate) async fn permitted(shard: &Shard, facts: &ConnectionFacts) -> Result<Permit, Denied> {
    let settled = async {
        loop {
            let changed = shard.changed.next();
            let decision = authorize(facts, &shard.snapshot());
            match decision.verdict {
                Err(Denied::PolicyUnknown { .. }) => changed.await,
                Ok(_) | Err(Denied::Explicit { .. } | Denied::NoneAllowed) => return decision,
            }
        }
    };
    let wait = shard.config.timeouts.policy_wait;
    let decision = match rt::within(wait, settled).await {
        Some(settled) => settled,
        None => {
            shard.telemetry.counters().limit(Limit::PolicyWait).add(1);
            authorize(facts, &shard.snapshot())
        }
    };
    notes::report(shard, facts, &decision.notes);
    decision.verdict
}
