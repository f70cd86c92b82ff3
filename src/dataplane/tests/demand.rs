//! Connections that wait: for the mesh state to be complete, and for the control plane's answers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::node::{
    DRIVERS, Node, Running, any, exchange, forward, is_reset, patient, server, workload,
};
use crate::config::{DriverChoice, ForwardTarget};
use crate::dataplane::demand::Asker;
use crate::dataplane::shard::{ListenerRole, Message};
use crate::snapshot::builder::Change;
use crate::telemetry::counters::Limit;

/// A node that asks, and its questions.
fn asking(driver: DriverChoice, to: SocketAddr) -> (Running, Receiver<Arc<str>>) {
    let (sender, questions) = channel();
    let mut node = Node::new(forward(to, "client"));
    node.asker = Some(Asker::new(move |key| sender.send(key).is_ok()));
    (node.start(driver), questions)
}

fn question(questions: &Receiver<Arc<str>>) -> Arc<str> {
    questions.recv_timeout(Duration::from_secs(20)).unwrap()
}

#[test]
fn nothing_is_served_before_the_state_is_complete() {
    for driver in DRIVERS {
        let (listener, to) = server();
        let mut node = Node::new(forward(to, "client"));
        node.open = false;
        let running = node.start(driver);
        let mut client = running.connect();
        client
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let kind = client.read(&mut [0]).unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut));
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nothing was dialled");
        listener.set_nonblocking(false).unwrap();
        running.mailbox.send(Message::Open).unwrap();
        let mut served = patient(listener.accept().unwrap().0);
        let mut client = patient(client);
        exchange(&mut client, &mut served);
        drop((client, served));
        running.stop(Message::Drain);
    }
}

#[test]
fn a_shard_that_was_never_opened_drains_all_the_same() {
    for driver in DRIVERS {
        let mut node = Node::new(forward(any(), "client"));
        node.open = false;
        node.start(driver).stop(Message::Drain);
    }
}

#[test]
fn all_who_wait_for_an_address_are_told_by_one_answer() {
    for driver in DRIVERS {
        let (listener, to) = server();
        let (mut running, questions) = asking(driver, to);
        let mut clients = [running.connect(), running.connect(), running.connect()];
        let key = question(&questions);
        assert_eq!(&*key, "/127.0.0.1");
        running.change(Change {
            workloads: vec![workload("server", Some(to))],
            ..Change::default()
        });
        running.mailbox.send(Message::Told(key, true)).unwrap();
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        for _ in &clients {
            let mut served = patient(listener.accept().unwrap().0);
            let mut byte = [0];
            served.read_exact(&mut byte).unwrap();
            drop(served);
        }
        let again = questions.recv_timeout(Duration::from_millis(50));
        assert!(again.is_err(), "one question for all");
        drop(clients);
        running.stop(Message::Drain);
    }
}

#[test]
fn what_the_control_plane_does_not_know_is_passed_through() {
    for driver in DRIVERS {
        let (listener, to) = server();
        let (running, questions) = asking(driver, to);
        let mut client = running.connect();
        let key = question(&questions);
        running.mailbox.send(Message::Told(key, true)).unwrap();
        let mut served = patient(listener.accept().unwrap().0);
        exchange(&mut client, &mut served);
        drop((client, served));
        running.stop(Message::Drain);
    }
}

#[test]
fn without_an_answer_a_connection_is_refused() {
    for driver in DRIVERS {
        let (_listener, to) = server();
        let (running, questions) = asking(driver, to);
        let mut client = running.connect();
        let key = question(&questions);
        running.mailbox.send(Message::Told(key, false)).unwrap();
        assert!(is_reset(&mut client));
        running.reached(Limit::DemandWait, 1);
        running.logged("the control plane did not say what /127.0.0.1 is");
        // The next one asks anew.
        let mut client = running.connect();
        let key = question(&questions);
        running.mailbox.send(Message::Told(key, false)).unwrap();
        assert!(is_reset(&mut client));
        running.stop(Message::Drain);
    }
}

#[test]
fn a_question_that_nobody_takes_refuses_the_connection() {
    for driver in DRIVERS {
        let (_listener, to) = server();
        let mut node = Node::new(forward(to, "client"));
        node.asker = Some(Asker::new(|_| false));
        let running = node.start(driver);
        assert!(is_reset(&mut running.connect()));
        running.reached(Limit::DemandWaiters, 1);
        running.stop(Message::Drain);
    }
}

#[test]
fn a_hostname_is_asked_for_by_the_namespace_in_it() {
    let (sender, questions) = channel();
    let target = ForwardTarget::Hostname("db.data.svc.cluster.local".into(), 80);
    let role = ListenerRole::Forward(target, Some(super::node::account("client")));
    let mut node = Node::new((any(), role));
    node.asker = Some(Asker::new(move |key| sender.send(key).is_ok()));
    let running = node.start(DriverChoice::Epoll);
    let mut client = running.connect();
    let key = question(&questions);
    assert_eq!(&*key, "data/db.data.svc.cluster.local");
    running.mailbox.send(Message::Told(key, true)).unwrap();
    assert!(is_reset(&mut client), "it still leads nowhere");
    running.logged("no service or workload for hostname");
    running.stop(Message::Drain);
}
