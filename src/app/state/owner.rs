//! The one owner of the builder: folds changes of file and control plane, publishes generations.
//!
//! Parts of a response of the control plane are folded in one after the other while others run, and
//! become visible together. A change of the file that comes in between waits for the rest.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::overlay::Overlay;
use crate::snapshot::Snapshot;
use crate::snapshot::builder::{Builder, Change};
use crate::snapshot::exchange::{Publisher, Subscription};

/// The owner, for those on the control thread who change the state.
pub(crate) type SharedOwner = Rc<RefCell<Owner>>;

/// Only publisher of snapshots.
#[derive(Debug)]
pub(crate) struct Owner {
    builder: Builder,
    publisher: Publisher<Snapshot>,
    /// Only where there are two sources.
    overlay: Option<Overlay>,
    /// Parts of a response have been folded in, and not yet all of them.
    unfinished: bool,
    /// Snapshots that shards may still hold. The last one to let go of a snapshot frees what only it
    /// had, 100,000 workloads perhaps: that has to be this thread.
    retired: Vec<Arc<Snapshot>>,
}

impl Owner {
    /// Publishes what the file says. `both`: a control plane will say something too.
    pub(super) fn shared(local_node: Arc<str>, first: Change, both: bool) -> SharedOwner {
        let mut builder = Builder::new(local_node);
        let mut overlay = both.then(Overlay::default);
        let first = match &mut overlay {
            Some(overlay) => overlay.local(first),
            None => first,
        };
        let first = builder.apply(first);
        Rc::new(RefCell::new(Self {
            builder,
            publisher: Publisher::new(first),
            overlay,
            unfinished: false,
            retired: Vec::new(),
        }))
    }

    pub(super) fn current(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }

    pub(super) fn subscribe(&self) -> Subscription<Snapshot> {
        self.publisher.subscribe()
    }

    /// Takes in a change of the file. Returns what was published; none if that waits for the end of a
    /// response.
    pub(super) fn local(&mut self, change: Change) -> Option<Arc<Snapshot>> {
        let change = match &mut self.overlay {
            Some(overlay) => overlay.local(change),
            None => change,
        };
        self.builder.fold(change);
        (!self.unfinished).then(|| self.publish())
    }

    /// Takes in a part of a response of the control plane.
    pub(crate) fn remote(&mut self, change: Change) {
        let change = match &mut self.overlay {
            Some(overlay) => overlay.remote(change),
            None => change,
        };
        self.builder.fold(change);
        self.unfinished = true;
    }

    /// Makes everything taken in visible.
    pub(crate) fn publish(&mut self) -> Arc<Snapshot> {
        self.unfinished = false;
        let next = self.builder.seal();
        self.retired.push(self.publisher.current());
        self.publisher.publish(Arc::clone(&next));
        next
    }

    /// Frees snapshots that nobody reads any more.
    pub(crate) fn sweep(&mut self) {
        self.retired
            .retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

#[cfg(test)]
mod tests;
