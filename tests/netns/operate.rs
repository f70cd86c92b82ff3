//! What an operator sees and does at a running node: the dump, log levels, failed starts.

use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::hosts::Family;
use corelane_harness::http;
use corelane_harness::node::Driver;
use corelane_harness::pair::{CLIENT_ID, Options, Pair, SERVER_ID, SERVER_PORT};
use serde_json::Value;

use crate::CORELANE;

const PROMPT: Duration = Duration::from_secs(10);

with_both_drivers!(
    the_dump_shows_state_certificates_and_configuration,
    a_log_level_set_at_run_time_shows_opened_connections,
    a_taken_port_fails_the_start_and_harms_nobody,
    metrics_are_read_through_the_mesh,
    a_node_says_how_it_starts_and_how_its_parts_end,
);

fn the_dump_shows_state_certificates_and_configuration(driver: Driver) {
    let rules = "[[[{destinationPorts: [9]}]]]";
    let pair = Pair::start(
        CORELANE,
        Options::new(driver).policy("shown", "Deny", rules),
    );
    let answer = pair.server.admin("GET", "/config_dump");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .to_lowercase()
            .contains("content-type: application/json")
    );
    let dump: Value = serde_json::from_str(&answer.body).unwrap();
    let names = |list: &str| -> Vec<&str> {
        let items = dump[list]
            .as_array()
            .unwrap_or_else(|| panic!("{list} in {dump}"));
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap())
            .collect()
    };
    assert_eq!(names("workloads"), ["client", "server"]);
    assert_eq!(names("services"), ["server"]);
    assert_eq!(names("policies"), ["shown"]);
    assert_eq!(dump["workloads"][1]["protocol"], "HBONE");
    assert_eq!(dump["services"][0]["ports"]["80"], SERVER_PORT);
    let certificate = &dump["certificates"][0];
    assert_eq!(
        (&certificate["identity"], &certificate["state"]),
        (&SERVER_ID.into(), &"Available".into())
    );
    assert_eq!(certificate["certChain"].as_array().unwrap().len(), 1);
    assert!(dump["config"].is_object() && dump["version"].is_object());
    assert!(!answer.body.contains("PRIVATE KEY"), "the dump holds a key");
}

fn a_log_level_set_at_run_time_shows_opened_connections(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let exchange = || pair.client_host.enter(|| apps::exchange(to, b"x")).unwrap();
    exchange();
    let _ = pair
        .server
        .wait_access_line("connection complete", &[("src.identity", CLIENT_ID)]);
    let opened = || {
        let lines = pair.server.access_lines().into_iter();
        lines
            .filter(|line| line.message == "connection opened")
            .count()
    };
    assert_eq!(opened(), 0, "opened connections are shown at debug only");
    let answer = pair.server.admin("POST", "/logging?level=access=debug");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.contains("access=debug"), "{}", answer.body);
    exchange();
    let _ = pair
        .server
        .wait_access_line("connection opened", &[("src.identity", CLIENT_ID)]);
    assert_eq!(pair.server.admin("GET", "/logging").status, 405);
    assert_eq!(
        pair.server.admin("POST", "/logging?level=nonsense").status,
        400
    );
}

fn a_taken_port_fails_the_start_and_harms_nobody(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let mut second = pair.start_second_server();
    let status = second.wait_end(PROMPT);
    assert_eq!(status.code(), Some(1), "{}", second.output());
    let output = second.output();
    assert!(output.contains("failed to bind"), "{output}");
    let to = pair.server_at(Family::V4, SERVER_PORT);
    for _ in 0..20 {
        assert_eq!(
            pair.client_host.enter(|| apps::exchange(to, b"x")).unwrap(),
            b"x"
        );
    }
    assert!(pair.server.is_ready());
}

fn metrics_are_read_through_the_mesh(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let to = pair.server_at(Family::V4, 15_020);
    let ask = || http::request("GET", to, "/metrics");
    let answer = pair.client_host.enter(ask).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("# TYPE"), "{}", answer.body);
    let authority = to.to_string();
    let fields = [
        ("direction", "inbound"),
        ("src.identity", CLIENT_ID),
        ("dst.workload", "server"),
        ("dst.hbone_addr", &authority),
    ];
    let line = pair.server.wait_access_line("connection complete", &fields);
    assert_eq!(line.field("error"), "");
}

fn a_node_says_how_it_starts_and_how_its_parts_end(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let process = pair.server.process();
    let components = |parts: &[&str], message: &str| {
        for part in parts {
            let field = format!("component=\"{part}\"");
            let output = process.output();
            let says = |line: &str| line.contains(message) && line.contains(&field);
            assert!(output.lines().any(says), "{message} {part} in {output}");
        }
    };
    process.wait_output("running with configuration: {", PROMPT);
    process.wait_output("marking server ready", PROMPT);
    let parts = [
        "inbound",
        "inbound plaintext",
        "outbound",
        "admin",
        "stats",
        "readiness",
    ];
    components(&parts, "listener established");
    assert_eq!(pair.server.admin("POST", "/quitquitquit").status, 200);
    process.wait_output("shutdown requested", PROMPT);
    process.wait_output("component=\"outbound\"", PROMPT);
    process.wait_output("\tapp\tshutdown complete\t\n", PROMPT);
    components(&parts, "shutdown complete");
}
