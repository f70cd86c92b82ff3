//! Rate limits for log lines that a peer can trigger: each call site may log a burst of 10 lines,
//! then one a second; the next line that passes says how many did not.
//!
//! ```ignore
//! log_limit::warn!(%client, "CONNECT refused");
//! ```

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines a site may log at once.
const BURST: u64 = 10;

/// Then one line in this time.
const PERIOD_MS: u64 = 1_000;

/// Budget of one call site.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// When the budget is full again, in milliseconds of the caller's clock.
    full_at_ms: AtomicU64,
    suppressed: AtomicU64,
}

impl LogLimit {
    /// A full budget.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            full_at_ms: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a line may be logged at `now_ms`; if so, how many were suppressed since the last.
    pub fn admit(&self, now_ms: u64) -> Option<u64> {
        let spend = |full_at: u64| {
            let full_at = full_at.max(now_ms) + PERIOD_MS;
            (full_at <= now_ms + BURST * PERIOD_MS).then_some(full_at)
        };
        if self
            .full_at_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
        {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    /// [`LogLimit::admit`] by the process's clock.
    pub fn admit_now(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "read only when a line is about to be logged; callers have no clock to pass"
        )]
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(*START.get_or_init(|| now));
        self.admit(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Logs an event of the given level (`INFO`, …), within the budget of this call site.
macro_rules! limited {
    ($level:ident, target: $target:expr, $($event:tt)+) => {{
        static LIMIT: $crate::telemetry::log_limit::LogLimit =
            $crate::telemetry::log_limit::LogLimit::new();
        if ::tracing::enabled!(target: $target, ::tracing::Level::$level)
            && let Some(suppressed) = LIMIT.admit_now()
        {
            let suppressed = (suppressed > 0).then_some(suppressed);
            ::tracing::event!(target: $target, ::tracing::Level::$level, suppressed, $($event)+);
        }
    }};
    ($level:ident, $($event:tt)+) => {{
        static LIMIT: $crate::telemetry::log_limit::LogLimit =
            $crate::telemetry::log_limit::LogLimit::new();
        if ::tracing::enabled!(::tracing::Level::$level)
            && let Some(suppressed) = LIMIT.admit_now()
        {
            let suppressed = (suppressed > 0).then_some(suppressed);
            ::tracing::event!(::tracing::Level::$level, suppressed, $($event)+);
        }
    }};
}

/// Logs a warning within the budget of this call site.
macro_rules! limited_warn {
    ($($event:tt)+) => { $crate::telemetry::log_limit::limited!(WARN, $($event)+) };
}

pub(crate) use {limited, limited_warn as warn};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_then_one_line_a_second() {
        let limit = LogLimit::new();
        let admitted = (0..100).filter(|_| limit.admit(5).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(
            limit.admit(1_005),
            Some(90),
            "tells how many were suppressed"
        );
        assert_eq!(limit.admit(1_005), None);
        assert_eq!(limit.admit(2_005), Some(1));
    }

    #[test]
    fn quiet_site_regains_its_burst() {
        let limit = LogLimit::new();
        while limit.admit(0).is_some() {}
        let later = 60_000;
        let admitted = (0..100).filter(|_| limit.admit(later).is_some()).count();
        assert_eq!(admitted, 10);
    }

    #[test]
    fn macros_take_what_tracing_takes() {
        let client = "10.0.0.1";
        warn!(%client, n = 3, "refused {}", 1);
        limited!(INFO, target: "access", client, "with a target");
    }
}
