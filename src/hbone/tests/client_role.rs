//! A client against a server made by hand: resets, GOAWAY, and what may be retried.

use std::future::poll_fn;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_local};

use super::frames::{
    ACK, DATA, END_HEADERS, GOAWAY, HEADERS, Peer, RST_STREAM, SETTINGS, data, frame, goaway, reset,
};
use super::harness::{World, raw_server, receive, receive_all, run, send_all, settle, to};
use crate::hbone::client::{OpenError, Opener};
use crate::hbone::settings::Event;
use crate::hbone::stream::{Stream, StreamError};
use crate::hbone::{HboneError, ResetCode};

type Opening = JoinHandle<Result<Stream, OpenError>>;

fn open(opener: &Opener) -> Opening {
    let opener = opener.clone();
    spawn_local(async move {
        opener
            .open(&to("127.0.0.1:80"))
            .await
            .map(|(_, stream)| stream)
    })
}

/// The server's SETTINGS and acknowledgement.
async fn greet(peer: &mut Peer) {
    peer.send(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 200]))
        .await;
    peer.send(&frame(SETTINGS, ACK, 0, &[])).await;
}

async fn accept(peer: &mut Peer) -> u32 {
    let request = peer.find(&[HEADERS]).await.unwrap();
    peer.send(&frame(HEADERS, END_HEADERS, request.stream, &[0x88]))
        .await;
    request.stream
}

#[test]
fn a_reset_is_reported_with_its_code_and_never_as_an_end() {
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        for (code, expected) in [
            (0, ResetCode::NoError),
            (2, ResetCode::InternalError),
            (5, ResetCode::StreamClosed),
            (8, ResetCode::Cancel),
            (10, ResetCode::ConnectError),
            (0x1234, ResetCode::Other(0x1234)),
        ] {
            let opening = open(&opener);
            let stream = accept(&mut peer).await;
            peer.send(&data(stream, b"before", false)).await;
            peer.send(&reset(stream, code)).await;
            settle().await;
            let (mut recv, mut send) = opening.await.unwrap().unwrap().split();
            assert_eq!(receive(&mut recv).await, Ok(Some(Bytes::from("before"))));
            let error = StreamError::Reset(expected);
            assert_eq!(receive(&mut recv).await, Err(error.clone()));
            assert_eq!(receive(&mut recv).await, Err(error.clone()));
            assert_eq!(poll_fn(|cx| send.poll_reset(cx)).await, error);
            assert_eq!(
                send_all(&mut send, Bytes::from("late")).await,
                Err(error.clone())
            );
            assert_eq!(send.finish(), Err(error));
        }
        assert!(opener.is_usable());
        assert_eq!(opener.in_flight(), 0);
    });
}

#[test]
fn stop_sending_after_the_end_leaves_the_end_clean() {
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        let opening = open(&opener);
        let stream = accept(&mut peer).await;
        peer.send(&data(stream, b"all of it", true)).await;
        peer.send(&reset(stream, 0)).await;
        settle().await;
        let (mut recv, mut send) = opening.await.unwrap().unwrap().split();
        assert_eq!(receive_all(&mut recv).await.unwrap(), b"all of it");
        assert_eq!(
            poll_fn(|cx| send.poll_reset(cx)).await,
            StreamError::Reset(ResetCode::NoError)
        );
    });
}

#[test]
fn our_resets_carry_the_code_we_chose() {
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        for (code, number) in [
            (ResetCode::ConnectError, 10),
            (ResetCode::Cancel, 8),
            (ResetCode::NoError, 0),
            (ResetCode::InternalError, 2),
        ] {
            let opening = open(&opener);
            let stream = accept(&mut peer).await;
            let (mut recv, mut send) = opening.await.unwrap().unwrap().split();
            send.reset(code);
            send.reset(ResetCode::EnhanceYourCalm);
            let seen = peer.find(&[RST_STREAM]).await.unwrap();
            assert_eq!((seen.stream, seen.code()), (stream, number));
            assert_eq!(receive(&mut recv).await, Err(StreamError::Closed));
        }
    });
}

