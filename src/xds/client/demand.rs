//! Look-ups that wait for the control plane. Each is answered: by it, or by its deadline.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::xds::resource::RESOURCE_NAME_BYTES_MAX;

/// How long a connection waits for a destination nobody told us about. A control plane that is
/// there answers within milliseconds, even when the answer is "no such thing".
pub const DEMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups that may wait at a time: more than a node opens connections in [`DEMAND_TIMEOUT`].
const DEMAND_WAITERS_MAX: usize = 10_000;
/// Keys that are kept to be asked for on the next stream.
const DEMAND_KEYS_OFFLINE_MAX: usize = 100;

/// Why a look-up cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DemandError {
    /// Empty, or too long for a name.
    #[error("no name a resource can have")]
    BadKey,
    /// The limit is reached.
    #[error("too many look-ups wait for the control plane")]
    TooMany,
    /// There is no control plane at the moment, and enough wait for it.
    #[error("the control plane is not connected")]
    Offline,
}

/// Waiting look-ups by key, and when each has waited long enough. Peers choose the keys, so the map
/// is one with a random hash.
#[derive(Debug)]
pub(super) struct Demand<W> {
    waiting: HashMap<Arc<str>, Vec<(u64, Instant, W)>>,
    deadlines: BTreeMap<(Instant, u64), Arc<str>>,
    waiters: u64,
}

impl<W> Default for Demand<W> {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            deadlines: BTreeMap::new(),
            waiters: 0,
        }
    }
}

impl<W> Demand<W> {
    /// Returns whether it is the first to wait for this key.
    pub(super) fn wait(
        &mut self,
        key: &str,
        waiter: W,
        now: Instant,
        online: bool,
    ) -> Result<bool, (W, DemandError)> {
        if key.is_empty() || key == "*" || key.len() > RESOURCE_NAME_BYTES_MAX {
            return Err((waiter, DemandError::BadKey));
        }
        if self.deadlines.len() >= DEMAND_WAITERS_MAX {
            return Err((waiter, DemandError::TooMany));
        }
        let first = !self.waiting.contains_key(key);
        if first && !online && self.waiting.len() >= DEMAND_KEYS_OFFLINE_MAX {
            return Err((waiter, DemandError::Offline));
        }
        let (key, id, deadline) = (Arc::<str>::from(key), self.waiters, now + DEMAND_TIMEOUT);
        self.waiters += 1;
        self.deadlines.insert((deadline, id), Arc::clone(&key));
        self.waiting
            .entry(key)
            .or_default()
            .push((id, deadline, waiter));
        Ok(first)
    }

    /// Moves those who wait for `name` to `answered`.
    pub(super) fn answer(&mut self, name: &str, answered: &mut Vec<W>) {
        for (id, deadline, waiter) in self.waiting.remove(name).into_iter().flatten() {
            self.deadlines.remove(&(deadline, id));
            answered.push(waiter);
        }
    }

    /// Keys somebody waits for.
    pub(super) fn keys(&self) -> Vec<String> {
        self.waiting.keys().map(|key| key.to_string()).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.keys().next().map(|(deadline, _)| *deadline)
    }

    pub(super) fn expire(&mut self, now: Instant) -> Vec<W> {
        let mut expired = Vec::new();
        while let Some(entry) = self.deadlines.first_entry()
            && entry.key().0 <= now
        {
            let ((_, id), key) = entry.remove_entry();
            let Some(waiters) = self.waiting.get_mut(&key) else {
                continue;
            };
            if let Some(position) = waiters.iter().position(|(other, ..)| *other == id) {
                expired.push(waiters.remove(position).2);
            }
            if waiters.is_empty() {
                self.waiting.remove(&key);
            }
        }
        expired
    }
}
