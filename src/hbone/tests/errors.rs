//! Frames that are wrong, one by one: the exact error of RFC 9113 from our engine, and the same class
//! of answer from the `h2` crate.

use super::frames::{
    ACK, CONNECT, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
    Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, data, frame, goaway, headers, reset, window,
};
use super::harness::{World, engine, raw_client, raw_server, run, settle, to};
use crate::hbone::Engine;

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const PRIORITY_FIELDS: u8 = 0x20;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a peer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing is wrong, or it is ignored.
    GoesOn,
    /// RST_STREAM with this code, and the connection goes on.
    Reset(u32),
    /// GOAWAY with this code, and the end.
    Goaway(u32),
}
use Outcome::{Goaway, GoesOn, Reset};

const MARK: [u8; 8] = *b"is alive";

async fn outcome(peer: &mut Peer) -> Outcome {
    let mut seen = GoesOn;
    // Asked twice: `h2` answers a PING before it resets what came ahead of it.
    for _ in 0..2 {
        // A peer that has closed already cannot be asked.
        let ping = frame(PING, 0, 0, &MARK);
        let asked = tokio::io::AsyncWriteExt::write_all(&mut peer.0, &ping).await;
        drop(asked);
        loop {
            let Some(frame) = peer.next().await else {
                // The end, without a word.
                return Goaway(0);
            };
            match frame.kind {
                PING if frame.flags & ACK != 0 && frame.payload == MARK => break,
                RST_STREAM => seen = Reset(frame.code()),
                GOAWAY if frame.code() != 0 => return Goaway(frame.code()),
                _ => {}
            }
        }
        settle().await;
    }
    seen
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    ours: Outcome,
    /// What `h2` does where it differs.
    h2: Option<Outcome>,
}

