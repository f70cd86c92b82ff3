//! Resource limits of this process (getrlimit(2)); `None` is unlimited.

use rustix::process::{Resource, getrlimit};

/// A soft and a hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub soft: Option<u64>,
    /// What the soft limit may be raised to.
    pub hard: Option<u64>,
}

/// Open descriptors (RLIMIT_NOFILE).
#[must_use]
pub fn descriptors() -> Limit {
    of(Resource::Nofile)
}

/// Bytes of locked memory (RLIMIT_MEMLOCK).
#[must_use]
pub fn locked_memory() -> Limit {
    of(Resource::Memlock)
}

fn of(resource: Resource) -> Limit {
    let limit = getrlimit(resource);
    Limit {
        soft: limit.current,
        hard: limit.maximum,
    }
}

/// Bytes of a page of memory.
#[must_use]
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}
