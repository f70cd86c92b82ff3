//! The end of a node: streams finish, new ones are refused, force ends everything in every state.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::node::{
    DRIVERS, Mute, Node, Pair, Plans, Running, any, exchange, forward, is_reset, patient, server,
    until,
};
use crate::config::Config;
use crate::dataplane::shard::{ListenerRole, Message};
use crate::snapshot::builder::Change;

#[test]
fn while_the_server_drains_its_streams_go_on_and_new_ones_are_refused() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        pair.server.mailbox.send(Message::Drain).unwrap();
        until("the listener to close", || {
            TcpStream::connect(pair.server.addr()).is_err()
        });
        exchange(&mut client, &mut server);
        // GOAWAY was sent before the listener closed or soon after: once the client's node knows,
        // it dials, and is refused.
        until("new connections to be refused", || {
            let mut next = pair.client.connect();
            next.set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            is_reset(&mut next)
        });
        exchange(&mut client, &mut server);
        drop((client, server, pair.application));
        pair.server.ended().unwrap();
        pair.client.stop(Message::Force);
    }
}

#[test]
fn while_the_client_drains_its_streams_go_on_and_it_ends_with_the_last() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |_| {});
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        pair.client.mailbox.send(Message::Drain).unwrap();
        pair.client.wait_closed();
        exchange(&mut client, &mut server);
        drop((client, server));
        pair.client.ended().unwrap();
        until("the tunnel to close", || {
            pair.server.counters.tunnels_server_open.get() == 0
        });
        pair.server.stop(Message::Drain);
    }
}

#[test]
fn forced_relays_are_reset_on_both_sides() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let node = Running::start(driver, addr, |_| {});
        let mut client = node.connect();
        let mut application = patient(listener.accept().unwrap().0);
        exchange(&mut client, &mut application);
        node.stop(Message::Force);
        assert!(is_reset(&mut client), "{driver:?}");
        assert!(is_reset(&mut application), "{driver:?}: cut, not complete");
        let mut pair = Pair::new(driver, |_| {});
        for force_client in [true, false] {
            let (mut client, mut application) = pair.open();
            exchange(&mut client, &mut application);
            let forced = if force_client {
                &mut pair.client
            } else {
                &mut pair.server
            };
            forced.mailbox.send(Message::Force).unwrap();
            forced.ended().unwrap();
            assert!(is_reset(&mut client), "{driver:?} {force_client}");
            assert!(is_reset(&mut application), "{driver:?} {force_client}");
            if force_client {
                pair.server.stop(Message::Drain);
                pair = Pair::new(driver, |_| {});
            } else {
                pair.client.stop(Message::Drain);
                break;
            }
        }
    }
}

/// Deadlines far beyond the test's patience: only force can end what waits for them.
fn patient_config(config: &mut Config) {
    let long = Duration::from_secs(600);
    let timeouts = &mut config.timeouts;
    for limit in [
        &mut timeouts.handshake,
        &mut timeouts.connect_answer,
        &mut timeouts.dial,
        &mut timeouts.workload_wait,
        &mut timeouts.policy_wait,
    ] {
        *limit = long;
    }
}

fn until_busy(node: &Running) {
    until("a connection", || node.counters.connections_open.get() > 0);
}

#[test]
fn force_ends_a_plain_dial_and_a_wait_for_a_workload() {
    for driver in DRIVERS {
        let mute = Mute::new();
        let dialling = Running::start(driver, mute.addr, patient_config);
        let mut unknown = Node::new(forward(mute.addr, "nobody"));
        patient_config(&mut unknown.config);
        let mut socks = Node::new((any(), ListenerRole::Socks5));
        socks.change = Change::default();
        patient_config(&mut socks.config);
        for node in [dialling, unknown.start(driver), socks.start(driver)] {
            let mut client = node.connect();
            until_busy(&node);
            node.stop(Message::Force);
            assert!(is_reset(&mut client), "{driver:?}");
        }
    }
}

