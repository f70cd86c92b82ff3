//! A policy change closes the open connections it denies, at once, and no other.

use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::node::{Driver, REPORT_LIMIT};
use corelane_harness::pair::{Options, Pair, SERVER_PORT};
use corelane_harness::requirements;

use crate::{CORELANE, live};

const DENIED_PORT: u16 = 8_081;

/// From the first close to the last.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// From the new file to the last close: [`CLOSED_WITHIN`] and the time to notice the file.
const NOTICED_AND_CLOSED_WITHIN: Duration = Duration::from_millis(2_500);

/// Time in which no further connection may end.
const NO_MORE: Duration = Duration::from_secs(1);

with_both_drivers!(a_policy_flip_closes_exactly_the_denied_half_within_a_second);

fn a_policy_flip_closes_exactly_the_denied_half_within_a_second(driver: Driver) {
    let total = usize::try_from(requirements::number("LIVE_CONNECTIONS", 1_000)).unwrap();
    let half = total / 2;
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _kept_app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let _denied_app = Server::start(&pair.server_host, DENIED_PORT, apps::echo);
    let mut kept = live::open(&pair, SERVER_PORT, half);
    let mut denied = live::open(&pair, DENIED_PORT, half);
    assert_eq!(live::count_ended(&kept) + live::count_ended(&denied), 0);

    let flip = pair
        .state()
        .clone()
        .policy("flip", "Deny", "[[[{destinationPorts: [8081]}]]]");
    let published = clock::now();
    pair.publish(&flip.to_yaml());
    let first = clock::wait_for("the first close", REPORT_LIMIT, || {
        (live::count_ended(&denied) > 0).then(clock::now)
    });
    let last = clock::wait_for("the close of the whole half", REPORT_LIMIT, || {
        (live::count_ended(&denied) == half).then(clock::now)
    });
    assert!(
        last - first < CLOSED_WITHIN,
        "closing {half} took {:?}",
        last - first
    );
    let since_published = last - published;
    assert!(
        since_published < NOTICED_AND_CLOSED_WITHIN,
        "{since_published:?} after the file"
    );

    assert_eq!(live::count_working(&mut kept), half);
    clock::must_hold("only the denied half is closed", NO_MORE, || {
        live::count_ended(&kept) == 0
    });
    assert_eq!(live::count_working(&mut denied), 0);
    let line = pair
        .server
        .wait_access_line("connection complete", &[("dst.workload", "server")]);
    assert!(
        line.field("error")
            .starts_with("connection closed due to policy change"),
        "{line:?}"
    );
    let flags = [("reporter", "destination"), ("response_flags", "DENY")];
    let closed = u32::try_from(half).unwrap();
    pair.server
        .wait_metric("istio_tcp_connections_closed_total", &flags, closed);
}
