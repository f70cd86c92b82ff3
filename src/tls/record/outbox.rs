//! Records on their way out: filled behind a gap for their header, sealed in place, sent many at once.
//!
//! Bytes that make a full record at once are sealed straight from where the caller has them, which
//! costs an eighth less than filling first. Small writes share a record until somebody flushes; a
//! full buffer makes the sender wait. The buffer is the thread's and only held while something is
//! unsent.

use std::io::IoSlice;
use std::mem;

use super::cipher::Cipher;
use super::lend::Lent;
use super::ratchet::Ratchet;
use super::{OVERHEAD_BYTES, RecordError, alert, content};
use crate::config::limits::{
    TLS_RECORD_HEADER_BYTES, TLS_RECORD_PLAINTEXT_BYTES_MAX, TLS_SEND_BUFFER_BYTES,
};

/// A full record as we send it.
const RECORD_BYTES: usize = TLS_RECORD_PLAINTEXT_BYTES_MAX + OVERHEAD_BYTES;
/// Full records gathered before a send.
const RECORDS: usize = TLS_SEND_BUFFER_BYTES / TLS_RECORD_PLAINTEXT_BYTES_MAX;
/// Where records of data have to end.
const ROOM: usize = RECORDS * RECORD_BYTES;
/// Kept free for KeyUpdates.
const UPDATES_BYTES: usize = 256;
/// Kept free for one alert and one close_notify.
const PARTING_BYTES: usize = 2 * (2 + OVERHEAD_BYTES);
/// Size of the buffer a thread lends.
pub(super) const BUFFER_BYTES: usize = ROOM + UPDATES_BYTES + PARTING_BYTES;
const _: () = assert!(RECORDS >= 4);
/// KeyUpdate as a handshake message, its last byte to be set (RFC 8446, 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_BYTES: usize = KEY_UPDATE.len() + OVERHEAD_BYTES;
/// Records under one key before we change it. AES-GCM allows 2^24.5 full ones (RFC 8446, 5.5).
const KEY_RECORDS_MAX: u64 = 1 << 23;

/// What to ask of the peer with our KeyUpdate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nothing: we answer.
    Nothing,
    /// That it changes its key as well.
    Update,
}

/// Sealed and unsealed records of one session.
pub(super) struct Outbox {
    cipher: Cipher,
    buffer: Option<Lent>,
    /// Records up to here have been given to the transport.
    sent: usize,
    /// Records up to here are sealed; the one being filled begins here.
    sealed: usize,
    /// Plaintext in the record being filled.
    filled: usize,
    key_records_max: u64,
    /// Sealing failed: what was taken is lost, and nothing may follow it.
    failed: Option<RecordError>,
}

impl Outbox {
    pub(super) fn new(cipher: Cipher) -> Self {
        Self {
            cipher,
            buffer: None,
            sent: 0,
            sealed: 0,
            filled: 0,
            key_records_max: KEY_RECORDS_MAX,
            failed: None,
        }
    }

