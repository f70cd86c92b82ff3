//! TLS 1.3 records after the handshake, sealed and opened in place (RFC 8446, 5).
//!
//! The TLS library shakes hands and then gives up keys, IVs and sequence numbers
//! ([`handshake`]); from there a [`Session`] moves application data. It receives many records with
//! one system call into a buffer the thread lends, opens them where they lie, fills records behind
//! a gap for their header and seals them where they lie. An idle session owns no buffer.
//!
//! Bytes flow `transport → inbox (messages) → caller → outbox → transport`; the [`ratchet`] makes
//! the next keys. Deliberately absent: TLS 1.2, early data, tickets, padding of our own, and
//! handshake messages other than KeyUpdate and NewSessionTicket.
//!
//! Keys are zeroed when they are dropped: AES contexts live in memory that aws-lc cleanses when it
//! frees it (`OPENSSL_free`), key bytes are zeroed by the TLS library's `AeadKey`, IVs by `zeroize`.

use super::error::TlsError;
use crate::config::limits::{TLS_RECORD_CIPHERTEXT_BYTES_MAX, TLS_RECORD_HEADER_BYTES};

mod cipher;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(super) mod handshake;
mod inbox;
mod lend;
mod messages;
mod outbox;
mod ratchet;
pub(super) mod session;
#[cfg(test)]
mod tests;

pub(super) use session::Session;

/// Content types, inner and outer (RFC 8446, 5.1).
mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// Alerts we send or must know (RFC 8446, 6).
mod alert {
    pub(super) const CLOSE_NOTIFY: u8 = 0;
    pub(super) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(super) const BAD_RECORD_MAC: u8 = 20;
    pub(super) const RECORD_OVERFLOW: u8 = 22;
    pub(super) const ILLEGAL_PARAMETER: u8 = 47;
    pub(super) const DECODE_ERROR: u8 = 50;
    pub(super) const INTERNAL_ERROR: u8 = 80;
    pub(super) const USER_CANCELED: u8 = 90;
}

const TAG_BYTES: usize = 16;
/// What sealing adds: header, inner content type, tag (RFC 8446, 5.2).
const OVERHEAD_BYTES: usize = TLS_RECORD_HEADER_BYTES + 1 + TAG_BYTES;

/// Why a session can go on no longer, other than by an alert of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RecordError {
    /// Anything but protected records, such as a ChangeCipherSpec after Finished.
    #[error("peer sent an unprotected record of type {0} after the handshake")]
    OuterType(u8),
    /// A content type nobody sends after the handshake.
    #[error("peer sent a record of content type {0} after the handshake")]
    InnerType(u8),
    /// Padding and nothing else (RFC 8446, 5.4).
    #[error("peer sent a record without content type")]
    NoContentType,
    /// More ciphertext or plaintext than a record may have (RFC 8446, 5.2).
    #[error("peer sent a record that is too long")]
    TooLong,
    /// Altered, or sealed with another key or sequence number.
    #[error("peer sent a record that does not decrypt (bad record MAC)")]
    Forged,
    /// Alerts and handshake messages are never empty (RFC 8446, 5.1).
    #[error("peer sent an empty alert or handshake record")]
    Empty,
    /// An alert of other than two bytes, or a message of impossible length.
    #[error("peer sent a malformed {0}")]
    Malformed(&'static str),
    /// A handshake message that has no place after the handshake.
    #[error("peer sent handshake message {0} after the handshake")]
    Message(u8),
    /// Another record inside a fragmented handshake message (RFC 8446, 5.1).
    #[error("peer interleaved a handshake message with other records")]
    Interleaved,
    /// Bytes under the old key behind a KeyUpdate (RFC 8446, 5.1).
    #[error("peer changed its key inside a record")]
    KeyChangeInRecord,
    /// Neither 0 nor 1 (RFC 8446, 4.6.3).
    #[error("peer sent a KeyUpdate with value {0}")]
    KeyUpdateValue(u8),
    /// Work for us, nothing for the application.
    #[error("peer sent too many records without data")]
    TooManyWithoutData,
    /// No key may seal or open more records (RFC 8446, 5.3).
    #[error("record sequence numbers are used up")]
    SequenceUsedUp,
    /// The cryptography library refused something it should not.
    #[error("internal error of the record layer: {0}")]
    Internal(&'static str),
}

impl RecordError {
    /// The alert that tells the peer.
    fn alert(self) -> u8 {
        match self {
            Self::OuterType(_)
            | Self::InnerType(_)
            | Self::NoContentType
            | Self::Empty
            | Self::Message(_)
            | Self::Interleaved
            | Self::KeyChangeInRecord
            | Self::TooManyWithoutData => alert::UNEXPECTED_MESSAGE,
            Self::TooLong => alert::RECORD_OVERFLOW,
            Self::Forged => alert::BAD_RECORD_MAC,
            Self::Malformed(_) => alert::DECODE_ERROR,
            Self::KeyUpdateValue(_) => alert::ILLEGAL_PARAMETER,
            Self::SequenceUsedUp | Self::Internal(_) => alert::INTERNAL_ERROR,
        }
    }
}

impl From<RecordError> for TlsError {
    fn from(error: RecordError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// Length of the record at the front of `input`, header included; `None` until its header is here.
/// What can be refused by its header alone is, before 16 KiB are waited for.
fn record_length(input: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[outer_type, _, _, high, low]) = input.first_chunk::<TLS_RECORD_HEADER_BYTES>()
    else {
        return Ok(None);
    };
    if outer_type != content::APPLICATION_DATA {
        return Err(RecordError::OuterType(outer_type));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > TLS_RECORD_CIPHERTEXT_BYTES_MAX {
        return Err(RecordError::TooLong);
    }
    // Not even a tag.
    if length < TAG_BYTES {
        return Err(RecordError::Forged);
    }
    Ok(Some(TLS_RECORD_HEADER_BYTES + length))
}
