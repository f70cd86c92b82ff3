//! Small single-thread tools: a one-time signal for many waiters, and a race of two futures.
//!
//! A waiter that is dropped leaves nothing behind: a waker that stayed would keep the memory of its
//! task for as long as the signal lives, which for the shard's own signals is for ever.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

/// Wakers of those who wait, each at a place of its own.
#[derive(Debug, Default)]
struct Waiters {
    places: RefCell<Places>,
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Waiters {
    /// Stores the waker of `cx` at `place`, which is chosen at the first call.
    fn register(&self, place: &mut Option<u32>, cx: &Context<'_>) {
        let mut places = self.places.borrow_mut();
        let at = *place.get_or_insert_with(|| {
            places.free.pop().unwrap_or_else(|| {
                places.wakers.push(None);
                // As many tasks do not fit into memory.
                u32::try_from(places.wakers.len() - 1).unwrap_or(u32::MAX)
            })
        });
        let former = match &mut places.wakers[at as usize] {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            waker => waker.replace(cx.waker().clone()),
        };
        // Dropping a waker may drop its task, whose own waits then come back here.
        drop(places);
        drop(former);
    }

    fn leave(&self, place: &mut Option<u32>) {
        let Some(at) = place.take() else { return };
        let mut places = self.places.borrow_mut();
        let former = places.wakers[at as usize].take();
        places.free.push(at);
        drop(places);
        drop(former);
    }

    /// Wakes everybody; places stay with their waiters.
    fn wake(&self) {
        let count = self.places.borrow().wakers.len();
        for at in 0..count {
            let waker = self
                .places
                .borrow_mut()
                .wakers
                .get_mut(at)
                .and_then(Option::take);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        let places = self.places.borrow();
        places.wakers.len() - places.free.len()
    }
}

/// Fires once with a value; all present and later waiters get a clone.
#[derive(Debug)]
pub struct Signal<T> {
    state: Rc<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: RefCell<Option<T>>,
    waiters: Waiters,
}

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Self {
        Self {
            state: Rc::clone(&self.state),
        }
    }
}

impl<T> Default for Signal<T> {
    fn default() -> Self {
        Self {
            state: Rc::new(State {
                value: RefCell::new(None),
                waiters: Waiters::default(),
            }),
        }
    }
}

impl<T: Clone> Signal<T> {
    /// Fires. The first value stands; later calls change nothing.
    pub fn fire(&self, value: T) {
        {
            let mut stored = self.state.value.borrow_mut();
            if stored.is_some() {
                return;
            }
            *stored = Some(value);
        }
        self.state.waiters.wake();
    }

    /// The value, if fired.
    #[must_use]
    pub fn get(&self) -> Option<T> {
        self.state.value.borrow().clone()
    }

    /// Waits for the value. Dropping the future loses nothing.
    pub fn wait(&self) -> Wait<'_, T> {
        Wait {
            state: &self.state,
            place: None,
        }
    }
}

/// See [`Signal::wait`].
#[derive(Debug)]
#[must_use]
pub struct Wait<'a, T> {
    state: &'a State<T>,
    place: Option<u32>,
}

impl<T: Clone> Future for Wait<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        if let Some(value) = &*this.state.value.borrow() {
            return Poll::Ready(value.clone());
        }
        this.state.waiters.register(&mut this.place, cx);
        Poll::Pending
    }
}

impl<T> Drop for Wait<'_, T> {
    fn drop(&mut self) {
        self.state.waiters.leave(&mut self.place);
    }
}

/// Wakes everybody who waits, again and again; a waiter sees every pulse after it was made.
#[derive(Debug, Default)]
pub struct Pulse {
    count: Cell<u64>,
    waiters: Waiters,
}

impl Pulse {
    /// Wakes all present waiters.
    pub fn beat(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        self.waiters.wake();
    }

    /// Completes at the next beat after this call.
    pub fn next(&self) -> Beat<'_> {
        Beat {
            pulse: self,
            seen: self.count.get(),
            place: None,
        }
    }
}

/// See [`Pulse::next`].
#[derive(Debug)]
#[must_use]
pub struct Beat<'a> {
    pulse: &'a Pulse,
    seen: u64,
    place: Option<u32>,
}

impl Future for Beat<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.pulse.count.get() != this.seen {
            return Poll::Ready(());
        }
        this.pulse.waiters.register(&mut this.place, cx);
        Poll::Pending
    }
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.pulse.waiters.leave(&mut self.place);
    }
}

/// A value that one waiter waits for, once: a [`Signal`] without its table of waiters.
#[derive(Debug)]
pub struct Notice<T> {
    /// Boxed: few connections are given notice, all hold room for it.
    value: OnceCell<Box<T>>,
    waiter: RefCell<Option<Waker>>,
}

impl<T> Default for Notice<T> {
    fn default() -> Self {
        Self {
            value: OnceCell::new(),
            waiter: RefCell::new(None),
        }
    }
}

impl<T: Clone> Notice<T> {
    /// Gives notice. The first value stands; later calls change nothing.
    pub fn give(&self, value: T) {
        if self.value.set(Box::new(value)).is_ok()
            && let Some(waiter) = self.waiter.take()
        {
            waiter.wake();
        }
    }

    /// Whether notice was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.value.get().is_some()
    }

    /// Waits for the value. A second waiter at the same time would take the place of the first.
    pub const fn wait(&self) -> Noticed<'_, T> {
        Noticed { notice: self }
    }
}

/// See [`Notice::wait`].
#[derive(Debug)]
#[must_use]
pub struct Noticed<'a, T> {
    notice: &'a Notice<T>,
}

impl<T: Clone> Future for Noticed<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let notice = self.notice;
        if let Some(value) = notice.value.get() {
            return Poll::Ready((**value).clone());
        }
        let waits = |waker: &Waker| waker.will_wake(cx.waker());
        if !notice.waiter.borrow().as_ref().is_some_and(waits) {
            let former = notice.waiter.replace(Some(cx.waker().clone()));
            // Dropping a waker may drop its task.
            drop(former);
        }
        Poll::Pending
    }
}

impl<T> Drop for Noticed<'_, T> {
    fn drop(&mut self) {
        let waiter = self.notice.waiter.take();
        drop(waiter);
    }
}

/// Which of two futures came first.
#[derive(Debug)]
pub enum First<A, B> {
    /// The first argument, also when both are ready.
    Left(A),
    /// The second argument.
    Right(B),
}

pin_project! {
    /// See [`race`]. A struct, because an `async fn` would store its arguments twice.
    #[derive(Debug)]
    pub struct Race<A, B> {
        #[pin]
        left: A,
        #[pin]
        right: B,
    }
}

/// Runs both until one completes and drops the other. Only for futures that lose nothing when
/// dropped, which holds for everything in this module's parent.
pub const fn race<A: Future, B: Future>(left: A, right: B) -> Race<A, B> {
    Race { left, right }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = First<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(value) = this.left.poll(cx) {
            return Poll::Ready(First::Left(value));
        }
        this.right.poll(cx).map(First::Right)
    }
}

/// The task panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

pin_project! {
    /// See [`contain`].
    #[derive(Debug)]
    pub struct Contain<F> {
        #[pin]
        task: F,
    }
}

/// Runs `task`, turning a panic into an error. A struct, because every `async` block around a task
/// stores the task twice.
pub const fn contain<F: Future<Output = ()>>(task: F) -> Contain<F> {
    Contain { task }
}

impl<F: Future<Output = ()>> Future for Contain<F> {
    type Output = Result<(), Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.project().task;
        match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests;
