//! What frames of streams do (RFC 9113 section 6), and the exact error for each that is wrong.

use std::ops::Range;

use super::connection::{Connection, Draining, Ended, Fault};
use super::fields::FieldList;
use super::frame::{self, code};
use super::parked::Received;
use super::state::{Head, StreamState};
use crate::hbone::ResetCode;
use crate::hbone::guard::Role;
use crate::hbone::scan::FrameHead;
use crate::hbone::settings::{Event, LimitKind};
use crate::hbone::stream::StreamError;

/// What an unknown stream number means.
pub(super) enum Unknown {
    /// Nobody has opened it yet.
    Idle,
    /// It was open once.
    Gone(Option<Ended>),
    /// We said that we would not look at it.
    LeftOut,
}

impl Connection {
    pub(super) fn unknown(&self, id: u32) -> Unknown {
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
                stream.head = Head::Answered(Box::new((status, headers)));
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
}
