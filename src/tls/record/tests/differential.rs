//! Ours and the plain TLS library's, each against each: the same bytes, ends and errors.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::Connection;

use super::*;
use crate::tls::dev_pki::Authority;
use crate::tls::error::TlsError;
use crate::tls::handshake::{accept, connect};
use crate::tls::testing::{PipeEnd, PipeOptions, expecting, identity, pipe, run_all, run_both};
use crate::tls::{Credentials, Records, TlsOptions, TlsStream};
use crate::transport::{Transport, recv, send_all};

const PAIRINGS: [[Records; 2]; 4] = [
    [Records::InPlace, Records::InPlace],
    [Records::InPlace, Records::Library],
    [Records::Library, Records::InPlace],
    [Records::Library, Records::Library],
];

/// A pipe's end that flips a bit of the next bytes sent when told to.
struct Bent {
    end: PipeEnd,
    bend: Rc<Cell<bool>>,
}

impl Transport for Bent {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.end.poll_recv(cx, buffer)
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.bend.replace(false) {
            return self.end.poll_send(cx, slices);
        }
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        *bytes.last_mut().unwrap() ^= 1;
        let sent = self.end.poll_send(cx, &[IoSlice::new(&bytes)]);
        assert!(matches!(sent, Poll::Ready(Ok(count)) if count == bytes.len()));
        sent
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_close(cx)
    }
}

type Stream = TlsStream<Bent>;

fn credentials(authority: &Authority, name: &str, records: Records) -> Credentials {
    let options = TlsOptions {
        records,
        ..TlsOptions::default()
    };
    authority
        .credentials(&identity(name), options, SystemTime::now())
        .unwrap()
}

