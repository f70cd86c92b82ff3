//! Limits: each is counted, and answered as chosen.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::node::{
    DRIVERS, Mute, Node, Pair, Plans, any, exchange, forward, is_reset, patient, server, until,
};
use crate::config::limits::Limits;
use crate::dataplane::shard::{ListenerRole, Message};
use crate::telemetry::counters::{Limit, Role};

/// Whether the connection has ended, in whatever way.
fn is_over(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 16]), Ok(1..))
}

#[test]
fn silent_peers_are_limited_for_each_source_and_in_all() {
    for driver in DRIVERS {
        for (limit, set) in [
            (
                Limit::UnauthenticatedPerSource,
                (|limits| limits.unauthenticated_per_source = 2) as fn(&mut Limits),
            ),
            (Limit::UnauthenticatedTotal, |limits| {
                limits.unauthenticated = Some(2);
            }),
        ] {
            let mut plans = Plans::new();
            set(&mut plans.server.config.limits);
            plans.server.config.timeouts.handshake = Duration::from_secs(60);
            let pair = plans.start(driver);
            let silent = [pair.server.connect(), pair.server.connect()];
            until("both to be held", || {
                pair.server.counters.connections_open.get() == 2
            });
            assert!(is_reset(&mut pair.server.connect()), "{limit:?}");
            pair.server.reached(limit, 1);
            pair.server.logged("too many unauthenticated connections");
            assert!(is_reset(&mut pair.client.connect()), "no tunnel either");
            drop(silent);
            until("room", || pair.server.counters.connections_open.get() == 0);
            let (mut client, mut server) = pair.open();
            exchange(&mut client, &mut server);
            // An open tunnel is no unauthenticated peer.
            let silent = [pair.server.connect(), pair.server.connect()];
            until("both to be held", || {
                pair.server.counters.connections_open.get() == 3
            });
            pair.server.reached(limit, 2);
            drop((silent, client, server));
            pair.stop(|| Message::Drain);
        }
    }
}

#[test]
fn streams_count_as_connections_of_the_node_that_takes_them() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        plans.server.config.limits.connections = Some(3);
        let pair = plans.start(driver);
        // One for the tunnel, two for its streams.
        let mut first = pair.open();
        let mut second = pair.open();
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server.reached(Limit::Connections, 1);
        pair.server.logged("too many connections");
        pair.client.logged("http status: 503 Service Unavailable");
        exchange(&mut first.0, &mut first.1);
        exchange(&mut second.0, &mut second.1);
        drop(first);
        let relays = &pair.server.counters.relays_open;
        until("a stream to end", || relays.get() == 1);
        let (mut next, mut server) = pair.open();
        exchange(&mut next, &mut server);
        drop((next, server, second));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_silent_client_is_closed_when_its_handshake_is_overdue() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| {
            config.timeouts.handshake = Duration::from_millis(100);
        });
        for words in [&b""[..], b"\x16\x03\x01\x01\x00\x01"] {
            let mut client = pair.server.connect();
            client.write_all(words).unwrap();
            assert!(is_over(&mut client), "{driver:?}");
        }
        pair.server.reached(Limit::HandshakeTimeout, 2);
        pair.server.handshakes_failed(Role::Server, 2);
        assert_eq!(pair.server.counters.tunnels_server_opened.get(), 0);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn clear_text_on_the_hbone_port_is_closed() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |_| {});
        let mut client = pair.server.connect();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        until("the end", || is_over(&mut client));
        pair.server.handshakes_failed(Role::Server, 1);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_silent_server_is_given_up_when_its_handshake_is_overdue() {
    for driver in DRIVERS {
        let (silent, addr) = server();
        let mut plans = Plans::new();
        plans.client.config.listeners.inbound = Some(addr);
        plans.client.config.timeouts.handshake = Duration::from_millis(100);
        let client = plans.client.start(driver);
        assert!(is_reset(&mut client.connect()), "{driver:?}");
        client.reached(Limit::HandshakeTimeout, 1);
        client.handshakes_failed(Role::Client, 1);
        drop(silent);
        client.stop(Message::Drain);
    }
}

#[test]
fn an_unanswered_connect_is_given_up_and_its_tunnel_goes_on() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        // The application takes no connection, so its node has nothing to answer.
        let mute = Mute::new();
        plans.client.listen.push(forward(mute.addr, "client"));
        plans.client.config.timeouts.connect_answer = Duration::from_millis(200);
        let pair = plans.start(driver);
        let (mut client, mut server) = pair.open();
        let mut unanswered = patient(TcpStream::connect(pair.client.addrs[1]).unwrap());
        assert!(is_reset(&mut unanswered), "{driver:?}");
        pair.client.reached(Limit::ConnectAnswerTimeout, 1);
        pair.client.logged("did not answer the CONNECT within");
        exchange(&mut client, &mut server);
        assert_eq!(pair.client.counters.tunnels_client_opened.get(), 1);
        // The other node stops dialling for a stream that was reset.
        drop((client, server));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_dial_without_answer_is_given_up() {
    for driver in DRIVERS {
        let mute = Mute::new();
        let mut node = Node::new(forward(mute.addr, "client"));
        node.config.timeouts.dial = Duration::from_millis(100);
        let node = node.start(driver);
        assert!(is_reset(&mut node.connect()), "{driver:?}");
        node.reached(Limit::DialTimeout, 1);
        node.stop(Message::Drain);
    }
}

#[test]
fn a_socks_client_that_says_nothing_is_closed() {
    for driver in DRIVERS {
        let mut node = Node::new((any(), ListenerRole::Socks5));
        node.config.timeouts.handshake = Duration::from_millis(100);
        let node = node.start(driver);
        let mut client = node.connect();
        client.write_all(&[5]).unwrap();
        assert!(is_reset(&mut client), "{driver:?}");
        node.reached(Limit::HandshakeTimeout, 1);
        node.stop(Message::Drain);
    }
}

#[test]
fn two_thousand_ready_sockets_on_the_smallest_ring_lose_nothing() {
    for driver in DRIVERS {
        crate::sys::fds::raise_limit().unwrap();
        let count = usize::try_from(crate::sys::fds::limit() / 10)
            .unwrap()
            .min(2_000);
        let (listener, addr) = server();
        let node = super::node::Running::start(driver, addr, |config| {
            config.ring_entries = 64;
            config.limits.connections = Some(10_000);
        });
        let open: Vec<_> = (0..count)
            .map(|_| {
                let client = node.connect();
                (client, patient(listener.accept().unwrap().0))
            })
            .collect();
        let word = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
        for (number, (mut client, _)) in open.iter().map(|(c, s)| (c, s)).enumerate() {
            client.write_all(&word(number)).unwrap();
        }
        for (number, (_, mut server)) in open.iter().map(|(c, s)| (c, s)).enumerate() {
            let mut seen = [0; 4];
            server.read_exact(&mut seen).unwrap();
            assert_eq!(seen, word(number), "{driver:?}");
            server.write_all(&seen).unwrap();
        }
        for (number, (mut client, _)) in open.iter().map(|(c, s)| (c, s)).enumerate() {
            let mut seen = [0; 4];
            client.read_exact(&mut seen).unwrap();
            assert_eq!(seen, word(number), "{driver:?}");
        }
        drop(open);
        node.stop(Message::Drain);
    }
}
