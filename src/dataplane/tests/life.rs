//! A whole life leaves no descriptor behind. Run in a process of its own, because descriptors are
//! counted for the process.

use std::net::TcpStream;
use std::process::Command;

use super::node::{DRIVERS, Mute, Pair, exchange, forward, until};
use crate::config::DriverChoice;
use crate::dataplane::shard::Message;

const INNER: &str = "dataplane::tests::life::descriptors_before_and_after_a_life";

fn descriptors() -> usize {
    // The one that lists them is listed too, each time.
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Connections in every state: relayed, half closed, refused, dialling, shaking hands, silent.
fn live(driver: DriverChoice, end: fn() -> Message) {
    let mut plans = super::node::Plans::new();
    let mute = Mute::new();
    let (closed, refused) = super::node::server();
    drop(closed);
    plans.client.listen.push(forward(mute.addr, "client"));
    plans.client.listen.push(forward(refused, "client"));
    let pair: Pair = plans.start(driver);
    let mut open: Vec<_> = (0..20).map(|_| pair.open()).collect();
    for (client, server) in &mut open {
        exchange(client, server);
    }
    open[0].0.shutdown(std::net::Shutdown::Write).unwrap();
    let silent = pair.server.connect();
    let others: Vec<_> = pair.client.addrs[1..]
        .iter()
        .map(|addr| TcpStream::connect(addr).unwrap())
        .collect();
    until("all connections", || {
        pair.client.counters.connections_open.get() >= 21
    });
    if matches!(end(), Message::Drain) {
        drop((open, silent, others));
        pair.stop(end);
    } else {
        pair.stop(end);
        drop((open, silent, others));
    }
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn descriptors_before_and_after_a_life() {
    for driver in DRIVERS {
        for end in [(|| Message::Drain) as fn() -> Message, || Message::Force] {
            // The first life fills what a process keeps: thread-local buffers, library state.
            live(driver, end);
            until("the kernel to take back its rings", || {
                let before = descriptors();
                std::thread::yield_now();
                descriptors() == before
            });
            let before = descriptors();
            live(driver, end);
            until("every descriptor to be closed", || descriptors() <= before);
        }
    }
}

#[test]
fn a_whole_life_leaves_no_descriptor_behind() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", INNER, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}
