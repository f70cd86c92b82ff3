//! The tunnels a node opens: shared, limited, given up, opened again.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::node::{
    DRIVERS, Mute, Node, Pair, Plans, Running, any, exchange, forward, is_reset, patient, pki,
    server, store, until, workload,
};
use crate::config::DriverChoice;
use crate::dataplane::shard::{ListenerRole, Message};
use crate::telemetry::counters::Limit;

/// Waits until that many tunnels of the client are open.
fn until_open(pair: &Pair, count: i64) {
    let gauge = &pair.client.counters.tunnels_client_open;
    until("tunnels to come and go", || gauge.get() == count);
}

fn opened(pair: &Pair) -> u64 {
    pair.client.counters.tunnels_client_opened.get()
}

#[test]
fn many_connections_share_few_tunnels() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 10);
        let mut open: Vec<_> = (0..40).map(|_| pair.open()).collect();
        for (number, (client, server)) in open.iter_mut().enumerate() {
            let byte = [u8::try_from(number).unwrap()];
            client.write_all(&byte).unwrap();
            let mut seen = [0];
            server.read_exact(&mut seen).unwrap();
            assert_eq!(seen, byte);
        }
        assert_eq!(opened(&pair), 4, "{driver:?}");
        drop(open);
        pair.stop(|| Message::Drain);
    }
}

/// A running client whose server, at `inbound`, is yet to come.
fn client_of(inbound: SocketAddr, driver: DriverChoice, dial: Duration) -> (Running, Plans) {
    let mut plans = Plans::new();
    plans.client.config.listeners.inbound = Some(inbound);
    plans.client.config.timeouts.dial = dial;
    let spare = Node::new((any(), ListenerRole::Socks5));
    let client = std::mem::replace(&mut plans.client, spare);
    (client.start(driver), plans)
}

#[test]
fn a_failing_dial_answers_everybody_who_waits_and_the_next_connection_tries_again() {
    for driver in DRIVERS {
        let mute = Mute::new();
        let (client, mut plans) = client_of(mute.addr, driver, Duration::from_millis(500));
        let mut waiting: Vec<_> = (0..20).map(|_| client.connect()).collect();
        assert!(waiting.iter_mut().all(is_reset), "{driver:?}");
        // Most of them came while the first dial was under way.
        let dials = client.limit(Limit::DialTimeout);
        assert!((1..20).contains(&dials), "{dials} dials for 20 connections");
        assert_eq!(client.counters.tunnels_client_failed.get(), dials);
        assert!(client.metrics().contains("NETWORK_POLICY"));
        // The address comes to life.
        plans.server.listen[0].0 = mute.addr;
        drop(mute.listen());
        let server = plans.server.start(driver);
        let mut next = client.connect();
        let (application, _) = plans.application.accept().unwrap();
        exchange(&mut next, &mut patient(application));
        drop(next);
        client.stop(Message::Drain);
        server.stop(Message::Drain);
    }
}

#[test]
fn a_refused_dial_is_told_at_once() {
    for driver in DRIVERS {
        let (closed, addr) = server();
        drop(closed);
        let (client, _plans) = client_of(addr, driver, Duration::from_secs(60));
        let mut waiting: Vec<_> = (0..20).map(|_| client.connect()).collect();
        assert!(waiting.iter_mut().all(is_reset), "{driver:?}");
        client.logged("Connection refused");
        client.stop(Message::Drain);
    }
}

#[test]
fn after_a_goaway_open_streams_go_on_and_new_ones_use_a_new_tunnel() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        // A port of its own, so that a second node can share it.
        let (reserved, addr) = server();
        drop(reserved);
        plans.server.listen[0].0 = addr;
        let mut second = Node::new((addr, ListenerRole::Inbound));
        second.change = plans.server.change.clone();
        second.credentials = store(&plans.pki, &[plans.backend.identity()]);
        let pair = plans.start(driver);
        let (mut old_client, mut old_server) = pair.open();
        exchange(&mut old_client, &mut old_server);
        pair.server.mailbox.send(Message::Drain).unwrap();
        // The kernel would give the closing listener some of the connections, and reset them.
        until("the end of the first node's listener", || {
            TcpStream::connect(addr).is_err()
        });
        let second = second.start(driver);
        until("a tunnel to the second node", || {
            let (mut client, mut server) = pair.open();
            exchange(&mut client, &mut server);
            second.counters.tunnels_server_opened.get() > 0
        });
        exchange(&mut old_client, &mut old_server);
        drop((old_client, old_server));
        let Pair {
            client, mut server, ..
        } = pair;
        server.ended().unwrap();
        client.stop(Message::Drain);
        second.stop(Message::Drain);
    }
}

