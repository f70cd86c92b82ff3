//! A session fed by a script: known keys, records of every kind, random pieces, and a plain model.
//!
//! The fuzz target and the replay of its corpus call [`run`]; the table of malformed records uses
//! the same peer.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};

use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};

use super::cipher::Cipher;
use super::ratchet::Ratchet;
use super::session::Session;
use super::{OVERHEAD_BYTES, RecordError, content, record_length};
use crate::config::limits::TLS_RECORD_HEADER_BYTES;
use crate::transport::Transport;

/// Keys of both directions, made from their generation.
pub(super) struct KnownKeys {
    is_client: bool,
    sent: u8,
    received: u8,
}

impl KnownKeys {
    fn cipher(from_client: bool, generation: u8) -> Result<Cipher, RecordError> {
        let secrets = ConnectionTrafficSecrets::Aes256Gcm {
            key: AeadKey::from([generation; 32]),
            iv: Iv::from([u8::from(from_client); 12]),
        };
        Cipher::new(0, &secrets)
    }

    pub(super) fn next_send(&mut self) -> Result<Cipher, RecordError> {
        self.sent = self.sent.wrapping_add(1);
        Self::cipher(self.is_client, self.sent)
    }

    pub(super) fn next_receive(&mut self) -> Result<Cipher, RecordError> {
        self.received = self.received.wrapping_add(1);
        Self::cipher(!self.is_client, self.received)
    }

    pub(super) fn takes_tickets(&self) -> bool {
        self.is_client
    }
}

/// The transport below: bytes that are there already, in random pieces.
pub(super) struct Wire {
    pub(super) incoming: Vec<u8>,
    pub(super) received: usize,
    pub(super) outgoing: Vec<u8>,
    /// Pieces and pauses come from here; `None`: everything at once.
    pub(super) pieces: Option<fastrand::Rng>,
    /// What follows the last byte.
    pub(super) at_end: AtEnd,
    /// Nothing can be sent for now.
    pub(super) blocked: bool,
}

/// What a [`Wire`] does when all its bytes are received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AtEnd {
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
pub(super) struct Peer {
    keys: KnownKeys,
    send: Cipher,
    receive: Cipher,
}

/// Keys of a session whose peer is a [`Peer`] made with the same `is_client`: for the future, for
/// sending, for receiving.
pub(super) fn keys(is_client: bool) -> Result<(Ratchet, Cipher, Cipher), RecordError> {
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
pub(super) fn session(is_client: bool, wire: Wire) -> Result<Session<Wire>, RecordError> {
    let (ratchet, send, receive) = keys(is_client)?;
    Ok(Session::new(wire, ratchet, send, receive, Vec::new()))
}

/// What a session sent, as its peer understands it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) data: Vec<u8>,
    /// Values of its KeyUpdates.
    pub(super) key_updates: Vec<u8>,
    pub(super) alerts: Vec<u8>,
}