    /// Nothing waits, sealed or not.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Copies as much of `slices` as there is room for. Zero: everything here has to be sent first.
    pub(super) fn fill(
        &mut self,
        slices: &[IoSlice<'_>],
        ratchet: &mut Ratchet,
    ) -> Result<usize, RecordError> {
        let mut taken = 0;
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                if self.filled == TLS_RECORD_PLAINTEXT_BYTES_MAX {
                    self.seal(ratchet)?;
                }
                if !self.has_room() {
                    return Ok(taken);
                }
                if self.filled == 0 && rest.len() >= TLS_RECORD_PLAINTEXT_BYTES_MAX {
                    let (full, back) = rest.split_at(TLS_RECORD_PLAINTEXT_BYTES_MAX);
                    self.seal_full(full, ratchet)?;
                    taken += full.len();
                    rest = back;
                    continue;
                }
                let step = rest.len().min(TLS_RECORD_PLAINTEXT_BYTES_MAX - self.filled);
                let (front, back) = rest.split_at(step);
                let start = self.sealed + TLS_RECORD_HEADER_BYTES + self.filled;
                let buffer = self.buffer.get_or_insert_with(Lent::for_send);
                buffer[start..start + step].copy_from_slice(front);
                self.filled += step;
                taken += step;
                rest = back;
            }
        }
        Ok(taken)
    }

    /// No record can be begun or filled further.
    pub(super) fn is_full(&self) -> bool {
        match self.filled {
            0 => self.sealed + RECORD_BYTES > ROOM,
            TLS_RECORD_PLAINTEXT_BYTES_MAX => self.sealed + 2 * RECORD_BYTES > ROOM,
            _ => false,
        }
    }

    /// There is room in the record being filled, or for a new one.
    fn has_room(&self) -> bool {
        self.filled > 0 || self.sealed + RECORD_BYTES <= ROOM
    }

    /// Seals the record being filled.
    pub(super) fn seal(&mut self, ratchet: &mut Ratchet) -> Result<(), RecordError> {
        self.check()?;
        if self.filled > 0 {
            let length = mem::take(&mut self.filled);
            self.seal_here(length, content::APPLICATION_DATA)?;
            self.update_worn_key(ratchet)?;
        }
        Ok(())
    }

    /// Seals a full record straight from the caller's bytes.
    fn seal_full(&mut self, plain: &[u8], ratchet: &mut Ratchet) -> Result<(), RecordError> {
        self.check()?;
        let end = self.sealed + RECORD_BYTES;
        let buffer = self.buffer.get_or_insert_with(Lent::for_send);
        let record = &mut buffer[self.sealed..end];
        let sealed = self
            .cipher
            .seal_from(plain, record, content::APPLICATION_DATA);
        self.settle(end, sealed)?;
        self.update_worn_key(ratchet)
    }

    /// Changes the key when it has sealed enough.
    fn update_worn_key(&mut self, ratchet: &mut Ratchet) -> Result<(), RecordError> {
        if self.cipher.sequence() >= self.key_records_max {
            self.update_key(Ask::Update, ratchet)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), RecordError> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Notes what became of the record that would end at `end`.
    fn settle(&mut self, end: usize, sealed: Result<(), RecordError>) -> Result<(), RecordError> {
        match sealed {
            Ok(()) => self.sealed = end,
            Err(error) => self.failed = Some(error),
        }
        sealed
    }

    /// Whether a KeyUpdate can be added now; otherwise after something has been sent.
    pub(super) fn can_update_key(&self) -> bool {
        self.sealed + KEY_UPDATE_BYTES + PARTING_BYTES <= BUFFER_BYTES && self.filled == 0
    }

    /// Adds a KeyUpdate as the last record under the old key.
    pub(super) fn update_key(
        &mut self,
        ask: Ask,
        ratchet: &mut Ratchet,
    ) -> Result<(), RecordError> {
        if !self.can_update_key() {
            // Full of KeyUpdates already, which only a tiny limit makes possible.
            return Ok(());
        }
        let mut message = KEY_UPDATE;
        message[KEY_UPDATE.len() - 1] = u8::from(ask == Ask::Update);
        self.add(content::HANDSHAKE, &message)?;
        self.cipher = ratchet.next_send()?;
        Ok(())
    }

    /// Adds an alert behind everything else. At most two are ever added.
    pub(super) fn alert(&mut self, code: u8, ratchet: &mut Ratchet) -> Result<(), RecordError> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        self.seal(ratchet)?;
        let level = if code == alert::CLOSE_NOTIFY {
            WARNING
        } else {
            FATAL
        };
        self.add(content::ALERT, &[level, code])
    }

    fn add(&mut self, content_type: u8, content: &[u8]) -> Result<(), RecordError> {
        let start = self.sealed + TLS_RECORD_HEADER_BYTES;
        let buffer = self.buffer.get_or_insert_with(Lent::for_send);
        buffer[start..start + content.len()].copy_from_slice(content);
        self.seal_here(content.len(), content_type)
    }

    /// Seals `length` bytes of content that lie behind the header gap.
    fn seal_here(&mut self, length: usize, content_type: u8) -> Result<(), RecordError> {
        let end = self.sealed + length + OVERHEAD_BYTES;
        let buffer = self.buffer.get_or_insert_with(Lent::for_send);
        let record = &mut buffer[self.sealed..end];
        let sealed = self.cipher.seal(record, content_type);
        self.settle(end, sealed)
    }

    /// Sealed bytes to send next.
    pub(super) fn unsent(&self) -> &[u8] {
        let buffer = self.buffer.as_deref().unwrap_or_default();
        &buffer[self.sent..self.sealed]
    }

    /// The transport took `count` of [`Outbox::unsent`].
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.sealed && self.filled == 0 {
            self.sent = 0;
            self.sealed = 0;
            self.buffer = None;
        }
    }

    /// Throws away what nobody will send.
    pub(super) fn clear(&mut self) {
        self.sent = 0;
        self.sealed = 0;
        self.filled = 0;
        self.buffer = None;
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn set_key_records_max(&mut self, limit: u64) {
        self.key_records_max = limit;
    }

    #[cfg(test)]
    pub(super) fn cipher(&mut self) -> &mut Cipher {
        &mut self.cipher
    }
}
