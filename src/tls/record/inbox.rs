//! Records on their way in: opened into the caller's buffer as long as it has room for whole records,
//! else where they were received.
//!
//! What a caller's buffer has no room for stays in a stash of the session's own: the rest of an
//! opened record, then records still sealed. The stash is gone when it is empty.

use std::mem;
use std::ops::Range;

use super::cipher::{Cipher, sealed_inner_bytes};
use super::messages::Messages;
use super::ratchet::Ratchet;
use super::{RecordError, alert, content, record_length};
use crate::tls::error::TlsError;

/// Records in a row that carry no data: KeyUpdates, tickets, padding. A server may send a few
/// tickets at once; more is work for us and nothing for the application.
const WITHOUT_DATA_MAX: u32 = 32;

/// Why nothing more will be received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// close_notify.
    Closed,
    /// The peer broke the protocol: our alert.
    Refused(TlsError, u8),
    /// The peer ended the session with an alert.
    Alerted(TlsError),
}

/// Received bytes of one session.
pub(super) struct Inbox {
    cipher: Cipher,
    messages: Messages,
    without_data: u32,
    /// Unread plaintext at `opened`, records still sealed from `sealed` on, spent bytes elsewhere.
    stash: Vec<u8>,
    opened: Range<usize>,
    sealed: usize,
    end: Option<End>,
    update_requested: bool,
}

/// Where the data of an opened record is.
enum Data {
    /// So many bytes at the front of the caller's room.
    InRoom(usize),
    /// There, where the record was received.
    InPlace(Range<usize>),
}

/// What became of a run of records.
struct Found {
    /// Bytes of data given to the caller.
    copied: usize,
    /// Where the rest of the last record's data lies.
    unread: Range<usize>,
    /// Where the first record begins that was not opened.
    used: usize,
}

impl Inbox {
    /// `received` came with the end of the handshake.
    pub(super) fn new(cipher: Cipher, received: Vec<u8>) -> Self {
        Self {
            cipher,
            messages: Messages::default(),
            without_data: 0,
            stash: received,
            opened: 0..0,
            sealed: 0,
            end: None,
            update_requested: false,
        }
    }

    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether the peer asked for a KeyUpdate since the last call.
    pub(super) fn take_update_request(&mut self) -> bool {
        mem::take(&mut self.update_requested)
    }

    /// Moves data out of the stash, opening records as long as there is room. When room is left,
    /// only the beginning of one record is still stashed.
    pub(super) fn take_stashed(&mut self, buffer: &mut [u8], ratchet: &mut Ratchet) -> usize {
        if self.stash.is_empty() {
            return 0;
        }
        let mut stash = mem::take(&mut self.stash);
        let (front, room) = buffer.split_at_mut(self.opened.len().min(buffer.len()));
        let unread = self.opened.start + front.len();
        front.copy_from_slice(&stash[self.opened.start..unread]);
        self.opened.start = unread;
        let mut copied = front.len();
        if self.opened.is_empty() {
            let start = self.sealed;
            let found = self.open_into(&mut stash[start..], room, ratchet);
            self.opened = start + found.unread.start..start + found.unread.end;
            self.sealed = start + found.used;
            copied += found.copied;
        }
        self.stash = stash;
        if self.opened.is_empty() && self.sealed == self.stash.len() {
            self.stash.clear();
            self.opened = 0..0;
            self.sealed = 0;
        }
        copied
    }

    /// The beginning of a record: the caller puts it in front of what it receives next.
    pub(super) fn partial(&self) -> &[u8] {
        &self.stash[self.sealed..]
    }

    /// Takes [`Inbox::partial`] and what one receive brought behind it.
    pub(super) fn take_received(
        &mut self,
        input: &mut [u8],
        buffer: &mut [u8],
        ratchet: &mut Ratchet,
    ) -> usize {
        let found = self.open_into(input, buffer, ratchet);
        self.stash.clear();
        self.stash.extend_from_slice(&input[found.unread]);
        self.opened = 0..self.stash.len();
        self.sealed = self.stash.len();
        self.stash.extend_from_slice(&input[found.used..]);
        found.copied
    }

