//! Keeps a certificate for every identity this node needs, over one trait for where they come from.
//!
//! In: the set of identities needed, a [`Provider`]. Out: a published [`CredentialStore`]. What is
//! held is replaced only by something at least as good: a failed fetch, unusable material or a
//! certificate out of its time leaves a valid one in place, and the log says so. A certificate that
//! has expired is still presented: peers judge it, and their alert tells more than a missing one.
//!
//! At most [`FETCHES_MAX`] fetches run at once, one per identity; failures are tried again with
//! growing pauses (spec ca.md 3.2).

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::model::identity::Identity;
use crate::snapshot::exchange::Publisher;
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialStore, Credentials, Material};
use crate::tls::revocation::RevocationList;

mod entry;
pub mod files;
pub mod istio_ca;
mod queue;
mod schedule;
#[cfg(test)]
mod tests;

use entry::{Entry, Outcome};
use queue::{Priority, Queue};
pub use schedule::half_life_delay;
pub(crate) use schedule::rfc3339;

/// Fetches under way at once (spec ca.md 3).
pub const FETCHES_MAX: usize = 8;
/// Shortest time between a good fetch and the next one nobody announced.
const FETCH_AGAIN_MIN: Duration = Duration::from_secs(1);
/// Longest sleep of the renewal: the wall clock may jump, so no alarm waits longer than this.
const NAP_MAX: Duration = Duration::from_mins(1);

/// What a provider delivers.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Key, chain and roots.
    pub material: Material,
    /// What an operator should know about where it came from.
    pub warnings: Vec<String>,
}

/// Material could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// From an identity directory.
    #[error(transparent)]
    Files(#[from] files::FilesError),
    /// From a certificate authority.
    #[error(transparent)]
    Authority(Box<istio_ca::CaError>),
}

impl From<istio_ca::CaError> for FetchError {
    fn from(error: istio_ca::CaError) -> Self {
        Self::Authority(Box::new(error))
    }
}

/// A fetch under way. Dropping it gives the fetch up.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + 'a>>;
/// Completes with identities whose material may have changed. Dropping it loses no change.
pub type Changes<'a> = Pin<Box<dyn Future<Output = Vec<Identity>> + 'a>>;

/// A source of certificates. Used on the control thread alone.
pub trait Provider {
    /// Gets material for `identity`. `held` is what is in use now.
    fn fetch<'a>(&'a self, identity: &'a Identity, held: Option<Arc<Credentials>>) -> Fetch<'a>;

    /// Waits until material of identities fetched before may have changed.
    fn changes(&self) -> Changes<'_>;

    /// When to fetch again although nothing was announced, from `now`.
    fn fetch_again_after(&self, credentials: &Credentials, now: SystemTime) -> Duration;

    /// Forgets `identity`: its changes are of no interest any more.
    fn forget(&self, identity: &Identity);
}

/// A fetch under way, and whose.
struct Running {
    identity: Identity,
    fetch: Pin<Box<dyn Future<Output = Result<Fetched, FetchError>>>>,
}

