//! When to fetch again and when to raise an alarm; pure functions of time.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::identity::Identity;

/// First pause after a failure; each further one doubles it (spec ca.md 3.2).
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(150);
/// From so long after the first failure of a run on, every pause is the longest.
const PAUSE_GROWS_FOR: Duration = Duration::from_mins(15);
/// Share of a certificate's life that is left when the alarm starts.
const ALARM_LEFT_PERCENT: u32 = 20;
/// Time between alarms once a certificate has expired.
const ALARM_INTERVAL: Duration = Duration::from_hours(1);

/// Half of a certificate's life, counted from `now`; zero if that has passed or the clock stands
/// before its start (spec ca.md 3.1).
#[must_use]
pub fn half_life_delay(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Duration {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let due = not_before + life / 2;
    if now < not_before {
        return Duration::ZERO;
    }
    due.duration_since(now).unwrap_or_default()
}

/// Pauses between failed fetches of one identity.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    since: Option<SystemTime>,
}

impl Backoff {
    pub(super) fn failed(&mut self, now: SystemTime) {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
    }

    /// The pause before the next try, a fifth of it random either way.
    pub(super) fn next(&self, now: SystemTime, random: &mut fastrand::Rng) -> Duration {
        let run = self
            .since
            .and_then(|since| now.duration_since(since).ok())
            .unwrap_or_default();
        if run >= PAUSE_GROWS_FOR {
            return PAUSE_MAX;
        }
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = PAUSE_FIRST * (1 << doublings);
        pause.mul_f64(0.8 + 0.4 * random.f64()).min(PAUSE_MAX)
    }
}

/// The end of a certificate's life is near or past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// A fifth of its life is left.
    EndsSoon(Duration),
    /// It ended so long ago.
    Expired(Duration),
}

impl Alarm {
    pub(super) fn log(self, identity: &Identity) {
        match self {
            Self::EndsSoon(left) => tracing::warn!(
                %identity,
                "certificate ends in {}, renew it",
                humantime::format_duration(whole_seconds(left))
            ),
            Self::Expired(ago) => tracing::error!(
                %identity,
                "certificate expired {} ago: peers refuse it",
                humantime::format_duration(whole_seconds(ago))
            ),
        }
    }
}

/// Remembers which alarms about one certificate were raised.
#[derive(Debug, Default)]
pub(super) struct ExpiryWatch {
    told_soon: bool,
    told_expired: Option<SystemTime>,
}

impl ExpiryWatch {
    /// The alarm due now: once when a fifth of the life is left, each hour after its end.
    pub(super) fn check(
        &mut self,
        not_before: SystemTime,
        not_after: SystemTime,
        now: SystemTime,
    ) -> Option<Alarm> {
        if let Ok(ago) = now.duration_since(not_after) {
            let told = self
                .told_expired
                .and_then(|told| now.duration_since(told).ok());
            if told.is_some_and(|since| since < ALARM_INTERVAL) {
                return None;
            }
            self.told_expired = Some(now);
            return Some(Alarm::Expired(ago));
        }
        let left = not_after.duration_since(now).unwrap_or_default();
        let life = not_after.duration_since(not_before).unwrap_or_default();
        if self.told_soon || left > life / 100 * ALARM_LEFT_PERCENT {
            return None;
        }
        self.told_soon = true;
        Some(Alarm::EndsSoon(left))
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// A time in UTC as `2026-01-31T12:00:00Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_is_due_at_half_of_its_life() {
        let seconds = |now| half_life_delay(at(1000), at(2000), at(now)).as_secs();
        assert_eq!(seconds(1000), 500);
        assert_eq!(seconds(1499), 1);
        assert_eq!(seconds(1500), 0);
        assert_eq!(seconds(3000), 0, "expired");
        assert_eq!(seconds(500), 0, "not valid yet");
        assert_eq!(half_life_delay(at(2000), at(1000), at(0)), Duration::ZERO);
    }

    #[test]
    fn pauses_double_and_end_at_the_longest() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        for wanted in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0] {
            backoff.failed(at(0));
            let pause = backoff.next(at(0), &mut random).as_secs_f64();
            assert!(
                (wanted * 0.8..=wanted * 1.2).contains(&pause),
                "{pause} near {wanted}"
            );
        }
        for _ in 0..100 {
            backoff.failed(at(0));
            assert!(backoff.next(at(0), &mut random) <= PAUSE_MAX);
        }
        assert_eq!(backoff.next(at(900), &mut random), PAUSE_MAX);
    }

    #[test]
    fn alarms_start_at_a_fifth_of_the_life_and_come_hourly_after_its_end() {
        let mut watch = ExpiryWatch::default();
        let mut check = |now| watch.check(at(0), at(10_000), at(now));
        assert_eq!(check(0), None);
        assert_eq!(check(7_999), None);
        assert_eq!(
            check(8_000),
            Some(Alarm::EndsSoon(Duration::from_secs(2_000)))
        );
        assert_eq!(check(9_999), None, "told once");
        assert_eq!(check(10_000), Some(Alarm::Expired(Duration::ZERO)));
        assert_eq!(check(13_599), None);
        assert_eq!(
            check(13_600),
            Some(Alarm::Expired(Duration::from_secs(3_600)))
        );
        assert_eq!(check(17_199), None);
        assert_eq!(
            check(17_200),
            Some(Alarm::Expired(Duration::from_secs(7_200)))
        );
    }

    #[test]
    fn times_are_utc_with_seconds() {
        assert_eq!(
            rfc3339(at(0) + Duration::from_millis(1500)),
            "1970-01-01T00:00:01Z"
        );
    }
}
