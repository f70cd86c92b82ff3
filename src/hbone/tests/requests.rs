//! CONNECT on the wire: what a client sends, what a server accepts and how it refuses.

use std::rc::Rc;

use tokio::task::spawn_local;

use super::frames::{
    CONNECT, CONTINUATION, DATA, END_HEADERS, Frame, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, headers,
};
use super::harness::{World, raw_client, raw_server, request, run, serve_echo, to, tunnel};
use crate::hbone::client::OpenError;
use crate::hbone::connect::ConnectRequest;
use crate::hbone::server;
use crate::hbone::settings::LimitKind;
use crate::model::addr::Authority;
use crate::model::baggage::Baggage;

fn setting(payload: &[u8]) -> Vec<(u16, u32)> {
    payload
        .chunks(6)
        .map(|entry| {
            let (id, value) = entry.split_at(2);
            (
                u16::from_be_bytes(id.try_into().unwrap()),
                u32::from_be_bytes(value.try_into().unwrap()),
            )
        })
        .collect()
}

fn expect_window(frame: &Frame) {
    assert_eq!((frame.kind, frame.stream), (WINDOW_UPDATE, 0));
    assert_eq!(frame.payload, 16_711_681_u32.to_be_bytes());
}

#[test]
fn first_flight_of_a_client_is_that_of_the_contract() {
    run(async {
        let (mut peer, _opener, _driver) = raw_server(&World::new()).await;
        let settings = peer.next().await.unwrap();
        assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
        assert_eq!(
            setting(&settings.payload),
            [(2, 0), (4, 4_194_304), (5, 1_048_576), (6, 16_384)]
        );
        expect_window(&peer.next().await.unwrap());
    });
}

#[test]
fn first_flight_of_a_server_is_that_of_the_contract() {
    run(async {
        let (mut peer, _echo, _drain) = raw_client(&World::new()).await;
        let settings = peer.next().await.unwrap();
        assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
        assert_eq!(
            setting(&settings.payload),
            [(3, 200), (4, 4_194_304), (5, 1_048_576), (6, 65_536)]
        );
        expect_window(&peer.find(&[WINDOW_UPDATE]).await.unwrap());
    });
}

#[test]
fn request_fields_go_out_in_order_and_without_any_other() {
    run(async {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (opener, driver) =
            crate::hbone::client::handshake(super::harness::Pipe(near), &world.settings)
                .await
                .unwrap();
        spawn_local(driver);
        let mut inner = to("[::1]:80");
        inner.forwarded.client = Some("[::1]:80".parse().unwrap());
        inner.forwarded.host = None;
        inner.forwarded_network = Some("test-network".into());
        let outer = to("127.0.0.1:80");
        for request in [outer, inner] {
            let opener = opener.clone();
            spawn_local(async move { opener.open(&request).await.map(drop) });
        }
        let mut server = h2::server::handshake(far).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let (request, _) = server.accept().await.unwrap().unwrap();
            assert_eq!(request.method(), "CONNECT");
            assert!(request.uri().scheme().is_none());
            assert!(request.uri().path_and_query().is_none());
            let fields: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            seen.push((request.uri().authority().unwrap().to_string(), fields));
        }
        let traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00";
        let baggage = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,\
                       k8s.deployment.name=client";
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(seen[0].0, "127.0.0.1:80");
        assert_eq!(
            seen[0].1,
            [
                field("baggage", baggage),
                field("forwarded", "for=\"127.0.0.1:80\";host=example.com"),
                field("traceparent", traceparent),
            ]
        );
        assert_eq!(seen[1].0, "[::1]:80");
        assert_eq!(
            seen[1].1,
            [
                field("baggage", baggage),
                field("forwarded", "for=\"[::1]:80\""),
                field("traceparent", traceparent),
                field("x-forwarded-network", "test-network"),
            ]
        );
    });
}

#[test]
fn pseudo_fields_go_out_as_method_then_authority() {
    run(async {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        spawn_local(async move { opener.open(&to("127.0.0.1:80")).await.map(drop) });
        let request = peer.find(&[HEADERS]).await.unwrap();
        assert!(!request.ends_stream());
        // Literals with the indexed names 2 (:method) and 1 (:authority): RFC 7541 appendix A.
        assert_eq!(request.payload[0], 0x42);
        let method = usize::from(request.payload[1] & 0x7f);
        assert_eq!(request.payload[2 + method] & 0x3f, 1);
    });
}

#[test]
fn a_request_arrives_as_it_was_sent() {
    run(async {
        let world = World::new();
        let (opener, driver, server, _drain) = tunnel(&world, 1 << 16).await;
        let driver = spawn_local(driver);
        let echo = serve_echo(server);
        let sent: Vec<ConnectRequest> = [
            Authority::Address("127.0.0.1:80".parse().unwrap()),
            Authority::Address("[ff06::c3]:80".parse().unwrap()),
            Authority::Hostname("server.default.svc.cluster.local".into(), 8080),
        ]
        .map(request)
        .into();
        for request in &sent {
            let (response, _stream) = opener.open(request).await.unwrap();
            assert_eq!(response.baggage, Some(Baggage::default()));
        }
        for (sent, seen) in sent.iter().zip(echo.requests.borrow().iter()) {
            let seen = seen.as_ref().unwrap();
            assert_eq!(seen.authority, sent.authority);
            assert_eq!(seen.baggage, sent.baggage);
            assert_eq!(seen.forwarded.host, sent.forwarded.host);
            assert_eq!(seen.forwarded.client, None);
            assert_eq!(seen.traceparent, sent.traceparent);
        }
        assert_eq!(echo.requests.borrow().len(), 3);
        drop(opener);
        assert_eq!(driver.await.unwrap(), Ok(()));
        assert_eq!(echo.ended.await.unwrap(), None);
    });
}

