//! When to try again after a stream ended (spec: xds.md 3.4).
//!
//! Unlike the reference, waits are spread at random, so that a fleet does not return at once, and no
//! end lets us come back in a tight loop: an error of our own and a stream that was closed before it
//! brought anything wait as a failure does.

use std::time::Duration;

/// First wait, and wait after an interruption that says nothing about the server's health.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait: a node is back within this time after its control plane is.
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// It was never open: TCP, TLS, token, refused request.
    NotOpened,
    /// It was cut, as by a restart of the server.
    Interrupted,
    /// The server ended it with an error.
    Failed,
    /// Something of our own failed.
    Local,
    /// The server closed it in order.
    Complete,
}

impl StreamEnd {
    /// End by a gRPC status (code and message).
    #[must_use]
    pub fn from_status(code: i32, message: &str) -> Self {
        const OK: i32 = 0;
        const CANCELLED: i32 = 1;
        const UNKNOWN: i32 = 2;
        const DEADLINE_EXCEEDED: i32 = 4;
        const UNAVAILABLE: i32 = 14;
        let going = || {
            let message = message.to_ascii_lowercase();
            ["transport is closing", "received prior goaway"]
                .iter()
                .any(|t| message.contains(t))
        };
        match code {
            OK => Self::Complete,
            CANCELLED | UNKNOWN | DEADLINE_EXCEEDED => Self::Interrupted,
            UNAVAILABLE if going() => Self::Interrupted,
            _ => Self::Failed,
        }
    }

    /// Label `reason` of the metric that counts ends of streams.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotOpened => "ConnectionError",
            Self::Interrupted => "Reconnect",
            Self::Failed | Self::Local => "Error",
            Self::Complete => "Complete",
        }
    }
}

/// Grows with each failure, starts over with a stream that brought something and did not fail: a server
/// that answers once and then fails, over and over, is left alone for longer and longer.
#[derive(Clone, Debug)]
pub struct Backoff {
    current: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        let current = BACKOFF_MIN;
        Self { current }
    }
}

impl Backoff {
    /// Time to wait now. `answered`: the stream brought at least one response. `random`: evenly
    /// distributed over all values; a wait lies between half of its nominal length and all of it.
    pub fn after(&mut self, end: StreamEnd, answered: bool, random: u32) -> Duration {
        match end {
            StreamEnd::Complete if answered => {
                self.current = BACKOFF_MIN;
                Duration::ZERO
            }
            StreamEnd::Interrupted if answered => {
                self.current = BACKOFF_MIN;
                spread(self.current, random)
            }
            StreamEnd::NotOpened
            | StreamEnd::Interrupted
            | StreamEnd::Failed
            | StreamEnd::Local
            | StreamEnd::Complete => {
                self.current = (2 * self.current).min(BACKOFF_MAX);
                spread(self.current, random)
            }
        }
    }
}

fn spread(wait: Duration, random: u32) -> Duration {
    let half = wait / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u32 = u32::MAX;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_an_answer() {
        let mut backoff = Backoff::default();
        let wait = |b: &mut Backoff| b.after(StreamEnd::NotOpened, false, FULL).as_millis();
        let waits: Vec<_> = (0..12).map(|_| wait(&mut backoff)).collect();
        let expected = [
            20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000,
        ];
        assert_eq!(waits, expected);
        assert_eq!(
            backoff
                .after(StreamEnd::Interrupted, true, FULL)
                .as_millis(),
            10
        );
        assert_eq!(wait(&mut backoff), 20);
        let failing = |b: &mut Backoff| b.after(StreamEnd::Failed, true, FULL).as_millis();
        let waits: Vec<_> = (0..3).map(|_| failing(&mut backoff)).collect();
        assert_eq!(waits, [40, 80, 160], "one answer and a failure each time");
    }

    #[test]
    fn only_a_stream_that_brought_something_is_reopened_at_once() {
        let mut backoff = Backoff::default();
        assert_eq!(
            backoff.after(StreamEnd::Complete, true, FULL),
            Duration::ZERO
        );
        assert!(backoff.after(StreamEnd::Complete, false, 0) >= BACKOFF_MIN);
        assert!(backoff.after(StreamEnd::Local, false, 0) > BACKOFF_MIN);
    }

    #[test]
    fn waits_are_spread_over_their_second_half() {
        let wait = |random| Backoff::default().after(StreamEnd::NotOpened, false, random);
        assert_eq!(wait(0).as_millis(), 10);
        assert_eq!(wait(u32::MAX).as_millis(), 20);
        assert!(wait(0) < wait(u32::MAX / 2) && wait(u32::MAX / 2) < wait(u32::MAX));
    }

    #[test]
    fn statuses_are_told_apart() {
        for (code, message, end, reason) in [
            (0, "", StreamEnd::Complete, "Complete"),
            (1, "", StreamEnd::Interrupted, "Reconnect"),
            (2, "h2", StreamEnd::Interrupted, "Reconnect"),
            (4, "", StreamEnd::Interrupted, "Reconnect"),
            (
                14,
                "transport is closing",
                StreamEnd::Interrupted,
                "Reconnect",
            ),
            (
                14,
                "x: received prior goaway: y",
                StreamEnd::Interrupted,
                "Reconnect",
            ),
            (14, "no endpoints", StreamEnd::Failed, "Error"),
            (10, "aborted", StreamEnd::Failed, "Error"),
            (16, "token", StreamEnd::Failed, "Error"),
        ] {
            assert_eq!(
                StreamEnd::from_status(code, message),
                end,
                "{code} {message}"
            );
            assert_eq!(end.reason(), reason);
        }
    }
}
