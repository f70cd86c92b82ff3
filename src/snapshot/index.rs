//! Persistent look-up structures of a snapshot: what one change touches is copied, the rest shared.

mod cidr;
mod policies;
mod services;
mod sieve;
mod workloads;

use rustc_hash::FxBuildHasher;

pub use policies::PolicyGroup;
pub(super) use policies::PolicyIndex;
pub(super) use services::ServiceIndex;
pub(super) use workloads::WorkloadIndex;

/// Unordered. Keys come from the control plane or an operator's file, so the hash needs no secret.
pub(super) type Map<K, V> = rpds::HashTrieMapSync<K, V, FxBuildHasher>;
/// Ordered by key.
pub(super) type OrderedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;
