//! A task of a shard: counted, so that the shard can wait for all of them, and alone in its panic.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::Shard;
use crate::dataplane::rt::{self, Contain, Panicked};

pin_project! {
    /// A task that is counted until it has been dropped, and whose panic ends it alone.
    pub(super) struct Counted<F, P> {
        #[pin]
        task: Contain<F>,
        on_panic: P,
        leave: Leave,
    }
}

impl<F: Future<Output = ()>, P: Fn()> Future for Counted<F, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let ended = ready!(this.task.poll(cx));
        if ended == Err(Panicked) {
            this.leave.0.telemetry.counters().panics.add(1);
            tracing::error!(target: "corelane::shard", "a task panicked; its connection is closed");
            (this.on_panic)();
        }
        Poll::Ready(())
    }
}

impl<F: Future<Output = ()>, P: Fn()> Counted<F, P> {
    /// Counts `task` from now on; `on_panic` runs when it panics.
    pub(super) fn new(shard: &Rc<Shard>, task: F, on_panic: P) -> Self {
        shard.tasks.set(shard.tasks.get() + 1);
        Self {
            task: rt::contain(task),
            on_panic,
            leave: Leave(Rc::clone(shard)),
        }
    }
}

/// Leaves the count of tasks when dropped.
struct Leave(Rc<Shard>);

impl Drop for Leave {
    fn drop(&mut self) {
        let shard = &self.0;
        shard.tasks.set(shard.tasks.get() - 1);
        if shard.tasks.get() <= 1 {
            shard.idle.beat();
        }
    }
}
