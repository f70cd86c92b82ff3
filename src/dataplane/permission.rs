//! Stage 3 on a shard: asks the decision, and waits a moment for a policy that is on its way.

use super::notes;
use super::rt;
use super::shard::Shard;
use crate::decision::authorize::{ConnectionFacts, Denied, Permit, authorize};
use crate::telemetry::counters::Limit;

/// Authorizes, waiting a moment for a policy that is attached but not known yet (then: denied).
pub(crate) async fn permitted(shard: &Shard, facts: &ConnectionFacts) -> Result<Permit, Denied> {
    let wait = shard.config.timeouts.policy_wait;
    let decide = || {
        let decision = authorize(facts, &shard.snapshot());
        notes::report(shard, facts, &decision.notes);
        decision.verdict
    };
    let first = match decide() {
        Err(denied @ Denied::PolicyUnknown { .. }) => denied,
        verdict => return verdict,
    };
    let later = async {
        loop {
            let changed = shard.changed.next();
            match decide() {
                Err(Denied::PolicyUnknown { .. }) => changed.await,
                verdict => return verdict,
            }
        }
    };
    match rt::within(wait, later).await {
        Some(verdict) => verdict,
        None => {
            shard.telemetry.counters().limit(Limit::PolicyWait).add(1);
            Err(first)
        }
    }
}
