//! The demo's patience: its clock, its overall deadline, and Ctrl-C.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::error::DemoError;
use crate::sys::process::Interrupts;

/// Between two looks at something that is about to happen.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "a command-line tool measures real time"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Sleeps.
#[expect(
    clippy::disallowed_methods,
    reason = "a command-line tool's own thread, not a shard"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Ends what takes too long or is no longer wanted.
#[derive(Debug)]
pub(super) struct Watch {
    interrupts: Interrupts,
    interrupted: Cell<bool>,
    started: Instant,
    limit: Duration,
}

impl Watch {
    /// Takes Ctrl-C over and starts the clock.
    pub(super) fn start(limit: Duration) -> Result<Self, DemoError> {
        let interrupts = Interrupts::take_over().map_err(DemoError::io("take Ctrl-C over"))?;
        Ok(Self {
            interrupts,
            interrupted: Cell::new(false),
            started: now(),
            limit,
        })
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Fails when the demo was interrupted or takes too long.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        self.check_interrupt()?;
        if self.elapsed() > self.limit {
            let seconds = self.limit.as_secs_f64();
            return Err(DemoError::TimedOut {
                what: "the demo's end".to_owned(),
                seconds,
            });
        }
        Ok(())
    }

    /// Fails when the demo was interrupted, then and ever after.
    pub(super) fn check_interrupt(&self) -> Result<(), DemoError> {
        if self.interrupts.take() {
            self.interrupted.set(true);
        }
        if self.interrupted.get() {
            Err(DemoError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// Whether another interrupt arrived after the first: whoever waits should stop being polite.
    pub(super) fn interrupted_again(&self) -> bool {
        self.interrupts.take()
    }

    /// Probes until there is a result; `what` completes "… did not happen within".
    pub(super) fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>, DemoError>,
    ) -> Result<T, DemoError> {
        let began = now();
        loop {
            if let Some(result) = probe()? {
                return Ok(result);
            }
            self.check()?;
            if began.elapsed() > limit {
                return Err(DemoError::TimedOut {
                    what: what.to_owned(),
                    seconds: limit.as_secs_f64(),
                });
            }
            pause(PROBE_INTERVAL);
        }
    }

    /// Waits for Ctrl-C, looking after `alive` meanwhile.
    pub(super) fn until_interrupted(
        &self,
        mut alive: impl FnMut() -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        while self.check_interrupt().is_ok() {
            alive()?;
            pause(10 * PROBE_INTERVAL);
        }
        Ok(())
    }
}