#[test]
fn one_stream_a_tunnel_means_no_reuse() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 1);
        for round in 1..=3 {
            let (mut client, mut server) = pair.open();
            exchange(&mut client, &mut server);
            assert_eq!(opened(&pair), round, "{driver:?}");
            drop((client, server));
            until_open(&pair, 0);
        }
        let together: Vec<_> = (0..5).map(|_| pair.open()).collect();
        assert_eq!(opened(&pair), 8, "{driver:?}");
        drop(together);
        until_open(&pair, 0);
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn an_unused_tunnel_is_closed_and_a_used_one_is_not() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| {
            config.pool.unused_release_timeout = Duration::from_millis(50);
        });
        let (mut client, mut server) = pair.open();
        // Used for several such times.
        for _ in 0..4 {
            let (short, _) = pair.open();
            drop(short);
            exchange(&mut client, &mut server);
        }
        assert_eq!(opened(&pair), 1, "{driver:?}");
        drop((client, server));
        until_open(&pair, 0);
        until("the server to notice", || {
            pair.server.counters.tunnels_server_open.get() == 0
        });
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        assert_eq!(opened(&pair), 2, "{driver:?}");
        drop((client, server));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_tunnel_at_its_limit_is_used_again_once_streams_have_ended() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 2);
        let first: Vec<_> = (0..4).map(|_| pair.open()).collect();
        assert_eq!(opened(&pair), 2, "{driver:?}");
        drop(first);
        let relays = &pair.client.counters.relays_open;
        until("the streams to end", || relays.get() == 0);
        let _second: Vec<_> = (0..4).map(|_| pair.open()).collect();
        assert_eq!(opened(&pair), 2, "{driver:?}");
        let _third = pair.open();
        assert_eq!(opened(&pair), 3, "{driver:?}");
        pair.stop(|| Message::Force);
    }
}

#[test]
fn each_source_identity_has_a_tunnel_of_its_own() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let to = plans.application.local_addr().unwrap();
        let other = workload("other", None);
        plans.client.listen.push(forward(to, "other"));
        let identities = [workload("client", None).identity(), other.identity()];
        plans.client.credentials = store(&plans.pki, &identities);
        plans.client.change.workloads.push(other);
        let pair = plans.start(driver);
        for _ in 0..2 {
            for addr in &pair.client.addrs {
                let mut client = patient(TcpStream::connect(addr).unwrap());
                let (server, _) = pair.application.accept().unwrap();
                exchange(&mut client, &mut patient(server));
            }
        }
        assert_eq!(opened(&pair), 2, "{driver:?}");
        for account in ["client", "other"] {
            let label =
                format!("source_principal=\"spiffe://cluster.local/ns/default/sa/{account}\"");
            assert!(pair.server.metrics().contains(&label), "{account}");
        }
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn a_tunnel_ends_with_the_first_certificate_of_its_ends() {
    use crate::model::identity::Identity;
    use crate::tls::credentials::{CredentialState, CredentialStore, Credentials};
    use std::sync::Arc;
    use std::time::SystemTime;
    let short = |pki: &crate::tls::dev_pki::Authority, identity: &Identity| {
        let now = SystemTime::now();
        let leaf = crate::tls::dev_pki::Leaf::new(identity, now)
            .valid(now - Duration::from_secs(60), now + Duration::from_secs(2));
        let material = pki.issue(&leaf).unwrap().material();
        let credentials =
            Credentials::load(identity, &material, crate::tls::TlsOptions::default(), now).unwrap();
        let state = CredentialState::Available(Arc::new(credentials));
        CredentialStore::new([(identity.clone(), state)])
    };
    for driver in DRIVERS {
        for server_is_short in [true, false] {
            let mut plans = Plans::new();
            // Idle checks in between must not prolong its life.
            plans.client.config.pool.unused_release_timeout = Duration::from_millis(100);
            if server_is_short {
                plans.server.credentials = short(&plans.pki, &plans.backend.identity());
            } else {
                plans.client.credentials = short(&plans.pki, &workload("client", None).identity());
            }
            let pair = plans.start(driver);
            let (mut client, mut server) = pair.open();
            exchange(&mut client, &mut server);
            // Both ends know both certificates; the reset says that the streams did not end well.
            assert!(is_reset(&mut client), "{driver:?}");
            assert!(is_reset(&mut server), "{driver:?}");
            until_open(&pair, 0);
            assert!(
                is_reset(&mut pair.client.connect()),
                "expired: no new tunnel"
            );
            pair.stop(|| Message::Drain);
        }
    }
}

#[test]
fn new_certificates_serve_new_tunnels_and_old_tunnels_stay() {
    for driver in DRIVERS {
        let mut pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 1);
        let (mut old_client, mut old_server) = pair.open();
        exchange(&mut old_client, &mut old_server);
        // Another authority on both ends: only new certificates understand each other.
        let next = pki();
        let client = workload("client", None).identity();
        let server = workload("server", None).identity();
        pair.client.present(store(&next, &[client]));
        assert!(is_reset(&mut pair.client.connect()), "{driver:?}");
        pair.server.present(store(&next, &[server]));
        let (mut client, mut server) = pair.open();
        exchange(&mut client, &mut server);
        exchange(&mut old_client, &mut old_server);
        drop((client, server, old_client, old_server));
        pair.stop(|| Message::Drain);
    }
}
