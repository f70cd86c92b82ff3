//! The frame engine of one tunnel, without I/O: received bytes and orders go in, frames come out.
//!
//! The parts are spread over `receive` (frames found in the byte stream), `dispatch` (what each
//! frame of a stream does), `control` (frames of the connection), `send` (credit, queues, turns),
//! `commands` (what streams and handles ask for) and `ends` (how streams end). Here: the state, the
//! first flight, keepalive, drain and budget. Time enters through the guard's clock only.

use std::collections::VecDeque;
use std::rc::Rc;

use http::Request;
use rustc_hash::FxHashMap;

use super::batch::Batch;
use super::frame::{self, WINDOW_INITIAL, code, setting};
use super::hpack::Decoder;
use super::receive::Input;
use super::state::StreamState;
use crate::hbone::guard::{Guard, Role};
use crate::hbone::settings::{Event, LimitKind, Settings};

/// Window of each stream while too many received bytes wait in the shard.
pub(super) const STRAINED_WINDOW: u32 = 64 * 1024;
/// First PING of a drain (spec: hbone.md 3.4).
const DRAIN_PING: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
/// PING of the keepalive (spec: hbone.md 3.3).
const KEEPALIVE_PING: [u8; 8] = [0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4];

/// Why the connection must end with GOAWAY.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Fault {
    pub(super) code: u32,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new(code: u32, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    pub(super) fn protocol(text: impl Into<String>) -> Self {
        Self::new(code::PROTOCOL_ERROR, text)
    }
}

/// How a stream ended, for frames that come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides said END_STREAM.
    InOrder,
    /// The peer reset it.
    ByPeer,
    /// We reset it; the peer may not know yet.
    ByUs,
}

/// What the peer announced.
#[derive(Debug)]
pub(super) struct PeerSettings {
    pub(super) initial_window: u32,
    pub(super) frame_max: usize,
    pub(super) max_streams: usize,
    /// Its HPACK table is smaller than ours was at the start; it must be told that ours is empty.
    pub(super) table_reset_due: bool,
    pub(super) seen: bool,
}

/// Our own end of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draining {
    No,
    /// The first GOAWAY and its PING are out.
    Announced,
    /// The last stream was named.
    Closed,
}

/// The engine of one tunnel.
pub(super) struct Connection {
    pub(super) role: Role,
    pub(super) settings: Rc<Settings>,
    pub(super) guard: Rc<Guard>,
    pub(super) input: Input,
    pub(super) decoder: Decoder,
    pub(super) peer: PeerSettings,
    pub(super) streams: FxHashMap<u32, Box<StreamState>>,
    pub(super) ends: VecDeque<(u32, Ended)>,
    /// Highest stream of the peer (server) or number of our next one (client).
    pub(super) last_peer: u32,
    pub(super) next_own: u32,
    /// Streams that count against the limit.
    pub(super) active: usize,
    pub(super) accept: VecDeque<(u32, Request<()>)>,
    pub(super) accept_resets: usize,
    /// Client: requests that wait for the peer's stream limit.
    pub(super) unsent: VecDeque<u32>,
    pub(super) local_resets: usize,
    /// Connection window for sending, what is reserved or queued taken off.
    pub(super) credit: i64,
    /// What is reserved or queued in all streams.
    pub(super) held: i64,
    pub(super) in_line: VecDeque<u32>,
    pub(super) ready: VecDeque<u32>,
    /// Connection window for receiving, and what is to be given back.
    pub(super) window: i64,
    pub(super) unreturned: u32,
    pub(super) updates: Vec<u32>,
    /// Stream window the peer was told last, and those it has not acknowledged yet, in order.
    pub(super) announced_window: u32,
    pub(super) accepted_window: u32,
    pub(super) unacknowledged: VecDeque<u32>,
    pub(super) control: Vec<u8>,
    pub(super) batch: Batch,
    pub(super) batch_opened: u32,
    pub(super) last_opened: u32,
    pub(super) draining: Draining,
    pub(super) drain_pong: bool,
    pub(super) pong: bool,
    /// The driver must run.
    pub(super) turn_due: bool,
}

