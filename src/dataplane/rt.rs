//! The one door to monoio: drivers, tasks, contained panics, yield, readiness, timers.
//!
//! Rules (each was measured, see ARCHITECTURE.md): the ring is built on its own thread; nothing
//! wakes itself, [`yield_now`] goes through the driver; sockets are waited for by readiness and
//! moved by non-blocking calls, so dropping any future here loses no byte.

mod driver;
mod mailbox;
mod socket;
mod sync;

use std::future::Future;
use std::time::{Duration, Instant};

pub use driver::{DriverKind, DriverReport, block_on, block_on_with};
pub use mailbox::{Inbox, Mailbox, mailbox, yield_now};
pub use socket::{Listener, PollSocket, Socket};
pub use sync::{
    Beat, Contain, First, Notice, Noticed, Panicked, Pulse, Signal, Wait, contain, race,
};

/// Starts a task on this shard, which contains its panics itself: see [`contain`].
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(task));
}

/// The monotonic clock. The one place a shard reads it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the shard's own door to the clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Completes after `duration`, at a resolution of about a millisecond.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Completes at `deadline`, or at once when it has passed.
pub async fn sleep_until(deadline: Instant) {
    sleep(deadline.saturating_duration_since(now())).await;
}

/// Runs `task` for at most `limit`; `None` when the time is up. The task is dropped then.
pub async fn within<T>(limit: Duration, task: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(limit, task).await.ok()
}
