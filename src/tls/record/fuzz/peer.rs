//! The other side of a session under test: known keys, any record one can seal, bytes in pieces.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, NONCE_LEN};

use crate::config::limits::TLS_RECORD_HEADER_BYTES;
use crate::tls::record::cipher::Cipher;
use crate::tls::record::ratchet::Ratchet;
use crate::tls::record::session::Session;
use crate::tls::record::{OVERHEAD_BYTES, RecordError, content, record_length};
use crate::transport::Transport;

/// Keys of both directions, made from their generation, of both suites in turn.
pub(in crate::tls::record) struct KnownKeys {
    is_client: bool,
    sent: u8,
    received: u8,
}

impl KnownKeys {
    fn cipher(from_client: bool, generation: u8) -> Result<Cipher, RecordError> {
        let algorithm = if generation.is_multiple_of(2) {
            &AES_256_GCM
        } else {
            &AES_128_GCM
        };
        let key = vec![generation; algorithm.key_len()];
        Cipher::from_parts(0, algorithm, &key, &[u8::from(from_client); NONCE_LEN])
    }

    pub(in crate::tls::record) fn next_send(&mut self) -> Result<Cipher, RecordError> {
        self.sent = self.sent.wrapping_add(1);
        Self::cipher(self.is_client, self.sent)
    }

    pub(in crate::tls::record) fn next_receive(&mut self) -> Result<Cipher, RecordError> {
        self.received = self.received.wrapping_add(1);
        Self::cipher(!self.is_client, self.received)
    }

    pub(in crate::tls::record) fn takes_tickets(&self) -> bool {
        self.is_client
    }
}

/// The transport below: bytes that are there already, in random pieces.
pub(in crate::tls::record) struct Wire {
    pub(in crate::tls::record) incoming: Vec<u8>,
    pub(in crate::tls::record) received: usize,
    pub(in crate::tls::record) outgoing: Vec<u8>,
    /// Pieces and pauses come from here; `None`: everything at once.
    pub(in crate::tls::record) pieces: Option<fastrand::Rng>,
    /// What follows the last byte.
    pub(in crate::tls::record) at_end: AtEnd,
    /// Nothing can be sent for now.
    pub(in crate::tls::record) blocked: bool,
}

/// What a [`Wire`] does when all its bytes are received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::tls::record) enum AtEnd {
    Ends,
    #[cfg(test)]
    Waits,
    #[cfg(test)]
    Fails,
}

impl Wire {
    fn piece(&mut self, most: usize) -> Option<usize> {
        let Some(random) = &mut self.pieces else {
            return Some(most);
        };
        match random.u8(..8) {
            0 => None,
            1 => Some(most.min(1)),
            2..4 => Some(random.usize(..=most.min(40))),
            _ => Some(random.usize(..=most)),
        }
        .filter(|piece| *piece > 0 || most == 0)
    }
}

