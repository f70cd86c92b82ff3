//! Finds the frames in the received bytes, however they are cut, and hands DATA on as it comes.
//!
//! Payloads of other frames are looked at where they lie; only what a receive cut in two is copied.

use super::connection::{Connection, Fault};
use super::frame::{self, HEAD_BYTES, PREFACE, code};
use super::parked::Received;
use super::shape::{check_length, clip, strip};
use crate::hbone::guard::Role;
use crate::hbone::scan::{FrameHead, Goaway};

/// Compressed header block of one message: four times the header list we advertise, because rare
/// characters can take up to 30 bits each.
const HEADER_BLOCK_BYTES_MAX: usize = 256 * 1024;
/// Frames one header block may come in.
const CONTINUATIONS_MAX: u32 = 128;
/// DATA of which more is to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataFrame {
    pub(super) stream: u32,
    /// Payload that is neither padding nor its length, as far as known.
    left: u32,
    /// The next byte says how much of `left` is padding.
    pad_length_due: bool,
    padding: u32,
    pub(super) end: bool,
    /// Nobody wants it: its credit was given back already.
    pub(super) dropped: bool,
}

/// A header block that is not complete.
#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    flags: u8,
    block: Vec<u8>,
    frames: u32,
}

#[derive(Debug)]
enum Step {
    /// So many bytes of the client preface were seen.
    Preface(usize),
    Head,
    Payload(FrameHead),
    Data(DataFrame),
    Skip(u32),
}

/// Where in the byte stream we are.
#[derive(Debug)]
pub(super) struct Input {
    step: Step,
    /// A head or payload that was cut by the end of a receive.
    partial: Vec<u8>,
    block: Option<OpenBlock>,
    settings_seen: bool,
}

impl Input {
    pub(super) const fn new(role: Role) -> Self {
        Self {
            step: match role {
                Role::Client => Step::Head,
                Role::Server => Step::Preface(0),
            },
            partial: Vec::new(),
            block: None,
            settings_seen: false,
        }
    }

    /// True until the client preface is complete.
    pub(super) const fn awaits_preface(&self) -> bool {
        matches!(self.step, Step::Preface(_))
    }

    /// Received bytes kept for a frame or a header block that is not complete.
    #[cfg(any(test, fuzzing))]
    pub(super) fn held_bytes(&self) -> usize {
        self.partial.len() + self.block.as_ref().map_or(0, |block| block.block.len())
    }

    /// The next `wanted` bytes from `bytes`, if all are there; what is missing is waited for.
    /// Answers how many bytes were taken.
    fn gather<'a>(
        &'a mut self,
        bytes: &'a [u8],
        wanted: usize,
        kept: &'a mut Vec<u8>,
    ) -> (usize, Option<&'a [u8]>) {
        if self.partial.is_empty() && bytes.len() >= wanted {
            return (wanted, Some(&bytes[..wanted]));
        }
        let step = bytes.len().min(wanted - self.partial.len());
        self.partial.extend_from_slice(&bytes[..step]);
        if self.partial.len() < wanted {
            return (step, None);
        }
        *kept = std::mem::take(&mut self.partial);
        (step, Some(kept))
    }
}

