//! Limits: each one trips where it must, with the answer on the wire, and not before.

use std::time::Duration;

use super::frames::{
    ACK, CONNECT, DATA, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, Peer, RST_STREAM, SETTINGS,
    block, data, frame, headers, reset, window,
};
use super::harness::{Pipe, World, raw_client, run, settle};
use crate::hbone::HboneError;
use crate::hbone::server;
use crate::hbone::settings::LimitKind;

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A world in which a peer that answers no PING lives long enough.
fn without_pings() -> World {
    let mut world = World::new();
    world.settings.ping_interval = Duration::from_secs(3600);
    world
}

async fn expect_end(peer: &mut Peer, code: u32) {
    let goaway = peer.find(&[GOAWAY]).await.unwrap();
    assert_eq!(goaway.code(), code);
    while peer.next().await.is_some() {}
}

#[test]
fn a_flood_of_control_frames_is_drained_then_closed() {
    let floods: [(&str, Vec<u8>); 5] = [
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("window update", window(0, 1)),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("unknown", frame(0x42, 0, 0, b"greased")),
    ];
    for (name, flood) in floods {
        run(async || {
            let world = World::new();
            let (mut peer, echo, _drain) = raw_client(&world).await;
            // Two SETTINGS frames were spent on the greeting.
            peer.send(&flood.repeat(748)).await;
            settle().await;
            assert!(world.events.borrow().is_empty(), "{name}");
            peer.send(&flood).await;
            let polite = peer.find(&[GOAWAY]).await.unwrap();
            assert_eq!((polite.code(), polite.last_stream()), (0, 0x7fff_ffff));
            assert!(world.hit(LimitKind::ControlFramesPolite), "{name}");
            assert!(!world.hit(LimitKind::ControlFrames), "{name}");
            peer.send(&flood.repeat(250)).await;
            expect_end(&mut peer, ENHANCE_YOUR_CALM).await;
            assert_eq!(
                echo.ended.await.unwrap(),
                Some(HboneError::Limit(LimitKind::ControlFrames)),
                "{name}"
            );
        });
    }
}

#[test]
fn control_frames_are_forgiven_as_time_passes() {
    run(async || {
        let world = without_pings();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        for _ in 0..20 {
            peer.send(&frame(PING, 0, 0, &[0; 8]).repeat(500)).await;
            settle().await;
            while let Ok(Some(_)) =
                tokio::time::timeout(Duration::from_millis(1), peer.next()).await
            {}
            world.clock.pass(Duration::from_secs(5)).await;
        }
        assert!(!world.hit(LimitKind::ControlFramesPolite));
        assert!(!echo.ended.is_finished());
    });
}

#[test]
fn rapid_resets_end_the_tunnel_and_slow_ones_do_not() {
    run(async || {
        let world = without_pings();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        let mut stream = 1;
        let mut round = async |count: u32| {
            for _ in 0..count {
                peer.send(&headers(stream, CONNECT)).await;
                settle().await;
                peer.send(&reset(stream, 8)).await;
                stream += 2;
            }
            settle().await;
        };
        for _ in 0..3 {
            round(200).await;
            world.clock.pass(Duration::from_secs(10)).await;
        }
        assert!(
            world.events.borrow().is_empty(),
            "{:?}",
            world.events.borrow()
        );
        round(201).await;
        expect_end(&mut peer, ENHANCE_YOUR_CALM).await;
        assert_eq!(
            echo.ended.await.unwrap(),
            Some(HboneError::Limit(LimitKind::PeerResets))
        );
    });
}

#[test]
fn streams_reset_before_they_are_accepted_end_the_tunnel() {
    run(async || {
        let (mut peer, echo, _drain) = raw_client(&World::new()).await;
        let mut burst = Vec::new();
        for number in 0..25 {
            burst.extend(headers(1 + 2 * number, CONNECT));
            burst.extend(reset(1 + 2 * number, 8));
        }
        peer.send(&burst).await;
        expect_end(&mut peer, ENHANCE_YOUR_CALM).await;
        assert!(matches!(
            echo.ended.await.unwrap(),
            Some(HboneError::Failed(_))
        ));
    });
}

#[test]
fn protocol_errors_on_many_streams_end_the_tunnel() {
    run(async || {
        let (mut peer, echo, _drain) = raw_client(&World::new()).await;
        let bad = [
            (":method", "CONNECT"),
            (":authority", "a:1"),
            (":path", "/"),
        ];
        for number in 0..64 {
            peer.send(&headers(1 + 2 * number, &bad)).await;
            assert_eq!(
                peer.find(&[RST_STREAM, GOAWAY]).await.unwrap().kind,
                RST_STREAM
            );
        }
        peer.send(&headers(129, &bad)).await;
        expect_end(&mut peer, ENHANCE_YOUR_CALM).await;
        assert!(echo.ended.await.unwrap().is_some());
    });
}

