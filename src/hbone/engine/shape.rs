//! Lengths of frames and what surrounds their content (RFC 9113 section 6).

use super::connection::Fault;
use super::frame::{self, code};
use crate::hbone::scan::FrameHead;

/// Payload of SETTINGS and GOAWAY: far more than there are settings, or anybody explains.
const CONTROL_BYTES_MAX: u32 = 16 * 1024;

/// Frames whose length is fixed or bounded (RFC 9113 section 6).
pub(super) fn check_length(head: FrameHead) -> Result<(), Fault> {
    let wrong = |what: &str| {
        Err(Fault::new(
            code::FRAME_SIZE_ERROR,
            format!("{what} of {} bytes", head.length),
        ))
    };
    match head.kind {
        frame::RST_STREAM if head.length != 4 => wrong("RST_STREAM"),
        frame::PING if head.length != 8 => wrong("PING"),
        frame::WINDOW_UPDATE if head.length != 4 => wrong("WINDOW_UPDATE"),
        frame::GOAWAY if head.length < 8 => wrong("GOAWAY"),
        frame::SETTINGS if head.flags & frame::ACK != 0 && head.length != 0 => {
            wrong("acknowledgement of SETTINGS")
        }
        frame::SETTINGS if !head.length.is_multiple_of(6) => wrong("SETTINGS"),
        frame::SETTINGS | frame::GOAWAY | frame::PRIORITY if head.length > CONTROL_BYTES_MAX => {
            Err(Fault::new(
                code::ENHANCE_YOUR_CALM,
                "a control frame above the limit",
            ))
        }
        _ => Ok(()),
    }
}

/// The header block fragment of HEADERS, without padding and priority (RFC 9113 section 6.2).
pub(super) fn strip(head: FrameHead, payload: &[u8]) -> Result<&[u8], Fault> {
    let short = || Fault::new(code::FRAME_SIZE_ERROR, "HEADERS too short");
    let mut block = payload;
    let mut padding = 0;
    if head.flags & frame::PADDED != 0 {
        let (length, rest) = block.split_first().ok_or_else(short)?;
        padding = usize::from(*length);
        block = rest;
    }
    if head.flags & frame::PRIORITY_FIELDS != 0 {
        block = block.get(5..).ok_or_else(short)?;
    }
    let length = block
        .len()
        .checked_sub(padding)
        .ok_or_else(|| Fault::protocol("more padding than payload"))?;
    Ok(&block[..length])
}

/// The smaller of what is there and what is wanted.
pub(super) fn clip(there: usize, wanted: u32) -> u32 {
    u32::try_from(there).map_or(wanted, |there| there.min(wanted))
}
