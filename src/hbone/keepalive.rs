//! PING keepalive and the deadlines of a tunnel's start (spec: hbone.md 3.3).

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};

use super::settings::{Event, Settings, Sleep, Timer};

/// Sends a PING some time after the tunnel came up and after each PONG; a PONG that stays out kills.
pub(super) struct Keepalive {
    pings: PingPong,
    state: State,
}

enum State {
    /// Until the next PING.
    Resting(Sleep),
    /// A PING is out since then; ends when the wait for its PONG is over.
    Waiting(Instant, Sleep),
}

impl Keepalive {
    pub(super) fn new(pings: PingPong, settings: &Settings) -> Self {
        Self {
            pings,
            state: State::Resting((settings.timer)(settings.ping_interval)),
        }
    }

    /// Ready when the peer is dead. Poll it before `h2`, which sends the PING.
    pub(super) fn poll_dead(&mut self, settings: &Settings, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Resting(sleep) => {
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // Refused only when the connection is over, which `h2` reports itself.
                    if self.pings.send_ping(Ping::opaque()).is_err() {
                        self.state = State::Resting((settings.timer)(settings.ping_interval));
                        continue;
                    }
                    let timeout = (settings.timer)(settings.ping_timeout);
                    self.state = State::Waiting((settings.now)(), timeout);
                }
                State::Waiting(since, timeout) => {
                    if let Poll::Ready(pong) = self.pings.poll_pong(cx) {
                        if pong.is_ok() {
                            let rtt = (settings.now)().saturating_duration_since(*since);
                            (settings.events)(Event::PingRtt(rtt));
                        }
                        self.state = State::Resting((settings.timer)(settings.ping_interval));
                    } else if timeout.as_mut().poll(cx).is_ready() {
                        (settings.events)(Event::PingTimeout);
                        return Poll::Ready(());
                    } else {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

/// A timer that runs while something is pending.
#[derive(Default)]
pub(super) struct Deadline {
    running: Option<(u64, Sleep)>,
}

impl Deadline {
    /// A deadline that already runs for the first thing pending, number 0.
    pub(super) fn started(timer: &Timer, limit: Duration) -> Self {
        Self {
            running: Some((0, timer(limit))),
        }
    }

    /// True when `pending`, named by a number that differs for each new thing, has lasted `limit`.
    pub(super) fn poll_missed(
        &mut self,
        pending: Option<u64>,
        limit: Duration,
        timer: &Timer,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(number) = pending else {
            self.running = None;
            return false;
        };
        let same = self.running.take_if(|(running, _)| *running == number);
        let (_, sleep) = self
            .running
            .insert(same.unwrap_or_else(|| (number, timer(limit))));
        sleep.as_mut().poll(cx).is_ready()
    }
}
