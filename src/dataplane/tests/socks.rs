//! SOCKS5 spoken byte by byte (dns-socks.md, part B).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::node::{
    DRIVERS, Mute, Node, Plans, Running, any, exchange, is_reset, patient, server, workload,
};
use crate::config::DriverChoice;
use crate::dataplane::hostnames::NameKind;
use crate::dataplane::shard::{ListenerRole, Message};
use crate::model::addr::NamespacedHostname;
use crate::model::service::Service;
use crate::snapshot::builder::Change;

const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const CONNECTION_REFUSED: u8 = 5;
const NOT_SUPPORTED: u8 = 7;

/// A node with a SOCKS5 listener; its workload owns 127.0.0.1.
fn start(driver: DriverChoice, tune: impl FnOnce(&mut Node)) -> Running {
    let mut node = Node::new((any(), ListenerRole::Socks5));
    node.change = Change {
        workloads: vec![workload("client", Some(any()))],
        ..Change::default()
    };
    tune(&mut node);
    node.start(driver)
}

/// CONNECT to an address.
fn to(addr: SocketAddr) -> Vec<u8> {
    let mut request = vec![5, 1, 0];
    match addr.ip() {
        IpAddr::V4(ip) => {
            request.push(1);
            request.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(4);
            request.extend(ip.octets());
        }
    }
    request.extend(addr.port().to_be_bytes());
    request
}

/// CONNECT to a name.
fn named(name: &[u8], port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    request.extend(name);
    request.extend(port.to_be_bytes());
    request
}

fn greeted(node: &Running) -> TcpStream {
    let mut client = node.connect();
    client.write_all(&[5, 1, 0]).unwrap();
    let mut choice = [0; 2];
    client.read_exact(&mut choice).unwrap();
    assert_eq!(choice, [5, 0]);
    client
}

/// The code of a reply, which has the one form RFC 1928 allows us.
fn code(client: &mut TcpStream) -> u8 {
    let mut reply = [0xff; 10];
    client.read_exact(&mut reply).unwrap();
    assert_eq!([reply[0], reply[2], reply[3]], [5, 0, 1]);
    assert_eq!(reply[4..], [0; 6]);
    reply[1]
}

fn ask(node: &Running, request: &[u8]) -> (TcpStream, u8) {
    let mut client = greeted(node);
    client.write_all(request).unwrap();
    let code = code(&mut client);
    (client, code)
}

fn accept(listener: &TcpListener) -> TcpStream {
    patient(listener.accept().unwrap().0)
}

#[test]
fn addresses_of_both_families_and_names_lead_to_the_application() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let node = start(driver, |node| {
            let mut backend = workload("backend", Some((Ipv4Addr::new(127, 0, 0, 9), 0).into()));
            let key = NamespacedHostname {
                namespace: "default".into(),
                hostname: "db.example".into(),
            };
            backend.services.insert(key, [(80, addr.port())].into());
            node.change.services = vec![Service {
                name: "db".into(),
                namespace: "default".into(),
                hostname: "db.example".into(),
                ports: [(80, addr.port())].into(),
                ..Service::default()
            }];
            node.change.workloads.push(backend);
        });
        let there = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 9), addr.port())).unwrap();
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        for (request, listener) in [
            (to(addr), &listener),
            (to(SocketAddr::new(mapped.into(), addr.port())), &listener),
            (named(b"127.0.0.1", addr.port()), &listener),
            (named(b"db.example", 80), &there),
            (named(b"DB.Example.", 80), &there),
        ] {
            let (mut client, code) = ask(&node, &request);
            assert_eq!(code, SUCCEEDED, "{driver:?} {request:?}");
            exchange(&mut client, &mut accept(listener));
        }
        if let Ok(six) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            let (mut client, code) = ask(&node, &to(six.local_addr().unwrap()));
            assert_eq!(code, SUCCEEDED, "{driver:?}");
            exchange(&mut client, &mut accept(&six));
        }
        node.stop(Message::Drain);
    }
}

#[test]
fn a_request_may_come_byte_by_byte_with_its_data_right_behind() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let node = start(driver, |_| {});
        let mut client = node.connect();
        client.set_nodelay(true).unwrap();
        for byte in [&[5, 2, 7, 0][..], &to(addr), b"data"].concat() {
            client.write_all(&[byte]).unwrap();
        }
        client.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(code(&mut client), SUCCEEDED);
        let mut seen = [0; 4];
        accept(&listener).read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"data");
        drop(client);
        node.stop(Message::Drain);
    }
}

