//! The tests' clock. Tests wait for conditions, never for time to pass: this is the one place that
//! looks at a condition again and again until its deadline.

use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Current time.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Looks at `probe` until it yields a value; panics after `limit`, naming `what` was awaited.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match try_wait_for(limit, probe) {
        Some(value) => value,
        None => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Looks at `probe` until it yields a value; `None` after `limit`.
pub fn try_wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if started.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Looks at `holds` for the whole of `span`; panics as soon as it is false. For conditions that must
/// not change, such as "nobody else was disconnected".
#[track_caller]
pub fn must_hold(what: &str, span: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < span {
        assert!(
            holds(),
            "{what} did not hold, {:?} into {span:?}",
            started.elapsed()
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let seen = try_wait_for(Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(seen, Some(3));
    }

    #[test]
    fn a_condition_that_never_comes_true_ends_at_the_deadline() {
        assert_eq!(try_wait_for(Duration::from_millis(20), || None::<()>), None);
    }

    #[test]
    #[should_panic(expected = "did not hold")]
    fn a_condition_that_fails_within_the_span_is_reported() {
        let mut looks = 0;
        must_hold("the count", Duration::from_secs(5), || {
            looks += 1;
            looks < 3
        });
    }
}
