//! Traffic series of one shard: found or made once per connection, then plain cells.
//!
//! Lookup goes by the addresses of the shared records first (no text is built), by the label text
//! otherwise, so records published again with the same labels join the same series. A new series is
//! announced to the hub over a channel. The hub alone ends a series, by exchanging the number of its
//! holders from 0 to `ENDED`; the shard alone adds holders, and never to an ended series. So a
//! series is either held or gone, whatever the two threads do at once.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;

use rustc_hash::{FxHashMap, FxHasher};

use super::counters::{Counter, Limit, ShardCounters};
use super::flow::{Direction, Flow, Parties, Party};
use super::labels::LabelText;
use crate::model::close::ResponseFlag;
use crate::model::identity::Identity;

/// Number of holders that marks an ended series.
const ENDED: u32 = u32::MAX;

/// Entries of the address-keyed cache. It keeps the records it names alive, so it stays small; a
/// miss costs building the label text, about 2 us.
const CACHE_ENTRIES_MAX: usize = 4_096;

/// Response flags in the order of their cells.
pub(super) const FLAGS: [ResponseFlag; 8] = [
    ResponseFlag::None,
    ResponseFlag::Deny,
    ResponseFlag::Connect,
    ResponseFlag::NetworkPolicy,
    ResponseFlag::IdentityError,
    ResponseFlag::H2HandshakeFailure,
    ResponseFlag::CertRevoked,
    ResponseFlag::TlsFailure,
];

/// Cells of one label set on one shard. The response flag is not part of the set: each has a cell.
#[derive(Debug)]
pub struct Series {
    labels: LabelText,
    direction: Direction,
    holders: AtomicU32,
    pub(super) opened: Counter,
    pub(super) to_server: Counter,
    pub(super) to_client: Counter,
    closed: [Counter; FLAGS.len()],
}

impl Series {
    fn new(labels: LabelText, direction: Direction) -> Self {
        Self {
            labels,
            direction,
            holders: AtomicU32::new(0),
            opened: Counter::default(),
            to_server: Counter::default(),
            to_client: Counter::default(),
            closed: Default::default(),
        }
    }

    pub(super) const fn labels(&self) -> &LabelText {
        &self.labels
    }

    pub(super) const fn direction(&self) -> Direction {
        self.direction
    }

    /// Counts a closed connection.
    pub(super) fn closed(&self, flag: ResponseFlag) {
        self.closed[flag as usize].add(1);
    }

    /// Closed connections by flag, in the order of [`FLAGS`].
    pub(super) fn closed_counts(&self) -> [u64; FLAGS.len()] {
        std::array::from_fn(|flag| self.closed[flag].get())
    }

