//! Messages byte by byte.

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;

use super::*;

fn asking(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn question(message: &Message) -> Question {
    match read(&message.to_vec().unwrap()) {
        Incoming::Query(question) => question,
        other @ (Incoming::Ignored | Incoming::Refused(_)) => panic!("{other:?}"),
    }
}

fn refusal(bytes: &[u8]) -> Message {
    match read(bytes) {
        Incoming::Refused(reply) => *reply,
        other @ (Incoming::Ignored | Incoming::Query(_)) => panic!("{other:?}"),
    }
}

fn addresses(count: u8) -> Reply {
    let name = Name::from_ascii("large.com.").unwrap();
    let record = |n| Record::from_rdata(name.clone(), 30, RData::A(A::new(10, 0, 0, n)));
    Reply {
        code: ResponseCode::NoError,
        answers: (0..count).map(record).collect(),
        ..Reply::failed("")
    }
}

#[test]
fn short_messages_and_responses_are_not_answered() {
    let bytes = asking("a.", RecordType::A).to_vec().unwrap();
    for length in 0..HEADER_BYTES {
        assert!(matches!(read(&bytes[..length]), Incoming::Ignored));
        assert!(matches!(too_long(&bytes[..length]), Incoming::Ignored));
    }
    let mut response = bytes;
    response[2] |= 0x80;
    assert!(matches!(read(&response), Incoming::Ignored));
    assert!(matches!(too_long(&response), Incoming::Ignored));
}

#[test]
fn what_cannot_be_decoded_is_a_format_error_without_question() {
    let bytes = asking("name.example.", RecordType::A).to_vec().unwrap();
    for length in HEADER_BYTES..bytes.len() {
        let reply = refusal(&bytes[..length]);
        assert_eq!(reply.metadata.id, 0x1234);
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        assert!(reply.metadata.recursion_desired);
        assert_eq!(reply.queries, []);
    }
}

#[test]
fn other_operations_are_not_implemented() {
    for op_code in [OpCode::Status, OpCode::Notify] {
        let mut message = asking("a.", RecordType::A);
        message.metadata.op_code = op_code;
        let reply = refusal(&message.to_vec().unwrap());
        assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
        assert_eq!(reply.metadata.op_code, op_code);
        assert!(!reply.metadata.recursion_available);
    }
}

#[test]
fn anything_but_one_question_fails() {
    let mut none = asking("a.", RecordType::A);
    none.queries.clear();
    let mut two = asking("a.", RecordType::A);
    two.add_query(two.queries[0].clone());
    for message in [none, two] {
        let reply = refusal(&message.to_vec().unwrap());
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
}

#[test]
fn a_reply_copies_the_question_as_it_was_asked() {
    let asked = question(&asking("WWW.Example.com.", RecordType::A));
    assert_eq!(asked.text(), Some("www.example.com"));
    let mut reply = addresses(1);
    reply.authoritative = true;
    let reply = asked.reply(reply);
    assert_eq!(reply.metadata.id, 0x1234);
    assert!(
        reply.queries[0]
            .name()
            .eq_case(&Name::from_ascii("WWW.Example.com.").unwrap())
    );
    let flags = reply.metadata;
    assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired);
    assert!(!flags.authentic_data && !flags.checking_disabled && !flags.truncation);
    assert_eq!((reply.authorities.len(), reply.edns), (0, None));
}

#[test]
fn edns_is_answered_on_success_only() {
    let mut message = asking("a.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(100).set_version(0).set_dnssec_ok(true);
    message.set_edns(edns);
    let asked = question(&message);
    assert_eq!(asked.udp_reply_bytes(), 512);
    let edns = asked.reply(addresses(1)).edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (512, 0));
    assert!(edns.flags().dnssec_ok);
    assert_eq!(asked.reply(Reply::failed("")).edns, None);
    assert_eq!(
        question(&asking("a.", RecordType::A)).udp_reply_bytes(),
        4_096
    );
}

#[test]
fn a_long_reply_is_cut_between_answers_and_keeps_its_opt_record() {
    let mut message = asking("large.com.", RecordType::A);
    message.set_edns({
        let mut edns = Edns::new();
        edns.set_max_payload(1_232);
        edns
    });
    let asked = question(&message);
    let reply = asked.reply(addresses(255));
    let cut = encode(&reply, asked.udp_reply_bytes()).unwrap();
    assert!(cut.len() <= 1_232);
    let cut = Message::from_vec(&cut).unwrap();
    assert!(cut.metadata.truncation);
    assert_eq!(cut.answers.len(), 74);
    assert!(cut.edns.is_some());
    let whole = Message::from_vec(&encode(&reply, u16::MAX).unwrap()).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 255);
}

#[test]
fn names_that_text_cannot_tell_apart_have_no_text() {
    for (labels, text) in [
        (vec![&b"a.b"[..], b"c"], None),
        (vec![&b"a b"[..]], None),
        (vec![&[0xff][..]], None),
        (vec![], None),
        (vec![&b"*"[..], b"Wild_card"], Some("*.wild_card")),
    ] {
        let name = Name::from_labels(labels.clone()).unwrap();
        assert_eq!(super::text(&name).as_deref(), text, "{labels:?}");
    }
}

#[test]
fn types_without_a_name_share_a_label() {
    for (record_type, label) in [
        (RecordType::AAAA, "aaaa"),
        (RecordType::NS, "ns"),
        (RecordType::Unknown(4_711), "unknown"),
    ] {
        assert_eq!(question(&asking("a.", record_type)).type_label(), label);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic_and_what_is_sent_back_can_be_read(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        genuine in any::<bool>(),
    ) {
        let mut message = asking("www.example.com.", RecordType::A);
        message.set_edns(Edns::new());
        let mut bytes = if genuine { message.to_vec().unwrap() } else { bytes };
        for (at, byte) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
        }
        let (reply, limit) = match read(&bytes) {
            Incoming::Ignored => return Ok(()),
            Incoming::Refused(reply) => (*reply, u16::MAX),
            Incoming::Query(question) => (question.reply(addresses(40)), 512),
        };
        let encoded = encode(&reply, limit).unwrap();
        prop_assert!(encoded.len() <= usize::from(limit));
        prop_assert_eq!(&encoded[..2], &bytes[..2]);
        let decoded = Message::from_vec(&encoded).unwrap();
        prop_assert_eq!(decoded.metadata.message_type, MessageType::Response);
    }
}