#[test]
fn response_baggage_reaches_the_client() {
    run(async {
        let (opener, driver, mut server, _drain) = tunnel(&World::new(), 1 << 16).await;
        spawn_local(driver);
        let baggage = Baggage {
            cluster: Some("Kubernetes".into()),
            ..Baggage::default()
        };
        let sent = baggage.clone();
        spawn_local(async move {
            let mut held = Vec::new();
            while let Some(Ok(incoming)) = server.next().await {
                held.push(incoming.respond.accept(Some(&sent)).unwrap());
            }
        });
        let (response, _stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        assert_eq!(response.baggage, Some(baggage));
    });
}

#[test]
fn malformed_connects_reset_their_stream_and_nothing_else() {
    run(async {
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

#[test]
fn requests_that_cannot_be_served_get_their_status() {
    let long_host = format!("{}:80", "a".repeat(300));
    let method = |method: &'static str| {
        [
            (":method", method),
            (":scheme", "https"),
            (":authority", "a:1"),
            (":path", "/"),
        ]
    };
    let refused: &[(&[(&str, &str)], &str)] = &[
        (&method("GET"), "expected method CONNECT, got GET"),
        (&method("POST"), "expected method CONNECT, got POST"),
        (
            &[(":method", "CONNECT")],
            "no valid authority pseudo header: ",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "10.0.0.2")],
            "no valid authority pseudo header: 10.0.0.2",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "server")],
            "no valid authority pseudo header: server",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "10.0.0.2:65536")],
            "no valid authority pseudo header: 10.0.0.2:65536",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "server:99999")],
            "no valid authority pseudo header: server:99999",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "[::1]")],
            "no valid authority pseudo header: [::1]",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "user@server:80")],
            "no valid authority pseudo header: user@server:80",
        ),
        (
            &[(":method", "CONNECT"), (":authority", &long_host)],
            "no valid authority pseudo header: 303 bytes are too long",
        ),
    ];
    run(async {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        let mut stream = 1;
        for (fields, error) in refused {
            peer.send(&headers(stream, fields)).await;
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
            assert_eq!((refusal.status, refusal.error.as_str()), (400, *error));
            stream += 2;
        }
        assert!(world.hit(LimitKind::Authority));
        assert!(!world.hit(LimitKind::RequestHeaders));
    });
}

#[test]
fn too_many_or_too_large_fields_get_431() {
    run(async {
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
    run(async {
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
    run(async {
        let (mut peer, echo, _drain) = raw_client(&World::new()).await;
        for number in 0..201 {
            peer.send(&headers(1 + 2 * number, CONNECT)).await;
        }
        let refused = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((refused.stream, refused.code()), (401, 7));
        peer.send(&super::frames::data(1, b"still here", true))
            .await;
        assert_eq!(peer.find(&[DATA]).await.unwrap().payload, b"still here");
        assert_eq!(echo.requests.borrow().len(), 200);
    });
}

#[test]
fn a_status_other_than_200_fails_the_open() {
    run(async {
        let (opener, driver, mut server, _drain) = tunnel(&World::new(), 1 << 16).await;
        spawn_local(driver);
        spawn_local(async move {
            for status in [401, 503, 204] {
                let incoming: server::Incoming = server.next().await.unwrap().unwrap();
                incoming.respond.refuse(status);
            }
            let _ = server.next().await;
        });
        for (status, text) in [
            (401, "http status: 401 Unauthorized"),
            (503, "http status: 503 Service Unavailable"),
            (204, "http status: 204 No Content"),
        ] {
            let error = opener.open(&to("127.0.0.1:80")).await.unwrap_err();
            assert_eq!(error, OpenError::Status(status));
            assert_eq!(error.to_string(), text);
            assert!(!error.is_retryable());
        }
        assert_eq!(opener.in_flight(), 0);
        assert!(opener.is_usable());
    });
}

#[test]
fn dropping_an_unanswered_request_cancels_its_stream() {
    run(async {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut peer = super::frames::Peer(near);
        peer.greet().await;
        peer.send(&headers(1, CONNECT)).await;
        let (mut server, _drain) = server::handshake(super::harness::Pipe(far), &world.settings)
            .await
            .unwrap();
        let incoming = server.next().await.unwrap().unwrap();
        let seen = Rc::new(incoming);
        drop(seen);
        spawn_local(async move { server.next().await.is_none() });
        let reset = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((reset.stream, reset.code()), (1, 8));
    });
}
