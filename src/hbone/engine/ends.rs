//! How streams end: in order, by a reset of either side, by an error, or all at once.

use super::connection::{Connection, Ended, Fault};
use super::frame::{self, code};
use super::state::Head;
use crate::hbone::stream::StreamError;

/// Streams whose end is remembered, to tell late frames from wrong ones.
const ENDS_KEPT_MAX: usize = 128;
impl Connection {
    /// How a stream that is no longer here ended, if that is remembered.
    pub(super) fn end_of(&self, stream: u32) -> Option<Ended> {
        let mut ends = self.ends.iter().rev();
        ends.find(|(id, _)| *id == stream).map(|(_, how)| *how)
    }

    /// Cuts a stream short: what is queued is dropped, what was received stays readable.
    pub(super) fn kill(&mut self, id: u32, why: &StreamError, how: Ended) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_closed() {
            return;
        }
        if matches!(stream.head, Head::Unsent(_)) {
            // The peer never hears of it.
            self.unsent.retain(|unsent| *unsent != id);
        }
        stream.dead = Some(why.clone());
        if stream.recv.end.is_none() {
            stream.recv.end = Some(Err(why.clone()));
        }
        let send = &mut stream.send;
        let back = i64::try_from(send.reserved + send.queued).unwrap_or(0);
        self.credit += back;
        self.held -= back;
        send.queue.clear();
        (send.reserved, send.queued, send.want) = (0, 0, 0);
        stream.wake_reader();
        stream.wake_sender();
        self.closed(id, how);
        if back > 0 {
            self.share_credit();
        }
    }

    /// Does what is due once a stream is closed, if it is.
    pub(super) fn settle(&mut self, id: u32) {
        if self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.is_closed())
        {
            self.closed(id, Ended::InOrder);
        }
    }

    fn closed(&mut self, id: u32, how: Ended) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if std::mem::take(&mut stream.counted) {
            self.active -= 1;
            // A request that waits can go out, or the tunnel can end.
            self.turn_due = true;
            self.remember_end(id, how);
        }
        self.sweep(id);
    }

    pub(super) fn remember_end(&mut self, id: u32, how: Ended) {
        if self.ends.len() == ENDS_KEPT_MAX {
            self.ends.pop_front();
        }
        self.ends.push_back((id, how));
    }

    /// Forgets a stream that is closed and that nobody asks about.
    pub(super) fn sweep(&mut self, id: u32) {
        let done = self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.is_closed() && !stream.held);
        if done {
            self.streams.remove(&id);
        }
    }

    /// Resets a stream of ours for this reason.
    pub(super) fn reset(&mut self, id: u32, code: u32, why: &StreamError) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if stream.is_closed() {
            return;
        }
        if stream.counted {
            frame::write_reset(&mut self.control, id, code);
        }
        self.turn_due = true;
        self.kill(id, why, Ended::ByUs);
        self.sweep(id);
    }

    /// Answers a peer's error on one stream. Too many of them end the connection.
    pub(super) fn stream_error(&mut self, id: u32, code: u32, text: &str) -> Result<(), Fault> {
        self.local_resets += 1;
        if self.local_resets > self.settings.local_error_resets {
            return Err(Fault::new(
                code::ENHANCE_YOUR_CALM,
                "too many malformed streams",
            ));
        }
        frame::write_reset(&mut self.control, id, code);
        let why = StreamError::Connection(format!("h2 failed: {text}"));
        self.kill(id, &why, Ended::ByUs);
        Ok(())
    }

    /// Ends every stream.
    pub(super) fn fail(&mut self, why: &StreamError) {
        let mut ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.kill(id, why, Ended::ByUs);
            // Streams that had ended in order are as they were, apart from who watches them.
            if let Some(stream) = self.streams.get_mut(&id) {
                if stream.dead.is_none() {
                    stream.dead = Some(why.clone());
                }
                stream.wake_sender();
                stream.wake_reader();
            }
            self.sweep(id);
        }
        self.accept.clear();
        self.unsent.clear();
    }
}
