//! The engine alone: random scripts, windows, budgets. What both engines must do is in
//! `hbone::tests`.

use std::path::Path;

use proptest::prelude::*;

use super::connection::{Connection, Ended, STRAINED_WINDOW};
use super::frame::{self, code};
use super::fuzz;
use super::parked::{Parked, ParkedBudget, Received};
use crate::hbone::guard::Role;
use crate::hbone::stream::StreamError;
use bytes::Bytes;

const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x0410:1";

fn random_bytes(seed: &mut u64, count: usize) -> Vec<u8> {
    (0..count)
        .map(|_| {
            *seed ^= *seed << 13;
            *seed ^= *seed >> 7;
            *seed ^= *seed << 17;
            u8::try_from(*seed >> 32 & 0xff).unwrap()
        })
        .collect()
}

#[test]
fn the_books_balance_whatever_thousands_of_scripts_do() {
    let mut seed = 0x2545_f491_4f6c_dd1d;
    for round in 0..4_000 {
        let size = [20, 200, 2_000][round % 3];
        let script = random_bytes(&mut seed, size);
        fuzz::run(&script);
    }
}

#[test]
fn the_fuzz_corpus_plays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/hbone_frames");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        fuzz::run(&std::fs::read(entry.unwrap().path()).unwrap());
        played += 1;
    }
    assert!(played >= 4, "{played}");
}

proptest! {
    #[test]
    fn a_changed_conversation_is_taken_or_refused(
        changes in proptest::collection::vec((0_usize..2_000, any::<u8>()), 0..8),
        cut in 1_usize..300,
    ) {
        let mut server = fuzz::connection(Role::Server, fuzz::settings(1 << 20));
        let mut bytes = conversation();
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        for piece in bytes.chunks(cut) {
            if server.receive(Received::lent(piece)).is_err() {
                break;
            }
        }
        server.fail(&StreamError::Closed);
        prop_assert!(server.held == 0);
    }
}

/// What a client may send.
fn conversation() -> Vec<u8> {
    let mut out = frame::PREFACE.to_vec();
    frame::write_settings(&mut out, &[(4, 1 << 20), (3, 100)]);
    frame::write(&mut out, frame::SETTINGS, frame::ACK, 0, &[]);
    for stream in [1, 3, 5] {
        frame::write_headers(&mut out, stream, CONNECT, false, 4);
        frame::write(&mut out, frame::DATA, 0, stream, &[7; 300]);
        frame::write_window_update(&mut out, stream, 1 << 16);
    }
    frame::write(&mut out, frame::PING, 0, 0, b"12345678");
    frame::write(
        &mut out,
        frame::DATA,
        frame::END_STREAM | frame::PADDED,
        3,
        b"\x02ab\0\0",
    );
    frame::write_reset(&mut out, 5, code::CANCEL);
    frame::write_window_update(&mut out, 0, 1 << 20);
    frame::write_goaway(&mut out, 0, code::NO_ERROR);
    out
}

fn receive(connection: &mut Connection, bytes: &[u8]) {
    connection.receive(Received::lent(bytes)).unwrap();
}

/// A server with this many accepted streams, and its first flight sent.
fn server(streams: u32, parked_bytes_max: usize) -> Connection {
    let mut settings = fuzz::settings(parked_bytes_max);
    settings.max_streams = 100;
    let mut server = fuzz::connection(Role::Server, settings);
    let mut wire = frame::PREFACE.to_vec();
    frame::write_settings(&mut wire, &[]);
    frame::write(&mut wire, frame::SETTINGS, frame::ACK, 0, &[]);
    for number in 0..streams {
        frame::write_headers(&mut wire, 1 + 2 * number, CONNECT, false, 1 << 14);
    }
    receive(&mut server, &wire);
    while let Some((id, _)) = server.next_request() {
        server.accept_request(id, None).unwrap();
    }
    sent(&mut server);
    server
}

