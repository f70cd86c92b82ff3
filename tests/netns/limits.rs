//! A node that runs out of descriptors keeps what it has, does not spin, and recovers.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::Family;
use corelane_harness::node::Driver;
use corelane_harness::pair::{Options, Pair, SERVER_PORT};

use crate::CORELANE;

const STARVED: Duration = Duration::from_secs(10);

/// A node that spins would use a whole core, or two: 10 s and more.
const CPU_MAX: Duration = Duration::from_secs(3);

/// Pause of one knocking client.
const BETWEEN_KNOCKS: Duration = Duration::from_millis(50);

const RECOVERED: Duration = Duration::from_secs(5);

with_both_drivers!(
    a_client_node_out_of_descriptors_keeps_its_connections_and_recovers,
    a_server_node_out_of_descriptors_keeps_its_connections_and_recovers,
);

fn a_client_node_out_of_descriptors_keeps_its_connections_and_recovers(driver: Driver) {
    starve_and_recover(driver, true);
}

fn a_server_node_out_of_descriptors_keeps_its_connections_and_recovers(driver: Driver) {
    starve_and_recover(driver, false);
}

fn starve_and_recover(driver: Driver, client_starves: bool) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let connect = || pair.client_host.enter(|| apps::connect(to)).unwrap();
    let mut kept: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    let works = |stream: &mut TcpStream| apps::round_trip(stream, b"x").is_ok_and(|a| a == b"x");
    assert!(kept.iter_mut().all(works));

    let node = if client_starves {
        &pair.client
    } else {
        &pair.server
    };
    let process = node.process();
    let limit = process.limit_descriptors(process.descriptors());
    let cpu_before = process.cpu_time();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Clients that keep knocking; what each gets is an end or no answer, never a wrong one.
        for _ in 0..4 {
            scope.spawn(|| {
                let is_over = || over.load(Ordering::Relaxed).then_some(());
                while clock::try_wait_for(BETWEEN_KNOCKS, is_over).is_none() {
                    knock(&pair, to);
                }
            });
        }
        // One after the other, so that the work asked for is small beside what a spin would use.
        let mut turn = (0..kept.len()).cycle();
        clock::must_hold("service for open connections", STARVED, || {
            works(&mut kept[turn.next().unwrap()])
        });
        over.store(true, Ordering::Relaxed);
    });
    let cpu = process.cpu_time() - cpu_before;
    process.limit_descriptors(limit);
    assert!(
        cpu < CPU_MAX,
        "{cpu:?} of CPU in {STARVED:?} without descriptors"
    );
    assert!(node.is_ready());
    clock::wait_for("service for new connections", RECOVERED, || {
        let answer = pair.client_host.enter(|| apps::exchange(to, b"again"));
        answer.is_ok_and(|a| a == b"again").then_some(())
    });
    assert!(kept.iter_mut().all(works));
}

fn knock(pair: &Pair, to: std::net::SocketAddr) {
    let Ok(mut stream) = pair.client_host.enter(|| apps::connect(to)) else {
        return;
    };
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    if let Ok(answer) = apps::round_trip(&mut stream, b"knock") {
        assert_eq!(answer, b"knock");
    }
}