#[test]
fn malformed_greetings_and_requests_are_answered_with_seven() {
    for driver in DRIVERS {
        let node = start(driver, |_| {});
        // What comes after the mistake must not reset the connection before the answer is read.
        let greetings: [&[u8]; 4] = [
            &[4, 1, 0, 80, 127, 0, 0, 1, 0],
            &[5, 0, 1, 2, 3, 4],
            &[5, 1, 2, 9, 9, 9],
            b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        ];
        for greeting in greetings {
            let mut client = node.connect();
            client.write_all(greeting).unwrap();
            assert_eq!(code(&mut client), NOT_SUPPORTED, "{greeting:?}");
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end, not a reset");
        }
        let good = to((Ipv4Addr::LOCALHOST, 80).into());
        let with = |at: usize, byte| {
            let mut request = good.clone();
            request[at] = byte;
            request
        };
        for request in [
            with(0, 4),
            with(1, 2),
            with(1, 3),
            with(3, 0),
            with(3, 2),
            named(&[0xff, 0xfe], 80),
        ] {
            let (mut client, code) = ask(&node, &request);
            assert_eq!(code, NOT_SUPPORTED, "{driver:?} {request:?}");
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        node.stop(Message::Drain);
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_is_told_of_a_failure() {
    for driver in DRIVERS {
        let node = start(driver, |_| {});
        let request = to((Ipv4Addr::LOCALHOST, 80).into());
        for length in 0..request.len() {
            let mut client = greeted(&node);
            client.write_all(&request[..length]).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(code(&mut client), GENERAL_FAILURE, "{driver:?} {length}");
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        node.stop(Message::Drain);
    }
}

#[test]
fn refusals_have_their_codes() {
    for driver in DRIVERS {
        let (closed, refused) = server();
        drop(closed);
        let mute = Mute::new();
        let mut node = start(driver, |node| {
            node.config.timeouts.dial = Duration::from_millis(100);
            node.config.illegal_ports = vec![15_001];
        });
        // Nobody resolves names.
        node.asked.close();
        for (request, expected) in [
            (to(refused), CONNECTION_REFUSED),
            (to(mute.addr), CONNECTION_REFUSED),
            (named(b"nobody.example", 80), HOST_UNREACHABLE),
            (named(b"", 80), HOST_UNREACHABLE),
            (to((Ipv4Addr::LOCALHOST, 15_001).into()), NOT_ALLOWED),
        ] {
            let mut client = greeted(&node);
            // Data sent early is dropped, and must not drop the answer.
            client
                .write_all(&[&request[..], b"early data"].concat())
                .unwrap();
            assert_eq!(code(&mut client), expected, "{driver:?} {request:?}");
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end, not a reset");
        }
        node.stop(Message::Drain);
        // A server that denies: the answer to the CONNECT decides.
        let mut plans = Plans::new();
        plans.server.change.workloads.clear();
        plans.server.config.timeouts.workload_wait = Duration::from_secs(60);
        plans.client.listen[0] = (any(), ListenerRole::Socks5);
        plans.client.config.mode = crate::config::NodeMode::Dedicated {
            workload: crate::model::workload::WorkloadInfo {
                name: "client".into(),
                namespace: "default".into(),
                service_account: "client".into(),
            },
        };
        let backend = plans.backend.clone();
        let addr = plans.application.local_addr().unwrap();
        let mut pair = plans.start(driver);
        let mut strict = backend;
        strict.authorization_policies = vec!["default/unknown".into()];
        pair.server.change(Change {
            workloads: vec![strict],
            ..Change::default()
        });
        let (_, code) = ask(&pair.client, &to(addr));
        assert_eq!(code, NOT_ALLOWED, "{driver:?}");
        pair.stop(|| Message::Force);
    }
}

/// Asks for a name and answers the node's question about it.
fn ask_resolved(node: &mut Running, name: &str, port: u16, found: &[IpAddr]) -> (TcpStream, u8) {
    let mut client = greeted(node);
    client.write_all(&named(name.as_bytes(), port)).unwrap();
    let question = node.asked.blocking_recv().unwrap();
    assert_eq!(question.kind, NameKind::Destination);
    assert_eq!((&*question.host, &*question.source.name), (name, "client"));
    let answer = Message::Resolved(question.ticket, Some(found.into()));
    node.mailbox.send(answer).unwrap();
    let code = code(&mut client);
    (client, code)
}

#[test]
fn a_name_the_mesh_does_not_have_is_resolved_with_the_clients_family_first() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let mut node = start(driver, |_| {});
        let six = IpAddr::from(Ipv6Addr::LOCALHOST);
        for found in [&[addr.ip()][..], &[six, addr.ip()]] {
            let (mut client, code) = ask_resolved(&mut node, "web", addr.port(), found);
            assert_eq!(code, SUCCEEDED, "{driver:?} {found:?}");
            exchange(&mut client, &mut accept(&listener));
        }
        node.stop(Message::Drain);
    }
}

#[test]
fn a_name_without_an_address_or_with_one_of_ours_is_refused() {
    for driver in DRIVERS {
        let mut node = start(driver, |node| {
            node.config.illegal_ports = vec![15_001];
        });
        let (_, code) = ask_resolved(&mut node, "empty.example", 80, &[]);
        assert_eq!(code, HOST_UNREACHABLE, "{driver:?}");
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        let (_, code) = ask_resolved(&mut node, "self.example", 15_001, &loopback);
        assert_eq!(code, NOT_ALLOWED, "{driver:?}");
        node.stop(Message::Drain);
    }
}

#[test]
fn a_refused_client_that_never_leaves_is_cut() {
    for driver in DRIVERS {
        let node = start(driver, |node| {
            node.config.timeouts.handshake = Duration::from_millis(200);
        });
        let mut client = node.connect();
        client.write_all(&[4, 4]).unwrap();
        assert_eq!(code(&mut client), NOT_SUPPORTED);
        super::node::until("the end", || node.counters.connections_open.get() == 0);
        drop(client);
        node.stop(Message::Drain);
    }
}

#[test]
fn a_client_whose_address_owns_no_workload_is_refused() {
    for driver in DRIVERS {
        let (_listener, addr) = server();
        let node = start(driver, |node| {
            node.change.workloads.clear();
            node.config.timeouts.workload_wait = Duration::from_millis(50);
        });
        let (_, code) = ask(&node, &to(addr));
        assert_eq!(code, NOT_ALLOWED, "{driver:?}");
        node.stop(Message::Drain);
    }
}

#[test]
fn forced_while_it_speaks_a_client_is_reset() {
    for driver in DRIVERS {
        let node = start(driver, |node| {
            node.config.timeouts.handshake = Duration::from_secs(60);
        });
        let mut client = greeted(&node);
        client.write_all(&[5, 1]).unwrap();
        node.stop(Message::Force);
        assert!(is_reset(&mut client), "{driver:?}");
    }
}
