//! Frames of HTTP/2 (RFC 9113 sections 4 and 6): numbers, heads, and those we write.

use crate::hbone::scan::FrameHead;

pub(super) use crate::hbone::scan::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PUSH_PROMISE, RST_STREAM,
    SETTINGS,
};

pub(super) const PRIORITY: u8 = 0x2;
pub(super) const PING: u8 = 0x6;
pub(super) const WINDOW_UPDATE: u8 = 0x8;

pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY_FIELDS: u8 = 0x20;

/// The client connection preface (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame head.
pub(super) const HEAD_BYTES: usize = 9;
/// Windows may not grow above this (RFC 9113 section 6.9.1).
pub(super) const WINDOW_MAX: i64 = 0x7fff_ffff;
/// Both windows at the start (RFC 9113 section 6.9.2).
pub(super) const WINDOW_INITIAL: u32 = 65_535;
/// Bounds of SETTINGS_MAX_FRAME_SIZE, the lower one is its initial value.
pub(super) const FRAME_BYTES_MIN: u32 = 1 << 14;
pub(super) const FRAME_BYTES_MAX: u32 = (1 << 24) - 1;
/// Stream numbers have 31 bits.
pub(super) const STREAM_MAX: u32 = 0x7fff_ffff;

/// Error codes (RFC 9113 section 7).
pub(super) mod code {
    pub(in crate::hbone::engine) const NO_ERROR: u32 = 0x0;
    pub(in crate::hbone::engine) const PROTOCOL_ERROR: u32 = 0x1;
    pub(in crate::hbone::engine) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(in crate::hbone::engine) const SETTINGS_TIMEOUT: u32 = 0x4;
    pub(in crate::hbone::engine) const STREAM_CLOSED: u32 = 0x5;
    pub(in crate::hbone::engine) const FRAME_SIZE_ERROR: u32 = 0x6;
    pub(in crate::hbone::engine) const REFUSED_STREAM: u32 = 0x7;
    pub(in crate::hbone::engine) const CANCEL: u32 = 0x8;
    pub(in crate::hbone::engine) const COMPRESSION_ERROR: u32 = 0x9;
    pub(in crate::hbone::engine) const ENHANCE_YOUR_CALM: u32 = 0xb;
}

/// Settings (RFC 9113 section 6.5.2; 8 from RFC 8441).
pub(super) mod setting {
    pub(in crate::hbone::engine) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in crate::hbone::engine) const ENABLE_PUSH: u16 = 2;
    pub(in crate::hbone::engine) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::hbone::engine) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in crate::hbone::engine) const MAX_FRAME_SIZE: u16 = 5;
    pub(in crate::hbone::engine) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(in crate::hbone::engine) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Reads a frame head.
pub(super) fn parse_head(bytes: [u8; HEAD_BYTES]) -> FrameHead {
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
    FrameHead {
        length: u32::from_be_bytes([0, l0, l1, l2]),
        kind,
        flags,
        stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_MAX,
    }
}

/// Appends a frame head.
pub(super) fn write_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    // No frame of ours is longer than the 24 bits allow.
    let length = u32::try_from(length).unwrap_or(FRAME_BYTES_MAX);
    let [_, l0, l1, l2] = length.to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags, s0, s1, s2, s3]);
}

/// Appends a whole small frame.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    write_head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

pub(super) fn write_reset(out: &mut Vec<u8>, stream: u32, code: u32) {
    write(out, RST_STREAM, 0, stream, &code.to_be_bytes());
}

pub(super) fn write_window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    write(out, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
}

pub(super) fn write_goaway(out: &mut Vec<u8>, last: u32, code: u32) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&code.to_be_bytes());
    write(out, GOAWAY, 0, 0, &payload);
}

pub(super) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_head(out, settings.len() * 6, SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a header block as HEADERS and, if the peer's frames are too small for it, CONTINUATION.
pub(super) fn write_headers(
    out: &mut Vec<u8>,
    stream: u32,
    block: &[u8],
    end_stream: bool,
    frame_max: usize,
) {
    let (mut kind, mut flags) = (HEADERS, if end_stream { END_STREAM } else { 0 });
    let mut rest = block;
    loop {
        let (part, more) = rest.split_at(rest.len().min(frame_max));
        let last = if more.is_empty() { END_HEADERS } else { 0 };
        write(out, kind, flags | last, stream, part);
        if more.is_empty() {
            return;
        }
        (kind, flags, rest) = (CONTINUATION, 0, more);
    }
}

/// A big-endian number at the front of a payload.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}
