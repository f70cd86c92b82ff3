//! Finds the frames in a byte stream of HTTP/2 (RFC 9113 section 4.1), however it is cut.

/// The client connection preface (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;
/// A frame header (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;

/// A GOAWAY that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goaway {
    pub(super) last_stream: u32,
    pub(super) code: u32,
}

/// A frame header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameHead {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// Finds frame headers in a byte stream, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes to pass over: the preface, or the rest of a payload.
    skip: u32,
    current: Option<FrameHead>,
    /// The first payload bytes of a GOAWAY: last stream and error code.
    goaway: [u8; 8],
    goaway_filled: usize,
}

/// What was passed in the byte stream.
pub(super) enum Seen {
    /// A header; its payload follows.
    Start(FrameHead),
    /// The last byte of a frame, with the content of the newest GOAWAY.
    End(FrameHead, Goaway),
}

impl Scanner {
    pub(super) fn new(preface: bool) -> Self {
        Self {
            skip: if preface { PREFACE_BYTES } else { 0 },
            ..Self::default()
        }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = bytes.len().min(self.skip as usize);
                self.keep_goaway(&bytes[..step]);
                #[expect(clippy::cast_possible_truncation, reason = "at most `skip`, a u32")]
                let passed = step as u32;
                self.skip -= passed;
                bytes = &bytes[step..];
            } else {
                let step = bytes.len().min(HEAD_BYTES - self.filled);
                self.head[self.filled..self.filled + step].copy_from_slice(&bytes[..step]);
                self.filled += step;
                bytes = &bytes[step..];
                if self.filled < HEAD_BYTES {
                    return;
                }
                self.filled = 0;
                self.goaway_filled = 0;
                let head = self.parse();
                self.skip = head.length;
                self.current = Some(head);
                see(Seen::Start(head));
            }
            if self.skip == 0
                && let Some(head) = self.current.take()
            {
                see(Seen::End(head, goaway_parts(self.goaway)));
            }
        }
    }

    fn keep_goaway(&mut self, payload: &[u8]) {
        if self.current.is_some_and(|head| head.kind == GOAWAY) {
            let room = &mut self.goaway[self.goaway_filled..];
            let step = room.len().min(payload.len());
            room[..step].copy_from_slice(&payload[..step]);
            self.goaway_filled += step;
        }
    }

    fn parse(&self) -> FrameHead {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
        FrameHead {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }
}

fn goaway_parts(payload: [u8; 8]) -> Goaway {
    let [a, b, c, d, e, f, g, h] = payload;
    Goaway {
        last_stream: u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff,
        code: u32::from_be_bytes([e, f, g, h]),
    }
}