impl Connection {
    pub(super) fn new(role: Role, settings: &Rc<Settings>, guard: &Rc<Guard>) -> Self {
        let client = role == Role::Client;
        Self {
            role,
            settings: Rc::clone(settings),
            guard: Rc::clone(guard),
            input: Input::new(role),
            decoder: Decoder::default(),
            peer: PeerSettings {
                initial_window: WINDOW_INITIAL,
                frame_max: frame::FRAME_BYTES_MIN as usize,
                max_streams: settings.initial_send_streams,
                table_reset_due: false,
                seen: false,
            },
            streams: FxHashMap::default(),
            ends: VecDeque::new(),
            last_peer: 0,
            next_own: u32::from(client),
            active: 0,
            accept: VecDeque::new(),
            accept_resets: 0,
            unsent: VecDeque::new(),
            local_resets: 0,
            credit: WINDOW_INITIAL.into(),
            held: 0,
            in_line: VecDeque::new(),
            ready: VecDeque::new(),
            window: settings.connection_window.max(WINDOW_INITIAL).into(),
            unreturned: 0,
            updates: Vec::new(),
            announced_window: settings.stream_window,
            accepted_window: settings.stream_window,
            unacknowledged: VecDeque::new(),
            control: Vec::new(),
            batch: Batch::default(),
            batch_opened: 0,
            last_opened: 0,
            draining: Draining::No,
            drain_pong: false,
            pong: false,
            turn_due: false,
        }
    }

    /// Writes what opens the connection (spec: hbone.md 3.1).
    pub(super) fn greet(&mut self) {
        let settings = &self.settings;
        let out = &mut self.control;
        let first = if self.role == Role::Client {
            out.extend_from_slice(frame::PREFACE);
            (setting::ENABLE_PUSH, 0)
        } else {
            (setting::MAX_CONCURRENT_STREAMS, settings.max_streams)
        };
        let list = match self.role {
            Role::Client => settings.max_header_list,
            Role::Server => settings.advertised_header_list,
        };
        frame::write_settings(
            out,
            &[
                first,
                (setting::INITIAL_WINDOW_SIZE, settings.stream_window),
                (setting::MAX_FRAME_SIZE, settings.frame_size),
                (setting::MAX_HEADER_LIST_SIZE, list),
            ],
        );
        self.unacknowledged.push_back(settings.stream_window);
        if settings.connection_window > WINDOW_INITIAL {
            let by = settings.connection_window - WINDOW_INITIAL;
            frame::write_window_update(out, 0, by);
        }
    }

    /// Sends a PING of the keepalive.
    pub(super) fn ping(&mut self) {
        self.pong = false;
        frame::write(&mut self.control, frame::PING, 0, 0, &KEEPALIVE_PING);
    }

    /// A PING of ours was answered.
    pub(super) fn ponged(&mut self, payload: &[u8]) {
        if payload == KEEPALIVE_PING {
            self.pong = true;
        } else if payload == DRAIN_PING && self.draining == Draining::Announced {
            self.drain_pong = true;
        }
    }

    /// First step of a drain: no stream is refused yet. A second call does nothing.
    pub(super) fn start_drain(&mut self) {
        if self.draining == Draining::No {
            self.draining = Draining::Announced;
            frame::write_goaway(&mut self.control, frame::STREAM_MAX, code::NO_ERROR);
            frame::write(&mut self.control, frame::PING, 0, 0, &DRAIN_PING);
        }
    }

    /// Second step, when the peer has seen the first one: later streams are ignored.
    pub(super) fn finish_drain(&mut self) {
        if self.drain_pong && self.draining == Draining::Announced {
            self.say_goodbye(code::NO_ERROR);
        }
    }

    /// GOAWAY that names the last stream.
    pub(super) fn say_goodbye(&mut self, code: u32) {
        self.draining = Draining::Closed;
        frame::write_goaway(&mut self.control, self.last_peer, code);
    }

    /// No stream is left that could still move.
    pub(super) fn is_idle(&self) -> bool {
        self.active == 0 && self.unsent.is_empty() && self.accept.is_empty()
    }

    /// The shard holds too much: windows shrink. Or it holds little again: they grow.
    pub(super) fn watch_budget(&mut self) {
        let full = self.settings.stream_window;
        let strained = self.settings.parked.is_strained();
        let window = if strained {
            full.min(STRAINED_WINDOW)
        } else {
            full
        };
        if window != self.announced_window {
            if strained {
                (self.settings.events)(Event::LimitHit(LimitKind::ParkedBytes));
            }
            self.announced_window = window;
            self.unacknowledged.push_back(window);
            let setting = [(setting::INITIAL_WINDOW_SIZE, window)];
            frame::write_settings(&mut self.control, &setting);
        }
    }

    /// The transport took so many bytes of the batch.
    pub(super) fn sent(&mut self, taken: usize) {
        self.batch.advance(taken);
        // Any of these requests may have reached the peer.
        self.last_opened = self.batch_opened;
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("role", &self.role)
            .field("streams", &self.streams.len())
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}
