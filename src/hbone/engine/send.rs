//! Credit, queues and turns: what may be sent, and in which order it is written.
//!
//! Credit is taken from both windows when a sender is granted room, so whatever is queued may be
//! written; only a peer that makes its windows smaller meanwhile can hold it up.

use super::connection::Connection;
use super::frame::{self, WINDOW_MAX};
use super::hpack;
use super::state::Head;
use crate::hbone::guard::Role;

/// Most bytes of one stream in a round, and most in one frame, so that streams take turns.
pub(super) const TURN_BYTES_MAX: usize = 256 * 1024;
/// While a tunnel holds less than this for all its streams, one stream may hold a whole turn; above it,
/// `Settings::send_buffer`, so that a peer that does not read pins little for each stream.
const HELD_BYTES_EASY: i64 = 2 * 1024 * 1024;

/// An idle tunnel keeps no larger buffer for control frames.
const CONTROL_KEPT_BYTES: usize = 1024;

/// The window grew beyond what the protocol allows.
#[derive(Debug)]
pub(super) struct TooLarge;

impl From<TooLarge> for super::connection::Fault {
    fn from(_: TooLarge) -> Self {
        Self::new(
            frame::code::FLOW_CONTROL_ERROR,
            "a stream window grew too large",
        )
    }
}

impl Connection {
    /// Reserves up to `want` bytes for a stream, as far as its buffer and both windows allow, and
    /// answers how many are reserved now.
    pub(super) fn grant(&mut self, id: u32, want: usize) -> usize {
        // In bulk, few large sends cost much less than many small ones.
        let buffer = if self.held < HELD_BYTES_EASY {
            self.settings.send_buffer.max(TURN_BYTES_MAX)
        } else {
            self.settings.send_buffer
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        let send = &mut stream.send;
        let wanted = want.saturating_sub(send.reserved);
        let room = buffer.saturating_sub(send.queued + send.reserved);
        let of_stream = usize::try_from(send.credit).unwrap_or(0);
        let of_connection = usize::try_from(self.credit).unwrap_or(0);
        let more = wanted.min(room).min(of_stream).min(of_connection);
        send.reserved += more;
        let taken = i64::try_from(more).unwrap_or(0);
        send.credit -= taken;
        self.credit -= taken;
        self.held += taken;
        let granted = send.reserved;
        send.want = if granted == 0 { want } else { 0 };
        if granted == 0 && room > 0 && of_stream > 0 && !send.in_line {
            send.in_line = true;
            self.in_line.push_back(id);
        }
        granted
    }

    /// Gives unused room back to the windows.
    pub(super) fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let back = i64::try_from(std::mem::take(&mut stream.send.reserved)).unwrap_or(0);
        stream.send.credit += back;
        stream.send.want = 0;
        if back > 0 {
            self.credit += back;
            self.held -= back;
            self.share_credit();
        }
    }

