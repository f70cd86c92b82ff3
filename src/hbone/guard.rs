//! Keeps the limits on what a peer may send, frame by frame, for both engines.
//!
//! Our own engine tells it each frame; for the `h2` crate it walks the frame heads in the bytes that
//! pass. Inbound: control frames, stream resets, empty DATA, header blocks left open, SETTINGS and their
//! acknowledgement, GOAWAY. Outbound: DATA frames (each earns control frames, because WINDOW_UPDATE
//! answers them) and the highest stream that was really sent. Bytes are only looked at, never changed;
//! a limit that is hit leaves a [`Guard::verdict`], on which the tunnel acts.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use super::scan::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameHead, GOAWAY, Goaway, HEADERS,
    PUSH_PROMISE, RST_STREAM, SETTINGS, Scanner, Seen,
};
use super::settings::{ControlBudget, Event, LimitKind, Settings};

/// Empty DATA frames forgiven over the life of a tunnel; `h2` allows as many before it says GOAWAY.
const EMPTY_DATA_MAX: u32 = 100;
/// Frames below this pin more memory (a read buffer of `h2`) than they carry.
const SMALL_DATA_BYTES: u32 = 4096;
/// Small frames that may wait inside `h2` before they are moved to the streams' own buffers.
const SMALL_DATA_MAX: u32 = 512;
/// Bytes received before the tunnel lets others run: about half a millisecond of work.
const BATCH_BYTES: usize = 512 * 1024;
/// DATA frames whose control-frame earnings are kept: no peer has more unanswered.
const EARNED_FRAMES_MAX: u64 = 100_000;

/// Which end of the tunnel this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// The allowance of [`ControlBudget`]: what was spent, what was earned, when it was last refilled.
#[derive(Debug)]
struct Control {
    budget: ControlBudget,
    spent: u64,
    earned: u64,
    refilled: Instant,
}

impl Control {
    fn earn(&mut self) {
        let per_data = u64::from(self.budget.per_data);
        self.earned = (self.earned + per_data).min(EARNED_FRAMES_MAX * per_data);
    }

    fn spend(&mut self, now: Instant) -> Option<LimitKind> {
        let refill = now.saturating_duration_since(self.refilled).as_millis()
            * u128::from(self.budget.refill_per_s)
            / 1000;
        if refill > 0 {
            self.spent = self
                .spent
                .saturating_sub(u64::try_from(refill).unwrap_or(u64::MAX));
            self.refilled = now;
        }
        // Earnings go first, so that an idle tunnel keeps its base.
        if self.earned > 0 {
            self.earned -= 1;
            return None;
        }
        self.spent += 1;
        let base = u64::from(self.budget.base);
        if self.spent > base {
            Some(LimitKind::ControlFrames)
        } else if self.spent * 100 > base * u64::from(self.budget.polite_percent) {
            Some(LimitKind::ControlFramesPolite)
        } else {
            None
        }
    }
}

#[derive(Debug)]
struct Resets {
    period_start: Instant,
    count: u32,
}

#[derive(Debug)]
struct State {
    inbound: Scanner,
    outbound: Scanner,
    control: Control,
    resets: Resets,
    empty_data: u32,
}

/// Watches one tunnel.
#[derive(Debug)]
pub(super) struct Guard {
    role: Role,
    settings: Settings,
    state: RefCell<State>,
    verdict: Cell<Option<LimitKind>>,
    polite: Cell<bool>,
    header_block: Cell<Option<u64>>,
    header_blocks: Cell<u64>,
    settings_frames: Cell<u32>,
    settings_acked: Cell<bool>,
    goaway_in: Cell<Option<Goaway>>,
    goaway_out: Cell<Option<Goaway>>,
    last_stream_sent: Cell<u32>,
    small_data: Cell<u32>,
    batch: Cell<usize>,
}

impl Guard {
    pub(super) fn new(role: Role, settings: &Settings) -> Self {
        let now = (settings.now)();
        Self {
            role,
            settings: settings.clone(),
            state: RefCell::new(State {
                inbound: Scanner::new(role == Role::Server),
                outbound: Scanner::new(role == Role::Client),
                control: Control {
                    budget: settings.control_frames,
                    spent: 0,
                    earned: 0,
                    refilled: now,
                },
                resets: Resets {
                    period_start: now,
                    count: 0,
                },
                empty_data: 0,
            }),
            verdict: Cell::new(None),
            polite: Cell::new(false),
            header_block: Cell::new(None),
            header_blocks: Cell::new(0),
            settings_frames: Cell::new(0),
            settings_acked: Cell::new(false),
            goaway_in: Cell::new(None),
            goaway_out: Cell::new(None),
            last_stream_sent: Cell::new(0),
            small_data: Cell::new(0),
            batch: Cell::new(0),
        }
    }

    /// Looks at bytes that were received.
    pub(super) fn received(&self, bytes: &[u8]) {
        self.batch.set(self.batch.get() + bytes.len());
        let state = &mut *self.state.borrow_mut();
        let State {
            inbound,
            control,
            resets,
            empty_data,
            ..
        } = state;
        inbound.feed(bytes, |seen| match seen {
            Seen::Start(head) => self.frame_starts(head, control, resets, empty_data),
            Seen::End(head, goaway) => self.frame_ends(head, goaway),
        });
    }

    /// Looks at the head of a frame that was received.
    pub(super) fn frame_begins(&self, head: FrameHead) {
        let state = &mut *self.state.borrow_mut();
        self.frame_starts(
            head,
            &mut state.control,
            &mut state.resets,
            &mut state.empty_data,
        );
    }

