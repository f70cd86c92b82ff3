//! Bytes: round trips, half-close, back-pressure, many small frames, stalled readers.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::frames::{CONNECT, DATA, RST_STREAM, WINDOW_UPDATE, data, headers, window};
use super::harness::{
    World, raw_client, raw_server, receive, receive_all, run, send_all, serve_echo, settle, to,
    tunnel,
};
use crate::hbone::stream::{RecvHalf, SendHalf};
use crate::transport::{Transport, recv, send_all as transport_send};

fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length)
        .map(|at| u8::try_from((at * 31 + seed * 7 + at / 251) % 256).unwrap())
        .collect()
}

#[test]
fn bytes_come_back_as_they_were_sent_and_ends_stay_apart() {
    run(async {
        let (opener, driver, server, _drain) = tunnel(&World::new(), 1 << 16).await;
        spawn_local(driver);
        serve_echo(server);
        let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let (mut recv, mut send) = stream.split();
        let sent = pattern(9 << 20, 1);
        let back = spawn_local(async move { receive_all(&mut recv).await });
        send_all(&mut send, sent.clone()).await.unwrap();
        settle().await;
        assert!(!back.is_finished());
        send.finish().unwrap();
        send.finish().unwrap();
        assert!(back.await.unwrap().unwrap() == sent);
    });
}

#[test]
fn a_half_closed_stream_still_receives() {
    run(async {
        let (opener, driver, mut server, _drain) = tunnel(&World::new(), 1 << 16).await;
        spawn_local(driver);
        spawn_local(async move {
            while let Some(Ok(incoming)) = server.next().await {
                let (mut recv, mut send) = incoming.respond.accept(None).unwrap().split();
                spawn_local(async move {
                    let length = receive_all(&mut recv).await.unwrap().len();
                    let answer = Bytes::from(length.to_string());
                    send_all(&mut send, answer).await.unwrap();
                    send.finish().unwrap();
                });
            }
        });
        let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let (mut recv, mut send) = stream.split();
        send_all(&mut send, pattern(70_000, 2)).await.unwrap();
        send.finish().unwrap();
        assert_eq!(receive_all(&mut recv).await.unwrap(), b"70000");
        drop((recv, send));
        settle().await;
        assert_eq!(opener.in_flight(), 0);
    });
}

