//! Keeps a certificate for every identity this node needs, over one trait for where they come from.
//!
//! In: the set of identities needed, a [`Provider`]. Out: a published [`CredentialStore`]. What is
//! held is replaced only by something at least as good: a failed fetch, unusable material or a
//! certificate out of its time leaves a valid one in place, and the log says so. A certificate that
//! has expired is still presented: peers judge it, and their alert tells more than a missing one.
//!
//! At most [`FETCHES_MAX`] fetches run at once, one per identity; failures are tried again with
//! growing pauses (spec ca.md 3.2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::model::identity::Identity;
use crate::snapshot::exchange::Publisher;
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialStore, Credentials, Material};

mod entry;
pub mod files;
mod schedule;
#[cfg(test)]
mod tests;

use entry::{Entry, Outcome};
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
}

/// A fetch under way. Dropping it gives the fetch up.
pub type Fetch<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + 'a>>;
/// Completes with identities whose material may have changed. Dropping it loses no change.
pub type Changes<'a> = Pin<Box<dyn Future<Output = Vec<Identity>> + 'a>>;

/// A source of certificates. Used on the control thread alone.
pub trait Provider {
    /// Gets material for `identity`.
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetch<'a>;

    /// Waits until material of identities fetched before may have changed.
    fn changes(&self) -> Changes<'_>;

    /// When to fetch again although nothing was announced, from `now`.
    fn fetch_again_after(&self, credentials: &Credentials, now: SystemTime) -> Duration;

    /// Forgets `identity`: its changes are of no interest any more.
    fn forget(&self, identity: &Identity);
}

type Running = Pin<Box<dyn Future<Output = (Identity, Result<Fetched, FetchError>)>>>;

/// Keeps the certificates of all needed identities and publishes them.
pub struct Renewal {
    provider: Rc<dyn Provider>,
    publisher: Publisher<CredentialStore>,
    published: Box<dyn Fn()>,
    options: TlsOptions,
    clock: Box<dyn Fn() -> SystemTime>,
    entries: BTreeMap<Identity, Entry>,
    queue: VecDeque<Identity>,
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
            clock: Box::new(clock),
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            running: Vec::new(),
            random: fastrand::Rng::new(),
        }
    }

    /// Runs until the sender of `needed` is gone. Each value is the whole set of identities needed.
    ///
    /// Dropping the future gives fetches under way up; what was published stays.
    pub async fn run(mut self, mut needed: watch::Receiver<Arc<BTreeSet<Identity>>>) {
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
                    for identity in changed {
                        self.fetch_soon(identity);
                    }
                    changes = provider.changes();
                }
                (identity, fetched) = poll_fn(|cx| poll_any(&mut self.running, cx)) => {
                    self.take(&identity, fetched);
                }
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
            self.provider.forget(identity);
        }
        let before = self.entries.len();
        for identity in needed {
            if !self.entries.contains_key(identity) {
                self.entries.insert(identity.clone(), Entry::default());
                self.fetch_soon(identity.clone());
            }
        }
        if !gone.is_empty() || self.entries.len() > before {
            self.publish();
        }
    }

    /// Queues a fetch, unless one is queued already.
    fn fetch_soon(&mut self, identity: Identity) {
        if !self.queue.contains(&identity) {
            self.queue.push_back(identity);
        }
    }

    fn start_fetches(&mut self) {
        let mut later = VecDeque::new();
        while self.running.len() < FETCHES_MAX
            && let Some(identity) = self.queue.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&identity) else {
                continue;
            };
            // One fetch per identity: a change announced meanwhile waits for the end of it.
            if entry.fetching {
                later.push_back(identity);
                continue;
            }
            entry.fetching = true;
            let provider = Rc::clone(&self.provider);
            self.running.push(Box::pin(async move {
                let fetched = provider.fetch(&identity).await;
                (identity, fetched)
            }));
        }
        self.queue.append(&mut later);
    }

    /// Takes the result of a fetch.
    fn take(&mut self, identity: &Identity, fetched: Result<Fetched, FetchError>) {
        let now = (self.clock)();
        let Some(entry) = self.entries.get_mut(identity) else {
            return;
        };
        entry.fetching = false;
        let outcome = match fetched {
            Ok(fetched) => entry.offer(identity, &fetched, self.options, now),
            Err(error) => entry.fail(error.to_string(), now),
        };
        report(identity, entry, &outcome);
        let pause = match (entry.held(), &outcome) {
            (Some(held), Outcome::Replaced { .. } | Outcome::Same) if entry.holds_current(now) => {
                let after = self.provider.fetch_again_after(held, now);
                after.max(FETCH_AGAIN_MIN)
            }
            _ => entry.backoff.next(now, &mut self.random),
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
        let mut due = Vec::new();
        for (identity, entry) in &mut self.entries {
            if let Some(alarm) = entry.alarm(now) {
                alarm.log(identity);
            }
            match entry.next_fetch {
                Some(at) if at <= now => {
                    entry.next_fetch = None;
                    due.push(identity.clone());
                }
                Some(at) => nap = nap.min(at.duration_since(now).unwrap_or_default()),
                None => {}
            }
        }
        if due.is_empty() {
            return nap;
        }
        for identity in due {
            self.fetch_soon(identity);
        }
        self.start_fetches();
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
        if let Poll::Ready(ended) = running[n].as_mut().poll(cx) {
            drop(running.swap_remove(n));
            return Poll::Ready(ended);
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
