//! Signals, pulses and races without a runtime.

use super::*;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

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
fn a_waiter_that_left_keeps_no_place_and_no_task() {
    let (signal, pulse) = (Signal::<()>::default(), Pulse::default());
    let task = Arc::new(Nothing);
    let waker = Waker::from(Arc::clone(&task));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..3 {
        let (mut a, mut b) = (Box::pin(signal.wait()), Box::pin(pulse.next()));
        assert!(a.as_mut().poll(&mut cx).is_pending());
        assert!(a.as_mut().poll(&mut cx).is_pending());
        assert!(b.as_mut().poll(&mut cx).is_pending());
        let kept = Box::pin(signal.wait());
        assert_eq!(
            (signal.state.waiters.waiting(), pulse.waiters.waiting()),
            (1, 1)
        );
        drop((a, b, kept));
        assert_eq!(
            (signal.state.waiters.waiting(), pulse.waiters.waiting()),
            (0, 0)
        );
    }
    drop(waker);
    assert_eq!(Arc::strong_count(&task), 1, "no waker is left behind");
    assert_eq!(signal.state.waiters.places.borrow().wakers.len(), 1);
}

#[test]
fn every_waiter_of_a_beat_is_woken_once_and_sees_the_next_only_anew() {
    let pulse = Pulse::default();
    let counts: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
    let mut waits: Vec<_> = counts.iter().map(|_| Box::pin(pulse.next())).collect();
    for (wait, count) in waits.iter_mut().zip(&counts) {
        let waker = Waker::from(Arc::clone(count));
        assert!(
            wait.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    pulse.beat();
    pulse.beat();
    for (wait, count) in waits.iter_mut().zip(&counts) {
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_ready());
        assert!(pin!(pulse.next()).poll(&mut cx).is_pending());
    }
}

thread_local! {
    static INNER: RefCell<Option<Pin<Box<Wait<'static, ()>>>>> = const { RefCell::new(None) };
}

/// A task that waits, and is dropped with its last waker.
struct Waiting;

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Waiting {
    fn drop(&mut self) {
        INNER.take();
    }
}

#[test]
fn a_waker_whose_drop_ends_another_wait_finds_the_signal_free() {
    let signal: &'static Signal<()> = Box::leak(Box::default());
    let mut noop = Context::from_waker(Waker::noop());
    let mut inner = Box::pin(signal.wait());
    assert!(inner.as_mut().poll(&mut noop).is_pending());
    INNER.set(Some(inner));
    let mut outer = Box::pin(signal.wait());
    let waker = Waker::from(Arc::new(Waiting));
    let mut cx = Context::from_waker(&waker);
    assert!(outer.as_mut().poll(&mut cx).is_pending());
    drop(waker);
    assert_eq!(signal.state.waiters.waiting(), 2);
    // The stored waker is the last: replacing it drops the task, which leaves the signal.
    assert!(outer.as_mut().poll(&mut noop).is_pending());
    assert_eq!(signal.state.waiters.waiting(), 1);
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

#[test]
fn the_first_notice_reaches_its_waiter_whether_it_waits_yet_or_not() {
    let notice = Notice::default();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut cx = Context::from_waker(&waker);
    let mut waits = pin!(notice.wait());
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    assert!(!notice.is_given());
    notice.give(1);
    notice.give(2);
    assert!(notice.is_given());
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(waits.as_mut().poll(&mut cx), Poll::Ready(1));
    assert_eq!(pin!(notice.wait()).poll(&mut cx), Poll::Ready(1));
}

#[test]
fn who_stops_waiting_for_notice_leaves_no_waker() {
    let notice = Notice::<()>::default();
    let task = Arc::new(Nothing);
    let waker = Waker::from(Arc::clone(&task));
    let mut waits = Box::pin(notice.wait());
    let polled = waits.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop((waits, waker));
    assert_eq!(Arc::strong_count(&task), 1);
}

#[test]
fn a_contained_panic_is_an_error() {
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(pin!(contain(ready(()))).poll(&mut cx), Poll::Ready(Ok(())));
    let fails = contain(async { std::panic::panic_any("contained") });
    assert_eq!(pin!(fails).poll(&mut cx), Poll::Ready(Err(Panicked)));
}
