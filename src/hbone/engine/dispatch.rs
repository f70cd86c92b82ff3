//! What each received frame does (RFC 9113 section 6), and the exact error for each that is wrong.

use std::ops::Range;

use super::connection::{Connection, Draining, Ended, Fault};
use super::fields::FieldList;
use super::frame::{self, WINDOW_MAX, code, setting};
use super::parked::Received;
use super::state::{Head, StreamState};
use crate::hbone::ResetCode;
use crate::hbone::guard::Role;
use crate::hbone::scan::{FrameHead, Goaway};
use crate::hbone::settings::{Event, LimitKind};
use crate::hbone::stream::StreamError;

/// What an unknown stream number means.
enum Unknown {
    /// Nobody has opened it yet.
    Idle,
    /// It was open once.
    Gone(Option<Ended>),
    /// We said that we would not look at it.
    LeftOut,
}

impl Connection {
    fn unknown(&self, id: u32) -> Unknown {
        let peers = (id % 2 == 1) == (self.role == Role::Server);
        let opened = if peers {
            id <= self.last_peer
        } else {
            id < self.next_own
        };
        if opened {
            Unknown::Gone(self.end_of(id))
        } else if peers && self.draining == Draining::Closed {
            Unknown::LeftOut
        } else {
            Unknown::Idle
        }
    }

    /// Charges a DATA frame to the windows (RFC 9113 section 6.9.1). False: its payload is dropped.
    pub(super) fn admit_data(&mut self, head: FrameHead) -> Result<bool, Fault> {
        let (id, length) = (head.stream, i64::from(head.length));
        if id == 0 {
            return Err(Fault::protocol("DATA on stream 0"));
        }
        self.window -= length;
        if self.window < 0 {
            return Err(Fault::new(
                code::FLOW_CONTROL_ERROR,
                "more DATA than the connection window",
            ));
        }
        // Parked bytes are bounded by the windows of streams and by the budget of the shard.
        self.give_back(head.length);
        let Some(stream) = self.streams.get_mut(&id) else {
            return match self.unknown(id) {
                Unknown::Idle => Err(Fault::protocol("DATA on an idle stream")),
                Unknown::Gone(Some(Ended::InOrder)) => Err(Fault::new(
                    code::STREAM_CLOSED,
                    "DATA on a stream that has ended",
                )),
                Unknown::Gone(Some(Ended::ByUs)) | Unknown::LeftOut => Ok(false),
                Unknown::Gone(Some(Ended::ByPeer) | None) => self
                    .stream_error(id, code::STREAM_CLOSED, "DATA on a closed stream")
                    .map(|()| false),
            };
        };
        if stream.dead.is_some() {
            return Ok(false);
        }
        if matches!(stream.head, Head::Unsent(_)) {
            return Err(Fault::protocol("DATA on an idle stream"));
        }
        if stream.recv.end.is_some() {
            if stream.is_closed() {
                return Err(Fault::new(
                    code::STREAM_CLOSED,
                    "DATA on a stream that has ended",
                ));
            }
            self.stream_error(id, code::STREAM_CLOSED, "DATA after END_STREAM")?;
            return Ok(false);
        }
        if matches!(stream.head, Head::Asked) {
            self.stream_error(id, code::PROTOCOL_ERROR, "DATA before the answer")?;
            return Ok(false);
        }
        stream.recv.window -= length;
        if stream.recv.window < 0 {
            let text = "more DATA than the stream window";
            self.stream_error(id, code::FLOW_CONTROL_ERROR, text)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Padding is forwarded as soon as it came.
    pub(super) fn return_padding(&mut self, id: u32, bytes: u32) {
        self.return_credit(id, bytes);
    }

    /// Keeps bytes for the reader of a stream.
    pub(super) fn park(&mut self, id: u32, received: Received<'_>, at: Range<usize>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.dead.is_some() || stream.recv.unwanted {
            return;
        }
        stream.recv.parked.add(received, at);
        stream.wake_reader();
    }

    pub(super) fn data_ends(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.recv.end.is_none()
        {
            stream.recv.end = Some(Ok(()));
            stream.wake_reader();
            self.settle(id);
        }
    }

    /// A header block is complete. It is decoded whatever becomes of it: the table must stay right.
    pub(super) fn headers(&mut self, id: u32, flags: u8, block: &[u8]) -> Result<(), Fault> {
        let bytes_max = match self.role {
            Role::Client => self.settings.max_header_list,
            Role::Server => self.settings.advertised_header_list,
        };
        let mut fields = FieldList::new(bytes_max as usize);
        self.decoder
            .decode(block, |name, value| fields.push(name, value))
            .map_err(|error| Fault::new(code::COMPRESSION_ERROR, error.to_string()))?;
        let end = flags & frame::END_STREAM != 0;
        if let Some(stream) = self.streams.get(&id) {
            return match stream.head {
                Head::Unsent(_) => Err(Fault::protocol("HEADERS on an idle stream")),
                Head::Asked => self.answer(id, end, fields),
                Head::Answered(..) | Head::Unanswered | Head::Done => {
                    self.trailers(id, end, fields)
                }
            };
        }
        match self.unknown(id) {
            Unknown::LeftOut => Ok(()),
            Unknown::Idle if self.role == Role::Server && id % 2 == 1 => {
                self.request(id, end, fields)
            }
            Unknown::Idle => Err(Fault::protocol("HEADERS on a stream that is not open")),
            Unknown::Gone(Some(Ended::ByUs)) => Ok(()),
            Unknown::Gone(Some(Ended::ByPeer)) => {
                self.stream_error(id, code::STREAM_CLOSED, "HEADERS on a closed stream")
            }
            Unknown::Gone(Some(Ended::InOrder)) => Err(Fault::new(
                code::STREAM_CLOSED,
                "HEADERS on a stream that has ended",
            )),
            // Skipped, or long gone (RFC 9113 section 5.1.1).
            Unknown::Gone(None) => Err(Fault::protocol("a stream number that goes back")),
        }
    }

    fn request(&mut self, id: u32, end: bool, fields: FieldList) -> Result<(), Fault> {
        self.last_peer = id;
        if self.active >= self.settings.max_streams as usize {
            frame::write_reset(&mut self.control, id, code::REFUSED_STREAM);
            self.note_end(id, Ended::ByUs);
            return Ok(());
        }
        if fields.is_oversize() {
            (self.settings.events)(Event::LimitHit(LimitKind::RequestHeaders));
            self.refuse_unseen(id, end);
            return Ok(());
        }
        let Ok(request) = fields.into_request() else {
            self.note_end(id, Ended::ByUs);
            return self.stream_error(id, code::PROTOCOL_ERROR, "malformed request");
        };
        let mut stream = StreamState::new(
            Head::Unanswered,
            self.peer.initial_window,
            self.accepted_window,
            &self.settings.parked,
        );
        stream.waits_for_accept = true;
        stream.counted = true;
        if end {
            stream.recv.end = Some(Ok(()));
        }
        self.active += 1;
        self.streams.insert(id, Box::new(stream));
        self.accept.push_back((id, request));
        Ok(())
    }

    fn answer(&mut self, id: u32, end: bool, fields: FieldList) -> Result<(), Fault> {
        if fields.is_oversize() {
            let text = "response headers too large";
            return self.stream_error(id, code::PROTOCOL_ERROR, text);
        }
        let answer = fields.into_answer();
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.dead.is_none()) else {
            return Ok(());
        };
        match answer {
            // An interim answer (RFC 9113 section 8.1): the real one follows.
            Ok((status, _)) if status.is_informational() && !end => Ok(()),
            Ok((status, headers)) if !status.is_informational() => {
                stream.head = Head::Answered(status, headers);
                stream.wake_reader();
                if end {
                    self.data_ends(id);
                }
                Ok(())
            }
            _ => self.stream_error(id, code::PROTOCOL_ERROR, "malformed response"),
        }
    }