impl Connection {
    /// Takes received bytes. After a fault nothing more may be received.
    pub(super) fn receive(&mut self, received: Received<'_>) -> Result<(), Fault> {
        let mut at = 0;
        while at < received.bytes.len() {
            at += self.advance(received, at)?;
            if self.guard.verdict().is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes some of the bytes from `at` on, and answers how many.
    fn advance(&mut self, received: Received<'_>, at: usize) -> Result<usize, Fault> {
        let rest = &received.bytes[at..];
        let mut kept = Vec::new();
        match self.input.step {
            Step::Preface(seen) => {
                let step = rest.len().min(PREFACE.len() - seen);
                if rest[..step] != PREFACE[seen..seen + step] {
                    return Err(Fault::protocol("the client preface is missing"));
                }
                self.input.step = if seen + step == PREFACE.len() {
                    Step::Head
                } else {
                    Step::Preface(seen + step)
                };
                Ok(step)
            }
            Step::Head => {
                let (step, head) = self.input.gather(rest, HEAD_BYTES, &mut kept);
                if let Some(head) = head.and_then(|head| head.first_chunk()) {
                    let head = frame::parse_head(*head);
                    self.begin(head)?;
                }
                Ok(step)
            }
            Step::Payload(head) => {
                let length = head.length as usize;
                let (step, payload) = self.input.gather(rest, length, &mut kept);
                // The borrow of `self.input` ends here: whole payloads lie in `rest` or in `kept`.
                let whole = payload.is_some();
                if whole {
                    let payload = if kept.is_empty() {
                        &rest[..step]
                    } else {
                        &kept[..]
                    };
                    self.input.step = Step::Head;
                    self.finish_frame(head, payload)?;
                }
                Ok(step)
            }
            Step::Data(data) => self.take_data(data, received, at),
            Step::Skip(left) => {
                let step = clip(rest.len(), left);
                self.input.step = if step == left {
                    Step::Head
                } else {
                    Step::Skip(left - step)
                };
                Ok(step as usize)
            }
        }
    }

    /// Looks at a frame head (RFC 9113 sections 4.1 to 4.3).
    fn begin(&mut self, head: FrameHead) -> Result<(), Fault> {
        if head.length > self.settings.frame_size.max(frame::FRAME_BYTES_MIN) {
            return Err(Fault::new(
                code::FRAME_SIZE_ERROR,
                "a frame above the limit",
            ));
        }
        let expected = self.input.block.as_ref().map(|block| block.stream);
        let continues = head.kind == frame::CONTINUATION;
        if expected.is_some() != continues || expected.is_some_and(|id| id != head.stream) {
            return Err(Fault::protocol("CONTINUATION out of place, or missing"));
        }
        if !self.input.settings_seen && head.kind != frame::SETTINGS {
            return Err(Fault::protocol("the first frame is not SETTINGS"));
        }
        self.input.settings_seen = true;
        self.guard.frame_begins(head);
        check_length(head)?;
        self.input.step = match head.kind {
            frame::DATA => {
                let data = self.begin_data(head)?;
                return self.data_begun(data);
            }
            frame::PUSH_PROMISE => {
                return Err(Fault::protocol("PUSH_PROMISE, though push is off"));
            }
            frame::HEADERS | frame::CONTINUATION => {
                self.bound_block(head)?;
                Step::Payload(head)
            }
            frame::PRIORITY
            | frame::RST_STREAM
            | frame::SETTINGS
            | frame::PING
            | frame::GOAWAY
            | frame::WINDOW_UPDATE => Step::Payload(head),
            _ if head.length == 0 => Step::Head,
            _ => Step::Skip(head.length),
        };
        if head.length == 0 && matches!(self.input.step, Step::Payload(_)) {
            self.input.step = Step::Head;
            self.finish_frame(head, &[])?;
        }
        Ok(())
    }

    fn bound_block(&self, head: FrameHead) -> Result<(), Fault> {
        let (bytes, frames) = self
            .input
            .block
            .as_ref()
            .map_or((0, 0), |block| (block.block.len(), block.frames));
        if bytes + head.length as usize > HEADER_BLOCK_BYTES_MAX || frames > CONTINUATIONS_MAX {
            return Err(Fault::new(
                code::ENHANCE_YOUR_CALM,
                "a header block above the limit",
            ));
        }
        Ok(())
    }

    fn begin_data(&mut self, head: FrameHead) -> Result<DataFrame, Fault> {
        let padded = head.flags & frame::PADDED != 0;
        if padded && head.length == 0 {
            return Err(Fault::new(
                code::FRAME_SIZE_ERROR,
                "padding without its length",
            ));
        }
        let dropped = !self.admit_data(head)?;
        Ok(DataFrame {
            stream: head.stream,
            left: head.length,
            pad_length_due: padded,
            padding: 0,
            end: head.flags & frame::END_STREAM != 0,
            dropped,
        })
    }

    /// Goes on with a DATA frame, or ends it.
    fn data_begun(&mut self, data: DataFrame) -> Result<(), Fault> {
        if data.left > 0 {
            self.input.step = Step::Data(data);
            return Ok(());
        }
        self.input.step = if data.padding > 0 {
            Step::Skip(data.padding)
        } else {
            Step::Head
        };
        if data.end && !data.dropped {
            self.data_ends(data.stream);
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        mut data: DataFrame,
        received: Received<'_>,
        at: usize,
    ) -> Result<usize, Fault> {
        if data.pad_length_due {
            let padding = u32::from(received.bytes[at]);
            data.left -= 1;
            data.pad_length_due = false;
            data.left = data
                .left
                .checked_sub(padding)
                .ok_or_else(|| Fault::protocol("more padding than payload"))?;
            data.padding = padding;
            if !data.dropped {
                self.return_padding(data.stream, padding + 1);
            }
            self.data_begun(data)?;
            return Ok(1);
        }
        let step = clip(received.bytes.len() - at, data.left);
        let length = step as usize;
        if !data.dropped {
            self.park(data.stream, received, at..at + length);
        }
        data.left -= step;
        self.data_begun(data)?;
        Ok(length)
    }

    /// A frame other than DATA is complete.
    fn finish_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let mut goaway = Goaway {
            last_stream: 0,
            code: 0,
        };
        if head.kind == frame::GOAWAY {
            if head.stream != 0 {
                return Err(Fault::protocol("GOAWAY on a stream"));
            }
            let last = frame::number(payload).unwrap_or_default() & frame::STREAM_MAX;
            let code = payload.get(4..).and_then(frame::number).unwrap_or_default();
            goaway = Goaway {
                last_stream: last,
                code,
            };
            self.check_goaway(goaway)?;
        }
        self.guard.frame_ends(head, goaway);
        match head.kind {
            frame::HEADERS => self.headers_begin(head, payload),
            frame::CONTINUATION => self.headers_continue(head, payload),
            frame::PRIORITY => self.priority(head),
            frame::RST_STREAM => self.peer_reset(head.stream, frame::number(payload)),
            frame::SETTINGS => self.peer_settings(head, payload),
            frame::PING => self.peer_ping(head, payload),
            frame::GOAWAY => self.peer_goaway(goaway),
            frame::WINDOW_UPDATE => self.window_update(head.stream, frame::number(payload)),
            _ => Ok(()),
        }
    }

    fn headers_begin(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::protocol("HEADERS on stream 0"));
        }
        let block = strip(head, payload)?;
        if head.flags & frame::END_HEADERS != 0 {
            return self.headers(head.stream, head.flags, block);
        }
        self.input.block = Some(OpenBlock {
            stream: head.stream,
            flags: head.flags,
            block: block.to_vec(),
            frames: 1,
        });
        Ok(())
    }

    fn headers_continue(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let Some(mut open) = self.input.block.take() else {
            return Err(Fault::protocol("CONTINUATION out of place"));
        };
        open.block.extend_from_slice(payload);
        open.frames += 1;
        if head.flags & frame::END_HEADERS != 0 {
            return self.headers(open.stream, open.flags, &open.block);
        }
        self.input.block = Some(open);
        Ok(())
    }
}
