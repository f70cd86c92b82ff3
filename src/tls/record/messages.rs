//! Handshake messages after the handshake: KeyUpdate and NewSessionTicket (RFC 8446, 4.6).
//!
//! Messages may span records and share them. None is kept: tickets are checked for possible length
//! and passed over, because resumption would skip verifying the peer again.

use super::RecordError;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const HEADER_BYTES: usize = 4;
/// Lifetime, age, and the lengths of nonce, ticket (of one byte) and extensions.
const TICKET_BYTES_MIN: usize = 4 + 4 + 1 + 3 + 2;
/// The same with everything as long as it can be.
const TICKET_BYTES_MAX: usize = 4 + 4 + 256 + 65_537 + 65_536;

/// Where in the stream of messages we are.
#[derive(Default)]
pub(super) struct Messages {
    header: [u8; HEADER_BYTES],
    /// Bytes of `header` seen.
    seen: usize,
    /// Bytes of the message's body still to come.
    missing: usize,
}

/// A KeyUpdate arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyUpdate {
    /// The peer wants one in return.
    pub(super) requested: bool,
}

impl Messages {
    /// A message has begun and not ended.
    pub(super) fn is_partial(&self) -> bool {
        self.seen > 0
    }

    /// Takes the content of one record of type handshake.
    pub(super) fn take(
        &mut self,
        content: &[u8],
        takes_tickets: bool,
    ) -> Result<Option<KeyUpdate>, RecordError> {
        let mut rest = content;
        while !rest.is_empty() {
            if self.seen < HEADER_BYTES {
                let step = rest.len().min(HEADER_BYTES - self.seen);
                let (front, back) = rest.split_at(step);
                self.header[self.seen..self.seen + step].copy_from_slice(front);
                self.seen += step;
                rest = back;
                if self.seen == HEADER_BYTES {
                    self.missing = body_length(self.header, takes_tickets)?;
                }
                continue;
            }
            if self.header[0] == KEY_UPDATE {
                let (value, behind) = (rest[0], &rest[1..]);
                if !behind.is_empty() {
                    return Err(RecordError::KeyChangeInRecord);
                }
                *self = Self::default();
                return match value {
                    0 | 1 => Ok(Some(KeyUpdate {
                        requested: value == 1,
                    })),
                    _ => Err(RecordError::KeyUpdateValue(value)),
                };
            }
            let step = rest.len().min(self.missing);
            rest = &rest[step..];
            self.missing -= step;
            if self.missing == 0 {
                *self = Self::default();
            }
        }
        Ok(None)
    }
}

fn body_length(header: [u8; HEADER_BYTES], takes_tickets: bool) -> Result<usize, RecordError> {
    let [message, high, middle, low] = header;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    match message {
        KEY_UPDATE if length == 1 => Ok(length),
        KEY_UPDATE => Err(RecordError::Malformed("KeyUpdate")),
        NEW_SESSION_TICKET if takes_tickets => {
            if (TICKET_BYTES_MIN..=TICKET_BYTES_MAX).contains(&length) {
                Ok(length)
            } else {
                Err(RecordError::Malformed("session ticket"))
            }
        }
        other => Err(RecordError::Message(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind], &length[1..], body].concat()
    }

    /// Feeds `stream` in pieces of `step` bytes; the answers that say something.
    fn fed(stream: &[u8], step: usize, client: bool) -> (Vec<KeyUpdate>, Option<RecordError>) {
        let mut messages = Messages::default();
        let mut updates = Vec::new();
        for piece in stream.chunks(step) {
            match messages.take(piece, client) {
                Ok(update) => updates.extend(update),
                Err(error) => return (updates, Some(error)),
            }
        }
        assert!(!messages.is_partial());
        (updates, None)
    }

    #[test]
    fn messages_may_span_records_at_any_byte() {
        let ticket = message(NEW_SESSION_TICKET, &[1; 300]);
        let update = message(KEY_UPDATE, &[1]);
        let stream = [&ticket[..], &ticket, &update].concat();
        for step in 1..=stream.len() {
            let (updates, error) = fed(&stream, step, true);
            assert_eq!(updates, [KeyUpdate { requested: true }], "{step}");
            assert_eq!(error, None, "{step}");
        }
    }

    #[test]
    fn what_is_not_allowed_after_the_handshake_is_refused() {
        let update = |value: u8| message(KEY_UPDATE, &[value]);
        let cases: &[(&str, Vec<u8>, bool, RecordError)] = &[
            (
                "ClientHello",
                message(1, &[0; 40]),
                false,
                RecordError::Message(1),
            ),
            (
                "CertificateRequest",
                message(13, &[0; 40]),
                true,
                RecordError::Message(13),
            ),
            (
                "Finished",
                message(20, &[0; 32]),
                true,
                RecordError::Message(20),
            ),
            (
                "ticket from a client",
                message(NEW_SESSION_TICKET, &[0; 40]),
                false,
                RecordError::Message(4),
            ),
            (
                "ticket too short",
                message(NEW_SESSION_TICKET, &[0; 13]),
                true,
                RecordError::Malformed("session ticket"),
            ),
            (
                "ticket too long",
                vec![NEW_SESSION_TICKET, 2, 1, 10],
                true,
                RecordError::Malformed("session ticket"),
            ),
            (
                "KeyUpdate of two bytes",
                message(KEY_UPDATE, &[0, 0]),
                true,
                RecordError::Malformed("KeyUpdate"),
            ),
            (
                "empty KeyUpdate",
                message(KEY_UPDATE, &[]),
                true,
                RecordError::Malformed("KeyUpdate"),
            ),
            (
                "KeyUpdate 2",
                update(2),
                true,
                RecordError::KeyUpdateValue(2),
            ),
            (
                "something behind a KeyUpdate",
                [update(0), update(0)].concat(),
                true,
                RecordError::KeyChangeInRecord,
            ),
        ];
        for (name, stream, client, expected) in cases {
            let (updates, error) = fed(stream, stream.len(), *client);
            assert_eq!(error, Some(*expected), "{name}");
            assert_eq!(updates, [], "{name}");
        }
    }
}
