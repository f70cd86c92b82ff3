//! Established sessions: bytes, ends and back-pressure.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::SystemTime;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::tls::dev_pki::Authority;
use crate::tls::handshake::{accept, connect};
use crate::tls::stream::TlsStream;
use crate::tls::testing::{PipeEnd, PipeOptions, credentials, expecting, pipe, run_all, run_both};
use crate::transport::{recv, send_all};

type Stream = TlsStream<PipeEnd>;

fn pair(options: PipeOptions) -> (Stream, Stream) {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let (near, far) = pipe(options);
    let (client, server) = run_both(
        async {
            connect(near, &client, &expecting(&["server"]))
                .await
                .unwrap()
                .0
        },
        async { accept(far, &server).await.unwrap().0 },
    );
    (client, server)
}

fn session_pair() -> (Session<PipeEnd>, Session<PipeEnd>) {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let name = ServerName::try_from("x").unwrap();
    let client = ClientConnection::new(client.client(&expecting(&["server"])), name).unwrap();
    let server = ServerConnection::new(server.server()).unwrap();
    let (near, far) = pipe(PipeOptions::default());
    let mut near = Session::new(near, Connection::Client(client));
    let mut far = Session::new(far, Connection::Server(server));
    let (one, two) = run_both(
        poll_fn(|cx| near.poll_handshake(cx)),
        poll_fn(|cx| far.poll_handshake(cx)),
    );
    one.unwrap();
    two.unwrap();
    (near, far)
}

/// Position-dependent bytes, so that a lost, doubled or moved byte shows.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

async fn send_randomly(stream: &RefCell<Stream>, data: &[u8], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent = 0;
    while sent < data.len() {
        let rest = &data[sent..(sent + 1 + random.usize(..100_000)).min(data.len())];
        let (one, two) = rest.split_at(random.usize(..=rest.len()));
        let slices = [IoSlice::new(one), IoSlice::new(two)];
        sent += poll_fn(|cx| stream.borrow_mut().poll_send(cx, &slices))
            .await
            .unwrap();
        if random.u8(..) < 64 {
            poll_fn(|cx| stream.borrow_mut().poll_flush(cx))
                .await
                .unwrap();
        }
    }
    poll_fn(|cx| stream.borrow_mut().poll_close(cx))
        .await
        .unwrap();
}

