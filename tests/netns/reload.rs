//! The local state file is read again when it changes; a bad file changes nothing and says so.

use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::Family;
use corelane_harness::node::Driver;
use corelane_harness::pair::{Options, Pair, SERVER_PORT};

use crate::CORELANE;

/// A file change must be in force by then.
const NOTICED: Duration = Duration::from_secs(5);

const DENY_ALL: &str = "[[]]";

with_both_drivers!(
    a_file_renamed_into_place_is_read,
    a_swapped_data_link_is_read,
    a_bad_file_changes_nothing_and_says_so,
);

fn is_allowed(pair: &Pair) -> bool {
    let to = pair.server_at(Family::V4, SERVER_PORT);
    pair.client_host
        .enter(|| apps::exchange(to, b"x"))
        .is_ok_and(|answer| answer == b"xx")
}

fn wait_allowed(pair: &Pair, allowed: bool) {
    let what = if allowed {
        "being allowed"
    } else {
        "being denied"
    };
    clock::wait_for(what, NOTICED, || {
        (is_allowed(pair) == allowed).then_some(())
    });
}

fn a_file_renamed_into_place_is_read(driver: Driver) {
    reads_the_new_file(&Pair::start(CORELANE, Options::new(driver)));
}

fn a_swapped_data_link_is_read(driver: Driver) {
    reads_the_new_file(&Pair::start(CORELANE, Options::new(driver).mounted_state()));
}

fn reads_the_new_file(pair: &Pair) {
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    assert!(is_allowed(pair));
    // Twice, because a watch on the file itself would follow the old one.
    for _ in 0..2 {
        pair.publish(
            &pair
                .state()
                .clone()
                .policy("deny", "Deny", DENY_ALL)
                .to_yaml(),
        );
        wait_allowed(pair, false);
        pair.publish(&pair.state().to_yaml());
        wait_allowed(pair, true);
    }
}

fn a_bad_file_changes_nothing_and_says_so(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver).policy("keep", "Deny", "[]"));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    assert!(is_allowed(&pair));
    let unknown_key = pair
        .state()
        .to_yaml()
        .replace("canonicalName", "canonicalNam");
    for (number, bad) in ["workloads: [", "policies: 7\n", &unknown_key]
        .into_iter()
        .enumerate()
    {
        pair.publish(bad);
        // The path is in the message of each refusal; each file must cause one of its own.
        let refusals = || {
            let output = pair.server.process().output();
            output
                .lines()
                .filter(|l| l.contains("state.yaml") && is_complaint(l))
                .count()
        };
        clock::wait_for("a complaint about the file", NOTICED, || {
            (refusals() > number).then_some(())
        });
        assert!(is_allowed(&pair), "after bad file {number}");
        assert!(pair.server.is_ready());
    }
    pair.publish(
        &pair
            .state()
            .clone()
            .policy("deny", "Deny", DENY_ALL)
            .to_yaml(),
    );
    wait_allowed(&pair, false);
}

fn is_complaint(line: &str) -> bool {
    let level = line.split('\t').nth(1).unwrap_or_default();
    level == "warn" || level == "error"
}