#[test]
fn force_ends_the_dial_and_the_handshake_of_a_tunnel() {
    for driver in DRIVERS {
        let mute = Mute::new();
        let (silent, at) = server();
        for inbound in [mute.addr, at] {
            let mut plans = Plans::new();
            plans.client.config.listeners.inbound = Some(inbound);
            patient_config(&mut plans.client.config);
            let node = plans.client.start(driver);
            let mut client = node.connect();
            until_busy(&node);
            if inbound == at {
                // Held open: the handshake is under way.
                std::mem::forget(silent.accept().unwrap());
            }
            node.stop(Message::Force);
            assert!(is_reset(&mut client), "{driver:?}");
        }
    }
}

#[test]
fn force_ends_an_inbound_handshake_and_streams_in_every_wait() {
    for driver in DRIVERS {
        // A peer that says nothing.
        let mut plans = Plans::new();
        patient_config(&mut plans.server.config);
        let server = plans.server.start(driver);
        let mut silent = server.connect();
        until_busy(&server);
        server.stop(Message::Force);
        assert!(is_reset(&mut silent), "{driver:?}");
        // Streams that wait for a policy, for their workload, and for the application.
        for wait in 0..3 {
            let mute = Mute::new();
            let mut plans = Plans::new();
            patient_config(&mut plans.server.config);
            patient_config(&mut plans.client.config);
            let mut backend = plans.backend.clone();
            match wait {
                0 => {
                    backend.authorization_policies = vec!["default/unknown".into()];
                    plans.server.change.workloads = vec![backend.clone()];
                }
                1 => {}
                _ => plans.client.listen[0] = forward(mute.addr, "client"),
            }
            let mut pair = plans.start(driver);
            if wait == 1 {
                // The tunnel comes up, then the workload is gone.
                let (mut client, mut server) = pair.open();
                exchange(&mut client, &mut server);
                pair.server.change(Change {
                    removed_addresses: vec![backend.uid],
                    ..Change::default()
                });
            }
            let before = pair.server.counters.streams_server_opened.get();
            let mut client = pair.client.connect();
            until("the stream", || {
                pair.server.counters.streams_server_opened.get() > before
            });
            pair.server.stop(Message::Force);
            assert!(is_reset(&mut client), "{driver:?} wait {wait}");
            pair.client.stop(Message::Force);
        }
    }
}

#[test]
fn a_drain_that_meets_idle_tunnels_ends_at_once() {
    for driver in DRIVERS {
        for client_first in [true, false] {
            let mut pair = Pair::new(driver, |_| {});
            let (mut client, mut server) = pair.open();
            exchange(&mut client, &mut server);
            client.shutdown(std::net::Shutdown::Write).unwrap();
            server.shutdown(std::net::Shutdown::Write).unwrap();
            until("the stream to end", || {
                pair.client.counters.relays_open.get() == 0
                    && pair.server.counters.relays_open.get() == 0
            });
            let mut ends = [&mut pair.client, &mut pair.server];
            if !client_first {
                ends.reverse();
            }
            for end in ends {
                end.mailbox.send(Message::Drain).unwrap();
                end.ended().unwrap();
                assert_eq!(end.counters.tunnels_client_open.get(), 0, "{driver:?}");
                assert_eq!(end.counters.tunnels_server_open.get(), 0, "{driver:?}");
                assert_eq!(end.counters.connections_open.get(), 0, "{driver:?}");
            }
        }
    }
}

#[test]
fn clients_that_come_and_go_while_a_node_starts_to_drain_are_all_answered() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let mut node = Running::start(driver, addr, |_| {});
        let echo = std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                if stream.write_all(b"!").is_err() || peer.port() == 0 {
                    return;
                }
            }
        });
        let mut served = 0;
        for round in 0..200 {
            if round == 100 {
                node.mailbox.send(Message::Drain).unwrap();
            }
            let Ok(stream) = TcpStream::connect(node.addr()) else {
                break;
            };
            let mut stream = patient(stream);
            // Served, or reset with the queue of the closing listener: never left hanging.
            let answer = std::io::Read::read(&mut stream, &mut [0]);
            assert!(
                !matches!(&answer, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            );
            served += usize::from(matches!(answer, Ok(1)));
        }
        assert!(served >= 100, "{driver:?}: {served}");
        node.ended().unwrap();
        drop(echo);
    }
}
