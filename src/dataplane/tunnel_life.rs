//! How long a tunnel may live: to the first expiry of both ends' certificates.

use std::time::{Duration, Instant, SystemTime};

use super::rt;
use crate::config::limits::TUNNEL_LIFE_GRACEFUL_PERCENT;

/// The deadlines of one tunnel, fixed when it comes up: whoever waits for them, and how often, moves
/// neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelLife {
    graceful: Instant,
    end: Instant,
}

impl TunnelLife {
    /// The life of a tunnel that comes up now, with the expiry of both leaves.
    pub(crate) fn new(own: SystemTime, peer: SystemTime) -> Self {
        let left = own.min(peer).duration_since(SystemTime::now());
        Self::lasting(left.unwrap_or_default(), rt::now())
    }

    fn lasting(left: Duration, now: Instant) -> Self {
        // Timers of the shard reach about two years; no certificate here lives that long unrenewed.
        let left = left.min(Duration::from_hours(24 * 365));
        Self {
            graceful: now + left * TUNNEL_LIFE_GRACEFUL_PERCENT / 100,
            end: now + left,
        }
    }

    /// Completes when no new stream should start.
    pub(crate) async fn graceful(self) {
        rt::sleep_until(self.graceful).await;
    }

    /// Completes when the tunnel must end.
    pub(crate) async fn ended(self) {
        rt::sleep_until(self.end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_streams_stop_before_the_first_certificate_ends() {
        let now = rt::now();
        let life = TunnelLife::lasting(Duration::from_secs(1000), now);
        assert_eq!(life.graceful, now + Duration::from_secs(900));
        assert_eq!(life.end, now + Duration::from_secs(1000));
    }

    #[test]
    fn an_expired_certificate_leaves_no_time_and_a_long_one_a_year() {
        let now = rt::now();
        let none = TunnelLife::lasting(Duration::ZERO, now);
        assert_eq!((none.graceful, none.end), (now, now));
        let long = TunnelLife::lasting(Duration::MAX, now);
        assert_eq!(long.end, now + Duration::from_hours(24 * 365));
    }

    #[test]
    fn both_ends_count_and_the_past_is_now() {
        let (past, future) = (
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365 * 400),
        );
        for (own, peer) in [(past, future), (future, past)] {
            let life = TunnelLife::new(own, peer);
            assert!(life.end <= rt::now());
        }
        assert!(TunnelLife::new(future, future).graceful > rt::now());
    }
}