impl Transport for Wire {
    fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let most = buffer.len().min(self.incoming.len() - self.received);
        match self.at_end {
            #[cfg(test)]
            AtEnd::Waits if most == 0 => return Poll::Pending,
            #[cfg(test)]
            AtEnd::Fails if most == 0 => {
                // A socket tells its error once.
                self.at_end = AtEnd::Ends;
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            _ => {}
        }
        let Some(count) = self.piece(most) else {
            return Poll::Pending;
        };
        buffer[..count].copy_from_slice(&self.incoming[self.received..self.received + count]);
        self.received += count;
        Poll::Ready(Ok(count))
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.blocked {
            return Poll::Pending;
        }
        let bytes: &[u8] = slices.first().map_or(&[], |slice| slice);
        let Some(count) = self.piece(bytes.len()) else {
            return Poll::Pending;
        };
        self.outgoing.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The other side: seals anything it is told to, opens what the session sends.
pub(in crate::tls::record) struct Peer {
    keys: KnownKeys,
    send: Cipher,
    receive: Cipher,
}

/// Keys of a session whose peer is a [`Peer`] made with the same `is_client`: for the future, for
/// sending, for receiving.
pub(in crate::tls::record) fn keys(
    is_client: bool,
) -> Result<(Ratchet, Cipher, Cipher), RecordError> {
    let keys = KnownKeys {
        is_client,
        sent: 0,
        received: 0,
    };
    let send = KnownKeys::cipher(is_client, 0)?;
    let receive = KnownKeys::cipher(!is_client, 0)?;
    Ok((Ratchet::Known(keys), send, receive))
}

/// A session over `wire` with [`keys`].
pub(in crate::tls::record) fn session(
    is_client: bool,
    wire: Wire,
) -> Result<Session<Wire>, RecordError> {
    let (ratchet, send, receive) = keys(is_client)?;
    Ok(Session::new(wire, ratchet, send, receive, Vec::new()))
}

/// What a session sent, as its peer understands it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::tls::record) struct Heard {
    pub(in crate::tls::record) data: Vec<u8>,
    /// Values of its KeyUpdates.
    pub(in crate::tls::record) key_updates: Vec<u8>,
    pub(in crate::tls::record) alerts: Vec<u8>,
}

impl Peer {
    /// The peer of a client (`true`) or a server.
    pub(in crate::tls::record) fn of(is_client: bool) -> Result<Self, RecordError> {
        Ok(Self {
            keys: KnownKeys {
                is_client: !is_client,
                sent: 0,
                received: 0,
            },
            send: KnownKeys::cipher(!is_client, 0)?,
            receive: KnownKeys::cipher(is_client, 0)?,
        })
    }

    pub(in crate::tls::record) fn seal(
        &mut self,
        content_type: u8,
        content: &[u8],
        padding: usize,
    ) -> Result<Vec<u8>, RecordError> {
        let mut record = vec![0; TLS_RECORD_HEADER_BYTES];
        record.extend_from_slice(content);
        if padding > 0 {
            // The record layer under test never pads: the real type goes into the content.
            record.push(content_type);
            record.resize(record.len() + padding - 1, 0);
        }
        record.resize(record.len() + OVERHEAD_BYTES - TLS_RECORD_HEADER_BYTES, 0);
        let last = if padding > 0 { 0 } else { content_type };
        self.send.seal(&mut record, last)?;
        Ok(record)
    }

    /// A record of a tag alone, without even a content type.
    #[cfg(test)]
    pub(in crate::tls::record) fn seal_empty(&mut self) -> Result<Vec<u8>, RecordError> {
        let mut record = vec![0; TLS_RECORD_HEADER_BYTES + crate::tls::record::TAG_BYTES];
        self.send.seal(&mut record, 0)?;
        Ok(record)
    }

    pub(in crate::tls::record) fn key_update(&mut self, value: u8) -> Result<Vec<u8>, RecordError> {
        let record = self.seal(content::HANDSHAKE, &[24, 0, 0, 1, value], 0)?;
        self.send = self.keys.next_send()?;
        Ok(record)
    }

    /// Opens everything in `sent`, which ends at a record boundary.
    pub(in crate::tls::record) fn hear(&mut self, mut sent: &[u8]) -> Result<Heard, RecordError> {
        let mut heard = Heard::default();
        while let Some(length) = record_length(sent)? {
            let mut record = sent[..length].to_vec();
            sent = &sent[length..];
            let inner = self.receive.open(&mut record)?;
            let found = &record[inner.content];
            match (inner.content_type, found) {
                (content::APPLICATION_DATA, data) => heard.data.extend_from_slice(data),
                (content::HANDSHAKE, [24, 0, 0, 1, value]) => {
                    heard.key_updates.push(*value);
                    self.receive = self.keys.next_receive()?;
                }
                (content::ALERT, [_, code]) => heard.alerts.push(*code),
                (other, _) => return Err(RecordError::InnerType(other)),
            }
        }
        Ok(heard)
    }
}