/// Everything that is to be sent, as frames: kind, flags, stream, payload.
fn sent(connection: &mut Connection) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut wire = Vec::new();
    loop {
        if connection.batch.is_empty() {
            connection.fill();
        }
        if connection.batch.is_empty() {
            break;
        }
        let mut slices = [std::io::IoSlice::new(&[]); super::batch::SLICES_MAX];
        let count = connection.batch.slices(&mut slices);
        let before = wire.len();
        for slice in &slices[..count] {
            wire.extend_from_slice(slice);
        }
        let taken = wire.len() - before;
        connection.sent(taken);
    }
    let mut frames = Vec::new();
    let mut rest = &wire[..];
    while let Some((head, tail)) = rest.split_first_chunk() {
        let head = frame::parse_head(*head);
        let (payload, tail) = tail.split_at(head.length as usize);
        frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
        rest = tail;
    }
    frames
}

fn data(stream: u32, size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    frame::write(&mut wire, frame::DATA, 0, stream, &vec![5; size]);
    wire
}

#[test]
fn small_payloads_of_many_streams_leave_in_one_batch_in_turn() {
    let mut server = server(3, 1 << 20);
    for round in 0..2_u8 {
        for stream in [1, 3, 5] {
            assert_eq!(server.grant(stream, 10), 10);
            server.send(stream, Bytes::from(vec![round; 10])).unwrap();
        }
    }
    server.fill();
    let mut slices = [std::io::IoSlice::new(&[]); super::batch::SLICES_MAX];
    assert_eq!(server.batch.slices(&mut slices), 1, "one slice for all");
    let frames = sent(&mut server);
    let order: Vec<_> = frames
        .iter()
        .map(|frame| (frame.2, frame.3.len()))
        .collect();
    // What one stream has queued is one frame.
    assert_eq!(order, [(1, 20), (3, 20), (5, 20)]);
}

#[test]
fn no_frame_is_larger_than_the_peer_takes_and_no_stream_holds_the_line() {
    let mut server = server(2, 1 << 20);
    let mut wire = Vec::new();
    frame::write_settings(&mut wire, &[(4, 1 << 20)]);
    frame::write_window_update(&mut wire, 0, 1 << 20);
    receive(&mut server, &wire);
    sent(&mut server);
    for stream in [1, 3] {
        let granted = server.grant(stream, 1 << 20);
        assert_eq!(granted, 256 << 10, "one turn");
        server.send(stream, Bytes::from(vec![1; granted])).unwrap();
        assert_eq!(server.grant(stream, 1), 0);
    }
    let frames = sent(&mut server);
    assert_eq!(frames.len(), 32);
    assert!(frames.iter().all(|frame| frame.3.len() == 16_384));
    assert_eq!((server.grant(1, 5), server.grant(3, 5)), (5, 5));
}

#[test]
fn streams_hold_less_each_once_the_tunnel_holds_much() {
    let mut server = server(12, 1 << 20);
    let mut wire = Vec::new();
    frame::write_settings(&mut wire, &[(4, 1 << 20)]);
    frame::write_window_update(&mut wire, 0, 1 << 24);
    receive(&mut server, &wire);
    sent(&mut server);
    let mut grants = Vec::new();
    for stream in (1..24).step_by(2) {
        let granted = server.grant(stream, 1 << 20);
        server.send(stream, Bytes::from(vec![1; granted])).unwrap();
        grants.push(granted >> 10);
    }
    assert_eq!(grants, [[256; 8].as_slice(), &[64; 4]].concat());
}

#[test]
fn a_smaller_initial_window_holds_up_what_was_granted_before() {
    let mut server = server(1, 1 << 20);
    assert_eq!(server.grant(1, 1_000), 1_000);
    server.send(1, Bytes::from(vec![1; 1_000])).unwrap();
    let mut wire = Vec::new();
    frame::write_settings(&mut wire, &[(4, 400)]);
    receive(&mut server, &wire);
    let frames = sent(&mut server);
    let sizes: Vec<_> = frames
        .iter()
        .map(|frame| (frame.0, frame.3.len()))
        .collect();
    assert_eq!(sizes, [(frame::SETTINGS, 0), (frame::DATA, 400)]);
    let mut wire = Vec::new();
    frame::write_window_update(&mut wire, 1, 600);
    receive(&mut server, &wire);
    assert_eq!(sent(&mut server)[0].3.len(), 600);
}

