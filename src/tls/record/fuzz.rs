//! A session fed by a script: known keys, records of every kind, random pieces, and a plain model.
//!
//! The fuzz target and the replay of its corpus call [`run`]; the table of malformed records uses
//! the same peer.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};

use super::session::Session;
use super::{RecordError, content};
use crate::config::limits::TLS_RECORD_HEADER_BYTES;

mod peer;

pub(super) use peer::{AtEnd, KnownKeys, Peer, Wire, session};
#[cfg(test)]
pub(super) use peer::{Heard, keys};

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
                let record = self
                    .peer
                    .seal(content::APPLICATION_DATA, &content, padding)?;
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
                // Under a type of zero the content's last byte is the type.
                match content.iter().rposition(|byte| *byte != 0) {
                    Some(end) if content_type == 0 => self.judge(content[end], &content[..end]),
                    Some(_) | None => self.judge(content_type, &content),
                }
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
        if random.u8(..16) == 0 {
            session.update_key();
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
            assert!(matches!(
                expected,
                Expected::Alerted | Expected::Refused(None)
            ));
        }
        Err(io::ErrorKind::UnexpectedEof) => {
            assert!(matches!(expected, Expected::Cut | Expected::Refused(None)));
        }
        Err(_) => assert!(matches!(expected, Expected::Refused(_))),
    }
    if ended == Err(io::ErrorKind::ConnectionAborted) {
        // Records may have been cut off: the peer is gone.
        return Ok(());
    }
    while session.poll_close(&mut cx).is_pending() {}
    let heard = plan.peer.hear(&session.io().outgoing)?;
    assert!(heard.data == sent, "the peer hears something else");
    if let Expected::Refused(Some(code)) = expected {
        assert_eq!(heard.alerts, [code]);
    }
    let answers = heard.key_updates.iter().filter(|value| **value == 0);
    assert!(answers.count() <= plan.updates_requested);
    Ok(())
}
