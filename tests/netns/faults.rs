//! A panic in the task of one connection ends that connection and nothing else. Needs a binary built
//! with the feature `faults`, whose data plane panics when the relay of a connection starts that
//! goes to port `CORELANE_FAULT_PANIC_PORT`.

use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::Family;
use corelane_harness::node::{Driver, REPORT_LIMIT};
use corelane_harness::pair::{Options, Pair, SERVER_PORT};
use corelane_harness::requirements;

use crate::{CORELANE, live};

const PANIC_PORT: u16 = 8_099;

with_both_drivers!(a_panic_in_one_of_many_connections_leaves_the_others_intact);

fn a_panic_in_one_of_many_connections_leaves_the_others_intact(driver: Driver) {
    let name = "a_panic_in_one_of_many_connections_leaves_the_others_intact";
    if !requirements::has_faults(name, cfg!(feature = "faults")) {
        return;
    }
    let others = usize::try_from(requirements::number("LIVE_CONNECTIONS", 1_000)).unwrap() - 1;
    let options = Options::new(driver).env("CORELANE_FAULT_PANIC_PORT", &PANIC_PORT.to_string());
    let pair = Pair::start(CORELANE, options);
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let _doomed_app = Server::start(&pair.server_host, PANIC_PORT, apps::echo);
    let mut streams = live::open(&pair, SERVER_PORT, others);

    let to = pair.server_at(Family::V4, PANIC_PORT);
    let mut doomed = pair.client_host.enter(|| apps::connect(to)).unwrap();
    let trip = apps::round_trip(&mut doomed, b"doomed");
    let ended = trip.and_then(|_| apps::read_to_end(&mut doomed));
    assert!(
        ended.as_ref().is_err_and(apps::is_close),
        "a panic must look like a reset: {ended:?}"
    );

    let told = || {
        let output = pair.client.process().output() + &pair.server.process().output();
        output.contains("panicked").then_some(())
    };
    clock::wait_for("the panic in a log", REPORT_LIMIT, told);
    assert_eq!(live::count_working(&mut streams), others);
    clock::must_hold("the others' life", Duration::from_secs(1), || {
        live::count_ended(&streams) == 0
    });
    let fresh = pair
        .client_host
        .enter(|| apps::exchange(pair.server_at(Family::V4, SERVER_PORT), b"new"));
    assert_eq!(fresh.unwrap(), b"new");
    assert!(pair.client.is_ready() && pair.server.is_ready());
}
