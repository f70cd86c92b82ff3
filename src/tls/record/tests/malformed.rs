//! What a peer may not send: each is refused with the alert RFC 8446 names, after the data before it.

use super::*;
use crate::config::limits::TLS_RECORD_CIPHERTEXT_BYTES_MAX;
use crate::tls::error::TlsError;

/// Bytes made by the peer.
type Make = fn(&mut Peer) -> Vec<u8>;

struct Case {
    name: &'static str,
    /// Whether the session under test is a client.
    is_client: bool,
    make: Make,
    alert: u8,
    error: &'static str,
}

const fn case(name: &'static str, make: Make, alert: u8, error: &'static str) -> Case {
    Case {
        name,
        is_client: true,
        make,
        alert,
        error,
    }
}

const fn to_server(name: &'static str, make: Make, alert: u8, error: &'static str) -> Case {
    Case {
        is_client: false,
        ..case(name, make, alert, error)
    }
}

fn sealed(peer: &mut Peer, content_type: u8, content: &[u8]) -> Vec<u8> {
    peer.seal(content_type, content, 0).unwrap()
}

/// A header that announces `length` bytes, and as many zeros.
fn unsealed(outer_type: u8, length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    let mut record = vec![outer_type, 3, 3, high, low];
    record.resize(5 + length, 0);
    record
}

/// A sealed record, altered afterwards.
fn altered(peer: &mut Peer, alter: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut record = sealed(peer, content::APPLICATION_DATA, b"altered");
    alter(&mut record);
    record
}

const OUTER: [Case; 12] = [
    case(
        "a ChangeCipherSpec",
        |_| vec![20, 3, 3, 0, 1, 1],
        10,
        "unprotected record of type 20",
    ),
    case(
        "an alert in the clear",
        |_| vec![21, 3, 3, 0, 2, 2, 40],
        10,
        "unprotected record of type 21",
    ),
    case(
        "a handshake record in the clear",
        |_| unsealed(22, 40),
        10,
        "unprotected record of type 22",
    ),
    case(
        "HTTP in the clear",
        |_| b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        10,
        "unprotected record of type 71",
    ),
    case(
        "a heartbeat",
        |_| unsealed(24, 20),
        10,
        "unprotected record of type 24",
    ),
    case(
        "a header alone that announces too much",
        |_| unsealed(23, TLS_RECORD_CIPHERTEXT_BYTES_MAX + 1)[..5].to_vec(),
        22,
        "too long",
    ),
    case("no ciphertext", |_| unsealed(23, 0), 20, "does not decrypt"),
    case(
        "less than a tag",
        |_| unsealed(23, 15),
        20,
        "does not decrypt",
    ),
    case(
        "bytes nobody sealed",
        |_| unsealed(23, 64),
        20,
        "does not decrypt",
    ),
    case(
        "the longest bytes nobody sealed",
        |_| unsealed(23, TLS_RECORD_CIPHERTEXT_BYTES_MAX),
        20,
        "does not decrypt",
    ),
    case(
        "an altered tag",
        |peer| altered(peer, |record| *record.last_mut().unwrap() ^= 1),
        20,
        "does not decrypt",
    ),
    case(
        "an altered version",
        |peer| altered(peer, |record| record[2] = 1),
        20,
        "does not decrypt",
    ),
];

const NUMBERS: [Case; 4] = [
    case(
        "altered ciphertext",
        |peer| altered(peer, |record| record[5] ^= 0x80),
        20,
        "does not decrypt",
    ),
    case(
        "a record twice",
        |peer| sealed(peer, content::APPLICATION_DATA, b"").repeat(2),
        20,
        "does not decrypt",
    ),
    case(
        "a record left out",
        |peer| {
            sealed(peer, content::APPLICATION_DATA, b"lost");
            sealed(peer, content::APPLICATION_DATA, b"next")
        },
        20,
        "does not decrypt",
    ),
    case(
        "the old key after a KeyUpdate",
        |peer| {
            let mut records = sealed(peer, content::HANDSHAKE, &[24, 0, 0, 1, 0]);
            records.extend(sealed(peer, content::APPLICATION_DATA, b"old"));
            records
        },
        20,
        "does not decrypt",
    ),
];

