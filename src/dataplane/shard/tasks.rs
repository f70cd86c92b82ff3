//! The tasks of a shard: counted, contained, and waited for before it ends.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::super::rt::{self, Contain, First, Panicked};
use super::Shard;

impl Shard {
    /// Starts a task that the shard waits for before it ends.
    pub(crate) fn spawn(
        self: &Rc<Self>,
        task: impl Future<Output = ()> + 'static,
        on_panic: impl Fn() + 'static,
    ) {
        self.tasks.set(self.tasks.get() + 1);
        rt::spawn(Counted {
            task: rt::contain(task),
            on_panic,
            leave: Leave(Rc::clone(self)),
        });
    }

    /// Starts the task that sets a connection up; it ends when the connection is relayed, or the tunnel
    /// has ended. When the shard must end first, or the task panics, it is dropped and `lost` runs.
    pub(crate) fn spawn_set_up(
        self: &Rc<Self>,
        set_up: Pin<Box<dyn Future<Output = ()>>>,
        lost: impl Fn() + Clone + 'static,
    ) {
        let (shard, forced) = (Rc::clone(self), lost.clone());
        let task = async move {
            if let First::Left(()) = rt::race(shard.force.wait(), set_up).await {
                forced();
            }
        };
        self.spawn(task, lost);
    }

    /// As [`Shard::spawn`], for a task whose loss the shard could not make good: a listener that
    /// nobody accepts from, policies that nobody enforces. Its panic ends the shard, loudly.
    pub(crate) fn spawn_vital(
        self: &Rc<Self>,
        task: impl Future<Output = ()> + 'static,
        what: &'static str,
    ) {
        let shard = Rc::clone(self);
        self.spawn(task, move || shard.broken.fire(what));
    }

    /// Completes when the shard drains and no task is left.
    pub(super) async fn drained(&self) {
        self.drain.wait().await;
        loop {
            let idle = self.idle.next();
            if self.tasks.get() == 0 && !self.balance.own().is_coming() {
                return;
            }
            idle.await;
        }
    }

    /// Completes when the shard drains and only the caller's task is left.
    pub(crate) async fn only_recheck_left(&self) {
        self.drain.wait().await;
        loop {
            let ended = self.idle.next();
            if self.tasks.get() <= 1 && !self.balance.own().is_coming() {
                return;
            }
            ended.await;
        }
    }
}

pin_project! {
    /// A task that is counted until it has been dropped, and whose panic ends it alone.
    struct Counted<F, P> {
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
