//! Plain relays through a forward.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::node::{DRIVERS, Running, pattern, server};
use crate::dataplane::shard::Message;

#[test]
fn bytes_pass_both_ways_and_each_half_close_passes_alone() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |_| {});
        let (up, down) = (pattern(3_000_000, 1), pattern(5_000_000, 2));
        let server = {
            let down = down.clone();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                // Ends only by the client's half close.
                stream.read_to_end(&mut received).unwrap();
                stream.write_all(&down).unwrap();
                received
            })
        };
        let mut client = shard.connect();
        client.write_all(&up).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == down, "{driver:?}: server to client");
        assert!(server.join().unwrap() == up, "{driver:?}: client to server");
        shard.stop(Message::Drain);
    }
}

#[test]
fn a_reset_of_either_side_resets_the_other() {
    for driver in DRIVERS {
        for client_resets in [true, false] {
            let (listener, addr) = server();
            let shard = Running::start(driver, addr, |_| {});
            let mut client = shard.connect();
            let (mut server, _) = listener.accept().unwrap();
            server
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
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
            shard.stop(Message::Drain);
        }
    }
}

#[test]
fn a_refused_dial_resets_the_client() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        drop(listener);
        let shard = Running::start(driver, addr, |_| {});
        let error = shard.connect().read(&mut [0; 1]).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{driver:?}"
        );
        shard.stop(Message::Drain);
    }
}

#[test]
fn draining_waits_for_open_connections_and_force_ends_them() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |_| {});
        let mut client = shard.connect();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"a").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
        shard.mailbox.send(Message::Drain).unwrap();
        // Draining closes the listener: new connections are refused while the old one works.
        while TcpStream::connect(shard.addr()).is_ok() {
            std::thread::yield_now();
        }
        server.write_all(b"still here").unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        shard.stop(Message::Force);
        assert!(
            client.read(&mut [0; 1]).is_err(),
            "{driver:?}: forced connections are reset"
        );
    }
}

#[test]
fn a_stopped_reader_does_not_stop_its_neighbours() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |_| {});
        let mut stalled = shard.connect();
        let (_never_read, _) = listener.accept().unwrap();
        stalled.set_nonblocking(true).unwrap();
        let block = pattern(256 * 1024, 3);
        let mut full = 0;
        while full < 100 {
            if stalled.write(&block).is_ok_and(|written| written > 0) {
                full = 0;
            } else {
                full += 1;
                std::thread::yield_now();
            }
        }
        let mut client = shard.connect();
        let (mut server, _) = listener.accept().unwrap();
        for round in 0..100_u8 {
            client.write_all(&[round]).unwrap();
            let mut seen = [0];
            server.read_exact(&mut seen).unwrap();
            server.write_all(&seen).unwrap();
            client.read_exact(&mut seen).unwrap();
            assert_eq!(seen, [round]);
        }
        shard.stop(Message::Force);
    }
}

#[test]
fn connections_above_the_limit_are_reset_and_room_is_reused() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |config| config.limits.connections = Some(1));
        let mut first = shard.connect();
        let (mut server, _) = listener.accept().unwrap();
        first.write_all(b"x").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
        assert!(shard.connect().read(&mut [0; 1]).is_err());
        drop((first, server));
        // The slot is free once both ends are gone: a connection is served again.
        let served = (0..1_000).any(|_| {
            let mut next = shard.connect();
            next.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let kind = next.read(&mut [0; 1]).map_err(|error| error.kind());
            kind == Err(std::io::ErrorKind::WouldBlock)
        });
        assert!(served, "{driver:?}");
        shard.stop(Message::Force);
    }
}
