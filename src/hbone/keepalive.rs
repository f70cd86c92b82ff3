//! PING keepalive and the deadlines of a tunnel's start (spec: hbone.md 3.3).

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::guard::Guard;
use super::settings::{Event, LimitKind, Settings, Sleep, Timer};

/// How an engine sends PINGs.
pub(super) trait Pings {
    /// Sends one. False: the connection is over, which the engine reports itself.
    fn send(&mut self) -> bool;

    /// Ready when the PING was answered, or, with false, when it never will be.
    fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<bool>;
}

/// Sends a PING some time after the tunnel came up and after each PONG; a PONG that stays out kills.
pub(super) struct Keepalive {
    state: State,
}

enum State {
    /// Until the next PING.
    Resting(Sleep),
    /// A PING is out since then; ends when the wait for its PONG is over.
    Waiting(Instant, Sleep),
}

impl Keepalive {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            state: State::Resting((settings.timer)(settings.ping_interval)),
        }
    }

    /// Ready when the peer is dead. Poll it before the engine, which sends the PING.
    pub(super) fn poll_dead(
        &mut self,
        pings: &mut impl Pings,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Resting(sleep) => {
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    if !pings.send() {
                        self.state = State::Resting((settings.timer)(settings.ping_interval));
                        continue;
                    }
                    let timeout = (settings.timer)(settings.ping_timeout);
                    self.state = State::Waiting((settings.now)(), timeout);
                }
                State::Waiting(since, timeout) => {
                    if let Poll::Ready(answered) = pings.poll_pong(cx) {
                        if answered {
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

/// The deadlines of a tunnel's start, and of each header block.
pub(super) struct Deadlines {
    first_settings: Deadline,
    settings_ack: Deadline,
    header_block: Deadline,
}

impl Deadlines {
    /// The preface is due from now on.
    pub(super) fn start(settings: &Settings) -> Self {
        let timer = &settings.timer;
        Self {
            first_settings: Deadline::started(timer, settings.preface_timeout),
            settings_ack: Deadline::started(timer, settings.settings_ack_timeout),
            header_block: Deadline::default(),
        }
    }

    /// The limit that was reached, if one was; the guard condemns the tunnel for it.
    pub(super) fn poll_missed(
        &mut self,
        guard: &Guard,
        settings: &Settings,
        cx: &mut Context<'_>,
    ) -> Option<LimitKind> {
        let timer = &settings.timer;
        let first = (guard.settings_frames() == 0).then_some(0);
        let ack = (!guard.settings_acked()).then_some(0);
        let block = guard.open_block();
        let limit = if self
            .first_settings
            .poll_missed(first, settings.preface_timeout, timer, cx)
        {
            LimitKind::PrefaceTimeout
        } else if self
            .settings_ack
            .poll_missed(ack, settings.settings_ack_timeout, timer, cx)
        {
            LimitKind::SettingsAckTimeout
        } else if self
            .header_block
            .poll_missed(block, settings.header_block_timeout, timer, cx)
        {
            LimitKind::HeaderBlockTimeout
        } else {
            return None;
        };
        guard.convict(limit);
        Some(limit)
    }
}
