//! Small single-thread tools: a one-time signal for many waiters, and a race of two futures.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

/// Fires once with a value; all present and later waiters get a clone.
#[derive(Debug)]
pub struct Signal<T> {
    state: Rc<RefCell<State<T>>>,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waiters: Vec<Waker>,
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
            state: Rc::new(RefCell::new(State {
                value: None,
                waiters: Vec::new(),
            })),
        }
    }
}

impl<T: Clone> Signal<T> {
    /// Fires. The first value stands; later calls change nothing.
    pub fn fire(&self, value: T) {
        let waiters = {
            let mut state = self.state.borrow_mut();
            if state.value.is_some() {
                return;
            }
            state.value = Some(value);
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            waiter.wake();
        }
    }

    /// The value, if fired.
    #[must_use]
    pub fn get(&self) -> Option<T> {
        self.state.borrow().value.clone()
    }

    /// Waits for the value. Dropping the future loses nothing.
    pub async fn wait(&self) -> T {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if let Some(value) = &state.value {
                return Poll::Ready(value.clone());
            }
            if !state
                .waiters
                .iter()
                .any(|waiter| waiter.will_wake(cx.waker()))
            {
                state.waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Wakes everybody who waits, again and again; a waiter sees every pulse after it was made.
#[derive(Debug, Default)]
pub struct Pulse {
    count: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
}

impl Pulse {
    /// Wakes all present waiters.
    pub fn beat(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }

    /// Completes at the next beat after this call.
    pub fn next(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.count.get();
        poll_fn(move |cx| {
            if self.count.get() != seen {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
                waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
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

pin_project! {
    /// See [`contain`].
    #[derive(Debug)]
    pub struct Contain<F> {
        #[pin]
        task: F,
    }
}

/// Runs `task`, turning a panic into `None`.
pub const fn contain<F: Future>(task: F) -> Contain<F> {
    Contain { task }
}

impl<F: Future> Future for Contain<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.project().task;
        match catch_unwind(AssertUnwindSafe(|| task.poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::pin::pin;

    #[test]
    fn the_first_value_reaches_early_and_late_waiters() {
        let signal = Signal::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut early = pin!(signal.wait());
        assert!(early.as_mut().poll(&mut cx).is_pending());
        signal.fire(1);
        signal.fire(2);
        assert_eq!(early.as_mut().poll(&mut cx), Poll::Ready(1));
        assert_eq!(pin!(signal.wait()).poll(&mut cx), Poll::Ready(1));
    }

    #[test]
    fn a_race_prefers_its_first_argument() {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(First::Left(1)) = pin!(race(ready(1), ready(2))).poll(&mut cx) else {
            panic!("left was ready");
        };
        let never = std::future::pending::<()>();
        let Poll::Ready(First::Right(2)) = pin!(race(never, ready(2))).poll(&mut cx) else {
            panic!("right was ready");
        };
    }
}
