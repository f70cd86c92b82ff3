//! Many small frames, stalled neighbours, busy tunnels: nobody starves, nothing is killed.

use std::cell::Cell;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::frames::{CONNECT, DATA, Peer, RST_STREAM, data, headers, window};
use super::harness::{
    Pipe, World, echo, engine, pattern, raw_client, receive, receive_all, run, send_all,
    serve_echo, settle, to, tunnel,
};
use crate::hbone::{Engine, server};

/// What a slow reader of many one-byte frames must not do: kill the tunnel, or lose a byte.
#[test]
fn a_hundred_thousand_one_byte_frames_wait_for_a_slow_reader() {
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut peer = Peer(near);
        peer.greet().await;
        peer.send(&headers(1, CONNECT)).await;
        let (mut server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
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
    run(async || {
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
    run(async || {
        let world = World::new();
        let (mut peer, echo, _drain) = raw_client(&world).await;
        peer.send(&headers(1, CONNECT)).await;
        for _ in 0..100 {
            let burst: Vec<u8> = (0..100).flat_map(|_| data(1, b"12345678", false)).collect();
            peer.send(&burst).await;
            let mut back = 0;
            let mut frames = Vec::new();
            while back < 800 {
                let frame = peer.find(&[DATA]).await.unwrap();
                back += frame.payload.len();
                frames.push(u32::try_from(frame.payload.len()).unwrap());
            }
            for bytes in frames {
                peer.send(&window(0, bytes)).await;
                peer.send(&window(1, bytes)).await;
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

/// Ten streams whose reader stopped beside one that works, with this bound of the connection window.
/// Returns true if the bytes of the eleventh came back.
async fn beside_stalled_readers(connection_window_max: u32) -> bool {
    let mut world = World::new();
    world.settings.connection_window_max = connection_window_max;
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
                spawn_local(echo(stream));
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
    let sent = pattern(6 << 20, 7);
    let expected = sent.clone();
    let back = spawn_local(async move {
        receive_all(&mut recv)
            .await
            .is_ok_and(|all| all == expected)
    });
    spawn_local(async move {
        send_all(&mut send, sent).await.unwrap();
        send.finish().unwrap();
    });
    for _ in 0..200 {
        settle().await;
    }
    assert_eq!(stalled.get(), 10);
    back.is_finished() && back.await.unwrap()
}

#[test]
fn stalled_readers_do_not_starve_the_other_streams() {
    run(async || {
        assert!(beside_stalled_readers(256 << 20).await);
    });
}

/// `h2` gives stream and connection credit back together, so it needs the window that grows. Our engine
/// does not.
#[test]
fn stalled_readers_starve_the_others_in_a_fixed_window_with_h2_only() {
    run(async || {
        let moved = beside_stalled_readers(16 << 20).await;
        assert_eq!(moved, engine() == Engine::Own);
    });
}

#[test]
fn a_busy_tunnel_yields_once_a_batch() {
    run(async || {
        let mut world = World::new();
        let yields = Rc::new(Cell::new(0));
        let count = Rc::clone(&yields);
        world.settings.yield_now = Rc::new(move || {
            count.set(count.get() + 1);
            Box::pin(tokio::task::yield_now())
        });
        let (opener, driver, server, _drain) = tunnel(&world, 1 << 20).await;
        spawn_local(driver);
        serve_echo(server);
        let (_, stream) = opener.open(&to("127.0.0.1:80")).await.unwrap();
        let (mut recv, mut send) = stream.split();
        let back = spawn_local(async move { receive_all(&mut recv).await.unwrap().len() });
        send_all(&mut send, pattern(16 << 20, 8)).await.unwrap();
        send.finish().unwrap();
        assert_eq!(back.await.unwrap(), 16 << 20);
        // 16 MiB each way in batches of half a MiB, of which the last read may exceed the size.
        assert!((40..=64).contains(&yields.get()), "{}", yields.get());
    });
}