#[test]
fn a_tunnel_is_congested_while_streams_wait_for_the_connection_window() {
    let mut server = server(2, 1 << 20);
    let mut wire = Vec::new();
    frame::write_settings(&mut wire, &[(4, 1 << 20)]);
    receive(&mut server, &wire);
    sent(&mut server);
    let granted = server.grant(1, 60_000);
    server.send(1, Bytes::from(vec![1; granted])).unwrap();
    assert!(!server.is_congested());
    assert_eq!(server.grant(3, 1 << 20), 65_535 - granted, "what is left");
    assert!(!server.is_congested(), "nobody waits");
    server
        .send(3, Bytes::from(vec![1; 65_535 - granted]))
        .unwrap();
    sent(&mut server);
    assert_eq!(server.grant(3, 100), 0);
    assert!(server.is_congested());
    let mut wire = Vec::new();
    frame::write_window_update(&mut wire, 0, 40);
    receive(&mut server, &wire);
    assert!(!server.is_congested());
    assert_eq!(server.grant(3, 100), 40, "granted to who waited");
}

#[test]
fn connection_credit_returns_for_parked_bytes_and_stream_credit_for_forwarded_ones() {
    let mut server = server(1, 1 << 20);
    for _ in 0..8 {
        receive(&mut server, &data(1, 10_000));
    }
    assert_eq!(sent(&mut server), []);
    // Half of 300,000 for the connection; the stream has read nothing.
    receive(&mut server, &data(1, 19_000));
    for stream in 0..5 {
        let mut wire = Vec::new();
        frame::write_headers(&mut wire, 3 + 2 * stream, CONNECT, false, 1 << 14);
        wire.extend(data(3 + 2 * stream, 11_000));
        receive(&mut server, &wire);
    }
    let updates = sent(&mut server);
    let by = 154_000_u32.to_be_bytes().to_vec();
    assert_eq!(updates, [(frame::WINDOW_UPDATE, 0, 0, by)]);
    server.return_credit(1, 49_999);
    assert_eq!(sent(&mut server), []);
    server.return_credit(1, 1);
    let by = 50_000_u32.to_be_bytes().to_vec();
    assert_eq!(sent(&mut server), [(frame::WINDOW_UPDATE, 0, 1, by)]);
}

#[test]
fn a_stream_that_waits_for_the_peers_limit_is_idle_to_the_peer() {
    for wrong in ["update", "update by nothing", "reset", "data", "headers"] {
        let mut client = fuzz::connection(Role::Client, fuzz::settings(1 << 20));
        let mut wire = Vec::new();
        frame::write_settings(&mut wire, &[(3, 0)]);
        receive(&mut client, &wire);
        let id = client.open(b"\x02\x07CONNECT".to_vec()).unwrap();
        let mut wire = Vec::new();
        match wrong {
            "update" => frame::write_window_update(&mut wire, id, 1),
            "update by nothing" => frame::write_window_update(&mut wire, id, 0),
            "reset" => frame::write_reset(&mut wire, id, code::CANCEL),
            "data" => wire.extend(data(id, 1)),
            _ => frame::write_headers(&mut wire, id, b"\x88", false, 1 << 14),
        }
        let fault = client.receive(Received::lent(&wire)).unwrap_err();
        assert_eq!(fault.code, code::PROTOCOL_ERROR, "{wrong}");
    }
}

#[test]
fn a_stream_cut_before_it_was_sent_never_goes_out() {
    let mut client = fuzz::connection(Role::Client, fuzz::settings(1 << 20));
    let mut wire = Vec::new();
    frame::write_settings(&mut wire, &[(3, 0)]);
    receive(&mut client, &wire);
    let id = client.open(b"\x02\x07CONNECT".to_vec()).unwrap();
    client.reset(id, code::CANCEL, &StreamError::Closed);
    let mut wire = Vec::new();
    frame::write_settings(&mut wire, &[(3, 100)]);
    receive(&mut client, &wire);
    client.fill();
    assert_eq!(client.active, 0);
}

