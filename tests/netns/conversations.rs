//! Random conversations through both nodes, every byte checked at both ends.

use corelane_harness::conversation::{self, Stage};
use corelane_harness::hosts::{Family, Host};
use corelane_harness::node::Driver;
use corelane_harness::pair::{Options, Pair};
use corelane_harness::requirements;

use crate::CORELANE;

const AT_ONCE: usize = 8;

with_both_drivers!(
    no_random_conversation_through_a_tunnel_goes_wrong,
    no_random_conversation_in_plain_text_goes_wrong,
);

fn no_random_conversation_through_a_tunnel_goes_wrong(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    hold(
        &pair.client_host,
        &pair.server_host,
        Family::V4,
        requirements::number("CONVERSATIONS", 500),
    );
}

/// A fifth as many: outbound passthrough has no tunnel in which they could disturb each other.
fn no_random_conversation_in_plain_text_goes_wrong(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let count = requirements::number("CONVERSATIONS", 500) / 5;
    hold(&pair.client_host, &pair.outside_host, Family::V6, count);
}

fn hold(client: &Host, server: &Host, family: Family, count: u64) {
    let stage = Stage {
        client: client.clone(),
        server: server.clone(),
        server_ip: server.ip(family),
        at_once: AT_ONCE,
    };
    let first_seed = requirements::number("CONVERSATIONS_SEED", 1);
    let report = conversation::hold(&stage, first_seed, count);
    assert_eq!(report.held, count);
    assert!(
        report.wrong.is_empty(),
        "{} of {count} conversations went wrong:\n{}",
        report.wrong.len(),
        report.wrong.join("\n")
    );
    assert!(report.resets > 0 && report.bytes > 0, "{report:?}");
}
