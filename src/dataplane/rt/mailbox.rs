//! Messages to a shard from other threads, and the driver-side yield, over one eventfd a shard.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};

use super::socket::Listener;
use crate::sys::event;

/// Sending half, for any thread.
#[derive(Debug)]
pub struct Mailbox<M> {
    queue: Sender<M>,
    event: Arc<OwnedFd>,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            event: Arc::clone(&self.event),
        }
    }
}

impl<M> Mailbox<M> {
    /// Delivers `message` and wakes the shard. Gives it back when the shard has ended.
    ///
    /// # Errors
    /// The message, when nobody is left to take it.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.queue.send(message).map_err(|refused| refused.0)?;
        event::signal(&*self.event);
        Ok(())
    }
}

/// Receiving half, to be opened on the shard's own thread.
#[derive(Debug)]
pub struct Inbox<M> {
    queue: Receiver<M>,
    event: Arc<OwnedFd>,
}

/// A new pair.
///
/// # Errors
/// `EMFILE` and others of eventfd(2).
pub fn mailbox<M>() -> io::Result<(Mailbox<M>, Inbox<M>)> {
    let event = Arc::new(event::create()?);
    let (sender, receiver) = channel();
    Ok((
        Mailbox {
            queue: sender,
            event: Arc::clone(&event),
        },
        Inbox {
            queue: receiver,
            event,
        },
    ))
}

impl<M> Inbox<M> {
    /// Runs on the shard until `handle` returns false: delivers messages in order and lets
    /// yielding tasks go on once the driver has been asked for events.
    ///
    /// # Errors
    /// When the descriptor cannot be registered with the driver.
    pub async fn run(self, mut handle: impl FnMut(M) -> bool) -> io::Result<()> {
        let own = self.event.try_clone()?;
        let waiter = Listener::from_fd(own)?;
        YIELDED.with(|yielded| yielded.borrow_mut().event = Some(Arc::clone(&self.event)));
        loop {
            waiter.readable().await?;
            event::clear(&*self.event);
            let resumed = YIELDED.with(|yielded| std::mem::take(&mut yielded.borrow_mut().tasks));
            for task in resumed {
                task.wake();
            }
            while let Ok(message) = self.queue.try_recv() {
                if !handle(message) {
                    return Ok(());
                }
            }
        }
    }
}

#[derive(Default)]
struct Yielded {
    event: Option<Arc<OwnedFd>>,
    tasks: Vec<Waker>,
}

thread_local! {
    static YIELDED: Rc<RefCell<Yielded>> = Rc::default();
}

/// Lets the driver look for I/O and other tasks run before going on.
///
/// Waking oneself would starve the shard's I/O (DEFER_TASKRUN asks for events only when the loop
/// parks), so the wake-up travels through the mailbox's eventfd. Without a running [`Inbox`] it
/// falls back to a timer.
pub async fn yield_now() {
    let by_event = YieldNow {
        queued: false,
        unavailable: false,
    }
    .await;
    if !by_event {
        // Boxed: a timer is large, and every relay holds the room of a yield.
        Box::pin(super::sleep(std::time::Duration::from_millis(1))).await;
    }
}

struct YieldNow {
    queued: bool,
    unavailable: bool,
}

impl Future for YieldNow {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.queued {
            return Poll::Ready(!self.unavailable);
        }
        YIELDED.with(|yielded| {
            let mut yielded = yielded.borrow_mut();
            let Some(event) = yielded.event.clone() else {
                self.unavailable = true;
                return;
            };
            if yielded.tasks.is_empty() {
                event::signal(&*event);
            }
            yielded.tasks.push(cx.waker().clone());
        });
        self.queued = true;
        if self.unavailable {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    }
}