    /// A DATA frame was sent.
    pub(super) fn data_sent(&self) {
        self.state.borrow_mut().control.earn();
    }

    fn frame_starts(
        &self,
        head: FrameHead,
        control: &mut Control,
        resets: &mut Resets,
        empty_data: &mut u32,
    ) {
        match head.kind {
            DATA => {
                if head.length == 0 && head.flags & END_STREAM == 0 {
                    *empty_data += 1;
                    if *empty_data > EMPTY_DATA_MAX {
                        self.convict(LimitKind::EmptyData);
                    }
                } else if head.length < SMALL_DATA_BYTES {
                    self.small_data.set(self.small_data.get() + 1);
                }
            }
            HEADERS | PUSH_PROMISE => self.open_header_block(),
            CONTINUATION | GOAWAY => {}
            RST_STREAM => self.count_reset(resets),
            kind => {
                if kind == SETTINGS && head.flags & ACK != 0 {
                    self.settings_acked.set(true);
                }
                match control.spend((self.settings.now)()) {
                    Some(LimitKind::ControlFramesPolite) => self.ask_for_drain(),
                    Some(limit) => self.convict(limit),
                    None => {}
                }
            }
        }
    }

    fn ask_for_drain(&self) {
        if !self.polite.replace(true) {
            (self.settings.events)(Event::LimitHit(LimitKind::ControlFramesPolite));
        }
    }

    /// A frame that was received is complete.
    pub(super) fn frame_ends(&self, head: FrameHead, goaway: Goaway) {
        match head.kind {
            HEADERS | PUSH_PROMISE | CONTINUATION if head.flags & END_HEADERS != 0 => {
                self.header_block.set(None);
            }
            SETTINGS if head.flags & ACK == 0 => {
                self.settings_frames.set(self.settings_frames.get() + 1);
            }
            GOAWAY => {
                let first = self.goaway_in.replace(Some(goaway)).is_none();
                if first {
                    (self.settings.events)(Event::GoawayReceived);
                }
            }
            _ => {}
        }
    }

    fn open_header_block(&self) {
        let number = self.header_blocks.get() + 1;
        self.header_blocks.set(number);
        self.header_block.set(Some(number));
    }

    /// Only a client can make us work by opening and resetting streams; resets from a server are
    /// bounded by the streams we opened ourselves.
    fn count_reset(&self, resets: &mut Resets) {
        if self.role == Role::Client {
            return;
        }
        let (max, period) = self.settings.peer_resets;
        let now = (self.settings.now)();
        if now.saturating_duration_since(resets.period_start) >= period {
            resets.period_start = now;
            resets.count = 0;
        }
        resets.count += 1;
        if resets.count > max {
            self.convict(LimitKind::PeerResets);
        }
    }

    /// Looks at bytes that were taken for sending.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        let State {
            outbound, control, ..
        } = state;
        outbound.feed(bytes, |seen| match seen {
            Seen::Start(head) => match head.kind {
                DATA => control.earn(),
                HEADERS => self
                    .last_stream_sent
                    .set(self.last_stream_sent.get().max(head.stream)),
                _ => {}
            },
            Seen::End(head, goaway) => {
                if head.kind == GOAWAY {
                    self.goaway_out.set(Some(goaway));
                }
            }
        });
    }

    /// Condemns the tunnel; the first reason stays.
    pub(super) fn convict(&self, limit: LimitKind) {
        if self.verdict.get().is_none() {
            self.verdict.set(Some(limit));
            (self.settings.events)(Event::LimitHit(limit));
        }
    }

    /// The limit for which the tunnel must end.
    pub(super) fn verdict(&self) -> Option<LimitKind> {
        self.verdict.get()
    }

    /// True once the tunnel should be drained politely.
    pub(super) fn wants_drain(&self) -> bool {
        self.polite.get()
    }

    /// Number of the header block that is not complete.
    pub(super) fn open_block(&self) -> Option<u64> {
        self.header_block.get()
    }

    /// SETTINGS frames received, acknowledgements apart.
    pub(super) fn settings_frames(&self) -> u32 {
        self.settings_frames.get()
    }

    /// True once our SETTINGS were acknowledged.
    pub(super) fn settings_acked(&self) -> bool {
        self.settings_acked.get()
    }

    /// The newest GOAWAY received.
    pub(super) fn goaway_received(&self) -> Option<Goaway> {
        self.goaway_in.get()
    }

    /// The newest GOAWAY sent.
    pub(super) fn goaway_sent(&self) -> Option<Goaway> {
        self.goaway_out.get()
    }

    /// True if the HEADERS of this stream left for the peer.
    pub(super) fn was_sent(&self, stream: u32) -> bool {
        stream <= self.last_stream_sent.get()
    }

    /// True if nothing more may be received before [`Guard::take_small`], [`Guard::next_batch`] or
    /// the end of the tunnel.
    pub(super) fn must_pause(&self) -> bool {
        self.verdict.get().is_some() || self.small_full() || self.batch_full()
    }

    /// True when enough small frames may wait in `h2` that the streams must take them over.
    pub(super) fn small_full(&self) -> bool {
        self.small_data.get() >= SMALL_DATA_MAX
    }

    /// Forgets small frames: the streams have taken them over.
    pub(super) fn take_small(&self) {
        self.small_data.set(0);
    }

    /// True when others should run first.
    pub(super) fn batch_full(&self) -> bool {
        self.batch.get() >= BATCH_BYTES
    }

    /// Others have run.
    pub(super) fn next_batch(&self) {
        self.batch.set(0);
    }
}

#[cfg(test)]
mod tests;
