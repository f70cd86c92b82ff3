//! Policies on HBONE connections: the refused client sees a close, and both nodes say why.

use corelane_harness::apps::{self, Server};
use corelane_harness::hosts::Family;
use corelane_harness::node::Driver;
use corelane_harness::pair::{CLIENT_ID, Options, Pair, SERVER_ID, SERVER_PORT};

use crate::CORELANE;

with_both_drivers!(
    a_denied_identity_sees_a_close_and_the_log_names_rule_and_identities,
    an_allow_policy_for_somebody_else_refuses,
    a_policy_for_one_port_leaves_the_other_alone,
    decisions_of_policies_are_logged_at_info_when_that_is_asked_for,
);

fn a_denied_identity_sees_a_close_and_the_log_names_rule_and_identities(driver: Driver) {
    let principal = CLIENT_ID.trim_start_matches("spiffe://");
    let rules = format!("[[[{{principals: [!Exact {principal}]}}]]]");
    let pair = Pair::start(
        CORELANE,
        Options::new(driver).policy("no-client", "Deny", &rules),
    );
    let app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let refused = pair.client_host.enter(|| apps::exchange(to, b"x"));
    assert!(
        refused.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{refused:?}"
    );
    assert_eq!(app.accepted(), 0, "the application was reached");

    let both = [("src.identity", CLIENT_ID), ("dst.identity", SERVER_ID)];
    let line = pair.server.wait_access_line("connection complete", &both);
    assert_eq!(line.level, "error");
    let error = line.field("error");
    assert!(
        error.contains("explicitly denied by: default/no-client"),
        "{error}"
    );
    let line = pair.client.wait_access_line("connection complete", &both);
    assert!(line.field("error").contains("401"), "{line:?}");

    let denied = [("reporter", "destination"), ("response_flags", "DENY")];
    pair.server
        .wait_metric("istio_tcp_connections_failed_total", &denied, 1);
    let failed = [("reporter", "source"), ("response_flags", "CONNECT")];
    pair.client
        .wait_metric("istio_tcp_connections_failed_total", &failed, 1);
    // A plaintext client is somebody else, and nobody else is denied.
    let answer = pair
        .outside_host
        .enter(|| apps::exchange(to, b"x"))
        .unwrap();
    assert_eq!(answer, b"xx");
}

fn an_allow_policy_for_somebody_else_refuses(driver: Driver) {
    let rules = "[[[{principals: [!Exact cluster.local/ns/default/sa/other]}]]]";
    let pair = Pair::start(
        CORELANE,
        Options::new(driver).policy("only-other", "Allow", rules),
    );
    let app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let to = pair.server_at(Family::V6, SERVER_PORT);
    let refused = pair.client_host.enter(|| apps::exchange(to, b"x"));
    assert!(
        refused.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{refused:?}"
    );
    assert_eq!(app.accepted(), 0, "the application was reached");
    let line = pair
        .server
        .wait_access_line("connection complete", &[("src.identity", CLIENT_ID)]);
    let error = line.field("error");
    assert!(
        error.contains("allow policies exist, but none allowed"),
        "{error}"
    );
}

fn a_policy_for_one_port_leaves_the_other_alone(driver: Driver) {
    let rules = "[[[{destinationPorts: [8081]}]]]";
    let pair = Pair::start(
        CORELANE,
        Options::new(driver).policy("not-8081", "Deny", rules),
    );
    let _open = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let closed = Server::start(&pair.server_host, 8_081, apps::double);
    let [to_open, to_closed] = [SERVER_PORT, 8_081].map(|port| pair.server_at(Family::V4, port));
    let refused = pair.client_host.enter(|| apps::exchange(to_closed, b"x"));
    assert!(
        refused.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{refused:?}"
    );
    assert_eq!(closed.accepted(), 0);
    assert_eq!(
        pair.client_host
            .enter(|| apps::exchange(to_open, b"x"))
            .unwrap(),
        b"xx"
    );
}

fn decisions_of_policies_are_logged_at_info_when_that_is_asked_for(driver: Driver) {
    let principal = CLIENT_ID.trim_start_matches("spiffe://");
    let rules = format!("[[[{{principals: [!Exact {principal}]}}]]]");
    for asked in [true, false] {
        let options = Options::new(driver).policy("no-client", "Deny", &rules);
        let options = options.env(
            "AUTHZ_POLICY_INFO_LOGGING",
            if asked { "true" } else { "false" },
        );
        let pair = Pair::start(CORELANE, options);
        let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
        let to = pair.server_at(Family::V4, SERVER_PORT);
        let _refused = pair.client_host.enter(|| apps::exchange(to, b"x"));
        let both = [("src.identity", CLIENT_ID), ("dst.identity", SERVER_ID)];
        let _ = pair.server.wait_access_line("connection complete", &both);
        let output = pair.server.process().output();
        let lines = output
            .lines()
            .filter(|line| line.contains("\tauthorization\t"));
        let decisions: Vec<_> = lines
            .filter(|line| line.contains("default/no-client"))
            .collect();
        assert_eq!(decisions.is_empty(), !asked, "{decisions:?}");
        assert!(
            decisions.iter().all(|line| line.contains("\tinfo\t")),
            "{decisions:?}"
        );
    }
}