#[test]
fn dropping_unfinished_halves_cancels_and_finished_ones_do_not() {
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;

        let opening = open(&opener);
        let first = accept(&mut peer).await;
        let (recv, send) = opening.await.unwrap().unwrap().split();
        drop(send);
        let seen = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((seen.stream, seen.code()), (first, 8));
        drop(recv);

        let opening = open(&opener);
        let second = accept(&mut peer).await;
        let (recv, mut send) = opening.await.unwrap().unwrap().split();
        send.finish().unwrap();
        drop(recv);
        let seen = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((seen.stream, seen.code()), (second, 8));
        drop(send);

        let opening = open(&opener);
        let third = accept(&mut peer).await;
        let (mut recv, mut send) = opening.await.unwrap().unwrap().split();
        send.finish().unwrap();
        peer.send(&data(third, b"", true)).await;
        assert_eq!(receive(&mut recv).await, Ok(None));
        drop((recv, send));
        // The next reset on the wire belongs to a later stream.
        let opening = open(&opener);
        let fourth = accept(&mut peer).await;
        drop(opening.await.unwrap().unwrap());
        assert_eq!(peer.find(&[RST_STREAM]).await.unwrap().stream, fourth);
    });
}

#[test]
fn an_open_that_is_given_up_is_cancelled() {
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        let opening = open(&opener);
        let request = peer.find(&[HEADERS]).await.unwrap();
        assert_eq!(opener.in_flight(), 1);
        opening.abort();
        let seen = peer.find(&[RST_STREAM]).await.unwrap();
        assert_eq!((seen.stream, seen.code()), (request.stream, 8));
        assert_eq!(opener.in_flight(), 0);
    });
}

#[test]
fn goaway_stops_new_streams_and_leaves_the_old_ones() {
    run(async || {
        let world = World::new();
        let (mut peer, opener, driver) = raw_server(&world).await;
        greet(&mut peer).await;
        let (first, second) = (open(&opener), open(&opener));
        let stream = accept(&mut peer).await;
        peer.find(&[HEADERS]).await.unwrap();
        let (mut recv, mut send) = first.await.unwrap().unwrap().split();
        assert!(opener.is_usable());
        peer.send(&goaway(stream, 0)).await;
        settle().await;
        assert!(!opener.is_usable());
        assert!(world.events.borrow().contains(&Event::GoawayReceived));
        // The second was left out: safe to retry elsewhere. So is a new one.
        for refused in [second, open(&opener)] {
            let error = refused.await.unwrap().unwrap_err();
            assert!(matches!(error, OpenError::NotSent(_)), "{error:?}");
            assert!(error.is_retryable());
        }
        send_all(&mut send, Bytes::from("up")).await.unwrap();
        assert_eq!(peer.find(&[DATA]).await.unwrap().payload, b"up");
        peer.send(&data(stream, b"down", true)).await;
        assert_eq!(receive_all(&mut recv).await.unwrap(), b"down");
        send.finish().unwrap();
        drop((recv, send));
        assert_eq!(driver.await.unwrap(), Ok(()));
    });
}