    /// Trailers carry nothing for us: they are an end of stream.
    fn trailers(&mut self, id: u32, end: bool, fields: FieldList) -> Result<(), Fault> {
        let Some(stream) = self.streams.get(&id) else {
            return Ok(());
        };
        if stream.dead.is_some() {
            return Ok(());
        }
        if stream.recv.end.is_some() {
            if stream.is_closed() {
                return Err(Fault::new(
                    code::STREAM_CLOSED,
                    "HEADERS on a stream that has ended",
                ));
            }
            return self.stream_error(id, code::STREAM_CLOSED, "HEADERS after END_STREAM");
        }
        if !end || fields.is_oversize() || fields.check_trailers().is_err() {
            return self.stream_error(id, code::PROTOCOL_ERROR, "malformed trailers");
        }
        self.data_ends(id);
        Ok(())
    }

    pub(super) fn priority(&mut self, head: FrameHead) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::protocol("PRIORITY on stream 0"));
        }
        if head.length == 5 {
            return Ok(());
        }
        let text = "PRIORITY of a wrong length";
        if matches!(self.unknown(head.stream), Unknown::Idle)
            && !self.streams.contains_key(&head.stream)
        {
            // RST_STREAM must not name an idle stream (RFC 9113 section 6.4).
            return Err(Fault::new(code::FRAME_SIZE_ERROR, text));
        }
        self.stream_error(head.stream, code::FRAME_SIZE_ERROR, text)
    }

    pub(super) fn peer_reset(&mut self, id: u32, code: Option<u32>) -> Result<(), Fault> {
        if id == 0 {
            return Err(Fault::protocol("RST_STREAM on stream 0"));
        }
        let Some(stream) = self.streams.get(&id) else {
            return match self.unknown(id) {
                Unknown::Idle => Err(Fault::protocol("RST_STREAM on an idle stream")),
                Unknown::Gone(_) | Unknown::LeftOut => Ok(()),
            };
        };
        if matches!(stream.head, Head::Unsent(_)) {
            return Err(Fault::protocol("RST_STREAM on an idle stream"));
        }
        if stream.waits_for_accept && stream.dead.is_none() {
            self.accept_resets += 1;
            if self.accept_resets > self.settings.pending_accept_resets {
                return Err(Fault::new(
                    code::ENHANCE_YOUR_CALM,
                    "too many streams were reset before they were accepted",
                ));
            }
        }
        let why = StreamError::Reset(ResetCode::from_code(code.unwrap_or_default()));
        self.kill(id, &why, Ended::ByPeer);
        Ok(())
    }

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
            self.unsent.retain(|unsent| *unsent != id);
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
        if !self.streams.contains_key(&id) {
            return match self.unknown(id) {
                Unknown::Idle => Err(Fault::protocol("WINDOW_UPDATE on an idle stream")),
                Unknown::Gone(_) | Unknown::LeftOut => Ok(()),
            };
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