#[test]
fn empty_data_frames_are_forgiven_a_hundred_times() {
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        peer.send(&headers(1, CONNECT)).await;
        peer.send(&data(1, b"", false).repeat(100)).await;
        peer.send(&data(1, b"alive", false)).await;
        assert_eq!(peer.find(&[DATA]).await.unwrap().payload, b"alive");
        peer.send(&data(1, b"", false)).await;
        expect_end(&mut peer, ENHANCE_YOUR_CALM).await;
        assert_eq!(
            echo.ended.await.unwrap(),
            Some(HboneError::Limit(LimitKind::EmptyData))
        );
    });
}

#[test]
fn a_header_block_must_be_complete_in_time() {
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        let block = block(CONNECT);
        // Complete after four seconds: fine, though the next one starts the clock anew.
        for stream in [1, 3] {
            peer.send(&frame(HEADERS, 0, stream, &block)).await;
            settle().await;
            world.clock.pass(Duration::from_secs(4)).await;
            peer.send(&frame(9, 4, stream, &[])).await;
            assert_eq!(peer.find(&[HEADERS]).await.unwrap().status(), 200);
        }
        // A frame that stays unfinished counts like a missing CONTINUATION.
        let whole = headers(5, CONNECT);
        peer.send(&whole[..whole.len() - 1]).await;
        settle().await;
        world.clock.pass(Duration::from_millis(4_999)).await;
        assert!(!echo.ended.is_finished());
        world.clock.pass(Duration::from_millis(1)).await;
        assert_eq!(
            echo.ended.await.unwrap(),
            Some(HboneError::Limit(LimitKind::HeaderBlockTimeout))
        );
        expect_end(&mut peer, ENHANCE_YOUR_CALM).await;
    });
}

#[test]
fn a_silent_client_is_dropped_at_the_preface_deadline() {
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let settings = world.settings.clone();
        let shake = tokio::task::spawn_local(async move {
            server::handshake(Pipe(far), &settings).await.map(drop)
        });
        let mut peer = Peer(near);
        peer.send(&PREFACE[..23]).await;
        settle().await;
        world.clock.pass(Duration::from_millis(4_999)).await;
        assert!(!shake.is_finished());
        world.clock.pass(Duration::from_millis(1)).await;
        assert_eq!(
            shake.await.unwrap().unwrap_err(),
            HboneError::Limit(LimitKind::PrefaceTimeout)
        );
    });
}

#[test]
fn settings_and_their_acknowledgement_are_due() {
    for (greeting, wait, limit, code) in [
        (PREFACE.to_vec(), 5, LimitKind::PrefaceTimeout, 1),
        (
            [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat(),
            10,
            LimitKind::SettingsAckTimeout,
            4,
        ),
    ] {
        run(async || {
            let world = World::new();
            let (near, far) = tokio::io::duplex(1 << 16);
            let mut peer = Peer(near);
            peer.send(&greeting).await;
            let (server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
            let echo = super::harness::serve_echo(server);
            settle().await;
            world
                .clock
                .pass(Duration::from_millis(wait * 1000 - 1))
                .await;
            assert!(!echo.ended.is_finished());
            world.clock.pass(Duration::from_millis(1)).await;
            assert_eq!(echo.ended.await.unwrap(), Some(HboneError::Limit(limit)));
            assert!(world.hit(limit));
            expect_end(&mut peer, code).await;
        });
    }
}

#[test]
fn something_other_than_http2_fails_the_handshake() {
    run(async || {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut peer = Peer(near);
        peer.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            .await;
        let error = server::handshake(Pipe(far), &World::new().settings)
            .await
            .unwrap_err();
        assert!(
            error.to_string().starts_with("http2 handshake failed: "),
            "{error}"
        );
    });
}

#[test]
fn a_peer_that_does_not_read_cannot_keep_a_condemned_tunnel() {
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(256);
        let mut peer = Peer(near);
        let flood = tokio::task::spawn_local(async move {
            peer.greet().await;
            // PONGs fill the pipe: nothing more gets through, in either direction.
            loop {
                let ping = frame(PING, 0, 0, &[0; 8]);
                if tokio::io::AsyncWriteExt::write_all(&mut peer.0, &ping)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        let (server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
        let echo = super::harness::serve_echo(server);
        settle().await;
        assert!(!echo.ended.is_finished());
        world.clock.pass(Duration::from_secs(10)).await;
        world.clock.pass(Duration::from_secs(20)).await;
        assert_eq!(echo.ended.await.unwrap(), Some(HboneError::PingTimeout));
        flood.await.unwrap();
    });
}

#[test]
fn acknowledgements_alone_are_not_a_first_settings_frame() {
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut peer = Peer(near);
        peer.send(PREFACE).await;
        peer.send(&frame(SETTINGS, ACK, 0, &[])).await;
        let (server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
        let echo = super::harness::serve_echo(server);
        settle().await;
        world.clock.pass(Duration::from_secs(5)).await;
        assert_eq!(
            echo.ended.await.unwrap(),
            Some(HboneError::Limit(LimitKind::PrefaceTimeout))
        );
    });
}