#[test]
fn goaway_with_an_error_fails_every_stream_with_a_clear_text() {
    run(async || {
        let (mut peer, opener, driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        let (first, second) = (open(&opener), open(&opener));
        let stream = accept(&mut peer).await;
        peer.find(&[HEADERS]).await.unwrap();
        let (mut recv, mut send) = first.await.unwrap().unwrap().split();
        peer.send(&goaway(stream + 2, 0xb)).await;
        drop(peer);
        let failure = driver.await.unwrap().unwrap_err();
        assert!(failure.to_string().starts_with("h2 failed: "), "{failure}");
        let error = receive(&mut recv).await.unwrap_err();
        assert!(matches!(error, StreamError::Connection(_)), "{error:?}");
        assert!(matches!(
            send_all(&mut send, Bytes::from("x")).await,
            Err(StreamError::Connection(_) | StreamError::GoneAway)
        ));
        // The peer had taken the second request: it may have acted on it.
        let error = second.await.unwrap().unwrap_err();
        assert!(matches!(error, OpenError::Connection(_)), "{error:?}");
        assert!(!error.is_retryable());
    });
}

#[test]
fn a_refused_stream_may_be_retried() {
    run(async || {
        let (mut peer, opener, _driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        let opening = open(&opener);
        let request = peer.find(&[HEADERS]).await.unwrap();
        peer.send(&reset(request.stream, 7)).await;
        let error = opening.await.unwrap().unwrap_err();
        assert_eq!(error, OpenError::Reset(ResetCode::RefusedStream));
        assert!(error.is_retryable());

        let opening = open(&opener);
        let request = peer.find(&[HEADERS]).await.unwrap();
        peer.send(&reset(request.stream, 8)).await;
        let error = opening.await.unwrap().unwrap_err();
        assert_eq!(error, OpenError::Reset(ResetCode::Cancel));
        assert!(!error.is_retryable());
    });
}

#[test]
fn streams_beyond_the_peers_limit_wait_and_are_retryable_when_never_sent() {
    run(async || {
        let (mut peer, opener, driver) = raw_server(&World::new()).await;
        assert_eq!(opener.peer_max_streams(), 100);
        peer.send(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await;
        settle().await;
        assert_eq!(opener.peer_max_streams(), 1);
        let (first, second, third) = (open(&opener), open(&opener), open(&opener));
        let stream = accept(&mut peer).await;
        drop(first.await.unwrap().unwrap());
        assert_eq!(
            peer.find(&[RST_STREAM, HEADERS]).await.unwrap().stream,
            stream
        );
        // The first is gone, so the second goes out; the third still waits when the tunnel breaks.
        assert_eq!(peer.find(&[HEADERS]).await.unwrap().stream, stream + 2);
        assert_eq!(opener.in_flight(), 2);
        drop(peer);
        let _ = driver.await.unwrap();
        assert!(!second.await.unwrap().unwrap_err().is_retryable());
        assert!(third.await.unwrap().unwrap_err().is_retryable());
        assert!(!opener.is_usable());
        assert!(open(&opener).await.unwrap().unwrap_err().is_retryable());
    });
}

#[test]
fn a_tunnel_let_go_says_goaway_when_its_last_stream_ends() {
    for ordered in [true, false] {
        run(async || {
            let (mut peer, opener, driver) = raw_server(&World::new()).await;
            greet(&mut peer).await;
            let opening = open(&opener);
            let stream = accept(&mut peer).await;
            let (mut recv, mut send) = opening.await.unwrap().unwrap().split();
            if ordered {
                opener.close_when_idle();
                assert!(!opener.is_usable());
                let error = open(&opener).await.unwrap().unwrap_err();
                assert!(error.is_retryable());
            } else {
                drop(opener);
            }
            settle().await;
            assert!(!driver.is_finished());
            send_all(&mut send, Bytes::from("late")).await.unwrap();
            send.finish().unwrap();
            peer.send(&data(stream, b"", true)).await;
            assert_eq!(receive(&mut recv).await, Ok(None));
            drop((recv, send));
            let seen = peer.find(&[DATA, GOAWAY]).await.unwrap();
            assert_eq!(seen.payload, b"late");
            let seen = peer.find(&[GOAWAY]).await.unwrap();
            assert_eq!((seen.last_stream(), seen.code()), (0, 0));
            assert!(peer.next().await.is_none());
            drop(peer);
            assert_eq!(driver.await.unwrap(), Ok(()));
        });
    }
}

#[test]
fn an_aborted_tunnel_is_dropped_without_goaway() {
    run(async || {
        let (mut peer, opener, driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        let opening = open(&opener);
        accept(&mut peer).await;
        let (mut recv, _send) = opening.await.unwrap().unwrap().split();
        opener.abort();
        assert_eq!(driver.await.unwrap(), Err(HboneError::Aborted));
        assert_eq!(
            receive(&mut recv).await,
            Err(StreamError::Connection(
                "h2 failed: connection aborted".into()
            ))
        );
        assert!(peer.find(&[GOAWAY]).await.is_none());
    });
}

#[test]
fn a_broken_connection_never_looks_like_an_end() {
    run(async || {
        let (mut peer, opener, driver) = raw_server(&World::new()).await;
        greet(&mut peer).await;
        let opening = open(&opener);
        let stream = accept(&mut peer).await;
        let (mut recv, _send) = opening.await.unwrap().unwrap().split();
        peer.send(&data(stream, b"half a", false)).await;
        drop(peer);
        let _ = driver.await.unwrap();
        assert_eq!(receive(&mut recv).await, Ok(Some(Bytes::from("half a"))));
        assert!(matches!(
            receive(&mut recv).await,
            Err(StreamError::Connection(_))
        ));
    });
}