    /// Adds a holder, unless the series has ended.
    fn hold(&self) -> bool {
        self.holders
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |holders| {
                (holders != ENDED).then(|| holders + 1)
            })
            .is_ok()
    }

    /// Takes a holder away; the hub that then ends the series sees every count made before.
    pub(super) fn release(&self) {
        self.holders.fetch_sub(1, Ordering::Release);
    }

    /// Whether a connection holds the series.
    pub(super) fn is_held(&self) -> bool {
        self.holders.load(Ordering::Relaxed) > 0
    }

    /// Ends the series unless it is held.
    pub(super) fn end(&self) -> bool {
        self.holders
            .compare_exchange(0, ENDED, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    fn has_ended(&self) -> bool {
        self.holders.load(Ordering::Relaxed) == ENDED
    }
}

/// What a cache entry was made from. It owns the records, so their addresses cannot be reused, and
/// connections share it.
#[derive(Debug)]
struct CacheEntry {
    parties: Arc<Parties>,
    series: Arc<Series>,
}

fn same<T>(left: Option<&Arc<T>>, right: Option<&Arc<T>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The source identity, where it shows in the labels.
fn shown_identity(source: &Party, mutual_tls: bool) -> Option<&Arc<Identity>> {
    source.identity.as_ref().filter(|_| mutual_tls)
}

impl CacheEntry {
    fn fits(&self, flow: &Flow) -> bool {
        let Parties {
            direction,
            mutual_tls,
            source,
            destination,
            service,
        } = &*self.parties;
        *direction == flow.direction
            && *mutual_tls == flow.mutual_tls
            && same(source.workload.as_ref(), flow.source.workload.as_ref())
            && same(destination.workload.as_ref(), flow.destination.workload.as_ref())
            && same(service.as_ref(), flow.service.as_ref())
            // By value: each tunnel brings its own copy of the same identity.
            && shown_identity(source, *mutual_tls) == shown_identity(&flow.source, flow.mutual_tls)
            && destination.identity == flow.destination.identity
    }
}

/// Hash of everything [`CacheEntry::fits`] compares. `None` when the labels also depend on values
/// that come with each request: those go by text.
fn cache_key(flow: &Flow) -> Option<u64> {
    let by_baggage = flow.source.workload.is_none() && flow.source.baggage.is_some();
    if by_baggage || flow.destination.baggage.is_some() {
        return None;
    }
    let mut hasher = FxHasher::default();
    (flow.direction, flow.mutual_tls).hash(&mut hasher);
    flow.source
        .workload
        .as_ref()
        .map(Arc::as_ptr)
        .hash(&mut hasher);
    flow.destination
        .workload
        .as_ref()
        .map(Arc::as_ptr)
        .hash(&mut hasher);
    flow.service.as_ref().map(Arc::as_ptr).hash(&mut hasher);
    shown_identity(&flow.source, flow.mutual_tls).hash(&mut hasher);
    flow.destination.identity.hash(&mut hasher);
    Some(hasher.finish())
}

/// Finds or makes the series of a connection. Lives on the shard.
#[derive(Debug)]
pub(super) struct Interner {
    cache: FxHashMap<u64, CacheEntry>,
    // Label values come from peers: the default hasher is keyed.
    by_labels: HashMap<String, Arc<Series>>,
    overflow: [Option<Arc<Series>>; 2],
    scratch: LabelText,
    announce: Sender<Arc<Series>>,
    series_max: usize,
    misses_until_sweep: usize,
}

/// Misses between two looks for ended series, at least.
const SWEEP_MISSES_MIN: usize = 64;

impl Interner {
    pub(super) fn new(announce: Sender<Arc<Series>>, series_max: usize) -> Self {
        Self {
            cache: FxHashMap::default(),
            by_labels: HashMap::new(),
            overflow: [None, None],
            scratch: LabelText::default(),
            announce,
            series_max,
            misses_until_sweep: SWEEP_MISSES_MIN,
        }
    }

    /// The series of `flow`, held once for the caller, and what it shares with others.
    pub(super) fn hold(
        &mut self,
        flow: &Flow,
        counters: &ShardCounters,
    ) -> (Arc<Series>, Arc<Parties>) {
        let key = cache_key(flow);
        if let Some(entry) = key.and_then(|key| self.cache.get(&key))
            && entry.fits(flow)
            && entry.series.hold()
        {
            return (Arc::clone(&entry.series), Arc::clone(&entry.parties));
        }
        let parties = Arc::new(Parties::of(flow));
        let Some(series) = self.hold_by_labels(flow) else {
            counters.limit(Limit::MetricSeries).add(1);
            return (self.hold_overflow(flow.direction), parties);
        };
        if let Some(key) = key {
            if self.cache.len() >= CACHE_ENTRIES_MAX {
                self.cache.clear();
            }
            let entry = CacheEntry {
                parties: Arc::clone(&parties),
                series: Arc::clone(&series),
            };
            self.cache.insert(key, entry);
        }
        (series, parties)
    }

    fn hold_by_labels(&mut self, flow: &Flow) -> Option<Arc<Series>> {
        self.scratch.fill(flow);
        if let Some(series) = self.by_labels.get(self.scratch.key())
            && series.hold()
        {
            return Some(Arc::clone(series));
        }
        self.misses_until_sweep -= 1;
        if self.misses_until_sweep == 0 {
            self.sweep();
        }
        if self.by_labels.len() >= self.series_max {
            return None;
        }
        let series = self.announced(self.scratch.clone(), flow.direction);
        self.by_labels
            .insert(self.scratch.key().to_owned(), Arc::clone(&series));
        Some(series)
    }

    /// A new series, held once before the hub can see it.
    fn announced(&self, labels: LabelText, direction: Direction) -> Arc<Series> {
        let series = Arc::new(Series::new(labels, direction));
        series.holders.store(1, Ordering::Relaxed);
        // Without a hub nobody scrapes: the process is ending.
        drop(self.announce.send(Arc::clone(&series)));
        series
    }

    fn hold_overflow(&mut self, direction: Direction) -> Arc<Series> {
        if let Some(series) = &self.overflow[direction.index()]
            && series.hold()
        {
            return Arc::clone(series);
        }
        let series = self.announced(LabelText::overflow(direction), direction);
        self.overflow[direction.index()] = Some(Arc::clone(&series));
        series
    }

    /// Forgets ended series; its cost is spread over the misses that made it due.
    fn sweep(&mut self) {
        self.by_labels.retain(|_, series| !series.has_ended());
        self.cache.retain(|_, entry| !entry.series.has_ended());
        self.misses_until_sweep = (self.by_labels.len() / 2).max(SWEEP_MISSES_MIN);
    }
}

#[cfg(test)]
mod tests;
