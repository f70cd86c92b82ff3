//! What frames about the connection do: SETTINGS, PING, GOAWAY, WINDOW_UPDATE (RFC 9113 section 6).

use super::connection::{Connection, Ended, Fault};
use super::dispatch::Unknown;
use super::frame::{self, WINDOW_MAX, code, setting};
use super::state::Head;
use crate::hbone::guard::Role;
use crate::hbone::scan::{FrameHead, Goaway};
use crate::hbone::stream::StreamError;

impl Connection {
    pub(super) fn peer_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if head.flags & frame::ACK != 0 {
            self.settings_acknowledged();
            return Ok(());
        }
        if !self.peer.seen {
            self.peer.seen = true;
            self.peer.max_streams = usize::MAX;
        }
        for entry in payload.chunks_exact(6) {
            let [i0, i1, v @ ..] = entry else { continue };
            let id = u16::from_be_bytes([*i0, *i1]);
            self.peer_setting(id, frame::number(v).unwrap_or_default())?;
        }
        self.turn_due = true;
        frame::write(&mut self.control, frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(())
    }

    fn peer_setting(&mut self, id: u16, value: u32) -> Result<(), Fault> {
        match id {
            setting::HEADER_TABLE_SIZE => {
                let smaller = (value as usize) < super::hpack::TABLE_BYTES_MAX;
                self.peer.table_reset_due |= smaller;
            }
            setting::ENABLE_PUSH if value > 1 || value == 1 && self.role == Role::Client => {
                return Err(Fault::protocol("ENABLE_PUSH of a wrong value"));
            }
            setting::MAX_CONCURRENT_STREAMS => {
                self.peer.max_streams = usize::try_from(value).unwrap_or(usize::MAX);
            }
            setting::INITIAL_WINDOW_SIZE => self.peer_window(value)?,
            setting::MAX_FRAME_SIZE => {
                if !(frame::FRAME_BYTES_MIN..=frame::FRAME_BYTES_MAX).contains(&value) {
                    return Err(Fault::protocol("MAX_FRAME_SIZE out of range"));
                }
                self.peer.frame_max = value as usize;
            }
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(Fault::protocol("ENABLE_CONNECT_PROTOCOL of a wrong value"));
            }
            _ => {}
        }
        Ok(())
    }

    /// A new initial window moves those of all streams (RFC 9113 section 6.9.2).
    fn peer_window(&mut self, value: u32) -> Result<(), Fault> {
        if i64::from(value) > WINDOW_MAX {
            return Err(Fault::new(
                code::FLOW_CONTROL_ERROR,
                "INITIAL_WINDOW_SIZE out of range",
            ));
        }
        let change = i64::from(value) - i64::from(self.peer.initial_window);
        self.peer.initial_window = value;
        let mut ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.raise_window(id, change)?;
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self) {
        let Some(window) = self.unacknowledged.pop_front() else {
            return;
        };
        let change = i64::from(window) - i64::from(self.accepted_window);
        self.accepted_window = window;
        if change == 0 {
            return;
        }
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.recv.window += change;
            }
            self.return_credit(id, 0);
        }
    }

    pub(super) fn peer_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("PING on a stream"));
        }
        if head.flags & frame::ACK != 0 {
            self.ponged(payload);
        } else {
            frame::write(&mut self.control, frame::PING, frame::ACK, 0, payload);
        }
        Ok(())
    }

    /// The last stream may only go down (RFC 9113 section 6.8).
    pub(super) fn check_goaway(&self, goaway: Goaway) -> Result<(), Fault> {
        let before = self.guard.goaway_received();
        if before.is_some_and(|before| goaway.last_stream > before.last_stream) {
            return Err(Fault::protocol("GOAWAY names a later stream than before"));
        }
        Ok(())
    }

    pub(super) fn peer_goaway(&mut self, goaway: Goaway) -> Result<(), Fault> {
        self.turn_due = true;
        if self.role == Role::Server {
            return Ok(());
        }
        let mut left_out: Vec<u32> = self
            .streams
            .iter()
            .filter(|(id, stream)| {
                **id > goaway.last_stream || matches!(stream.head, Head::Unsent(_))
            })
            .map(|(id, _)| *id)
            .collect();
        left_out.sort_unstable();
        for id in left_out {
            self.kill(id, &StreamError::GoneAway, Ended::ByUs);
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, id: u32, by: Option<u32>) -> Result<(), Fault> {
        let by = i64::from(by.unwrap_or_default() & frame::STREAM_MAX);
        if id == 0 {
            if by == 0 {
                return Err(Fault::protocol("WINDOW_UPDATE by nothing"));
            }
            // What is only reserved or queued is still in the peer's view of the window.
            self.credit += by;
            if self.credit + self.held > WINDOW_MAX {
                return Err(Fault::new(
                    code::FLOW_CONTROL_ERROR,
                    "the connection window grew too large",
                ));
            }
            self.share_credit();
            return Ok(());
        }
        let Some(stream) = self.streams.get(&id) else {
            return match self.unknown(id) {
                Unknown::Idle => Err(Fault::protocol("WINDOW_UPDATE on an idle stream")),
                Unknown::Gone(_) | Unknown::LeftOut => Ok(()),
            };
        };
        if matches!(stream.head, Head::Unsent(_)) {
            return Err(Fault::protocol("WINDOW_UPDATE on an idle stream"));
        }
        if by == 0 {
            return self.stream_error(id, code::PROTOCOL_ERROR, "WINDOW_UPDATE by nothing");
        }
        if self.raise_window(id, by).is_err() {
            let text = "the stream window grew too large";
            return self.stream_error(id, code::FLOW_CONTROL_ERROR, text);
        }
        Ok(())
    }
}
