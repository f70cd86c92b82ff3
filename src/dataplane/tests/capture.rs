//! Capturing listeners, without rules in the kernel: clients that dial them directly, and the header
//! that announces the peer to an application.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};

use super::node::{DRIVERS, Node, Plans, any, exchange, is_reset, patient, server, workload};
use crate::dataplane::local::LocalKey;
use crate::dataplane::shard::{ListenerRole, Message};
use crate::model::workload::{AppTunnelProtocol, ApplicationTunnel};
use crate::telemetry::ListenerKind;

#[test]
fn a_capturing_listener_does_not_dial_itself() {
    for driver in DRIVERS {
        for role in [ListenerRole::Outbound, ListenerRole::InboundPlaintext] {
            let mut node = Node::new((any(), role.clone()));
            node.change.workloads = vec![workload("client", Some(any()))];
            // Not known as ports of ours, so that nothing but the listener itself can tell.
            node.config.illegal_ports.clear();
            node.config.limits.connections = Some(50);
            let node = node.start(driver);
            for _ in 0..3 {
                assert!(is_reset(&mut node.connect()), "{driver:?} {role:?}");
                node.logged("attempted recursive call to ourselves");
            }
            let accepted = [ListenerKind::Outbound, ListenerKind::InboundPlaintext]
                .map(|kind| node.counters.accepted(kind).get());
            assert_eq!(accepted.iter().sum::<u64>(), 3, "{driver:?}");
            node.stop(Message::Drain);
        }
    }
}

#[test]
fn on_a_wildcard_listener_the_clients_address_names_the_workload() {
    let client = IpAddr::from([10, 0, 0, 7]);
    for (listener, expected) in [
        (IpAddr::from([0, 0, 0, 0]), "address 10.0.0.7"),
        ("::".parse().unwrap(), "address 10.0.0.7"),
        (IpAddr::from([10, 0, 0, 5]), "address 10.0.0.5"),
    ] {
        let key = LocalKey::Address(listener).or_of_client(client);
        assert_eq!(key.to_string(), expected);
    }
}

#[test]
fn the_header_of_an_application_tunnel_comes_first() {
    for driver in DRIVERS {
        let mut plans = Plans::new();
        let (tunnel, at) = server();
        let asked = plans.application.local_addr().unwrap();
        let mut backend = plans.backend.clone();
        backend.application_tunnel = Some(ApplicationTunnel {
            protocol: AppTunnelProtocol::Proxy,
            port: Some(at.port()),
        });
        plans.server.change.workloads = vec![backend];
        let pair = plans.start(driver);
        let mut client = pair.client.connect();
        client.write_all(b"first words").unwrap();
        let mut application = patient(tunnel.accept().unwrap().0);
        let uri = b"spiffe://cluster.local/ns/default/sa/client";
        let mut header = vec![0; 16 + 12 + 3 + uri.len()];
        application.read_exact(&mut header).unwrap();
        assert_eq!(header[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
        assert_eq!(header[16..24], [127, 0, 0, 1, 127, 0, 0, 1]);
        assert_eq!(header[26..28], asked.port().to_be_bytes());
        assert_eq!(header[28], 0xd0);
        assert!(header.ends_with(uri), "{driver:?}");
        let mut words = [0; 11];
        application.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"first words");
        exchange(&mut client, &mut application);
        drop((client, application));
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn where_it_is_permitted_the_application_is_dialled_from_the_clients_address() {
    for driver in DRIVERS {
        let mut plans = Plans::at(Ipv4Addr::new(127, 0, 0, 9));
        // Without the capability the listener is not transparent, and the dial is an ordinary one.
        plans.server.transparent = true;
        let pair = plans.start(driver);
        let mut client = pair.client.connect();
        let (application, from) = pair.application.accept().unwrap();
        assert_eq!(from.ip(), Ipv4Addr::LOCALHOST, "{driver:?}");
        exchange(&mut client, &mut patient(application));
        drop(client);
        pair.stop(|| Message::Drain);
    }
}