    /// Serves the streams that wait for credit of the connection, first come first.
    pub(super) fn share_credit(&mut self) {
        while self.credit > 0 {
            let Some(id) = self.in_line.pop_front() else {
                return;
            };
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.send.in_line = false;
            }
            self.serve(id);
        }
    }

    /// Streams wait while the connection has no credit left.
    pub(super) fn is_congested(&self) -> bool {
        self.credit <= 0
            && self.in_line.iter().any(|id| {
                let stream = self.streams.get(id);
                stream.is_some_and(|stream| stream.send.want > 0)
            })
    }

    /// Grants what a waiting sender asked for, if it can be had now.
    fn serve(&mut self, id: u32) {
        let want = self.streams.get(&id).map_or(0, |stream| stream.send.want);
        if want > 0
            && self.grant(id, want) > 0
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.wake_sender();
        }
    }

    /// Moves a stream's window (RFC 9113 sections 6.9.1 and 6.9.2).
    pub(super) fn raise_window(&mut self, id: u32, by: i64) -> Result<(), TooLarge> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.is_closed() {
            return Ok(());
        }
        let send = &mut stream.send;
        send.credit += by;
        let held = i64::try_from(send.reserved + send.queued).unwrap_or(0);
        if send.credit + held > WINDOW_MAX {
            return Err(TooLarge);
        }
        self.serve(id);
        self.schedule(id);
        Ok(())
    }

    /// Puts a stream in line to be written, if it has something that may be.
    pub(super) fn schedule(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.is_ready() && !stream.send.scheduled && stream.dead.is_none() {
            stream.send.scheduled = true;
            self.ready.push_back(id);
            self.turn_due = true;
        }
    }

    /// Fills the batch: control frames, window updates, new requests, then DATA in turns.
    pub(super) fn fill(&mut self) {
        self.turn_due = false;
        if !self.control.is_empty() {
            self.batch.buffer().extend_from_slice(&self.control);
            if self.control.capacity() > CONTROL_KEPT_BYTES {
                self.control = Vec::new();
            } else {
                self.control.clear();
            }
        }
        self.write_updates();
        self.write_requests();
        self.batch.packed();
        while !self.batch.is_full() {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            self.write_data(id);
        }
    }

    /// Control frames that answers to the peer wait in, and that its reading must drain.
    pub(super) fn control_backlog(&self) -> usize {
        self.control.len()
    }

    fn write_updates(&mut self) {
        // Half of the window: the peer has the other half to go on with (spec: hbone.md 3.2).
        let half = self.settings.connection_window.max(frame::WINDOW_INITIAL) / 2;
        if self.unreturned >= half {
            frame::write_window_update(self.batch.buffer(), 0, self.unreturned);
            self.window += i64::from(self.unreturned);
            self.unreturned = 0;
        }
        for id in std::mem::take(&mut self.updates) {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.recv.update_due = false;
            if stream.recv.end.is_some() || stream.recv.unreturned == 0 {
                continue;
            }
            let by = std::mem::take(&mut stream.recv.unreturned);
            stream.recv.window += i64::from(by);
            frame::write_window_update(self.batch.buffer(), id, by);
        }
    }

    /// Requests that the peer's limit lets through.
    fn write_requests(&mut self) {
        if self.role == Role::Server {
            return;
        }
        while self.active < self.peer.max_streams {
            let Some(id) = self.unsent.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Head::Unsent(fields) = std::mem::replace(&mut stream.head, Head::Asked) else {
                continue;
            };
            stream.counted = true;
            stream.send.credit = self.peer.initial_window.into();
            self.active += 1;
            let block = owed_reset(&mut self.peer.table_reset_due, fields);
            let frame_max = self.peer.frame_max;
            frame::write_headers(self.batch.buffer(), id, &block, false, frame_max);
            self.batch_opened = id;
        }
    }

    /// Queues an answer's header block.
    pub(super) fn write_answer(&mut self, id: u32, fields: Vec<u8>, end: bool) {
        let block = owed_reset(&mut self.peer.table_reset_due, fields);
        frame::write_headers(&mut self.control, id, &block, end, self.peer.frame_max);
        self.turn_due = true;
    }

    /// One stream's turn.
    fn write_data(&mut self, id: u32) {
        let frame_max = self.peer.frame_max.min(TURN_BYTES_MAX);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let send = &mut stream.send;
        send.scheduled = false;
        if stream.dead.is_some() {
            return;
        }
        let mut turn = TURN_BYTES_MAX;
        while send.queued > 0 && turn > 0 {
            let length = send.queued.min(send.wire_window()).min(frame_max).min(turn);
            if length == 0 {
                break;
            }
            self.batch.add_data(id, length, false, &mut send.queue);
            self.guard.data_sent();
            send.queued -= length;
            self.held -= i64::try_from(length).unwrap_or(0);
            turn -= length;
        }
        if send.queued == 0 {
            send.queue = std::collections::VecDeque::new();
            if send.end && !send.ended {
                send.ended = true;
                self.batch.add_data(id, 0, true, &mut send.queue);
                self.guard.data_sent();
            }
        }
        let (ended, after) = (send.ended, send.reset_after);
        self.serve(id);
        self.schedule(id);
        if ended {
            self.after_end(id, after);
        }
    }

    /// END_STREAM was written: whatever is to follow it, and the end of the stream if it is one.
    fn after_end(&mut self, id: u32, reset: Option<u32>) {
        let open = self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.recv.end.is_none());
        if let Some(code) = reset
            && open
        {
            frame::write_reset(self.batch.buffer(), id, code);
            self.batch.packed();
            let why = crate::hbone::stream::StreamError::Closed;
            self.kill(id, &why, super::connection::Ended::ByUs);
        } else {
            self.settle(id);
        }
    }

    /// Connection credit for bytes that were received.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.unreturned = self.unreturned.saturating_add(bytes);
    }

    /// Stream credit for bytes that were forwarded.
    pub(super) fn return_credit(&mut self, id: u32, bytes: u32) {
        let half = self.accepted_window.min(self.announced_window) / 2;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let recv = &mut stream.recv;
        recv.unreturned = recv.unreturned.saturating_add(bytes);
        let due = recv.unreturned >= half.max(1) && recv.end.is_none() && !recv.unwanted;
        if due && !recv.update_due {
            recv.update_due = true;
            self.updates.push(id);
            self.turn_due = true;
        }
    }
}

/// The block, behind the table size update that is owed to the peer.
fn owed_reset(due: &mut bool, fields: Vec<u8>) -> Vec<u8> {
    if !std::mem::take(due) {
        return fields;
    }
    let mut block = Vec::with_capacity(fields.len() + 1);
    hpack::encode_table_reset(&mut block);
    block.extend_from_slice(&fields);
    block
}
