//! Connections to workloads that are known by hostname only.

use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use super::node::{DRIVERS, Node, Running, forward, server, workload};
use crate::dataplane::hostnames::Answer;
use crate::dataplane::shard::Message;
use crate::model::addr::NetworkAddress;
use crate::model::service::Service;
use crate::snapshot::builder::Change;
use crate::telemetry::counters::Limit;

const HOST: &str = "db.example.com";

/// A node with a forward to a service on 127.4.0.1, whose endpoint is known as [`HOST`] only and
/// listens on the port of `addr`.
fn node(addr: SocketAddr) -> Node {
    let vip: SocketAddr = "127.4.0.1:80".parse().unwrap();
    let service = Service {
        name: "db".into(),
        namespace: "default".into(),
        hostname: "db.default.svc.cluster.local".into(),
        vips: vec![NetworkAddress {
            network: "".into(),
            ip: vip.ip(),
        }],
        ports: [(80, addr.port())].into(),
        ..Service::default()
    };
    let mut behind = workload("db", None);
    behind.hostname = HOST.into();
    behind
        .services
        .insert(service.key(), [(80, addr.port())].into());
    let mut node = Node::new(forward(vip, "client"));
    node.change = Change {
        workloads: vec![workload("client", None), behind],
        services: vec![service],
        ..Change::default()
    };
    node
}

/// Answers the next question and returns its hostname.
fn answer(shard: &mut Running, answer: Answer) -> Arc<str> {
    let question = shard.asked.blocking_recv().unwrap();
    assert_eq!((question.shard, &*question.source.name), (0, "client"));
    let message = Message::Resolved(question.ticket, answer);
    shard.mailbox.send(message).unwrap();
    question.host
}

fn addresses(addresses: &[IpAddr]) -> Answer {
    Some(addresses.into())
}

/// What the client sees of a refusal: a reset or the end.
fn assert_refused(mut client: TcpStream) {
    let end = client.read(&mut [0]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[test]
fn the_address_is_asked_for_and_dialled() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let mut shard = node(addr).start(driver);
        let mut client = shard.connect();
        // The client meant an IPv4 address, so the other family is not tried.
        let found = addresses(&[Ipv6Addr::LOCALHOST.into(), addr.ip()]);
        assert_eq!(&*answer(&mut shard, found), HOST);
        let (server, _) = listener.accept().unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        shard.stop(Message::Drain);
    }
}

#[test]
fn each_connection_asks_and_gets_its_own_answer() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let mut shard = node(addr).start(driver);
        let first = shard.connect();
        let one = shard.asked.blocking_recv().unwrap();
        let _second = shard.connect();
        let two = shard.asked.blocking_recv().unwrap();
        assert_ne!(one.ticket, two.ticket);
        // Answered the other way round, and twice: only the one who asked takes it.
        for (ticket, found) in [
            (two.ticket, addresses(&[addr.ip()])),
            (two.ticket, None),
            (one.ticket, None),
        ] {
            let message = Message::Resolved(ticket, found);
            shard.mailbox.send(message).unwrap();
        }
        let (_server, _) = listener.accept().unwrap();
        assert_refused(first);
        shard.stop(Message::Force);
    }
}

#[test]
fn a_failed_look_up_and_an_empty_one_are_refused_with_their_texts() {
    for driver in DRIVERS {
        for (found, text) in [
            (None, "no ip addresses were resolved for workload: db"),
            (addresses(&[]), "valid dns response had no A/AAAA records"),
        ] {
            let (_listener, addr) = server();
            let mut shard = node(addr).start(driver);
            let client = shard.connect();
            answer(&mut shard, found);
            assert_refused(client);
            shard.logged(text);
            shard.stop(Message::Drain);
        }
    }
}

#[test]
fn without_anybody_to_ask_the_connection_is_refused_and_counted() {
    for driver in DRIVERS {
        let (_listener, addr) = server();
        let mut shard = node(addr).start(driver);
        shard.asked.close();
        assert_refused(shard.connect());
        shard.reached(Limit::HostnameQuestions, 1);
        shard.stop(Message::Drain);
    }
}

#[test]
fn a_forced_end_does_not_wait_for_an_answer() {
    for driver in DRIVERS {
        let (_listener, addr) = server();
        let mut shard = node(addr).start(driver);
        let client = shard.connect();
        let _unanswered = shard.asked.blocking_recv().unwrap();
        shard.stop(Message::Force);
        assert_refused(client);
    }
}
