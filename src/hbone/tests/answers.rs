//! Answers of a server, and what becomes of a stream that nobody wants any more.

use std::future::poll_fn;
use std::task::{Context, Waker};

use tokio::task::spawn_local;

use super::frames::{CONNECT, Peer, RST_STREAM, data, headers, reset};
use super::harness::{Pipe, World, receive_all, run, settle, to, tunnel};
use crate::hbone::ResetCode;
use crate::hbone::client::OpenError;
use crate::hbone::server;
use crate::hbone::stream::StreamError;

#[test]
fn a_status_other_than_200_fails_the_open() {
    run(async || {
        let (opener, driver, mut server, _drain) = tunnel(&World::new(), 1 << 16).await;
        spawn_local(driver);
        spawn_local(async move {
            for status in [401, 503, 204] {
                let incoming = server.next().await.unwrap().unwrap();
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
    run(async || {
        let world = World::new();
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut peer = Peer(near);
        peer.greet().await;
        peer.send(&headers(1, CONNECT)).await;
        let (mut server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
        let incoming = server.next().await.unwrap().unwrap();
        drop(incoming);
        spawn_local(async move { server.next().await.is_none() });
        let reset = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((reset.stream, reset.code()), (1, 8));
    });
}

/// A server with one request waiting, and the client that sent it.
async fn one_request(world: &World) -> (Peer, server::Server<Pipe>, server::Incoming) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut peer = Peer(near);
    peer.greet().await;
    peer.send(&headers(1, CONNECT)).await;
    let (mut server, _drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
    let incoming = server.next().await.unwrap().unwrap();
    (peer, server, incoming)
}

#[test]
fn a_server_that_answered_in_full_stops_its_client_without_error() {
    for (finish, code) in [(true, 0), (false, 8)] {
        run(async || {
            let (mut peer, mut server, incoming) = one_request(&World::new()).await;
            let (recv, mut send) = incoming.respond.accept(None).unwrap().split();
            spawn_local(async move { server.next().await.is_none() });
            if finish {
                send.finish().unwrap();
            }
            drop((recv, send));
            let reset = peer.find(&[RST_STREAM]).await.unwrap();
            assert_eq!((reset.stream, reset.code()), (1, code));
        });
    }
}

#[test]
fn a_client_that_gives_up_while_we_dial_is_noticed() {
    run(async || {
        let (mut peer, mut server, mut incoming) = one_request(&World::new()).await;
        let mut cx = Context::from_waker(Waker::noop());
        assert!(incoming.respond.poll_reset(&mut cx).is_pending());
        spawn_local(async move { server.next().await.is_none() });
        peer.send(&reset(1, 8)).await;
        let given_up = poll_fn(|cx| incoming.respond.poll_reset(cx)).await;
        assert_eq!(given_up, StreamError::Reset(ResetCode::Cancel));
        assert_eq!(
            incoming.respond.accept(None).unwrap_err(),
            StreamError::Reset(ResetCode::Cancel)
        );
    });
}

#[test]
fn bytes_sent_before_the_answer_are_kept() {
    run(async || {
        let (mut peer, mut server, incoming) = one_request(&World::new()).await;
        let driver = spawn_local(async move { server.next().await.is_none() });
        let early: Vec<u8> = (0..2_000).flat_map(|_| data(1, b"early", false)).collect();
        peer.send(&early).await;
        peer.send(&data(1, b"", true)).await;
        settle().await;
        let (mut recv, _send) = incoming.respond.accept(None).unwrap().split();
        assert_eq!(receive_all(&mut recv).await.unwrap().len(), 10_000);
        assert!(!driver.is_finished());
    });
}
