//! Bytes: round trips, half-close, back-pressure, many small frames, stalled readers.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::task::spawn_local;

use super::frames::{
    CONNECT, DATA, END_HEADERS, HEADERS, Peer, SETTINGS, WINDOW_UPDATE, data, frame, headers,
    window,
};
use super::harness::{
    Pipe, World, pattern, raw_server, receive_all, run, run_between, send_all, serve_echo, settle,
    to, tunnel,
};
use crate::hbone::stream::{RecvHalf, SendHalf};
use crate::hbone::{Engine, server};
use crate::transport::{Transport, recv, send_all as transport_send};

#[test]
fn bytes_come_back_as_they_were_sent_and_ends_stay_apart() {
    run(async || {
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
    run(async || {
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
    run(async || {
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
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        peer.send(&frame(SETTINGS, 0, 0, &[])).await;
        let opening = spawn_local({
            let opener = opener.clone();
            async move { opener.open(&to("127.0.0.1:80")).await.unwrap().1 }
        });
        let request = peer.find(&[HEADERS]).await.unwrap();
        peer.send(&frame(HEADERS, END_HEADERS, request.stream, &[0x88]))
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
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        peer.send(&frame(SETTINGS, 0, 0, &[])).await;
        let mut sends: Vec<(RecvHalf, SendHalf)> = Vec::new();
        for _ in 0..2 {
            let opener = opener.clone();
            let opening =
                spawn_local(async move { opener.open(&to("127.0.0.1:80")).await.unwrap().1 });
            let request = peer.find(&[HEADERS]).await.unwrap();
            peer.send(&frame(HEADERS, END_HEADERS, request.stream, &[0x88]))
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
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(8 << 20);
        let mut peer = Peer(near);
        peer.greet().await;
        peer.send(&headers(1, CONNECT)).await;
        let (mut server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
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
        // An earlier release would show as an earlier, smaller WINDOW_UPDATE.
        let update = loop {
            let update = peer.find(&[WINDOW_UPDATE]).await.unwrap();
            if update.stream == 1 {
                break update;
            }
        };
        assert_eq!(update.payload, (3_u32 << 20).to_be_bytes());
    });
}

#[test]
fn random_conversations_keep_every_byte_whoever_speaks_to_whom() {
    for client in [Engine::Own, Engine::H2] {
        for server in [Engine::Own, Engine::H2] {
            run_between([client, server], random_conversations);
        }
    }
}

async fn random_conversations() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(bound).unwrap()).unwrap()
    };
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
}
