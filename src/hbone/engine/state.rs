//! What the engine knows about one stream.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::parked::{Parked, ParkedBudget};
use crate::hbone::stream::StreamError;

/// How far a stream is with its first headers.
#[derive(Debug)]
pub(super) enum Head {
    /// Client: the request has not been written. Holds its header block.
    Unsent(Vec<u8>),
    /// Client: no answer yet.
    Asked,
    /// Client: the answer, until it is taken. Boxed: a stream is as large as its largest state.
    Answered(Box<(StatusCode, HeaderMap)>),
    /// Server: the request is known, no answer was given.
    Unanswered,
    /// Both are known.
    Done,
}

/// The sending direction.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// What the peer's window allows beyond what is reserved or queued. Below zero after the peer
    /// made its windows smaller (RFC 9113 section 6.9.2).
    pub(super) credit: i64,
    /// Taken from both windows for bytes that are still to come.
    pub(super) reserved: usize,
    /// What a waiting sender asked for; 0 if none waits.
    pub(super) want: usize,
    /// In line for credit of the connection.
    pub(super) in_line: bool,
    /// In line for its turn to be written.
    pub(super) scheduled: bool,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued: usize,
    /// END_STREAM is queued.
    pub(super) end: bool,
    /// END_STREAM was written.
    pub(super) ended: bool,
    /// RST_STREAM to be written once everything before it was.
    pub(super) reset_after: Option<u32>,
    /// Woken by credit and by the end of the stream.
    pub(super) waker: Option<Waker>,
}

impl Sending {
    /// What may be written to the peer now.
    pub(super) fn wire_window(&self) -> usize {
        let held = i64::try_from(self.reserved + self.queued).unwrap_or(i64::MAX);
        usize::try_from(self.credit.saturating_add(held)).unwrap_or(0)
    }

    /// There is something to write, and it may be written.
    pub(super) fn is_ready(&self) -> bool {
        if self.queued > 0 {
            self.wire_window() > 0
        } else {
            self.end && !self.ended
        }
    }
}

/// The receiving direction.
#[derive(Debug)]
pub(super) struct Receiving {
    /// What the peer may still send. Below zero after we made our windows smaller.
    pub(super) window: i64,
    /// Forwarded, but not given back as credit yet.
    pub(super) unreturned: u32,
    /// A WINDOW_UPDATE is due.
    pub(super) update_due: bool,
    pub(super) parked: Parked,
    /// No more bytes will come: in order, or for this reason.
    pub(super) end: Option<Result<(), StreamError>>,
    /// Nobody reads any more.
    pub(super) unwanted: bool,
    /// Woken by bytes, by the end, and by the answer.
    pub(super) waker: Option<Waker>,
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) head: Head,
    pub(super) send: Sending,
    pub(super) recv: Receiving,
    /// Why it was cut short.
    pub(super) dead: Option<StreamError>,
    /// Somebody can still ask about it.
    pub(super) held: bool,
    /// Server: the request waits to be accepted.
    pub(super) waits_for_accept: bool,
    /// Counts against the limit of concurrent streams.
    pub(super) counted: bool,
}

impl StreamState {
    pub(super) fn new(head: Head, credit: u32, window: u32, budget: &ParkedBudget) -> Self {
        Self {
            head,
            send: Sending {
                credit: credit.into(),
                ..Sending::default()
            },
            recv: Receiving {
                window: window.into(),
                unreturned: 0,
                update_due: false,
                parked: Parked::new(budget.clone()),
                end: None,
                unwanted: false,
                waker: None,
            },
            dead: None,
            held: true,
            waits_for_accept: false,
            counted: false,
        }
    }

    /// Neither side can send any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.dead.is_some() || self.send.ended && self.recv.end.is_some()
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.recv.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(waker) = self.send.waker.take() {
            waker.wake();
        }
    }
}

/// Remembers who is to be woken.
pub(super) fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
