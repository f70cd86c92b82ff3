//! How many queries may wait and how many TCP connections may be open: for each proxy, and for all
//! proxies of the node together, so that one workload takes neither the others' places nor the
//! descriptors of the process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::limits::{DNS_PENDING_MAX, DNS_POD_PARTS, DNS_TCP_CONNECTIONS_MAX};

/// Places for waiting queries and for connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Places {
    pub(super) pending: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
}

/// Those of the whole node.
impl Default for Places {
    fn default() -> Self {
        Self::new(DNS_PENDING_MAX, DNS_TCP_CONNECTIONS_MAX)
    }
}

impl Places {
    fn new(pending: usize, connections: usize) -> Self {
        Self {
            pending: Arc::new(Semaphore::new(pending)),
            connections: Arc::new(Semaphore::new(connections)),
        }
    }

    /// Those of one workload on a shared node.
    pub(super) fn of_pod() -> Self {
        let parts = usize::from(DNS_POD_PARTS);
        Self::new(DNS_PENDING_MAX / parts, DNS_TCP_CONNECTIONS_MAX / parts)
    }
}

/// A place at a proxy, and one at the node.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _of_node: OwnedSemaphorePermit,
}

impl Place {
    /// For a query that waits. `None`: too many do.
    pub(super) fn pending(own: &Places, of_node: &Places) -> Option<Self> {
        Self::take(&own.pending, &of_node.pending)
    }

    /// For a connection. `None`: there are too many.
    pub(super) fn connection(own: &Places, of_node: &Places) -> Option<Self> {
        Self::take(&own.connections, &of_node.connections)
    }

    fn take(own: &Arc<Semaphore>, of_node: &Arc<Semaphore>) -> Option<Self> {
        Some(Self {
            _own: Arc::clone(own).try_acquire_owned().ok()?,
            _of_node: Arc::clone(of_node).try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_has_its_share_and_all_together_have_no_more_than_the_node() {
        let node = Places::new(3, 3);
        let (first, second) = (Places::new(2, 1), Places::new(2, 1));
        let take = |own| Place::pending(own, &node);
        let held = [take(&first), take(&first)];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&first).is_none(), "its share is used up");
        let other = take(&second);
        assert!(other.is_some());
        assert!(take(&second).is_none(), "the node's are used up");
        drop(held);
        assert!(take(&second).is_some());
        let connection = Place::connection(&first, &node);
        assert!(connection.is_some());
        assert!(Place::connection(&first, &node).is_none());
        assert!(Place::connection(&second, &node).is_some());
    }
}
