//! CONNECT requests by hand: what a server accepts and how it refuses.

use super::frames::{
    CONNECT, CONTINUATION, DATA, END_HEADERS, HEADERS, RST_STREAM, block, data, frame, headers,
};
use super::harness::{World, raw_client, run};
use crate::hbone::settings::LimitKind;

#[test]
fn malformed_connects_reset_their_stream_and_nothing_else() {
    run(async || {
        let (mut peer, echo, _drain) = raw_client(&World::new()).await;
        let malformed: &[&[(&str, &str)]] = &[
            &[
                (":method", "CONNECT"),
                (":authority", "a:1"),
                (":scheme", "https"),
            ],
            &[
                (":method", "CONNECT"),
                (":authority", "a:1"),
                (":path", "/"),
            ],
            &[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":path", "/"),
                (":authority", "a:1"),
            ],
            &[(":authority", "a:1")],
            &[
                (":method", "CONNECT"),
                (":authority", "a:1"),
                (":status", "200"),
            ],
            &[(":method", "CONNECT"), (":authority", "a b:1")],
            &[(":method", "CONNECT"), (":authority", "[::1:80")],
            &[
                (":method", "CONNECT"),
                (":authority", "a:1"),
                ("connection", "close"),
            ],
        ];
        let mut stream = 1;
        for fields in malformed {
            peer.send(&headers(stream, fields)).await;
            let answer = peer.find(&[RST_STREAM, HEADERS]).await.unwrap();
            assert_eq!(
                (answer.kind, answer.stream),
                (RST_STREAM, stream),
                "{fields:?}"
            );
            assert_eq!(answer.code(), 1, "{fields:?}");
            stream += 2;
        }
        peer.send(&headers(stream, CONNECT)).await;
        let answer = peer.find(&[RST_STREAM, HEADERS]).await.unwrap();
        assert_eq!((answer.kind, answer.status()), (HEADERS, 200));
        assert!(!answer.ends_stream());
        assert_eq!(echo.requests.borrow().len(), 1);
    });
}

const REFUSED_AUTHORITIES: &[&str] = &[
    "10.0.0.2",
    "server",
    "10.0.0.2:65536",
    "server:99999",
    "[::1]",
    "user@server:80",
];

/// Requests that get 400, each with the text of its refusal.
fn refused(long_host: &str) -> Vec<(Vec<(&str, &str)>, String)> {
    let mut rows = Vec::new();
    for method in ["GET", "POST"] {
        let fields = vec![
            (":method", method),
            (":scheme", "https"),
            (":authority", "a:1"),
            (":path", "/"),
        ];
        rows.push((fields, format!("expected method CONNECT, got {method}")));
    }
    let prefix = "no valid authority pseudo header: ";
    rows.push((vec![(":method", "CONNECT")], prefix.to_owned()));
    for authority in REFUSED_AUTHORITIES {
        let fields = vec![(":method", "CONNECT"), (":authority", *authority)];
        rows.push((fields, format!("{prefix}{authority}")));
    }
    let fields = vec![(":method", "CONNECT"), (":authority", long_host)];
    rows.push((
        fields,
        format!("{prefix}{} bytes are too long", long_host.len()),
    ));
    rows
}

#[test]
fn requests_that_cannot_be_served_get_their_status() {
    let long_host = format!("{}:80", "a".repeat(300));
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        let mut stream = 1;
        for (fields, error) in refused(&long_host) {
            peer.send(&headers(stream, &fields)).await;
            let answer = peer.find(&[RST_STREAM, HEADERS]).await.unwrap();
            assert_eq!((answer.kind, answer.stream), (HEADERS, stream), "{error}");
            assert_eq!(
                (answer.status(), answer.ends_stream()),
                (400, true),
                "{error}"
            );
            // Nothing but the status: one indexed field.
            assert_eq!(answer.block().len(), 1, "{error}");
            let after = peer.find(&[RST_STREAM, HEADERS]).await.unwrap();
            assert_eq!(
                (after.kind, after.stream, after.code()),
                (RST_STREAM, stream, 0)
            );
            let refusal = echo.requests.borrow().last().unwrap().clone().unwrap_err();
            assert_eq!((refusal.status, refusal.error), (400, error));
            stream += 2;
        }
        assert!(world.hit(LimitKind::Authority));
        assert!(!world.hit(LimitKind::RequestHeaders));
    });
}

#[test]
fn too_many_or_too_large_fields_get_431() {
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        let many = |count: usize| {
            let mut fields = CONNECT.to_vec();
            fields.extend(vec![("x", "y"); count]);
            fields
        };
        let large = "v".repeat(16 * 1024);
        let mut heavy = CONNECT.to_vec();
        heavy.push(("x", &large));
        for (stream, fields, status) in [(1, many(32), 200), (3, many(33), 431), (5, heavy, 431)] {
            peer.send(&headers(stream, &fields)).await;
            let answer = peer.find(&[HEADERS]).await.unwrap();
            assert_eq!((answer.stream, answer.status()), (stream, status));
        }
        assert_eq!(echo.requests.borrow().len(), 3);
        assert!(world.hit(LimitKind::RequestHeaders));
    });
}

#[test]
fn a_header_list_beyond_what_is_advertised_gets_431_and_a_reset() {
    run(async || {
        let (mut peer, echo, _drain) = raw_client(&World::new()).await;
        let large = "v".repeat(70_000);
        let mut fields = CONNECT.to_vec();
        fields.push(("x", &large));
        let block = block(&fields);
        let (first, rest) = block.split_at(40_000);
        peer.send(&frame(HEADERS, 0, 1, first)).await;
        peer.send(&frame(CONTINUATION, END_HEADERS, 1, rest)).await;
        let answer = peer.find(&[HEADERS, RST_STREAM]).await.unwrap();
        assert_eq!(
            (answer.kind, answer.status(), answer.ends_stream()),
            (HEADERS, 431, true)
        );
        let after = peer.find(&[HEADERS, RST_STREAM]).await.unwrap();
        assert_eq!((after.kind, after.stream), (RST_STREAM, 1));
        assert!(echo.requests.borrow().is_empty());
    });
}

#[test]
fn the_stream_after_the_last_one_allowed_is_refused() {
    run(async || {
        let (mut peer, echo, _drain) = raw_client(&World::new()).await;
        for number in 0..201 {
            peer.send(&headers(1 + 2 * number, CONNECT)).await;
        }
        let refused = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((refused.stream, refused.code()), (401, 7));
        peer.send(&data(1, b"still here", true)).await;
        assert_eq!(peer.find(&[DATA]).await.unwrap().payload, b"still here");
        assert_eq!(echo.requests.borrow().len(), 200);
    });
}