    /// Gives memory back before a wait of unknown length.
    pub(super) fn release_idle(&mut self) {
        if self.stash.is_empty() {
            self.stash = Vec::new();
        }
    }

    #[cfg(test)]
    pub(super) fn cipher(&mut self) -> &mut Cipher {
        &mut self.cipher
    }

    /// Memory in use for stashed bytes.
    #[cfg(test)]
    pub(super) fn stash_bytes(&self) -> usize {
        self.stash.capacity()
    }

    /// Opens the records in `input` until `buffer` is full of their data, `input` spent or the session at
    /// its end.
    fn open_into(&mut self, input: &mut [u8], buffer: &mut [u8], ratchet: &mut Ratchet) -> Found {
        let mut found = Found {
            copied: 0,
            unread: 0..0,
            used: 0,
        };
        while found.copied < buffer.len() && self.end.is_none() {
            let rest = &mut input[found.used..];
            let room = &mut buffer[found.copied..];
            let (length, data) = match self.open_next(rest, room, ratchet) {
                Ok(Some(opened)) => opened,
                Ok(None) => break,
                Err(error) => {
                    self.end = Some(End::Refused(error.into(), error.alert()));
                    break;
                }
            };
            match data {
                Data::InRoom(bytes) => found.copied += bytes,
                Data::InPlace(data) => {
                    let count = data.len().min(room.len());
                    room[..count].copy_from_slice(&rest[data.start..data.start + count]);
                    found.copied += count;
                    found.unread = found.used + data.start + count..found.used + data.end;
                }
            }
            found.used += length;
        }
        if self.end.is_some() {
            // What follows close_notify or a fault is not looked at (RFC 8446, 6.1).
            found.used = input.len();
        }
        found
    }

    /// Opens the record at the front of `input`, if all of it is here: its length, and where its
    /// application data lies.
    fn open_next(
        &mut self,
        input: &mut [u8],
        room: &mut [u8],
        ratchet: &mut Ratchet,
    ) -> Result<Option<(usize, Data)>, RecordError> {
        let Some(length) = record_length(input)?.filter(|length| *length <= input.len()) else {
            return Ok(None);
        };
        let fits = sealed_inner_bytes(length) <= room.len();
        let inner = if fits {
            self.cipher.open_to(&input[..length], room)?
        } else {
            self.cipher.open(&mut input[..length])?
        };
        let content = if fits {
            &room[inner.content.clone()]
        } else {
            &input[inner.content.clone()]
        };
        if inner.content_type != content::HANDSHAKE && self.messages.is_partial() {
            return Err(RecordError::Interleaved);
        }
        match inner.content_type {
            content::APPLICATION_DATA if !content.is_empty() => {
                self.without_data = 0;
                let data = if fits {
                    Data::InRoom(inner.content.end)
                } else {
                    Data::InPlace(inner.content)
                };
                return Ok(Some((length, data)));
            }
            content::APPLICATION_DATA => {}
            content::HANDSHAKE | content::ALERT if content.is_empty() => {
                return Err(RecordError::Empty);
            }
            content::HANDSHAKE => {
                if let Some(update) = self.messages.take(content, ratchet.takes_tickets())? {
                    self.cipher = ratchet.next_receive()?;
                    self.update_requested |= update.requested;
                }
            }
            content::ALERT => match content {
                // Levels mean nothing in TLS 1.3 (RFC 8446, 6).
                [_, alert::CLOSE_NOTIFY] => self.end = Some(End::Closed),
                // close_notify follows.
                [_, alert::USER_CANCELED] => {}
                [_, code] => self.end = Some(End::Alerted(TlsError::Alert(*code))),
                _ => return Err(RecordError::Malformed("alert")),
            },
            other => return Err(RecordError::InnerType(other)),
        }
        self.without_data += 1;
        // However many there were, an end is an end.
        if self.without_data > WITHOUT_DATA_MAX && self.end.is_none() {
            return Err(RecordError::TooManyWithoutData);
        }
        Ok(Some((length, Data::InRoom(0))))
    }
}