/// Keeps the certificates of all needed identities and publishes them.
pub struct Renewal {
    provider: Rc<dyn Provider>,
    publisher: Publisher<CredentialStore>,
    published: Box<dyn Fn()>,
    options: TlsOptions,
    revocations: Option<RevocationList>,
    clock: Box<dyn Fn() -> SystemTime>,
    entries: BTreeMap<Identity, Entry>,
    queue: Queue,
    fetches_max: usize,
    running: Vec<Running>,
    random: fastrand::Rng,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal")
            .field("identities", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Renewal {
    /// A renewal that publishes into `publisher` and calls `published` afterwards, so that the
    /// shards can be told.
    pub fn new(
        provider: Rc<dyn Provider>,
        publisher: Publisher<CredentialStore>,
        options: TlsOptions,
        clock: impl Fn() -> SystemTime + 'static,
        published: impl Fn() + 'static,
    ) -> Self {
        Self {
            provider,
            publisher,
            published: Box::new(published),
            options,
            revocations: None,
            clock: Box::new(clock),
            entries: BTreeMap::new(),
            queue: Queue::default(),
            fetches_max: FETCHES_MAX,
            running: Vec::new(),
            random: fastrand::Rng::new(),
        }
    }

    /// The same, with peers checked against `revocations`, too.
    #[must_use]
    pub fn enforcing(mut self, revocations: Option<RevocationList>) -> Self {
        self.revocations = revocations;
        self
    }

    /// Runs until the sender of `needed` is gone. Each value is the whole set of identities needed.
    /// `waited_for` brings identities that a handshake waits for: they come first.
    ///
    /// Dropping the future gives fetches under way up; what was published stays.
    pub async fn run(
        mut self,
        mut needed: watch::Receiver<Arc<BTreeSet<Identity>>>,
        mut waited_for: mpsc::Receiver<Identity>,
    ) {
        let provider = Rc::clone(&self.provider);
        let mut changes = provider.changes();
        let first = Arc::clone(&needed.borrow_and_update());
        self.need(&first);
        loop {
            self.start_fetches();
            let nap = self.tend();
            tokio::select! {
                more = needed.changed() => {
                    if more.is_err() {
                        return;
                    }
                    let set = Arc::clone(&needed.borrow_and_update());
                    self.need(&set);
                }
                changed = &mut changes => {
                    let now = (self.clock)();
                    for identity in changed {
                        self.queue.push(&identity, Priority::Background, now);
                    }
                    changes = provider.changes();
                }
                (identity, fetched) = poll_fn(|cx| poll_any(&mut self.running, cx)) => {
                    self.take(&identity, fetched);
                }
                Some(identity) = waited_for.recv() => self.hasten(&identity),
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// Starts on new identities and forgets those no longer needed.
    fn need(&mut self, needed: &BTreeSet<Identity>) {
        let gone: Vec<Identity> = self
            .entries
            .keys()
            .filter(|identity| !needed.contains(*identity))
            .cloned()
            .collect();
        for identity in &gone {
            self.entries.remove(identity);
            self.queue.remove(identity);
            self.running.retain(|running| running.identity != *identity);
            self.provider.forget(identity);
        }
        let before = self.entries.len();
        let now = (self.clock)();
        for identity in needed {
            if !self.entries.contains_key(identity) {
                self.entries.insert(identity.clone(), Entry::default());
                self.queue.push(identity, Priority::Warmup, now);
            }
        }
        if !gone.is_empty() || self.entries.len() > before {
            self.publish();
        }
    }

    /// A handshake waits for this identity. What is there, or failed and is tried again by its own
    /// schedule, is not hastened (spec ca.md 3).
    fn hasten(&mut self, identity: &Identity) {
        let now = (self.clock)();
        match self.entries.get(identity) {
            Some(entry) if entry.is_coming() && !entry.fetching => {
                self.queue.push(identity, Priority::RealTime, now);
            }
            Some(_) => {}
            None => {
                self.entries.insert(identity.clone(), Entry::default());
                self.queue.push(identity, Priority::RealTime, now);
                self.publish();
            }
        }
    }

    fn start_fetches(&mut self) {
        while self.running.len() < self.fetches_max {
            // One fetch per identity: a change announced meanwhile waits for the end of it.
            let entries = &self.entries;
            let may_start =
                |identity: &Identity| entries.get(identity).is_none_or(|entry| !entry.fetching);
            let Some(identity) = self.queue.pop(may_start) else {
                return;
            };
            let Some(entry) = self.entries.get_mut(&identity) else {
                continue;
            };
            entry.fetching = true;
            let held = entry.held().cloned();
            let (provider, whose) = (Rc::clone(&self.provider), identity.clone());
            let fetch = Box::pin(async move { provider.fetch(&whose, held).await });
            self.running.push(Running { identity, fetch });
        }
    }

    /// Takes the result of a fetch.
    fn take(&mut self, identity: &Identity, fetched: Result<Fetched, FetchError>) {
        let now = (self.clock)();
        let Some(entry) = self.entries.get_mut(identity) else {
            return;
        };
        entry.fetching = false;
        let outcome = match fetched {
            Ok(fetched) => {
                let checks = (self.options, self.revocations.as_ref());
                entry.offer(identity, &fetched, checks, now)
            }
            Err(error) => entry.fail(error.to_string(), now),
        };
        report(identity, entry, &outcome);
        let pause = match (entry.held(), &outcome) {
            (Some(held), Outcome::Replaced { .. } | Outcome::Same) if entry.holds_current(now) => {
                let after = self.provider.fetch_again_after(held, now);
                after.max(FETCH_AGAIN_MIN)
            }
            _ => {
                let pause = entry.backoff.next(now, &mut self.random);
                let left = entry.held().filter(|_| entry.holds_current(now));
                let left = left.and_then(|held| held.not_after().duration_since(now).ok());
                left.map_or(pause, |left| pause.min(left))
            }
        };
        entry.next_fetch = Some(now + pause);
        if !matches!(outcome, Outcome::Same) {
            self.publish();
        }
    }

    /// Queues fetches that are due, raises alarms; returns how long nothing else is due.
    fn tend(&mut self) -> Duration {
        let now = (self.clock)();
        let mut nap = NAP_MAX;
        let mut is_due = false;
        for (identity, entry) in &mut self.entries {
            if let Some(alarm) = entry.alarm(now) {
                alarm.log(identity);
            }
            match entry.next_fetch {
                Some(at) if at <= now => {
                    entry.next_fetch = None;
                    self.queue.push(identity, Priority::Background, at);
                    is_due = true;
                }
                Some(at) => nap = nap.min(at.duration_since(now).unwrap_or_default()),
                None => {}
            }
        }
        if is_due {
            self.start_fetches();
        }
        nap
    }

    fn publish(&mut self) {
        let states = self
            .entries
            .iter()
            .map(|(identity, entry)| (identity.clone(), entry.state()));
        self.publisher
            .publish(Arc::new(CredentialStore::new(states)));
        (self.published)();
    }
}

/// The first fetch that has ended; waits for ever while none runs.
fn poll_any(
    running: &mut Vec<Running>,
    cx: &mut Context<'_>,
) -> Poll<(Identity, Result<Fetched, FetchError>)> {
    for n in 0..running.len() {
        if let Poll::Ready(fetched) = running[n].fetch.as_mut().poll(cx) {
            let identity = running.swap_remove(n).identity;
            return Poll::Ready((identity, fetched));
        }
    }
    Poll::Pending
}

fn report(identity: &Identity, entry: &Entry, outcome: &Outcome) {
    match outcome {
        Outcome::Same => {}
        Outcome::Replaced { warnings } => {
            let until = entry.held().map(|held| rfc3339(held.not_after()));
            tracing::info!(%identity, until = until.unwrap_or_default(), "certificate loaded");
            for warning in warnings {
                tracing::warn!(%identity, "{warning}");
            }
        }
        Outcome::Kept { why } => {
            let until = entry.held().map(|held| rfc3339(held.not_after()));
            tracing::warn!(
                %identity,
                until = until.unwrap_or_default(),
                "new certificate not usable, keeping the one held: {why}"
            );
        }
        Outcome::Unavailable { why } => {
            tracing::error!(%identity, "no certificate: {why}");
        }
    }
}
