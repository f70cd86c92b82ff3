//! What streams and handles ask of the engine.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::connection::{Connection, Ended};
use super::frame::{self, STREAM_MAX, code};
use super::hpack;
use super::send::TURN_BYTES_MAX;
use super::state::{Head, StreamState, remember};
use crate::hbone::ResetCode;
use crate::hbone::connect::encode_response;
use crate::hbone::guard::Role;
use crate::hbone::stream::StreamError;
use crate::model::baggage::Baggage;

impl Connection {
    /// Registers a request; `None` when stream numbers have run out.
    pub(super) fn open(&mut self, fields: Vec<u8>) -> Option<u32> {
        let id = self.next_own;
        if id > STREAM_MAX {
            return None;
        }
        self.next_own += 2;
        let stream = StreamState::new(
            Head::Unsent(fields),
            self.peer.initial_window,
            self.accepted_window,
            &self.settings.parked,
        );
        self.streams.insert(id, Box::new(stream));
        self.unsent.push_back(id);
        self.turn_due = true;
        Some(id)
    }

    /// The answer to a request, once.
    pub(super) fn poll_answer(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<(StatusCode, HeaderMap), StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::Closed));
        };
        // A stream that was accepted and reset before anybody looked has failed to open.
        let stillborn = match &stream.dead {
            Some(StreamError::Reset(ResetCode::NoError)) | None => false,
            Some(_) => stream.recv.parked.bytes() == 0,
        };
        if let Head::Answered(answer) = &mut stream.head
            && !(stillborn && answer.0 == StatusCode::OK)
        {
            let answer = (answer.0, std::mem::take(&mut answer.1));
            stream.head = Head::Done;
            return Poll::Ready(Ok(answer));
        }
        if let Some(why) = &stream.dead {
            return Poll::Ready(Err(why.clone()));
        }
        remember(&mut stream.recv.waker, cx);
        Poll::Pending
    }

    /// The next request, unless its stream ended meanwhile.
    pub(super) fn next_request(&mut self) -> Option<(u32, http::Request<()>)> {
        while let Some((id, request)) = self.accept.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.waits_for_accept = false;
            if stream.dead.is_none() {
                return Some((id, request));
            }
            // Nobody heard of it, so nobody has to be told.
            if matches!(stream.dead, Some(StreamError::Reset(_))) {
                self.accept_resets = self.accept_resets.saturating_sub(1);
            }
            stream.held = false;
            self.sweep(id);
        }
        None
    }

    /// 200 to a request.
    pub(super) fn accept_request(
        &mut self,
        id: u32,
        baggage: Option<&Baggage>,
    ) -> Result<(), StreamError> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(StreamError::Closed);
        };
        if let Some(why) = &stream.dead {
            return Err(why.clone());
        }
        stream.head = Head::Done;
        let mut block = Vec::new();
        hpack::encode_response(&encode_response(200, baggage), &mut block);
        self.write_answer(id, block, false);
        Ok(())
    }

    /// A status and END_STREAM; then RST_STREAM(NO_ERROR) to a client that could still send.
    pub(super) fn refuse_request(&mut self, id: u32, status: u16) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.dead.is_some() {
            return;
        }
        stream.head = Head::Done;
        stream.send.ended = true;
        let open = stream.recv.end.is_none();
        let mut block = Vec::new();
        hpack::encode_response(&encode_response(status, None), &mut block);
        self.write_answer(id, block, true);
        if open {
            self.reset(id, code::NO_ERROR, &StreamError::Closed);
        } else {
            self.settle(id);
        }
    }

    /// Answers 431 to a request that was too large to look at.
    pub(super) fn refuse_unseen(&mut self, id: u32, end: bool) {
        let mut block = Vec::new();
        hpack::encode_response(&encode_response(431, None), &mut block);
        self.write_answer(id, block, true);
        if !end {
            frame::write_reset(&mut self.control, id, code::NO_ERROR);
        }
        self.note_end(id, Ended::ByUs);
    }

    /// Why nothing can be sent any more, if so.
    fn send_end(&self, id: u32) -> Option<StreamError> {
        match self.streams.get(&id) {
            None => Some(StreamError::Closed),
            Some(stream) => stream
                .dead
                .clone()
                .or_else(|| stream.send.end.then_some(StreamError::Closed)),
        }
    }

    pub(super) fn poll_capacity(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        want: usize,
    ) -> Poll<Result<usize, StreamError>> {
        if let Some(why) = self.send_end(id) {
            return Poll::Ready(Err(why));
        }
        let want = want.clamp(1, TURN_BYTES_MAX);
        let granted = self.grant(id, want);
        if granted > 0 {
            return Poll::Ready(Ok(granted.min(want)));
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            remember(&mut stream.send.waker, cx);
        }
        Poll::Pending
    }

    pub(super) fn send(&mut self, id: u32, data: Bytes) -> Result<(), StreamError> {
        if let Some(why) = self.send_end(id) {
            return Err(why);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(StreamError::Closed);
        };
        let send = &mut stream.send;
        let length = data.len();
        let reserved = send.reserved.min(length);
        send.reserved -= reserved;
        // More than was granted is a mistake of the caller; the windows stay right all the same.
        let beyond = i64::try_from(length - reserved).unwrap_or(0);
        send.credit -= beyond;
        self.credit -= beyond;
        self.held += beyond;
        send.queued += length;
        send.queue.push_back(data);
        self.schedule(id);
        Ok(())
    }

    pub(super) fn finish(&mut self, id: u32) -> Result<(), StreamError> {
        if let Some(stream) = self.streams.get(&id)
            && stream.send.end
        {
            return Ok(());
        }
        if let Some(why) = self.send_end(id) {
            return Err(why);
        }
        self.release(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.end = true;
        }
        self.schedule(id);
        Ok(())
    }

    pub(super) fn poll_reset(&mut self, id: u32, cx: &Context<'_>) -> Poll<StreamError> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(StreamError::Closed);
        };
        if let Some(why) = &stream.dead {
            return Poll::Ready(why.clone());
        }
        remember(&mut stream.send.waker, cx);
        Poll::Pending
    }

    pub(super) fn poll_data(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::Closed));
        };
        let recv = &mut stream.recv;
        if let Some(data) = recv.parked.take() {
            return Poll::Ready(Ok(Some(data)));
        }
        if let Some(end) = &recv.end {
            return Poll::Ready(end.clone().map(|()| None));
        }
        remember(&mut recv.waker, cx);
        Poll::Pending
    }

    /// Received bytes of a stream, if some are here.
    pub(super) fn take_more(&mut self, id: u32) -> Option<Bytes> {
        self.streams.get_mut(&id)?.recv.parked.take()
    }

    /// Nobody reads any more. `seen`: the reader saw the end.
    pub(super) fn stop_reading(&mut self, id: u32, seen: bool) {
        let server = self.role == Role::Server;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.recv.unwanted = true;
        // A server that answered in full and wants no more says NO_ERROR (RFC 9113 section 8.1), once
        // the answer is out.
        if server && stream.send.end {
            if stream.recv.end.is_none() {
                stream.send.reset_after = Some(code::NO_ERROR);
                if stream.send.ended {
                    self.reset(id, code::NO_ERROR, &StreamError::Closed);
                }
            }
            return;
        }
        let all_said = stream.send.end && stream.recv.end == Some(Ok(()));
        if !seen && !all_said {
            self.reset(id, code::CANCEL, &StreamError::Closed);
        }
    }

    /// Nobody sends any more. Without END_STREAM that is a reset.
    pub(super) fn stop_sending(&mut self, id: u32) {
        let finished = self.streams.get(&id).is_none_or(|stream| stream.send.end);
        if !finished {
            self.reset(id, code::CANCEL, &StreamError::Closed);
        }
    }

    /// The last handle of a stream is gone.
    pub(super) fn let_go(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.held = false;
            self.sweep(id);
        }
    }

    pub(super) fn note_end(&mut self, id: u32, how: Ended) {
        self.remember_end(id, how);
        self.turn_due = true;
    }
}
