//! A node of many workloads asks which process connects before it looks at addresses.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use super::node::{DRIVERS, Node, Running, any, server, workload};
use crate::config::{DriverChoice, NodeMode};
use crate::dataplane::shard::{ListenerRole, Message};
use crate::model::local::{LocalWorkload, LocalWorkloads};
use crate::model::workload::{Workload, WorkloadInfo};
use crate::snapshot::builder::Change;

const SUCCEEDED: u8 = 0;
const NOT_ALLOWED: u8 = 2;

fn listed(name: &str, uids: &[u32], addresses: &[IpAddr]) -> LocalWorkload {
    LocalWorkload {
        info: Arc::new(WorkloadInfo {
            name: name.into(),
            namespace: "default".into(),
            service_account: name.into(),
        }),
        cgroups: Vec::new(),
        uids: uids.to_vec(),
        addresses: addresses.to_vec(),
        ports: Vec::new(),
        is_default: false,
    }
}

/// A node with a SOCKS5 listener; `wait` is how long it waits for records.
fn start(
    driver: DriverChoice,
    all: Vec<LocalWorkload>,
    records: Vec<Workload>,
    wait: Duration,
) -> Running {
    let mut node = Node::new((any(), ListenerRole::Socks5));
    node.config.mode = NodeMode::Node(crate::config::Node {
        workloads: LocalWorkloads::new(all).unwrap(),
        cgroup_root: None,
    });
    node.config.timeouts.workload_wait = wait;
    node.change = Change {
        workloads: records,
        ..Change::default()
    };
    node.start(driver)
}

/// Connects through the node to an application that closes at once.
fn ask(node: &Running, application: &TcpListener) -> u8 {
    let to = application.local_addr().unwrap();
    let SocketAddr::V4(to) = to else {
        panic!("{to}")
    };
    let mut client = node.connect();
    let mut request = vec![5, 1, 0, 5, 1, 0, 1];
    request.extend(to.ip().octets());
    request.extend(to.port().to_be_bytes());
    client.write_all(&request).unwrap();
    let mut replies = [0; 12];
    client.read_exact(&mut replies).unwrap();
    if replies[3] == SUCCEEDED {
        drop(application.accept().unwrap());
    }
    replies[3]
}

const FOR_EVER: Duration = Duration::from_secs(600);

#[test]
fn the_user_of_the_client_tells_its_workload_and_no_address_does_in_its_place() {
    let own = rustix::process::geteuid().as_raw();
    let (application, _) = server();
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let record = |name: &str, has_address: bool| workload(name, has_address.then(any));
    for driver in DRIVERS {
        // Its record has no address; somebody else's has the client's.
        let told = start(
            driver,
            vec![listed("told", &[own], &[])],
            vec![record("told", false), record("other", true)],
            FOR_EVER,
        );
        assert_eq!(ask(&told, &application), SUCCEEDED);
        told.logged("src.workload=\"told\"");
        told.stop(Message::Drain);

        // The address of its record, or in the list, is not enough for a workload of another user.
        for address in [&[][..], &[here]] {
            let stranger = start(
                driver,
                vec![listed("told", &[own + 1], address)],
                vec![record("told", true)],
                FOR_EVER,
            );
            assert_eq!(ask(&stranger, &application), NOT_ALLOWED, "{address:?}");
            let uid = format!("has uid {own}, address 127.0.0.1: name its cgroup or uid");
            stranger.logged(&uid);
            stranger.stop(Message::Drain);
        }
    }
}

#[test]
fn the_address_tells_a_workload_that_has_nothing_else() {
    let own = rustix::process::geteuid().as_raw();
    let (application, _) = server();
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    for driver in DRIVERS {
        for (all, has_address) in [
            (vec![listed("plain", &[], &[here])], false),
            (
                vec![
                    listed("told", &[own + 1], &[]),
                    listed("plain", &[], &[here]),
                ],
                false,
            ),
            // Not listed at all: by its record.
            (vec![listed("told", &[own + 1], &[])], true),
        ] {
            let records = vec![workload("plain", has_address.then(any))];
            let node = start(driver, all, records, FOR_EVER);
            assert_eq!(ask(&node, &application), SUCCEEDED);
            node.stop(Message::Drain);
        }
        let moment = Duration::from_millis(50);
        let all = vec![listed("told", &[own + 1], &[])];
        let node = start(driver, all, Vec::new(), moment);
        assert_eq!(
            ask(&node, &application),
            NOT_ALLOWED,
            "nobody has that address"
        );
        node.logged("node.workloads");
        node.stop(Message::Drain);
    }
}