fn case(name: &'static str, bytes: Vec<u8>, ours: Outcome) -> Case {
    Case {
        name,
        bytes,
        ours,
        h2: None,
    }
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

/// A case in which `h2` ends the connection although the fault is one stream's.
fn harsh_h2(case: Case) -> Case {
    Case {
        h2: Some(Goaway(PROTOCOL_ERROR)),
        ..case
    }
}

fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Stream 1 is open; stream 3 was ended by the client.
fn prologue() -> Vec<u8> {
    let mut bytes = headers(1, CONNECT);
    bytes.extend(headers(3, CONNECT));
    bytes.extend(data(3, b"", true));
    bytes
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn of_connection() -> Vec<Case> {
    vec![
        case(
            "PING on a stream",
            frame(PING, 0, 1, &[0; 8]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "short PING",
            frame(PING, 0, 0, &[0; 7]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, &[]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "SETTINGS of 5 bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "SETTINGS acknowledgement with content",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case("ENABLE_PUSH 2", settings(2, 2), Goaway(PROTOCOL_ERROR)),
        case(
            "a window too large",
            settings(4, 1 << 31),
            Goaway(FLOW_CONTROL_ERROR),
        ),
        case(
            "frames too small",
            settings(5, 16_383),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "frames too large",
            settings(5, 1 << 24),
            Goaway(PROTOCOL_ERROR),
        ),
        case("an unknown setting", settings(0xfefe, 7), GoesOn),
        case("an unknown frame", frame(0xfe, 0xff, 9, &[1; 900]), GoesOn),
        case(
            "a frame too long",
            frame(0xfe, 0, 0, &vec![0; (1 << 20) + 1]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "PUSH_PROMISE",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 5]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "short GOAWAY",
            frame(GOAWAY, 0, 0, &[0; 7]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "GOAWAY that takes back",
            join(&[goaway(1, 0), goaway(3, 0)]),
            Goaway(PROTOCOL_ERROR),
        ),
        case("WINDOW_UPDATE by 0", window(0, 0), Goaway(PROTOCOL_ERROR)),
        case(
            "WINDOW_UPDATE too far",
            window(0, 0x7fff_ffff),
            Goaway(FLOW_CONTROL_ERROR),
        ),
        case(
            "WINDOW_UPDATE of 3 bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, &[0; 5]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "CONTINUATION alone",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "a frame inside a header block",
            join(&[frame(HEADERS, 0, 5, &block(CONNECT)), window(0, 1)]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "a header block that goes on elsewhere",
            join(&[
                frame(HEADERS, 0, 5, &block(CONNECT)),
                frame(CONTINUATION, END_HEADERS, 7, &[]),
            ]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "an unknown table entry",
            frame(HEADERS, END_HEADERS, 5, &[0xfe]),
            Goaway(COMPRESSION_ERROR),
        ),
        case(
            "a header block without end",
            join(&[
                frame(HEADERS, 0, 5, &[0; 200_000]),
                frame(CONTINUATION, 0, 5, &[0; 200_000]),
            ]),
            Goaway(ENHANCE_YOUR_CALM),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn of_streams() -> Vec<Case> {
    let connect = block(CONNECT);
    let padded = |length: u8, rest: &[u8]| [&[length][..], rest].concat();
    vec![
        case(
            "DATA on stream 0",
            data(0, b"x", false),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "DATA on an idle stream",
            data(9, b"x", false),
            Goaway(PROTOCOL_ERROR),
        ),
        harsh_h2(case(
            "DATA after the end",
            data(3, b"x", false),
            Reset(STREAM_CLOSED),
        )),
        case(
            "padding longer than the payload",
            frame(DATA, PADDED, 1, &padded(9, b"1234")),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "padding",
            frame(DATA, PADDED, 1, &padded(3, b"hi\0\0\0")),
            GoesOn,
        ),
        case(
            "HEADERS on stream 0",
            frame(HEADERS, END_HEADERS, 0, &connect),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "HEADERS of an even stream",
            headers(6, CONNECT),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "trailers without an end",
            headers(1, &[("x", "y")]),
            Reset(PROTOCOL_ERROR),
        ),
        case(
            "trailers",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x", "y")])),
            GoesOn,
        ),
        Case {
            h2: Some(GoesOn),
            ..case(
                "trailers with a pseudo field",
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &block(&[(":path", "/")]),
                ),
                Reset(PROTOCOL_ERROR),
            )
        },
        case(
            "HEADERS after the end",
            headers(3, &[("x", "y")]),
            Reset(STREAM_CLOSED),
        ),
        case(
            "padded HEADERS with priority",
            frame(
                HEADERS,
                END_HEADERS | PADDED | PRIORITY_FIELDS,
                5,
                &[&[2, 0, 0, 0, 0, 9][..], &connect, &[0, 0]].concat(),
            ),
            GoesOn,
        ),
        case(
            "HEADERS of padding alone",
            frame(HEADERS, END_HEADERS | PADDED, 5, &[9, 0]),
            Goaway(PROTOCOL_ERROR),
        ),
        harsh_h2(case(
            "upper case",
            headers(5, &[CONNECT[0], CONNECT[1], ("X", "y")]),
            Reset(PROTOCOL_ERROR),
        )),
        case(
            "a pseudo field twice",
            headers(5, &[CONNECT[0], CONNECT[1], CONNECT[1]]),
            Reset(PROTOCOL_ERROR),
        ),
        case(
            "a pseudo field behind others",
            headers(5, &[CONNECT[0], ("x", "y"), CONNECT[1]]),
            Reset(PROTOCOL_ERROR),
        ),
        case(
            "a stream number that goes back",
            join(&[headers(9, CONNECT), headers(7, CONNECT)]),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "RST_STREAM on stream 0",
            reset(0, 8),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "RST_STREAM on an idle stream",
            reset(9, 8),
            Goaway(PROTOCOL_ERROR),
        ),
        case(
            "RST_STREAM of 3 bytes",
            frame(RST_STREAM, 0, 1, &[0; 3]),
            Goaway(FRAME_SIZE_ERROR),
        ),
        case(
            "RST_STREAM twice",
            join(&[reset(1, 8), reset(1, 8)]),
            GoesOn,
        ),
        case(
            "WINDOW_UPDATE on an idle stream",
            window(9, 1),
            Goaway(PROTOCOL_ERROR),
        ),
        harsh_h2(case(
            "WINDOW_UPDATE by 0 on a stream",
            window(1, 0),
            Reset(PROTOCOL_ERROR),
        )),
        case(
            "WINDOW_UPDATE too far on a stream",
            window(1, 0x7fff_ffff),
            Reset(FLOW_CONTROL_ERROR),
        ),
        case("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]), GoesOn),
        harsh_h2(case(
            "short PRIORITY",
            frame(PRIORITY, 0, 1, &[0; 4]),
            Reset(FRAME_SIZE_ERROR),
        )),
    ]
}

#[test]
fn a_client_that_sends_something_wrong_is_told_exactly_what() {
    let mut wrong = Vec::new();
    let wrong = std::cell::RefCell::new(&mut wrong);
    run(async || {
        for case in of_connection().into_iter().chain(of_streams()) {
            let (mut peer, _echo, _drain) = raw_client(&World::new()).await;
            peer.send(&prologue()).await;
            // It may be cut short: a peer need not read to the end what is wrong at its start.
            let sent = tokio::io::AsyncWriteExt::write_all(&mut peer.0, &case.bytes).await;
            drop(sent);
            let seen = outcome(&mut peer).await;
            let expected = match engine() {
                Engine::Own => case.ours,
                Engine::H2 => case.h2.unwrap_or(case.ours),
            };
            let right = match engine() {
                Engine::Own => seen == expected,
                // A class is enough: codes differ here and there.
                Engine::H2 => std::mem::discriminant(&seen) == std::mem::discriminant(&expected),
            };
            if !right {
                let line = format!("{:?} {}: {seen:?}, not {expected:?}", engine(), case.name);
                wrong.borrow_mut().push(line);
            }
        }
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_server_that_sends_something_wrong_is_told_exactly_what() {
    let greeting = || {
        let mut bytes = frame(SETTINGS, 0, 0, &[]);
        bytes.extend(frame(SETTINGS, ACK, 0, &[]));
        bytes
    };
    let status = |stream, fields: &[(&str, &str)]| headers(stream, fields);
    run(async || {
        let cases = [
            (
                "HEADERS on a stream nobody opened",
                status(2, &[(":status", "200")]),
                Goaway(PROTOCOL_ERROR),
            ),
            (
                "HEADERS on our next stream",
                status(3, &[(":status", "200")]),
                Goaway(PROTOCOL_ERROR),
            ),
            (
                "DATA before the answer",
                data(1, b"x", false),
                Reset(PROTOCOL_ERROR),
            ),
            (
                "an answer without status",
                status(1, &[("x", "y")]),
                Reset(PROTOCOL_ERROR),
            ),
            (
                "an answer with a method",
                status(1, &[(":status", "200"), (":method", "GET")]),
                Reset(PROTOCOL_ERROR),
            ),
            (
                "an interim answer",
                status(1, &[(":status", "103")]),
                GoesOn,
            ),
            ("push", settings(2, 1), Goaway(PROTOCOL_ERROR)),
        ];
        for (name, bytes, expected) in cases {
            let (mut peer, opener, _driver) = raw_server(&World::new()).await;
            peer.send(&greeting()).await;
            // The tunnel must not end for want of anybody who could use it.
            let kept = opener.clone();
            let opening =
                tokio::task::spawn_local(async move { opener.open(&to("10.0.0.2:80")).await });
            peer.find(&[HEADERS]).await.unwrap();
            peer.send(&bytes).await;
            let seen = outcome(&mut peer).await;
            if engine() == Engine::Own {
                assert_eq!(seen, expected, "{name}");
            }
            drop((kept, opening));
        }
    });
}
