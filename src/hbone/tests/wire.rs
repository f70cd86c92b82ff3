//! What both roles put on the wire first, and what a request looks like there.

use tokio::task::spawn_local;

use super::frames::{Frame, HEADERS, SETTINGS, WINDOW_UPDATE};
use super::harness::{
    Pipe, World, engine, raw_client, raw_server, request, run, serve_echo, to, tunnel,
};
use crate::hbone::connect::ConnectRequest;
use crate::hbone::{Engine, client};
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
    run(async || {
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
    run(async || {
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
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (opener, driver) = client::handshake(Pipe(near), &world.settings)
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
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        spawn_local(async move { opener.open(&to("127.0.0.1:80")).await.map(drop) });
        let request = peer.find(&[HEADERS]).await.unwrap();
        assert!(!request.ends_stream());
        // Literals with the indexed names 2 (:method) and 1 (:authority): RFC 7541 appendix A. Ours stay
        // out of the peer's table.
        let method = if engine() == Engine::Own { 0x02 } else { 0x42 };
        assert_eq!(request.payload[0], method);
        let method = usize::from(request.payload[1] & 0x7f);
        assert_eq!(request.payload[2 + method] & 0x3f, 1);
    });
}

#[test]
fn a_request_arrives_as_it_was_sent() {
    run(async || {
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
    run(async || {
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