/// Client and server after their handshake, and what bends the client's bytes.
fn pair(pairing: [Records; 2], options: PipeOptions) -> (Stream, Stream, Rc<Cell<bool>>) {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let client = credentials(&authority, "client", pairing[0]);
    let server = credentials(&authority, "server", pairing[1]);
    let bend = Rc::new(Cell::new(false));
    let (near, far) = pipe(options);
    let near = Bent {
        end: near,
        bend: Rc::clone(&bend),
    };
    let far = Bent {
        end: far,
        bend: Rc::default(),
    };
    let expected = expecting(&["server"]);
    let (client, server) = run_both(
        async { connect(near, &client, &expected).await.unwrap().0 },
        async { accept(far, &server).await.unwrap().0 },
    );
    (client, server, bend)
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

/// Sends in random pieces, flushing and changing keys at random, then closes.
async fn send_erratically(stream: &RefCell<Stream>, data: &[u8], largest: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sent = 0;
    while sent < data.len() {
        let end = data.len().min(sent + random.usize(1..=largest));
        let (one, two) = data[sent..end].split_at(random.usize(0..=end - sent));
        let slices = [IoSlice::new(one), IoSlice::new(two)];
        sent += poll_fn(|cx| stream.borrow_mut().poll_send(cx, &slices))
            .await
            .unwrap();
        if random.u8(..8) == 0 {
            stream.borrow_mut().update_key();
        }
        if random.u8(..4) == 0 {
            poll_fn(|cx| stream.borrow_mut().poll_flush(cx))
                .await
                .unwrap();
        }
    }
    poll_fn(|cx| stream.borrow_mut().poll_close(cx))
        .await
        .unwrap();
}

async fn receive_erratically(stream: &RefCell<Stream>, largest: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut data = Vec::new();
    loop {
        let mut buffer = vec![0; random.usize(1..=largest)];
        let count = poll_fn(|cx| stream.borrow_mut().poll_recv(cx, &mut buffer))
            .await
            .unwrap();
        if count == 0 {
            return data;
        }
        data.extend_from_slice(&buffer[..count]);
    }
}

/// Both directions at once, in all pairings, with keys changing all the time.
fn exchange(options: PipeOptions, largest: usize, bytes: usize, seed: u64) {
    for pairing in PAIRINGS {
        let (client, server, _) = pair(pairing, options);
        let ends = [client, server].map(RefCell::new);
        let data = [pattern(seed, bytes), pattern(seed + 1, bytes / 2)];
        let got = [const { RefCell::new(Vec::new()) }; 2];
        let receive = async |n: usize| {
            *got[n].borrow_mut() = receive_erratically(&ends[n], largest, seed + 2).await;
        };
        run_all(vec![
            Box::pin(send_erratically(&ends[0], &data[0], largest, seed)),
            Box::pin(send_erratically(&ends[1], &data[1], largest, seed + 3)),
            Box::pin(receive(0)),
            Box::pin(receive(1)),
        ]);
        assert!(
            *got[1].borrow() == data[0],
            "{pairing:?} to the server, {seed}"
        );
        assert!(
            *got[0].borrow() == data[1],
            "{pairing:?} to the client, {seed}"
        );
    }
}

#[test]
fn random_pieces_arrive_unchanged_while_keys_change() {
    for (seed, capacity, largest) in [
        (10, 700, 300),
        (20, 5_000, 40_000),
        (30, 100_000, 100_000),
        (40, 1 << 20, 400_000),
    ] {
        let options = PipeOptions {
            capacity,
            step: usize::MAX,
            erratic: true,
        };
        exchange(options, largest, largest * 10, seed);
    }
}

#[test]
fn bytes_delivered_one_at_a_time_arrive_unchanged_while_keys_change() {
    let options = PipeOptions {
        step: 1,
        ..PipeOptions::default()
    };
    exchange(options, 500, 20_000, 50);
}

#[test]
fn large_transfers_under_back_pressure_arrive_unchanged() {
    let options = PipeOptions {
        capacity: 64 * 1024,
        ..PipeOptions::default()
    };
    exchange(options, 300_000, 6_000_000, 60);
}

#[test]
fn data_behind_the_last_flight_is_not_lost() {
    for pairing in PAIRINGS {
        let authority = Authority::new("root", SystemTime::now()).unwrap();
        let client = credentials(&authority, "client", pairing[0]);
        let server = credentials(&authority, "server", pairing[1]);
        for step in [7, 1000, usize::MAX] {
            let (near, far) = pipe(PipeOptions {
                step,
                ..PipeOptions::default()
            });
            let data = pattern(8, 40_000);
            let expected = expecting(&["server"]);
            let (_client, got) = run_both(
                async {
                    let (mut stream, _) = connect(near, &client, &expected).await.unwrap();
                    send_all(&mut stream, &data).await.unwrap();
                    poll_fn(|cx| stream.poll_close(cx)).await.unwrap();
                    stream
                },
                async {
                    let (mut stream, _) = accept(far, &server).await.unwrap();
                    let mut got = Vec::new();
                    let mut buffer = vec![0; 9000];
                    loop {
                        match recv(&mut stream, &mut buffer).await.unwrap() {
                            0 => return got,
                            count => got.extend_from_slice(&buffer[..count]),
                        }
                    }
                },
            );
            assert!(got == data, "{pairing:?} {step}");
        }
    }
}

#[test]
fn a_half_closed_session_goes_on_in_the_other_direction() {
    for pairing in PAIRINGS {
        let (mut client, mut server, _) = pair(pairing, PipeOptions::default());
        let mut buffer = [0; 32];
        let (answer, ()) = run_both(
            async {
                send_all(&mut client, b"question").await.unwrap();
                poll_fn(|cx| client.poll_close(cx)).await.unwrap();
                let more = poll_fn(|cx| client.poll_send(cx, &[IoSlice::new(b"x")])).await;
                assert_eq!(more.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
                let mut answer = Vec::new();
                let mut buffer = [0; 32];
                loop {
                    match recv(&mut client, &mut buffer).await.unwrap() {
                        0 => return answer,
                        count => answer.extend_from_slice(&buffer[..count]),
                    }
                }
            },
            async {
                assert_eq!(recv(&mut server, &mut buffer).await.unwrap(), 8);
                for _ in 0..2 {
                    assert_eq!(recv(&mut server, &mut buffer).await.unwrap(), 0);
                }
                server.update_key();
                send_all(&mut server, b"answer").await.unwrap();
                poll_fn(|cx| server.poll_close(cx)).await.unwrap();
            },
        );
        assert_eq!(answer, b"answer", "{pairing:?}");
    }
}

#[test]
fn an_altered_record_is_told_by_bad_record_mac() {
    for pairing in PAIRINGS {
        let (mut client, mut server, bend) = pair(pairing, PipeOptions::default());
        let (told, refused) = run_both(
            async {
                send_all(&mut client, b"good").await.unwrap();
                bend.set(true);
                send_all(&mut client, b"bent").await.unwrap();
                recv(&mut client, &mut [0; 16]).await.unwrap_err()
            },
            async {
                let mut buffer = [0; 16];
                assert_eq!(recv(&mut server, &mut buffer[..4]).await.unwrap(), 4);
                assert_eq!(&buffer[..4], b"good");
                recv(&mut server, &mut buffer).await.unwrap_err()
            },
        );
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{pairing:?}");
        let told = told.get_ref().and_then(|error| error.downcast_ref());
        assert_eq!(told, Some(&TlsError::Alert(20)), "{pairing:?}");
    }
}

#[test]
fn a_session_that_is_cut_is_no_clean_end() {
    for pairing in PAIRINGS {
        let (mut client, mut server, _) = pair(pairing, PipeOptions::default());
        let (kind, ()) = run_both(
            async {
                let mut buffer = [0; 16];
                assert_eq!(recv(&mut client, &mut buffer).await.unwrap(), 4);
                recv(&mut client, &mut buffer).await.unwrap_err().kind()
            },
            async {
                send_all(&mut server, b"half").await.unwrap();
                drop(server);
            },
        );
        assert_eq!(kind, io::ErrorKind::UnexpectedEof, "{pairing:?}");
    }
}

#[test]
fn tickets_of_a_server_that_sends_them_are_passed_over() {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let client = credentials(&authority, "client", Records::InPlace);
    let server = credentials(&authority, "server", Records::Library);
    let mut config = rustls::ServerConfig::clone(&server.server());
    config.send_tls13_tickets = 6;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(32);
    let server = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    let (near, far) = pipe(PipeOptions::default());
    let mut far = crate::tls::session::Session::new(far, Connection::Server(server));
    let expected = expecting(&["server"]);
    let (got, ()) = run_both(
        async {
            let (mut stream, _) = connect(near, &client, &expected).await.unwrap();
            let mut buffer = [0; 16];
            let count = recv(&mut stream, &mut buffer).await.unwrap();
            buffer[..count].to_vec()
        },
        async {
            poll_fn(|cx| far.poll_handshake(cx)).await.unwrap();
            poll_fn(|cx| far.poll_send(cx, &[IoSlice::new(b"hello")]))
                .await
                .unwrap();
            poll_fn(|cx| far.poll_flush(cx)).await.unwrap();
        },
    );
    assert_eq!(got, b"hello");
}

#[test]
fn sessions_with_aes_128_work_and_change_keys() {
    let authority = Authority::new("root", SystemTime::now()).unwrap();
    let client = credentials(&authority, "client", Records::InPlace);
    let server = credentials(&authority, "server", Records::Library).server();
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&server.cert_resolver));
    config.alpn_protocols.clone_from(&server.alpn_protocols);
    let server = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    let (near, far) = pipe(PipeOptions::default());
    let mut far = crate::tls::session::Session::new(far, Connection::Server(server));
    let expected = expecting(&["server"]);
    run_both(
        async {
            let (mut stream, peer) = connect(near, &client, &expected).await.unwrap();
            assert_eq!(peer.cipher, "TLS_AES_128_GCM_SHA256");
            for n in 0..20_u8 {
                stream.update_key();
                send_all(&mut stream, &[n; 1000]).await.unwrap();
                let mut echo = [0; 1000];
                assert_eq!(recv(&mut stream, &mut echo).await.unwrap(), 1000);
                assert_eq!(echo, [n; 1000]);
            }
        },
        async {
            poll_fn(|cx| far.poll_handshake(cx)).await.unwrap();
            for _ in 0..20 {
                let mut bytes = [0; 1000];
                let got = poll_fn(|cx| far.poll_recv(cx, &mut bytes)).await.unwrap();
                assert_eq!(got, 1000);
                poll_fn(|cx| far.poll_send(cx, &[IoSlice::new(&bytes)]))
                    .await
                    .unwrap();
                poll_fn(|cx| far.poll_flush(cx)).await.unwrap();
            }
        },
    );
}

#[test]
fn both_ways_prove_the_same_about_the_peer() {
    for pairing in PAIRINGS {
        let (client, server, _) = pair(pairing, PipeOptions::default());
        for (stream, name) in [(&client, "server"), (&server, "client")] {
            let peer = stream.peer();
            assert_eq!(peer.identity.as_deref(), Some(&identity(name)));
            assert_eq!(peer.version, "TLSv1.3");
            assert_eq!(peer.group, "X25519MLKEM768");
            assert_eq!(peer.cipher, "TLS_AES_256_GCM_SHA384");
        }
    }
}
