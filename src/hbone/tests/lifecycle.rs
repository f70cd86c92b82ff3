//! Keepalive, drain, abort.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::frames::{
    ACK, CONNECT, DATA, GOAWAY, HEADERS, PING, Peer, RST_STREAM, data, frame, headers,
};
use super::harness::{
    World, raw_client, raw_server, receive, receive_all, run, send_all, serve_echo, settle, to,
    tunnel,
};
use crate::hbone::HboneError;
use crate::hbone::settings::Event;
use crate::hbone::stream::StreamError;

/// The first PING of a drain (spec: hbone.md 3.4).
const DRAIN_PING: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

async fn answer_ping(peer: &mut Peer) {
    let ping = loop {
        let ping = peer.find(&[PING]).await.unwrap();
        if ping.flags & ACK == 0 {
            break ping;
        }
    };
    peer.send(&frame(PING, ACK, 0, &ping.payload)).await;
}

#[test]
fn pings_go_out_ten_seconds_after_the_start_and_after_each_answer() {
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        for _ in 0..3 {
            settle().await;
            let pings = world.events.borrow().len();
            world.clock.pass(Duration::from_millis(9_999)).await;
            assert_eq!(world.events.borrow().len(), pings);
            world.clock.pass(Duration::from_millis(1)).await;
            world.clock.pass(Duration::from_secs(19)).await;
            answer_ping(&mut peer).await;
            settle().await;
            let last = world.events.borrow().last().copied();
            assert_eq!(last, Some(Event::PingRtt(Duration::from_secs(19))));
        }
        assert!(!echo.ended.is_finished());
    });
}

#[test]
fn a_server_says_goaway_when_a_pong_is_missing() {
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        peer.send(&headers(1, CONNECT)).await;
        settle().await;
        world.clock.pass(Duration::from_secs(10)).await;
        world.clock.pass(Duration::from_millis(19_999)).await;
        assert!(!echo.ended.is_finished());
        world.clock.pass(Duration::from_millis(1)).await;
        assert_eq!(echo.ended.await.unwrap(), Some(HboneError::PingTimeout));
        let seen = peer.find(&[GOAWAY]).await.unwrap();
        assert_eq!((seen.last_stream(), seen.code()), (1, 0));
        assert!(peer.next().await.is_none());
        assert!(world.events.borrow().contains(&Event::PingTimeout));
    });
}

#[test]
fn a_client_drops_the_connection_when_a_pong_is_missing() {
    run(async || {
        let world = World::new();
        let (mut peer, opener, driver) = raw_server(&world).await;
        peer.send(&frame(4, 0, 0, &[])).await;
        peer.send(&frame(4, ACK, 0, &[])).await;
        settle().await;
        world.clock.pass(Duration::from_secs(10)).await;
        world.clock.pass(Duration::from_secs(20)).await;
        assert_eq!(driver.await.unwrap(), Err(HboneError::PingTimeout));
        assert!(!opener.is_usable());
        assert!(peer.find(&[GOAWAY]).await.is_none());
    });
}

#[test]
fn a_client_waits_no_longer_for_a_silent_server_than_allowed() {
    run(async || {
        let world = World::new();
        let (_peer, opener, driver) = raw_server(&world).await;
        let opening = spawn_local(async move { opener.open(&to("127.0.0.1:80")).await.map(drop) });
        settle().await;
        world.clock.pass(Duration::from_millis(4_999)).await;
        assert!(!driver.is_finished());
        world.clock.pass(Duration::from_millis(1)).await;
        assert_eq!(
            driver.await.unwrap().unwrap_err().to_string(),
            "h2 failed: preface timed out"
        );
        let error = opening.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "h2 failed: preface timed out");
    });
}

