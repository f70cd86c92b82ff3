//! Two shards and a tunnel between them: HBONE over mutual TLS on loopback, both drivers.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use super::node::{DRIVERS, Pair, pattern};
use crate::dataplane::shard::Message;

#[test]
fn bytes_and_half_closes_pass_through_a_tunnel() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |_| {});
        for seed in 0..3 {
            let (mut client, mut server) = pair.open();
            let (up, down) = (pattern(3_000_000, seed), pattern(5_000_000, seed + 10));
            let application = {
                let down = down.clone();
                std::thread::spawn(move || {
                    let mut received = Vec::new();
                    server.read_to_end(&mut received).unwrap();
                    server.write_all(&down).unwrap();
                    received
                })
            };
            client.write_all(&up).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            assert!(received == down, "{driver:?}: server to client");
            assert!(
                application.join().unwrap() == up,
                "{driver:?}: client to server"
            );
        }
        assert_eq!(pair.client.counters.tunnels_client_opened.get(), 1);
        assert_eq!(pair.client.counters.streams_client_opened.get(), 3);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_reset_passes_through_a_tunnel_in_both_directions() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |_| {});
        for client_resets in [true, false] {
            let (mut client, mut server) = pair.open();
            client.write_all(b"up").unwrap();
            server.read_exact(&mut [0; 2]).unwrap();
            server.write_all(b"down").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
            let (gone, mut left) = if client_resets {
                (client, server)
            } else {
                (server, client)
            };
            crate::sys::socket::reset_on_close(gone.as_fd());
            drop(gone);
            let error = left.read(&mut [0; 1]).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{driver:?}"
            );
        }
        pair.stop(|| Message::Drain);
    }
}
