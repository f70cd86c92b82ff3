//! Messages in and out: what is refused by itself, and how replies look (spec: dns-socks.md A2).

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::Reply;
use crate::config::limits::{DNS_UDP_REPLY_BYTES, DNS_UDP_REPLY_BYTES_MIN};

/// Bytes of a header (RFC 1035 §4.1.1).
const HEADER_BYTES: usize = 12;
/// Bytes of an OPT record without options (RFC 6891 §6.1.2).
const OPT_BYTES: u16 = 11;

/// What a message is.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Nothing to answer.
    Ignored,
    /// Answered by what it is.
    Refused(Box<Message>),
    /// One question.
    Query(Question),
}

/// The question of a query, with what its reply copies.
#[derive(Clone, Debug)]
pub(super) struct Question {
    metadata: Metadata,
    query: Query,
    text: Option<String>,
    edns: Option<Edns>,
}

/// Looks at a message.
pub(super) fn read(bytes: &[u8]) -> Incoming {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Incoming::Ignored;
    };
    // A response is never answered, or two proxies could keep each other busy for ever.
    if header[2] & 0x80 != 0 {
        return Incoming::Ignored;
    }
    let Ok(message) = Message::from_vec(bytes) else {
        return refused(&of_header(header), ResponseCode::FormErr, Vec::new());
    };
    if message.metadata.message_type != MessageType::Query {
        return Incoming::Ignored;
    }
    let Message {
        metadata,
        mut queries,
        edns,
        ..
    } = message;
    if metadata.op_code != OpCode::Query {
        return refused(&metadata, ResponseCode::NotImp, queries);
    }
    match (queries.pop(), queries.is_empty()) {
        (Some(query), true) => Incoming::Query(Question {
            text: text(query.name()),
            metadata,
            query,
            edns,
        }),
        (last, _) => {
            queries.extend(last);
            refused(&metadata, ResponseCode::ServFail, queries)
        }
    }
}

/// The reply to a message that is too long to be looked at.
pub(super) fn too_long(bytes: &[u8]) -> Incoming {
    match bytes.first_chunk::<HEADER_BYTES>() {
        Some(header) if header[2] & 0x80 == 0 => {
            refused(&of_header(header), ResponseCode::FormErr, Vec::new())
        }
        Some(_) | None => Incoming::Ignored,
    }
}

/// What a reply copies, of a message that cannot be read any further.
fn of_header(header: &[u8; HEADER_BYTES]) -> Metadata {
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op_code = OpCode::from_u8((header[2] >> 3) & 0x0f);
    let mut metadata = Metadata::new(id, MessageType::Query, op_code);
    metadata.recursion_desired = header[2] & 0x01 != 0;
    metadata.checking_disabled = header[3] & 0x10 != 0;
    metadata
}

fn refused(request: &Metadata, code: ResponseCode, queries: Vec<Query>) -> Incoming {
    let mut message = Message::response(request.id, request.op_code);
    message.metadata = Metadata::response_from_request(request);
    message.metadata.response_code = code;
    message.add_queries(queries);
    Incoming::Refused(Box::new(message))
}

/// The name in lower case without its final dot, as hostnames are stored. `None` where text could not
/// tell it from another name: a label with a dot or with bytes that are not printable.
fn text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if !byte.is_ascii_graphic() || *byte == b'.' {
                return None;
            }
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    (!text.is_empty()).then_some(text)
}

impl Question {
    /// The name as it was asked for.
    pub(super) const fn name(&self) -> &Name {
        &self.query.name
    }

    /// The name as hostnames are written, if one can be.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// What is asked for.
    pub(super) const fn record_type(&self) -> RecordType {
        self.query.query_type
    }

    /// The type for labels: a closed set, whatever clients ask for.
    pub(super) fn type_label(&self) -> String {
        let asked = self.record_type();
        if matches!(asked, RecordType::Unknown(_)) {
            "unknown".to_owned()
        } else {
            asked.to_string().to_ascii_lowercase()
        }
    }

    /// How long a datagram this client takes.
    pub(super) fn udp_reply_bytes(&self) -> u16 {
        self.edns.as_ref().map_or(DNS_UDP_REPLY_BYTES, |edns| {
            edns.max_payload().max(DNS_UDP_REPLY_BYTES_MIN)
        })
    }

    /// The whole message for a reply.
    pub(super) fn reply(&self, reply: Reply) -> Message {
        let mut message = Message::response(self.metadata.id, self.metadata.op_code);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.response_code = reply.code;
        message.metadata.authoritative = reply.authoritative;
        // Also for a name that does not exist: it was looked for, and resolvers go on to another
        // server when one says that it does not look.
        message.metadata.recursion_available = reply.code != ResponseCode::ServFail;
        message.add_query(self.query.clone());
        message.add_answers(reply.answers);
        message.add_additionals(reply.additionals);
        if reply.code == ResponseCode::NoError {
            message.edns = self.edns.as_ref().map(|asked| {
                let mut edns = Edns::new();
                edns.set_max_payload(asked.max_payload().max(DNS_UDP_REPLY_BYTES_MIN));
                edns.set_version(asked.version());
                edns.set_dnssec_ok(asked.flags().dnssec_ok);
                edns
            });
        }
        message
    }
}

/// The message in at most `limit` bytes: as many whole answers as fit, and marked as cut (TC) when some
/// do not. `None` only for records that cannot be written at all.
pub(super) fn encode(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let (bytes, _) = write(message, limit)?;
    // The third byte holds TC.
    if bytes.get(2).is_none_or(|flags| flags & 0x02 == 0) {
        return Some(bytes);
    }
    // OPT comes last and must not be what is cut off: leave room for it.
    let mut cut = message.clone();
    cut.additionals.clear();
    cut.edns = None;
    let room = if message.edns.is_some() { OPT_BYTES } else { 0 };
    let (_, fitting) = write(&cut, limit.saturating_sub(room))?;
    cut.answers.truncate(fitting);
    cut.edns.clone_from(&message.edns);
    cut.metadata.truncation = true;
    write(&cut, limit).map(|(bytes, _)| bytes)
}

/// Bytes, and how many answers are in them.
fn write(message: &Message, limit: u16) -> Option<(Vec<u8>, usize)> {
    let mut bytes = Vec::with_capacity(usize::from(DNS_UDP_REPLY_BYTES_MIN));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    message.emit(&mut encoder).ok()?;
    let answers = bytes
        .get(6..8)
        .map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    Some((bytes, usize::from(answers)))
}

#[cfg(test)]
mod tests;