#[test]
fn a_drain_takes_two_steps_and_waits_for_open_streams() {
    run(async || {
        let (mut peer, echo, drain) = raw_client(&World::new()).await;
        peer.send(&headers(1, CONNECT)).await;
        assert_eq!(peer.find(&[HEADERS]).await.unwrap().status(), 200);
        drain.drain();
        drain.drain();
        let first = peer.find(&[GOAWAY]).await.unwrap();
        assert_eq!((first.last_stream(), first.code()), (0x7fff_ffff, 0));
        let ping = peer.find(&[PING]).await.unwrap();
        assert_eq!(
            (ping.flags & ACK, ping.payload.as_slice()),
            (0, &DRAIN_PING[..])
        );
        // Sent before the client could know: still served.
        peer.send(&headers(3, CONNECT)).await;
        assert_eq!(peer.find(&[HEADERS]).await.unwrap().status(), 200);
        peer.send(&frame(PING, ACK, 0, &ping.payload)).await;
        let second = peer.find(&[GOAWAY]).await.unwrap();
        assert_eq!((second.last_stream(), second.code()), (3, 0));
        // Too late: ignored.
        peer.send(&headers(5, CONNECT)).await;
        for stream in [1, 3] {
            assert!(!echo.ended.is_finished());
            peer.send(&data(stream, b"last words", true)).await;
            let back = peer.find(&[DATA, HEADERS, RST_STREAM]).await.unwrap();
            assert_eq!(
                (back.stream, back.payload.as_slice()),
                (stream, &b"last words"[..])
            );
            let end = peer.find(&[DATA, HEADERS, RST_STREAM]).await.unwrap();
            assert!(end.ends_stream());
        }
        while peer.next().await.is_some() {}
        drop(peer);
        assert_eq!(echo.ended.await.unwrap(), None);
        assert_eq!(echo.requests.borrow().len(), 2);
    });
}

#[test]
fn draining_an_idle_tunnel_ends_it() {
    run(async || {
        let (opener, driver, server, drain) = tunnel(&World::new(), 1 << 16).await;
        let driver = spawn_local(driver);
        let echo = serve_echo(server);
        drain.drain();
        assert_eq!(driver.await.unwrap(), Ok(()));
        assert!(!opener.is_usable());
        assert_eq!(echo.ended.await.unwrap(), None);
    });
}

#[test]
fn a_drain_under_load_loses_no_byte() {
    run(async || {
        let (opener, driver, server, drain) = tunnel(&World::new(), 1 << 14).await;
        let driver = spawn_local(driver);
        let echo = serve_echo(server);
        let mut talks = Vec::new();
        for number in 0..20_u8 {
            let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
            talks.push(spawn_local(async move {
                let (mut recv, mut send) = stream.split();
                let sent = Bytes::from(vec![number; 200_000]);
                let back = spawn_local(async move { receive_all(&mut recv).await.unwrap() });
                send_all(&mut send, sent.clone()).await.unwrap();
                send.finish().unwrap();
                assert!(back.await.unwrap() == sent);
            }));
        }
        drain.drain();
        for talk in talks {
            talk.await.unwrap();
        }
        drop(opener);
        assert_eq!(driver.await.unwrap(), Ok(()));
        assert_eq!(echo.ended.await.unwrap(), None);
    });
}

#[test]
fn an_abort_fails_every_stream_at_once() {
    run(async || {
        let (opener, driver, server, drain) = tunnel(&World::new(), 1 << 16).await;
        let driver = spawn_local(driver);
        let echo = serve_echo(server);
        let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let (mut recv, _send) = stream.split();
        assert_eq!(drain.in_flight(), 1);
        drain.abort();
        assert_eq!(echo.ended.await.unwrap(), Some(HboneError::Aborted));
        let error = receive(&mut recv).await.unwrap_err();
        assert!(matches!(error, StreamError::Connection(_)), "{error:?}");
        let _ = driver.await.unwrap();
    });
}

#[test]
fn a_server_that_is_dropped_fails_its_streams() {
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        peer.send(&headers(1, CONNECT)).await;
        assert_eq!(peer.find(&[HEADERS]).await.unwrap().status(), 200);
        echo.ended.abort();
        settle().await;
        assert!(peer.next().await.is_none());
    });
}