#[test]
fn a_stream_is_a_transport() {
    run(async {
        let (opener, driver, server, _drain) = tunnel(&World::new(), 1 << 16).await;
        spawn_local(driver);
        serve_echo(server);
        let (_, mut stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let sent = pattern(300_000, 3);
        let mut back = Vec::new();
        let mut buffer = vec![0; 7_000];
        for chunk in sent.chunks(30_000) {
            transport_send(&mut stream, chunk).await.unwrap();
            while back.len() < chunk.len() {
                let taken = recv(&mut stream, &mut buffer).await.unwrap();
                back.extend_from_slice(&buffer[..taken]);
            }
            assert!(back == chunk);
            back.clear();
        }
        poll_fn(|cx| stream.poll_close(cx)).await.unwrap();
        assert_eq!(recv(&mut stream, &mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn data_frames_are_gathered_and_bounded_by_the_send_buffer() {
    run(async {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        peer.send(&super::frames::frame(super::frames::SETTINGS, 0, 0, &[]))
            .await;
        let opening = spawn_local({
            let opener = opener.clone();
            async move { opener.open(&to("127.0.0.1:80")).await.unwrap().1 }
        });
        let request = peer.find(&[super::frames::HEADERS]).await.unwrap();
        peer.send(&super::frames::frame(1, 4, request.stream, &[0x88]))
            .await;
        let (_recv, mut send) = opening.await.unwrap().split();
        let mut cx = Context::from_waker(Waker::noop());
        // 65,535 bytes is what a peer that has not said otherwise takes.
        let granted = send.poll_capacity(&mut cx, 1 << 20);
        let Poll::Ready(Ok(granted)) = granted else {
            panic!("{granted:?}")
        };
        assert!(granted <= 64 << 10);
        send.send(pattern(granted, 4)).unwrap();
        assert!(send.poll_capacity(&mut cx, 1).is_pending());
        let mut seen = 0;
        while seen < granted {
            seen += peer.find(&[DATA]).await.unwrap().payload.len();
        }
        settle().await;
        assert!(send.poll_capacity(&mut cx, 1).is_pending());
        peer.send(&window(0, 10)).await;
        peer.send(&window(request.stream, 10)).await;
        settle().await;
        assert_eq!(send.poll_capacity(&mut cx, 100), Poll::Ready(Ok(10)));
    });
}

#[test]
fn capacity_given_back_serves_another_stream() {
    run(async {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        peer.send(&super::frames::frame(super::frames::SETTINGS, 0, 0, &[]))
            .await;
        let mut sends: Vec<(RecvHalf, SendHalf)> = Vec::new();
        for _ in 0..2 {
            let opener = opener.clone();
            let opening =
                spawn_local(async move { opener.open(&to("127.0.0.1:80")).await.unwrap().1 });
            let request = peer.find(&[super::frames::HEADERS]).await.unwrap();
            peer.send(&super::frames::frame(1, 4, request.stream, &[0x88]))
                .await;
            sends.push(opening.await.unwrap().split());
        }
        let mut cx = Context::from_waker(Waker::noop());
        // The first takes the whole connection window of 65,535 bytes and has nothing to send.
        assert!(sends[0].1.poll_capacity(&mut cx, 65_535).is_ready());
        assert!(sends[1].1.poll_capacity(&mut cx, 100).is_pending());
        sends[0].1.release();
        assert_eq!(sends[1].1.poll_capacity(&mut cx, 100), Poll::Ready(Ok(100)));
    });
}

#[test]
fn credit_is_given_for_forwarded_bytes_only() {
    run(async {
        let world = World::new();
        let (near, far) = tokio::io::duplex(8 << 20);
        let mut peer = super::frames::Peer(near);
        peer.greet().await;
        peer.send(&headers(1, CONNECT)).await;
        let (mut server, _drain) =
            crate::hbone::server::handshake(super::harness::Pipe(far), &world.settings)
                .await
                .unwrap();
        let incoming = server.next().await.unwrap().unwrap();
        let (mut recv, _send) = incoming.respond.accept(None).unwrap().split();
        spawn_local(async move { server.next().await.is_none() });
        for _ in 0..4 {
            peer.send(&data(1, &vec![7; 1 << 20], false)).await;
        }
        let mut taken = 0;
        while taken < 4 << 20 {
            taken += poll_fn(|cx| recv.poll_data(cx))
                .await
                .unwrap()
                .unwrap()
                .len();
        }
        settle().await;
        recv.forwarded(3 << 20);
        // The frame before this PONG would be the WINDOW_UPDATE of an early release.
        let update = loop {
            let update = peer.find(&[WINDOW_UPDATE]).await.unwrap();
            if update.stream == 1 {
                break update;
            }
        };
        assert_eq!(update.payload, (3_u32 << 20).to_be_bytes());
    });
}

/// What a slow reader of many one-byte frames must not do: kill the tunnel, or lose a byte.
#[test]
fn a_hundred_thousand_one_byte_frames_wait_for_a_slow_reader() {
    run(async {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut peer = super::frames::Peer(near);
        peer.greet().await;
        peer.send(&headers(1, CONNECT)).await;
        let (mut server, _drain) =
            crate::hbone::server::handshake(super::harness::Pipe(far), &world.settings)
                .await
                .unwrap();
        let incoming = server.next().await.unwrap().unwrap();
        let (mut recv, _send) = incoming.respond.accept(None).unwrap().split();
        spawn_local(async move { server.next().await.is_none() });
        let burst: Vec<u8> = (0..1000).flat_map(|_| data(1, b"x", false)).collect();
        for _ in 0..100 {
            peer.send(&burst).await;
        }
        peer.send(&data(1, b"", true)).await;
        settle().await;
        let mut chunks = 0;
        let mut bytes = 0;
        while let Some(data) = receive(&mut recv).await.unwrap() {
            chunks += 1;
            bytes += data.len();
        }
        assert_eq!(bytes, 100_000);
        // Frames were copied together: no hundred thousand buffers are held.
        assert!(chunks < 3_000, "{chunks}");
        assert!(world.events.borrow().is_empty());
    });
}

#[test]
fn two_hundred_thousand_small_messages_both_ways_trip_no_limit() {
    run(async {
        let world = World::new();
        let (opener, driver, server, _drain) = tunnel(&world, 1 << 16).await;
        spawn_local(driver);
        serve_echo(server);
        let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let (mut recv, mut send) = stream.split();
        let back = spawn_local(async move { receive_all(&mut recv).await.unwrap().len() });
        let message = pattern(64, 5);
        for _ in 0..200_000 {
            send_all(&mut send, message.clone()).await.unwrap();
        }
        send.finish().unwrap();
        assert_eq!(back.await.unwrap(), 200_000 * 64);
        assert!(
            world.events.borrow().is_empty(),
            "{:?}",
            world.events.borrow()
        );
        assert!(opener.is_usable());
    });
}

/// A peer may acknowledge each small frame with two WINDOW_UPDATEs, late and all at once.
#[test]
fn window_updates_that_answer_our_data_trip_no_limit() {
    run(async {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        peer.send(&headers(1, CONNECT)).await;
        for _ in 0..100 {
            let burst: Vec<u8> = (0..100).flat_map(|_| data(1, b"12345678", false)).collect();
            peer.send(&burst).await;
            let mut back = 0;
            let mut frames = 0;
            while back < 800 {
                let frame = peer.find(&[DATA]).await.unwrap();
                back += frame.payload.len();
                frames += 1;
            }
            for _ in 0..frames {
                peer.send(&window(0, 8)).await;
                peer.send(&window(1, 8)).await;
            }
        }
        peer.send(&data(1, b"end", true)).await;
        assert_eq!(
            peer.find(&[DATA, RST_STREAM]).await.unwrap().payload,
            b"end"
        );
        assert!(!echo.ended.is_finished());
        assert!(world.events.borrow().is_empty());
    });
}

#[test]
fn stalled_readers_do_not_starve_the_other_streams() {
    run(async {
        let world = World::new();
        let (opener, driver, mut server, _drain) = tunnel(&world, 1 << 16).await;
        spawn_local(driver);
        let stalled = Rc::new(Cell::new(0));
        let seen = Rc::clone(&stalled);
        spawn_local(async move {
            let mut held = Vec::new();
            while let Some(Ok(incoming)) = server.next().await {
                let stream = incoming.respond.accept(None).unwrap();
                if seen.get() < 10 {
                    seen.set(seen.get() + 1);
                    held.push(stream);
                } else {
                    spawn_local(super::harness::echo(stream));
                }
            }
        });
        let mut held = Vec::new();
        for _ in 0..10 {
            let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
            let (recv, mut send) = stream.split();
            held.push(recv);
            spawn_local(async move { send_all(&mut send, pattern(8 << 20, 6)).await });
        }
        settle().await;
        let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let (mut recv, mut send) = stream.split();
        let back = spawn_local(async move { receive_all(&mut recv).await });
        let sent = pattern(6 << 20, 7);
        send_all(&mut send, sent.clone()).await.unwrap();
        send.finish().unwrap();
        assert!(back.await.unwrap().unwrap() == sent);
        assert_eq!(stalled.get(), 10);
    });
}

#[test]
fn random_conversations_keep_every_byte() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(bound).unwrap()).unwrap()
    };
    run(async move {
        for round in 0..8 {
            let pipe = [64, 1_000, 1 << 16][round % 3];
            let (opener, driver, server, _drain) = tunnel(&World::new(), pipe).await;
            let driver = spawn_local(driver);
            let echo = serve_echo(server);
            let mut talks = Vec::new();
            for number in 0..12 {
                let length = [0, 1, 300, 5_000, 80_000, 400_000][random(6)];
                let chunk = 1 + random(20_000);
                let early_end = random(2) == 0;
                let opener = opener.clone();
                talks.push(spawn_local(async move {
                    let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
                    let (mut recv, mut send) = stream.split();
                    let sent = pattern(length, number);
                    let parts = sent.clone();
                    let sender = spawn_local(async move {
                        for part in parts.chunks(chunk) {
                            let part = Bytes::copy_from_slice(part);
                            send_all(&mut send, part).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                        if early_end {
                            send.finish().unwrap();
                        } else {
                            settle().await;
                            send.finish().unwrap();
                        }
                    });
                    let back = receive_all(&mut recv).await.unwrap();
                    sender.await.unwrap();
                    assert!(back == sent);
                }));
            }
            for talk in talks {
                talk.await.unwrap();
            }
            drop(opener);
            assert_eq!(driver.await.unwrap(), Ok(()));
            assert_eq!(echo.ended.await.unwrap(), None);
        }
    });
}