impl Peer {
    /// The peer of a client (`true`) or a server.
    pub(super) fn of(is_client: bool) -> Result<Self, RecordError> {
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

    pub(super) fn seal(
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
    pub(super) fn seal_empty(&mut self) -> Result<Vec<u8>, RecordError> {
        let mut record = vec![0; TLS_RECORD_HEADER_BYTES + super::TAG_BYTES];
        self.send.seal(&mut record, 0)?;
        Ok(record)
    }

    pub(super) fn key_update(&mut self, value: u8) -> Result<Vec<u8>, RecordError> {
        let record = self.seal(content::HANDSHAKE, &[24, 0, 0, 1, value], 0)?;
        self.send = self.keys.next_send()?;
        Ok(record)
    }

    /// Opens everything in `sent`, which ends at a record boundary.
    pub(super) fn hear(&mut self, mut sent: &[u8]) -> Result<Heard, RecordError> {
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

/// How a session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The transport ends and TLS has not.
    Cut,
    Closed,
    /// Refused with this alert, or none that the model knows.
    Refused(Option<u8>),
    /// Told off by the peer.
    Alerted,
}

/// Bytes for the wire, and what they mean.
struct Plan {
    peer: Peer,
    is_client: bool,
    wire: Vec<u8>,
    data: Vec<u8>,
    expected: Expected,
    /// A handshake message that has begun.
    message: Vec<u8>,
    updates_requested: usize,
    without_data: u32,
}

/// A script read from its front; an exhausted one gives zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: usize) -> &[u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }
}

impl Plan {
    fn end(&mut self, expected: Expected) {
        if self.expected == Expected::Cut {
            self.expected = expected;
        }
    }

    fn counts_without_data(&mut self) {
        self.without_data += 1;
        if self.without_data > 32 {
            self.end(Expected::Refused(Some(10)));
        }
    }

    /// One step of the script.
    fn step(&mut self, script: &mut Script<'_>) -> Result<(), RecordError> {
        match script.byte() % 8 {
            0..3 => {
                let size = usize::from(script.byte()) << (script.byte() % 8);
                let content = vec![script.byte(); size.min(16_384)];
                let padding = usize::from(script.byte()).min(16_384 - content.len());
                let record = self.peer.seal(content::APPLICATION_DATA, &content, padding)?;
                self.wire.extend(record);
                self.judge(content::APPLICATION_DATA, &content);
            }
            3 => {
                let value = script.byte() % 2;
                let record = self.peer.key_update(value)?;
                self.wire.extend(record);
                if !self.message.is_empty() {
                    // Taken for part of that message.
                    self.end(Expected::Refused(None));
                }
                self.updates_requested += usize::from(value);
                self.counts_without_data();
            }
            4 => {
                let (content_type, size) = (script.byte(), usize::from(script.byte() % 64));
                let content = script.bytes(size).to_vec();
                let record = self.peer.seal(content_type, &content, 0)?;
                self.wire.extend(record);
                self.judge(content_type, &content);
            }
            5 => {
                // Nothing anybody sealed; it may look like the beginning of a long record.
                let size = 1 + usize::from(script.byte());
                let bytes = script.bytes(size).to_vec();
                if !bytes.is_empty() {
                    self.wire.extend(bytes);
                    self.end(Expected::Refused(None));
                }
            }
            6 => {
                let mut record = self.peer.seal(content::APPLICATION_DATA, b"altered", 3)?;
                let at = TLS_RECORD_HEADER_BYTES
                    + usize::from(script.byte()) % (record.len() - TLS_RECORD_HEADER_BYTES);
                record[at] ^= 1 << (script.byte() % 8);
                self.wire.extend(record);
                self.end(Expected::Refused(Some(20)));
            }
            _ => {
                let record = self.peer.seal(content::ALERT, &[1, 0], 0)?;
                self.wire.extend(record);
                self.judge(content::ALERT, &[1, 0]);
            }
        }
        Ok(())
    }

    /// A sealed record of any type and content, as RFC 8446 wants it judged.
    fn judge(&mut self, content_type: u8, content: &[u8]) {
        if content_type != content::HANDSHAKE && !self.message.is_empty() {
            self.end(Expected::Refused(Some(10)));
        }
        match (content_type, content) {
            (content::APPLICATION_DATA, []) => self.counts_without_data(),
            (content::APPLICATION_DATA, data) => {
                if self.expected == Expected::Cut {
                    self.without_data = 0;
                    self.data.extend_from_slice(data);
                }
            }
            (content::ALERT | content::HANDSHAKE, []) => self.end(Expected::Refused(Some(10))),
            (content::ALERT, [_, 0]) => self.end(Expected::Closed),
            (content::ALERT, [_, 90]) => self.counts_without_data(),
            (content::ALERT, [_, _]) => self.end(Expected::Alerted),
            (content::ALERT, _) => self.end(Expected::Refused(Some(50))),
            (content::HANDSHAKE, bytes) => self.judge_messages(bytes),
            _ => self.end(Expected::Refused(Some(10))),
        }
    }

    /// Follows tickets only; for anything else, whatever refuses it is right.
    fn judge_messages(&mut self, bytes: &[u8]) {
        self.message.extend_from_slice(bytes);
        while let Some(&[kind, 0, high, low]) = self.message.first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != 4 || !self.is_client || length < 14 {
                break;
            }
            if self.message.len() < 4 + length {
                return self.counts_without_data();
            }
            self.message.drain(..4 + length);
        }
        if self.message.len() >= 4 {
            self.end(Expected::Refused(None));
        }
        self.counts_without_data();
    }
}

/// Runs one script. Panics when the session does anything else than the model says.
pub(crate) fn run(script: &[u8]) {
    assert!(try_run(script).is_ok(), "the model's own records are sound");
}

fn try_run(script: &[u8]) -> Result<(), RecordError> {
    const STEPS_MAX: usize = 64;
    let mut script = Script(script);
    let flags = script.byte();
    let is_client = flags & 1 == 1;
    let seed = u64::from(script.byte());
    let mut plan = Plan {
        peer: Peer::of(is_client)?,
        is_client,
        wire: Vec::new(),
        data: Vec::new(),
        expected: Expected::Cut,
        message: Vec::new(),
        updates_requested: 0,
        without_data: 0,
    };
    for _ in 0..STEPS_MAX {
        if script.0.is_empty() {
            break;
        }
        plan.step(&mut script)?;
    }
    let wire = Wire {
        incoming: std::mem::take(&mut plan.wire),
        received: 0,
        outgoing: Vec::new(),
        pieces: (flags & 2 == 2).then(|| fastrand::Rng::with_seed(seed)),
        at_end: AtEnd::Ends,
        blocked: false,
    };
    let mut session = session(plan.is_client, wire)?;
    if flags & 4 == 4 {
        session.set_key_records_max(1 + u64::from(flags >> 4));
    }
    play(&mut session, plan, fastrand::Rng::with_seed(seed + 1))
}

/// Polls the session to its end, then compares.
fn play(
    session: &mut Session<Wire>,
    mut plan: Plan,
    mut random: fastrand::Rng,
) -> Result<(), RecordError> {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut got, mut sent) = (Vec::new(), Vec::new());
    let ended = loop {
        if random.u8(..4) == 0 && sent.len() < 300_000 {
            let chunk = vec![random.u8(..); random.usize(1..70_000)];
            if let Poll::Ready(Ok(taken)) = session.poll_send(&mut cx, &[IoSlice::new(&chunk)]) {
                sent.extend_from_slice(&chunk[..taken]);
            }
        }
        let mut buffer = vec![0; random.usize(1..50_000) >> random.u8(..16)];
        match session.poll_recv(&mut cx, &mut buffer) {
            Poll::Ready(Ok(0)) if buffer.is_empty() => {}
            Poll::Ready(Ok(0)) => break Ok(()),
            Poll::Ready(Ok(count)) => got.extend_from_slice(&buffer[..count]),
            Poll::Ready(Err(error)) => break Err(error.kind()),
            Poll::Pending => {}
        }
    };
    assert!(got == plan.data, "data differs from the model's");
    let expected = plan.expected;
    match ended {
        Ok(()) => assert_eq!(expected, Expected::Closed),
        Err(io::ErrorKind::ConnectionAborted) => {
            assert!(matches!(expected, Expected::Alerted | Expected::Refused(None)));
        }
        Err(io::ErrorKind::UnexpectedEof) => {
            assert!(matches!(expected, Expected::Cut | Expected::Refused(None)));
        }
        Err(_) => assert!(matches!(expected, Expected::Refused(_))),
    }
    while session.poll_close(&mut cx).is_pending() {}
    let heard = plan.peer.hear(&session.io().outgoing)?;
    if ended != Err(io::ErrorKind::ConnectionAborted) {
        assert!(heard.data == sent, "the peer hears something else");
    }
    if let Expected::Refused(Some(code)) = expected {
        assert_eq!(heard.alerts, [code]);
    }
    let answers = heard.key_updates.iter().filter(|value| **value == 0);
    assert!(answers.count() <= plan.updates_requested);
    Ok(())
}