const INNER: [Case; 10] = [
    case(
        "nothing but a content type of zero",
        |peer| sealed(peer, 0, b""),
        10,
        "without content type",
    ),
    case(
        "nothing but padding",
        |peer| sealed(peer, 0, &[0; 500]),
        10,
        "without content type",
    ),
    case(
        "a tag and nothing in it",
        |peer| peer.seal_empty().unwrap(),
        10,
        "without content type",
    ),
    case(
        "a sealed ChangeCipherSpec",
        |peer| sealed(peer, 20, &[1]),
        10,
        "content type 20",
    ),
    case(
        "an unknown content type",
        |peer| sealed(peer, 99, b"x"),
        10,
        "content type 99",
    ),
    case(
        "one byte of plaintext too many",
        |peer| sealed(peer, content::APPLICATION_DATA, &[1; 16_385]),
        22,
        "too long",
    ),
    case(
        "one byte of padding too many",
        |peer| peer.seal(content::APPLICATION_DATA, b"x", 16_384).unwrap(),
        22,
        "too long",
    ),
    case(
        "an empty alert",
        |peer| sealed(peer, content::ALERT, b""),
        10,
        "empty",
    ),
    case(
        "half an alert",
        |peer| sealed(peer, content::ALERT, &[2]),
        50,
        "malformed alert",
    ),
    case(
        "two alerts in a record",
        |peer| sealed(peer, content::ALERT, &[1, 0, 1, 0]),
        50,
        "malformed alert",
    ),
];

const MESSAGES: [Case; 11] = [
    case(
        "an empty handshake record",
        |peer| sealed(peer, content::HANDSHAKE, b""),
        10,
        "empty",
    ),
    case(
        "a request for our certificate",
        |peer| sealed(peer, content::HANDSHAKE, &[13, 0, 0, 3, 0, 0, 0]),
        10,
        "handshake message 13",
    ),
    to_server(
        "a second ClientHello",
        |peer| sealed(peer, content::HANDSHAKE, &[1, 0, 0, 40]),
        10,
        "handshake message 1 ",
    ),
    to_server(
        "a ticket from a client",
        |peer| sealed(peer, content::HANDSHAKE, &[4, 0, 0, 14]),
        10,
        "handshake message 4",
    ),
    case(
        "a ticket too short",
        |peer| sealed(peer, content::HANDSHAKE, &[4, 0, 0, 13]),
        50,
        "malformed session ticket",
    ),
    case(
        "a KeyUpdate that says 2",
        |peer| sealed(peer, content::HANDSHAKE, &[24, 0, 0, 1, 2]),
        47,
        "KeyUpdate with value 2",
    ),
    case(
        "a KeyUpdate of two bytes",
        |peer| sealed(peer, content::HANDSHAKE, &[24, 0, 0, 2, 0, 0]),
        50,
        "malformed KeyUpdate",
    ),
    case(
        "a message behind a KeyUpdate",
        |peer| sealed(peer, content::HANDSHAKE, &[24, 0, 0, 1, 0, 24]),
        10,
        "inside a record",
    ),
    case(
        "data inside a message",
        |peer| {
            let mut records = sealed(peer, content::HANDSHAKE, &[4, 0, 0]);
            records.extend(sealed(peer, content::APPLICATION_DATA, b"early"));
            records
        },
        10,
        "interleaved",
    ),
    case(
        "33 empty records",
        |peer| {
            let empty = |_| sealed(peer, content::APPLICATION_DATA, b"");
            (0..33).flat_map(empty).collect()
        },
        10,
        "too many records without data",
    ),
    case(
        "33 KeyUpdates",
        |peer| (0..33).flat_map(|_| peer.key_update(1).unwrap()).collect(),
        10,
        "too many records without data",
    ),
];

#[test]
fn each_malformed_record_is_refused_with_its_alert_after_the_data_before_it() {
    for case in OUTER.iter().chain(&NUMBERS).chain(&INNER).chain(&MESSAGES) {
        for pieces in [None, Some(fastrand::Rng::with_seed(5))] {
            let name = case.name;
            let mut peer = Peer::of(case.is_client).unwrap();
            let mut incoming = sealed(&mut peer, content::APPLICATION_DATA, b"before");
            incoming.extend((case.make)(&mut peer));
            let mut wire = wire(incoming);
            wire.pieces = pieces;
            let mut session = session(case.is_client, wire).unwrap();
            let (data, end) = settle(&mut session);
            let error = end.expect_err(name);
            assert_eq!(data, b"before", "{name}");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}");
            assert!(error.to_string().contains(case.error), "{name}: {error}");
            let again = session.poll_recv(&mut context(), &mut [0; 9]);
            assert!(matches!(again, Poll::Ready(Err(_))), "{name}: and stays so");
            let sent = session.poll_send(&mut context(), &[IoSlice::new(b"x")]);
            assert!(
                matches!(sent, Poll::Ready(Err(_))),
                "{name}: nothing follows an alert"
            );
            while session.poll_close(&mut context()).is_pending() {}
            let heard = peer.hear(&session.io().outgoing).expect(name);
            assert_eq!(heard.alerts, [case.alert], "{name}");
            assert_eq!(heard.data, b"", "{name}");
        }
    }
}

