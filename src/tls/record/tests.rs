//! Our record layer alone, against a peer with known keys: keys, ends, bounds, memory.

use std::io::{self, IoSlice};
use std::path::Path;
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;

use super::fuzz::{AtEnd, Heard, Peer, Wire, session};
use super::*;
use crate::config::limits::{TLS_RECORD_BYTES_MAX, TLS_SEND_BUFFER_BYTES};

mod differential;
mod malformed;

fn wire(incoming: Vec<u8>) -> Wire {
    Wire {
        incoming,
        received: 0,
        outgoing: Vec::new(),
        pieces: None,
        at_end: AtEnd::Ends,
        blocked: false,
    }
}

/// A wire that takes `capacity` bytes and then nothing, and has nothing to receive yet.
struct Narrow {
    capacity: usize,
    taken: Vec<u8>,
}

impl crate::transport::Transport for Narrow {
    fn poll_recv(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = slices[0].len().min(self.capacity - self.taken.len());
        if count == 0 {
            return Poll::Pending;
        }
        self.taken.extend_from_slice(&slices[0][..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Everything the session gives out, and how it ends.
fn drain(session: &mut Session<Wire>) -> (Vec<u8>, io::Result<()>) {
    let mut data = Vec::new();
    let mut buffer = vec![0; 20_000];
    loop {
        match session.poll_recv(&mut context(), &mut buffer) {
            Poll::Ready(Ok(0)) => return (data, Ok(())),
            Poll::Ready(Ok(count)) => data.extend_from_slice(&buffer[..count]),
            Poll::Ready(Err(error)) => return (data, Err(error)),
            Poll::Pending => panic!("the wire never waits"),
        }
    }
}

fn send(session: &mut Session<Wire>, bytes: &[u8]) {
    let taken = session.poll_send(&mut context(), &[IoSlice::new(bytes)]);
    assert!(matches!(taken, Poll::Ready(Ok(count)) if count == bytes.len()));
    assert!(matches!(
        session.poll_flush(&mut context()),
        Poll::Ready(Ok(()))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_script_plays_as_the_model_says(script in vec(any::<u8>(), 0..700)) {
        fuzz::run(&script);
    }
}

#[test]
fn the_fuzz_corpus_plays_as_the_model_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tls_record");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        fuzz::run(&std::fs::read(entry.unwrap().path()).unwrap());
        played += 1;
    }
    assert!(played > 0);
}

#[test]
fn a_requested_key_update_is_answered_once_and_in_front_of_our_next_record() {
    let mut peer = Peer::of(false).unwrap();
    let mut incoming = peer.seal(content::APPLICATION_DATA, b"one", 0).unwrap();
    for _ in 0..5 {
        incoming.extend(peer.key_update(1).unwrap());
    }
    incoming.extend(peer.key_update(0).unwrap());
    incoming.extend(peer.seal(content::APPLICATION_DATA, b"two", 7).unwrap());
    let mut session = session(false, wire(incoming)).unwrap();
    let (data, end) = drain(&mut session);
    assert_eq!(data, b"onetwo");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let answered = peer.hear(&session.io().outgoing).unwrap();
    let one_answer = Heard {
        key_updates: vec![0],
        ..Heard::default()
    };
    assert_eq!(answered, one_answer, "without a word of the application");
    let before = session.io().outgoing.len();
    send(&mut session, b"three");
    let heard = peer.hear(&session.io().outgoing[before..]).unwrap();
    assert_eq!(
        (&heard.data[..], heard.key_updates.len()),
        (&b"three"[..], 0)
    );
}

#[test]
fn a_key_update_asked_for_while_sending_goes_behind_what_is_being_sent() {
    let mut peer = Peer::of(true).unwrap();
    let incoming = peer.key_update(1).unwrap();
    let mut session = session(true, wire(incoming)).unwrap();
    let taken = session.poll_send(&mut context(), &[IoSlice::new(b"before")]);
    assert!(taken.is_ready());
    drain(&mut session).1.unwrap_err();
    assert_eq!(session.io().outgoing, b"", "the sender has not flushed");
    send(&mut session, b"after");
    let heard = peer.hear(&session.io().outgoing).unwrap();
    assert_eq!(heard.data, b"beforeafter");
    assert_eq!(heard.key_updates, [0]);
}

#[test]
fn a_key_is_changed_before_it_has_sealed_too_much() {
    let mut peer = Peer::of(true).unwrap();
    let mut session = session(true, wire(Vec::new())).unwrap();
    session.set_key_records_max(3);
    let mut sent = Vec::new();
    for n in 0..20_u8 {
        send(&mut session, &[n; 100]);
        sent.extend([n; 100]);
        assert!(session.key_records() < 3);
    }
    let heard = peer.hear(&session.io().outgoing).unwrap();
    assert_eq!(heard.data, sent);
    assert_eq!(heard.key_updates, [1; 6], "each asks the peer to follow");
}

#[test]
fn a_key_update_for_every_record_never_overruns_the_buffer() {
    let mut peer = Peer::of(true).unwrap();
    let mut session = session(true, wire(Vec::new())).unwrap();
    session.set_key_records_max(1);
    let data = vec![7; 3_000_000];
    let mut sent = 0;
    while sent < data.len() {
        let rest = [IoSlice::new(&data[sent..])];
        let Poll::Ready(Ok(taken)) = session.poll_send(&mut context(), &rest) else {
            panic!("the wire takes everything");
        };
        sent += taken;
    }
    assert!(session.poll_close(&mut context()).is_ready());
    let heard = peer.hear(&session.io().outgoing).unwrap();
    assert!(heard.data == data);
    assert_eq!(heard.key_updates.len(), data.len().div_ceil(16_384));
    assert_eq!(heard.alerts, [alert::CLOSE_NOTIFY]);
}

#[test]
fn used_up_sequence_numbers_end_the_session() {
    let mut peer = Peer::of(false).unwrap();
    let record = peer.seal(content::APPLICATION_DATA, b"last", 0).unwrap();
    let mut session = session(false, wire(record)).unwrap();
    session.use_up_sequences();
    let (data, end) = drain(&mut session);
    assert_eq!(data, b"");
    assert!(end.unwrap_err().to_string().contains("used up"));
    let mut sender = fuzz::session(true, wire(Vec::new())).unwrap();
    sender.use_up_sequences();
    let taken = sender.poll_send(&mut context(), &[IoSlice::new(b"x")]);
    assert!(taken.is_ready());
    let flushed = sender.poll_flush(&mut context());
    let Poll::Ready(Err(error)) = flushed else {
        panic!("sealed with a number used before");
    };
    assert!(error.to_string().contains("used up"));
    assert_eq!(sender.io().outgoing, b"");
}

#[test]
fn small_writes_share_a_record_and_large_ones_fill_records() {
    let mut session = session(true, wire(Vec::new())).unwrap();
    for _ in 0..100 {
        let slices = [IoSlice::new(&[1; 9]), IoSlice::new(&[2; 50])];
        assert!(session.poll_send(&mut context(), &slices).is_ready());
    }
    assert!(session.poll_flush(&mut context()).is_ready());
    assert_eq!(session.io().outgoing.len(), 5900 + OVERHEAD_BYTES);
    let before = session.io().outgoing.len();
    send(&mut session, &[3; 40_000]);
    let sent = session.io().outgoing.len() - before;
    assert_eq!(sent, 40_000 + 3 * OVERHEAD_BYTES);
}

#[test]
fn a_sender_waits_when_the_transport_takes_nothing() {
    for size in [1, 1000, 16_384, 300_000] {
        let mut narrow = session_over(Narrow {
            capacity: 4096,
            taken: Vec::new(),
        });
        let chunk = vec![7; size];
        let mut taken = 0;
        while let Poll::Ready(sent) = narrow.poll_send(&mut context(), &[IoSlice::new(&chunk)]) {
            taken += sent.unwrap();
            assert!(taken <= TLS_SEND_BUFFER_BYTES, "{taken}");
        }
        assert!(taken > TLS_SEND_BUFFER_BYTES / 2, "{taken}");
        assert!(narrow.poll_flush(&mut context()).is_pending());
    }
}

/// A client session over any transport.
fn session_over<T: crate::transport::Transport>(io: T) -> Session<T> {
    let (keys, send, receive) = fuzz::keys(true).unwrap();
    Session::new(io, keys, send, receive, Vec::new())
}

#[test]
fn requests_for_key_updates_do_not_pile_up_behind_a_blocked_sender() {
    let mut peer = Peer::of(false).unwrap();
    let mut incoming = Vec::new();
    for _ in 0..3000 {
        incoming.extend(peer.key_update(1).unwrap());
        incoming.extend(peer.seal(content::APPLICATION_DATA, b"x", 0).unwrap());
    }
    let mut blocked = wire(incoming);
    blocked.blocked = true;
    let mut session = session(false, blocked).unwrap();
    let (data, _) = drain(&mut session);
    assert_eq!(data.len(), 3000);
    assert_eq!(session.unsent(), Some(27));
    session.io_mut().blocked = false;
    assert!(session.poll_flush(&mut context()).is_ready());
    let heard = peer.hear(&session.io().outgoing).unwrap();
    assert_eq!(
        heard.key_updates,
        [0, 0],
        "all later requests share an answer"
    );
}

#[test]
fn data_in_front_of_a_failing_transport_comes_first_and_its_error_is_kept() {
    let mut peer = Peer::of(false).unwrap();
    let mut failing = wire(peer.seal(content::APPLICATION_DATA, b"good", 0).unwrap());
    failing.at_end = AtEnd::Fails;
    let mut session = session(false, failing).unwrap();
    let mut buffer = vec![0; 2];
    let got = session.poll_recv(&mut context(), &mut buffer);
    assert!(matches!(got, Poll::Ready(Ok(2))));
    // The rest is stashed; with so much room the session asks the transport for more.
    let (rest, end) = drain(&mut session);
    assert_eq!([&buffer[..], &rest].concat(), b"good");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn an_idle_session_owns_no_buffer() {
    let mut peer = Peer::of(false).unwrap();
    let record = peer
        .seal(content::APPLICATION_DATA, &[5; 16_384], 0)
        .unwrap();
    let mut pausing = wire(record);
    pausing.at_end = AtEnd::Waits;
    let mut session = session(false, pausing).unwrap();
    send(&mut session, &[1; 100_000]);
    let mut buffer = vec![0; 1000];
    for _ in 0..16 {
        let got = session.poll_recv(&mut context(), &mut buffer);
        assert!(matches!(got, Poll::Ready(Ok(1000))));
        assert!(session.stash_bytes() <= 2 * TLS_RECORD_BYTES_MAX);
    }
    let got = session.poll_recv(&mut context(), &mut buffer);
    assert!(matches!(got, Poll::Ready(Ok(384))));
    assert!(session.poll_recv(&mut context(), &mut buffer).is_pending());
    assert_eq!((session.stash_bytes(), session.unsent()), (0, None));
    assert!(
        size_of::<Session<()>>() <= 512,
        "{}",
        size_of::<Session<()>>()
    );
}