async fn receive_randomly(stream: &RefCell<Stream>, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut data = Vec::new();
    loop {
        let mut buffer = vec![0; 1 + random.usize(..100_000)];
        let count = poll_fn(|cx| stream.borrow_mut().poll_recv(cx, &mut buffer))
            .await
            .unwrap();
        if count == 0 {
            return data;
        }
        data.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn large_transfers_both_ways_arrive_unchanged() {
    for (seed, capacity) in [(1, 3000), (2, 20_000), (3, 128 * 1024), (4, 1 << 20)] {
        let options = PipeOptions {
            capacity,
            step: usize::MAX,
            erratic: true,
        };
        let (client, server) = pair(options);
        let ends = [client, server].map(RefCell::new);
        let data = [pattern(seed, 3_000_000), pattern(seed + 10, 2_000_000)];
        let got = [const { RefCell::new(Vec::new()) }; 2];
        run_all(vec![
            Box::pin(send_randomly(&ends[0], &data[0], seed)),
            Box::pin(send_randomly(&ends[1], &data[1], seed + 1)),
            Box::pin(async { *got[0].borrow_mut() = receive_randomly(&ends[0], seed + 2).await }),
            Box::pin(async { *got[1].borrow_mut() = receive_randomly(&ends[1], seed + 3).await }),
        ]);
        assert!(*got[1].borrow() == data[0], "to the server, seed {seed}");
        assert!(*got[0].borrow() == data[1], "to the client, seed {seed}");
    }
}

#[test]
fn one_byte_at_a_time_works_too() {
    let (mut client, mut server) = pair(PipeOptions {
        step: 1,
        ..PipeOptions::default()
    });
    let data = pattern(7, 20_000);
    let ((), got) = run_both(
        async {
            send_all(&mut client, &data).await.unwrap();
            poll_fn(|cx| client.poll_close(cx)).await.unwrap();
        },
        async {
            let mut got = Vec::new();
            let mut byte = [0; 1];
            while recv(&mut server, &mut byte).await.unwrap() == 1 {
                got.push(byte[0]);
            }
            got
        },
    );
    assert!(got == data);
}

#[test]
fn data_that_rides_with_the_last_flight_is_not_lost() {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let (near, far) = pipe(PipeOptions::default());
    // More than one receive, so that the library's own plaintext buffer fills as well.
    let data = pattern(8, 100_000);
    let (_client, got) = run_both(
        async {
            let expected = expecting(&["server"]);
            let (mut stream, _) = connect(near, &client, &expected).await.unwrap();
            // In one poll with the end of the handshake: the server finds all of it at once.
            send_all(&mut stream, &data).await.unwrap();
            poll_fn(|cx| stream.poll_close(cx)).await.unwrap();
            stream
        },
        async {
            let (stream, _) = accept(far, &server).await.unwrap();
            receive_randomly(&RefCell::new(stream), 3).await
        },
    );
    assert!(got == data);
}

#[test]
fn a_closed_direction_leaves_the_other_open() {
    let (mut client, mut server) = pair(PipeOptions::default());
    let (answer, ()) = run_both(
        async {
            send_all(&mut client, b"question").await.unwrap();
            poll_fn(|cx| client.poll_close(cx)).await.unwrap();
            let refused = poll_fn(|cx| client.poll_send(cx, &[IoSlice::new(b"more")])).await;
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            let mut answer = [0; 16];
            let count = recv(&mut client, &mut answer).await.unwrap();
            assert_eq!(recv(&mut client, &mut answer[count..]).await.unwrap(), 0);
            answer[..count].to_vec()
        },
        async {
            let mut question = [0; 16];
            assert_eq!(recv(&mut server, &mut question).await.unwrap(), 8);
            assert_eq!(recv(&mut server, &mut question).await.unwrap(), 0);
            assert_eq!(
                recv(&mut server, &mut question).await.unwrap(),
                0,
                "and stays so"
            );
            send_all(&mut server, b"answer").await.unwrap();
            poll_fn(|cx| server.poll_close(cx)).await.unwrap();
        },
    );
    assert_eq!(answer, b"answer");
}

#[test]
fn a_connection_cut_without_close_notify_is_not_a_clean_end() {
    let (mut client, mut server) = pair(PipeOptions::default());
    let (error, ()) = run_both(
        async {
            let mut buffer = [0; 16];
            assert_eq!(recv(&mut client, &mut buffer).await.unwrap(), 4);
            recv(&mut client, &mut buffer).await.unwrap_err()
        },
        async {
            send_all(&mut server, b"half").await.unwrap();
            drop(server);
        },
    );
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn an_altered_record_ends_the_session_after_the_data_before_it() {
    let (mut near, mut far) = session_pair();
    let (error, told) = run_both(
        async {
            poll_fn(|cx| near.poll_send(cx, &[IoSlice::new(b"good")]))
                .await
                .unwrap();
            poll_fn(|cx| near.poll_flush(cx)).await.unwrap();
            // A well-formed record header over bytes nobody sealed.
            let mut forged = vec![23, 3, 3, 0, 32];
            forged.extend([0; 32]);
            poll_fn(|cx| near.io.poll_send(cx, &[IoSlice::new(&forged)]))
                .await
                .unwrap();
            let mut buffer = [0; 16];
            poll_fn(|cx| near.poll_recv(cx, &mut buffer))
                .await
                .unwrap_err()
        },
        async {
            let mut buffer = [0; 16];
            let good = poll_fn(|cx| far.poll_recv(cx, &mut buffer)).await.unwrap();
            assert_eq!(&buffer[..good], b"good");
            poll_fn(|cx| far.poll_recv(cx, &mut buffer))
                .await
                .unwrap_err()
        },
    );
    assert_eq!(told.kind(), io::ErrorKind::InvalidData);
    let alert = error.get_ref().unwrap().downcast_ref::<TlsError>();
    assert_eq!(alert, Some(&TlsError::Alert(20)), "bad_record_mac");
}

#[test]
fn new_traffic_keys_go_unnoticed() {
    let (mut near, mut far) = session_pair();
    run_both(
        async {
            for n in 0..40_u8 {
                near.tls.refresh_traffic_keys().unwrap();
                poll_fn(|cx| near.poll_send(cx, &[IoSlice::new(&[n])]))
                    .await
                    .unwrap();
                poll_fn(|cx| near.poll_flush(cx)).await.unwrap();
                let mut echo = [0; 2];
                assert_eq!(
                    poll_fn(|cx| near.poll_recv(cx, &mut echo)).await.unwrap(),
                    1
                );
                assert_eq!(echo[0], n);
            }
        },
        async {
            for _ in 0..40 {
                let mut byte = [0; 2];
                let count = poll_fn(|cx| far.poll_recv(cx, &mut byte)).await.unwrap();
                let slices = [IoSlice::new(&byte[..count])];
                poll_fn(|cx| far.poll_send(cx, &slices)).await.unwrap();
                poll_fn(|cx| far.poll_flush(cx)).await.unwrap();
            }
        },
    );
}

#[test]
fn a_sender_waits_when_nobody_receives() {
    for size in [1, 1000, 300_000] {
        let (mut client, mut server) = pair(PipeOptions {
            capacity: 4096,
            ..PipeOptions::default()
        });
        let mut cx = Context::from_waker(Waker::noop());
        let chunk = vec![7; size];
        let mut taken = 0;
        while let Poll::Ready(sent) = client.poll_send(&mut cx, &[IoSlice::new(&chunk)]) {
            taken += sent.unwrap();
            assert!(
                taken <= UNSENT_BYTES_MAX + 4096 + TLS_RECORD_PLAINTEXT_BYTES_MAX,
                "{taken}"
            );
        }
        assert!(taken > 10_000, "{taken}");
        assert!(client.poll_flush(&mut cx).is_pending());
        let (got, ()) = run_both(
            async {
                let mut got = 0;
                let mut buffer = vec![0; 10_000];
                while got < taken {
                    got += recv(&mut server, &mut buffer).await.unwrap();
                }
                got
            },
            async {
                poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
            },
        );
        assert_eq!(got, taken);
    }
}

#[test]
fn an_idle_session_keeps_no_buffer() {
    let (mut near, mut far) = session_pair();
    let data = pattern(9, 200_000);
    let mut cx = Context::from_waker(Waker::noop());
    let (mut sent, mut got) = (0, Vec::new());
    let mut buffer = vec![0; 5000];
    while got.len() < data.len() {
        if sent < data.len()
            && let Poll::Ready(taken) = near.poll_send(&mut cx, &[IoSlice::new(&data[sent..])])
        {
            sent += taken.unwrap();
        }
        assert!(!matches!(near.poll_flush(&mut cx), Poll::Ready(Err(_))));
        if let Poll::Ready(count) = far.poll_recv(&mut cx, &mut buffer) {
            got.extend_from_slice(&buffer[..count.unwrap()]);
        }
        let held = far.stash.len() - far.stash_used;
        assert!(
            held < TLS_RECORD_BYTES_MAX,
            "a small buffer stashes little, not {held}"
        );
    }
    assert!(got == data);
    assert!(far.poll_recv(&mut cx, &mut buffer).is_pending());
    assert_eq!(far.stash.capacity(), 0);
    assert_eq!(near.unsent, 0);
}

#[test]
fn an_empty_buffer_receives_nothing_and_loses_nothing() {
    let (client, server) = pair(PipeOptions::default());
    let ends = [client, server].map(|end| Rc::new(RefCell::new(end)));
    let mut cx = Context::from_waker(Waker::noop());
    let mut client = ends[0].borrow_mut();
    let mut server = ends[1].borrow_mut();
    assert!(matches!(
        client.poll_send(&mut cx, &[IoSlice::new(b"")]),
        Poll::Ready(Ok(0))
    ));
    assert!(matches!(
        client.poll_send(&mut cx, &[IoSlice::new(b"x")]),
        Poll::Ready(Ok(1))
    ));
    assert!(matches!(client.poll_flush(&mut cx), Poll::Ready(Ok(()))));
    assert!(matches!(
        server.poll_recv(&mut cx, &mut []),
        Poll::Ready(Ok(0))
    ));
    let mut byte = [0; 1];
    assert!(matches!(
        server.poll_recv(&mut cx, &mut byte),
        Poll::Ready(Ok(1))
    ));
}

#[test]
fn sessions_nest() {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let [client, server] = ["client", "server"].map(|name| Arc::new(credentials(&authority, name)));
    let (near, far) = pair(PipeOptions {
        erratic: true,
        ..PipeOptions::default()
    });
    let data = pattern(10, 500_000);
    let ((), got) = run_both(
        async {
            let expected = expecting(&["server"]);
            let (mut inner, _) = connect(near, &client, &expected).await.unwrap();
            send_all(&mut inner, &data).await.unwrap();
            poll_fn(|cx| inner.poll_close(cx)).await.unwrap();
        },
        async {
            let (mut inner, _) = accept(far, &server).await.unwrap();
            let mut got = Vec::new();
            let mut buffer = vec![0; 30_000];
            loop {
                let count = recv(&mut inner, &mut buffer).await.unwrap();
                if count == 0 {
                    return got;
                }
                got.extend_from_slice(&buffer[..count]);
            }
        },
    );
    assert!(got == data);
}
