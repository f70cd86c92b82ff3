//! SIGTERM: a node finishes what it has, takes nothing new, and ends with status 0 in time.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::Family;
use corelane_harness::node::{Driver, Node};
use corelane_harness::pair::{Options, Pair, SERVER_PORT};
use rustix::process::Signal;

use crate::{CORELANE, live};

const TRANSFERS: usize = 200;
const HALF_BYTES: usize = 512 * 1024;

/// Drain deadline of tests whose transfers fit into it.
const AMPLE: Duration = Duration::from_secs(30);

/// Time to notice a signal, and to end once nothing is left to do.
const PROMPT: Duration = Duration::from_secs(5);

with_both_drivers!(
    a_draining_server_node_loses_no_transfer,
    a_draining_client_node_loses_no_transfer,
    a_drain_ends_at_its_deadline,
    an_idle_node_ends_at_once,
    quitquitquit_drains_like_a_signal,
    a_second_signal_ends_a_drain_at_once,
);

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

fn node(pair: &mut Pair, side: Side) -> &mut Node {
    match side {
        Side::Client => &mut pair.client,
        Side::Server => &mut pair.server,
    }
}

fn a_draining_server_node_loses_no_transfer(driver: Driver) {
    loses_no_transfer(driver, Side::Server);
}

fn a_draining_client_node_loses_no_transfer(driver: Driver) {
    loses_no_transfer(driver, Side::Client);
}

fn loses_no_transfer(driver: Driver, side: Side) {
    let deadline = format!("{}s", AMPLE.as_secs());
    let options = Options::new(driver).env("CONNECTION_TERMINATION_DEADLINE", &deadline);
    let mut pair = Pair::start(CORELANE, options);
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let (half_done, draining) = (Barrier::new(TRANSFERS + 1), Barrier::new(TRANSFERS + 1));
    let client_host = pair.client_host.clone();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let transfer = |seed| {
            let (half_done, draining, host) = (&half_done, &draining, &client_host);
            scope.spawn(move || {
                let stream = host.enter(|| apps::connect(to)).and_then(|stream| {
                    send_and_compare(&stream, seed)?;
                    Ok(stream)
                });
                half_done.wait();
                draining.wait();
                let stream = stream?;
                send_and_compare(&stream, seed + 1)?;
                end_in_order(stream)
            })
        };
        let transfers: Vec<_> = (0..TRANSFERS as u64)
            .map(|seed| transfer(seed * 2))
            .collect();
        half_done.wait();
        let node = node(&mut pair, side);
        node.process().signal(Signal::TERM);
        clock::wait_for("the end of readiness", PROMPT, || {
            (!node.is_ready()).then_some(())
        });
        draining.wait();
        let results = transfers.into_iter().map(|t| t.join().unwrap());
        results
            .filter_map(|r: io::Result<()>| r.err().map(|e| e.to_string()))
            .collect()
    });
    assert!(
        failed.is_empty(),
        "{} of {TRANSFERS} failed: {failed:?}",
        failed.len()
    );
    let status = node(&mut pair, side).process_mut().wait_end(PROMPT);
    assert_eq!(status.code(), Some(0));
    let refused = pair.client_host.enter(|| apps::exchange(to, b"late"));
    assert!(refused.as_ref().map_or(true, Vec::is_empty), "{refused:?}");
}

/// Sends half a transfer while receiving its echo.
fn send_and_compare(stream: &TcpStream, seed: u64) -> io::Result<()> {
    let mut bytes = vec![0; HALF_BYTES];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let mut echoed = vec![0; HALF_BYTES];
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| io::Write::write_all(&mut &*stream, &bytes));
        io::Read::read_exact(&mut &*stream, &mut echoed)?;
        sender.join().unwrap()
    })?;
    if bytes == echoed {
        Ok(())
    } else {
        Err(io::Error::other("the echo differs"))
    }
}

fn end_in_order(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    match io::Read::read(&mut stream, &mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(io::Error::other("bytes after the echo")),
        Err(e) => Err(e),
    }
}

fn a_drain_ends_at_its_deadline(driver: Driver) {
    const DEADLINE: Duration = Duration::from_secs(2);
    let options = Options::new(driver).env("CONNECTION_TERMINATION_DEADLINE", "2s");
    let mut pair = Pair::start(CORELANE, options);
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let mut streams = live::open(&pair, SERVER_PORT, 10);
    let signalled = clock::now();
    pair.server.process().signal(Signal::TERM);
    clock::wait_for("the end of readiness", PROMPT, || {
        (!pair.server.is_ready()).then_some(())
    });
    assert_eq!(
        live::count_working(&mut streams),
        10,
        "open connections work while draining"
    );
    let status = pair.server.process_mut().wait_end(DEADLINE + PROMPT);
    assert!(
        signalled.elapsed() >= DEADLINE,
        "ended after {:?}",
        signalled.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    clock::wait_for("the end of the cut connections", PROMPT, || {
        (live::count_ended(&streams) == 10).then_some(())
    });
    let error = "connection closed due to connection drain";
    let line = pair
        .server
        .wait_access_line("connection complete", &[("error", error)]);
    assert_eq!(line.field("direction"), "inbound");
}

fn an_idle_node_ends_at_once(driver: Driver) {
    let mut pair = Pair::start(CORELANE, Options::new(driver));
    for signal in [Signal::TERM, Signal::INT] {
        pair.server.process().signal(signal);
        assert_eq!(
            pair.server.process_mut().wait_end(PROMPT).code(),
            Some(0),
            "{signal:?}"
        );
        pair.restart_server();
    }
}

fn quitquitquit_drains_like_a_signal(driver: Driver) {
    let mut pair = Pair::start(CORELANE, Options::new(driver));
    assert_eq!(pair.server.admin("GET", "/quitquitquit").status, 405);
    let answer = pair.server.admin("POST", "/quitquitquit");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "shutdown now\n")
    );
    assert_eq!(pair.server.process_mut().wait_end(PROMPT).code(), Some(0));
}

fn a_second_signal_ends_a_drain_at_once(driver: Driver) {
    let options = Options::new(driver).env("CONNECTION_TERMINATION_DEADLINE", "60s");
    let mut pair = Pair::start(CORELANE, options);
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    for (first, second) in [
        (Signal::INT, Signal::INT),
        (Signal::TERM, Signal::TERM),
        (Signal::TERM, Signal::INT),
    ] {
        let mut streams = live::open(&pair, SERVER_PORT, 5);
        pair.server.process().signal(first);
        clock::wait_for("the end of readiness", PROMPT, || {
            (!pair.server.is_ready()).then_some(())
        });
        assert_eq!(
            live::count_working(&mut streams),
            5,
            "open connections work while draining"
        );
        pair.server.process().signal(second);
        let status = pair.server.process_mut().wait_end(PROMPT);
        assert_eq!(status.code(), Some(0), "{first:?}, then {second:?}");
        clock::wait_for("the end of the cut connections", PROMPT, || {
            (live::count_ended(&streams) == 5).then_some(())
        });
        pair.restart_server();
    }
}