#[test]
fn windows_shrink_while_too_much_is_parked_and_grow_again() {
    let mut server = server(2, 100_000);
    let window = |frames: &[(u8, u8, u32, Vec<u8>)]| -> Vec<u32> {
        let settings = frames.iter().filter(|frame| frame.0 == frame::SETTINGS);
        settings
            .filter_map(|frame| frame::number(&frame.3[2..]))
            .collect()
    };
    let step = |server: &mut Connection| {
        server.watch_budget();
        window(&sent(server))
    };
    for stream in [1, 3] {
        for _ in 0..4 {
            receive(&mut server, &data(stream, 12_000));
        }
    }
    assert_eq!(step(&mut server), [0_u32; 0]);
    receive(&mut server, &data(1, 19_000));
    assert_eq!(step(&mut server), [STRAINED_WINDOW]);
    assert_eq!(step(&mut server), [0_u32; 0], "told once");
    let mut ack = Vec::new();
    frame::write(&mut ack, frame::SETTINGS, frame::ACK, 0, &[]);
    receive(&mut server, &ack);
    // 67,000 bytes wait in the first stream: beyond its window now. The second has room.
    let first = server.streams[&1].recv.window;
    assert_eq!(first, i64::from(STRAINED_WINDOW) - 67_000);
    assert!(server.streams[&3].recv.window > 10_000);
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    for stream in [1, 3] {
        while let std::task::Poll::Ready(Ok(Some(data))) = server.poll_data(stream, &cx) {
            server.return_credit(stream, u32::try_from(data.len()).unwrap());
        }
    }
    assert_eq!(step(&mut server), [100_000]);
    receive(&mut server, &ack);
    for stream in [1, 3] {
        let recv = &server.streams[&stream].recv;
        assert_eq!(recv.window + i64::from(recv.unreturned), 100_000);
    }
}

#[test]
fn a_tunnel_forgets_its_streams_and_holds_no_buffers_when_idle() {
    let mut server = server(0, 1 << 20);
    for number in 0..500 {
        let id = 1 + 2 * number;
        let mut wire = Vec::new();
        frame::write_headers(&mut wire, id, CONNECT, false, 1 << 14);
        wire.extend(data(id, 100));
        frame::write(&mut wire, frame::DATA, frame::END_STREAM, id, &[]);
        receive(&mut server, &wire);
        let (id, _) = server.next_request().unwrap();
        server.accept_request(id, None).unwrap();
        server.finish(id).unwrap();
        sent(&mut server);
        server.stop_reading(id, true);
        server.let_go(id);
    }
    assert!(server.streams.is_empty());
    assert_eq!((server.active, server.held), (0, 0));
    assert!(server.control.capacity() <= 1024);
    assert_eq!(server.end_of(999), Some(Ended::InOrder));
    assert_eq!(server.end_of(1), None, "the memory of ends is bounded");
    assert!(size_of::<super::state::StreamState>() < 1024);
    assert!(size_of::<Connection>() < 2048);
}

#[test]
fn a_slow_reader_holds_its_bytes_and_not_the_receive_buffers() {
    let budget = ParkedBudget::new(1 << 30);
    let mut parked = Parked::new(budget.clone());
    let owner = Bytes::from(vec![3; 128 << 10]);
    for _ in 0..200 {
        parked.add(Received::shared(&owner), 0..4096);
    }
    assert_eq!(budget.parked(), 200 * 4096);
    let mut shared = 0;
    while let Some(piece) = parked.take() {
        let inside = owner.as_ptr_range().contains(&piece.as_ptr());
        shared += if inside { piece.len() } else { 0 };
    }
    assert!(shared <= (256 << 10) + 4096, "{shared}");
    assert_eq!(budget.parked(), 0);
}