/// [`drain`] over a wire that pauses.
fn settle(session: &mut Session<Wire>) -> (Vec<u8>, io::Result<()>) {
    let mut data = Vec::new();
    let mut buffer = vec![0; 20_000];
    loop {
        match session.poll_recv(&mut context(), &mut buffer) {
            Poll::Ready(Ok(0)) => return (data, Ok(())),
            Poll::Ready(Ok(count)) => data.extend_from_slice(&buffer[..count]),
            Poll::Ready(Err(error)) => return (data, Err(error)),
            Poll::Pending => {}
        }
    }
}

#[test]
fn what_is_odd_but_allowed_goes_unnoticed() {
    let mut peer = Peer::of(true).unwrap();
    let mut incoming = Vec::new();
    for _ in 0..3 {
        // 32 records in a row without data, of every kind.
        for _ in 0..10 {
            incoming.extend(sealed(&mut peer, content::APPLICATION_DATA, b""));
            incoming.extend(peer.seal(content::APPLICATION_DATA, b"", 16_384).unwrap());
        }
        let ticket = [&[4, 0, 0, 200][..], &[1; 200]].concat();
        for part in ticket.chunks(25) {
            incoming.extend(sealed(&mut peer, content::HANDSHAKE, part));
        }
        incoming.extend(peer.key_update(0).unwrap());
        incoming.extend(peer.key_update(1).unwrap());
        incoming.extend(sealed(
            &mut peer,
            content::ALERT,
            &[1, alert::USER_CANCELED],
        ));
        incoming.extend(
            peer.seal(content::APPLICATION_DATA, &[9; 16_384], 0)
                .unwrap(),
        );
        incoming.extend(peer.seal(content::APPLICATION_DATA, b"x", 16_383).unwrap());
    }
    incoming.extend(sealed(&mut peer, content::ALERT, &[2, alert::CLOSE_NOTIFY]));
    // Ignored whatever it is (RFC 8446, 6.1).
    incoming.extend(unsealed(99, 40));
    let mut session = session(true, wire(incoming)).unwrap();
    let (data, end) = drain(&mut session);
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(data.len(), 3 * 16_385);
    assert_eq!(
        session
            .poll_recv(&mut context(), &mut [0; 9])
            .map(Result::unwrap),
        Poll::Ready(0)
    );
    send(&mut session, b"half closed");
    let heard = peer.hear(&session.io().outgoing).unwrap();
    assert_eq!(heard.data, b"half closed");
    assert!(heard.alerts.is_empty());
}

#[test]
fn an_alert_ends_the_session_by_name_and_is_not_answered() {
    for (code, name) in [
        (20, "BadRecordMac"),
        (48, "unknown CA"),
        (80, "InternalError"),
    ] {
        let mut peer = Peer::of(false).unwrap();
        let mut incoming = sealed(&mut peer, content::APPLICATION_DATA, b"before");
        incoming.extend(sealed(&mut peer, content::ALERT, &[2, code]));
        let mut session = session(false, wire(incoming)).unwrap();
        let (data, end) = drain(&mut session);
        assert_eq!(data, b"before");
        let error = end.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(error.to_string().contains(name), "{error}");
        let alert = error.get_ref().unwrap().downcast_ref::<TlsError>();
        assert_eq!(alert, Some(&TlsError::Alert(code)));
        assert!(session.poll_close(&mut context()).is_ready());
        assert_eq!(session.io().outgoing, b"");
    }
}

#[test]
fn a_transport_that_ends_without_close_notify_is_cut_short_wherever_it_ends() {
    let mut peer = Peer::of(false).unwrap();
    let first = sealed(&mut peer, content::APPLICATION_DATA, b"first");
    let second = sealed(&mut peer, content::APPLICATION_DATA, b"second");
    let whole = [first.clone(), second].concat();
    for end in 0..=whole.len() {
        let mut session = session(false, wire(whole[..end].to_vec())).unwrap();
        let (data, result) = drain(&mut session);
        let expected: &[u8] = match end {
            _ if end == whole.len() => b"firstsecond",
            _ if end >= first.len() => b"first",
            _ => b"",
        };
        assert_eq!(data, expected, "{end}");
        let kind = result.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::UnexpectedEof, "{end}");
    }
}
