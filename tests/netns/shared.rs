//! A shared node: pods in namespaces of their own, named by an agent over its socket.

mod churn;
mod names;
mod sockets;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use corelane_harness::agent;
use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::node::{Driver, REPORT_LIMIT};
use corelane_harness::pki::spiffe;
use corelane_harness::shared::{OUTSIDE, Options, Shared};
use rustix::process::Signal;

use crate::CORELANE;

const PORT: u16 = 8_080;

with_both_drivers!(
    pods_talk_through_tunnels_each_with_its_own_identity,
    a_pod_that_goes_is_cut_at_once_and_may_come_back,
    a_pod_whose_port_is_taken_is_refused_and_served_once_it_is_free,
    pods_are_served_while_the_agent_is_away,
    an_agent_that_breaks_the_rules_ends_the_node,
    a_node_that_stops_lets_its_pods_connections_end,
    a_node_that_is_a_workload_itself_takes_tunnels_to_itself,
);

fn options<'a>(driver: Driver, pods: &'a [&'a str]) -> Options<'a> {
    Options {
        driver,
        pods,
        policies: &[],
        services: &[],
        settings: &[],
        env: &[],
    }
}

/// Answers with the address it was called from.
fn who_calls(mut stream: std::net::TcpStream) {
    let ip = stream.peer_addr().unwrap().ip().to_canonical();
    let _ = stream.write_all(ip.to_string().as_bytes());
}

fn pods_talk_through_tunnels_each_with_its_own_identity(driver: Driver) {
    let denied = "[[[{principals: [!Exact cluster.local/ns/default/sa/c]}]]]";
    let shared = Shared::start(
        CORELANE,
        &Options {
            policies: &[("no-c", "Deny", denied)],
            ..options(driver, &["a", "b", "c"])
        },
    );
    assert!(!shared.node.is_ready(), "nothing was said yet");
    shared.serve(&["a", "b", "c"]);
    let app = Server::start(&shared.host("b"), PORT, who_calls);
    let to = shared.at("b", PORT);
    let ask = |from: &str| shared.host(from).enter(|| apps::exchange(to, b""));
    let ip = |pod: &str| shared.host(pod).v4().to_string().into_bytes();
    assert_eq!(ask("a").unwrap(), ip("a"));
    let [a, b, c] = ["a", "b", "c"].map(|pod| spiffe("cluster.local", pod));
    for direction in ["inbound", "outbound"] {
        let fields = [
            ("direction", direction),
            ("src.identity", &a),
            ("dst.identity", &b),
        ];
        let line = shared.node.wait_access_line("connection complete", &fields);
        assert_eq!(line.field("error"), "", "{direction}");
    }
    let refused = ask("c");
    assert!(
        refused.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{refused:?}"
    );
    let fields = [("direction", "inbound"), ("src.identity", &c)];
    let line = shared.node.wait_access_line("connection complete", &fields);
    assert!(line.field("error").contains("default/no-c"), "{line:?}");
    assert_eq!(app.accepted(), 1, "the application of b was called by a");
    assert_eq!(
        ask(OUTSIDE).unwrap(),
        ip(OUTSIDE),
        "plain text is passed on"
    );

    let dump = shared.node.admin("GET", "/config_dump").body;
    assert!(dump.contains("workloadState") && dump.contains("\"Up\""));
    assert!(dump.contains("\"Shared\""));
}

fn a_pod_that_goes_is_cut_at_once_and_may_come_back(driver: Driver) {
    let shared = Shared::start(CORELANE, &options(driver, &["a", "b", "c"]));
    shared.serve(&["a", "b", "c"]);
    let _app = Server::start(&shared.host("b"), PORT, apps::echo);
    let _other = Server::start(&shared.host("c"), PORT, apps::echo);
    let connect = |to: &str| {
        let to = shared.at(to, PORT);
        shared.host("a").enter(|| apps::connect(to)).unwrap()
    };
    let (mut cut, mut kept) = (connect("b"), connect("c"));
    assert_eq!(apps::round_trip(&mut cut, b"x").unwrap(), b"x");
    assert_eq!(apps::round_trip(&mut kept, b"x").unwrap(), b"x");
    shared.session.delete("b").unwrap();
    let _ended = apps::read_to_end(&mut cut);
    assert_eq!(apps::round_trip(&mut kept, b"y").unwrap(), b"y");
    let to = shared.at("b", PORT);
    let again = shared.host("a").enter(|| apps::exchange(to, b"x"));
    assert!(
        again.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{again:?}"
    );
    shared.add("b").unwrap();
    assert!(shared.node.is_ready());
    let mut back = connect("b");
    assert_eq!(apps::round_trip(&mut back, b"z").unwrap(), b"z");
    shared.session.delete("a").unwrap();
    let _ended = apps::read_to_end(&mut back);
    let _ended = apps::read_to_end(&mut kept);
}

fn a_pod_whose_port_is_taken_is_refused_and_served_once_it_is_free(driver: Driver) {
    let shared = Shared::start(CORELANE, &options(driver, &["a", "b"]));
    let taken = shared
        .host("b")
        .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 15_001)))
        .unwrap();
    shared.add("a").unwrap();
    let refused = shared.add("b").unwrap_err();
    assert!(
        refused.starts_with("failure to start proxy : "),
        "{refused}"
    );
    assert!(refused.contains("15001"), "{refused}");
    for port in [15_008, 15_006] {
        let free = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        let bound = shared.host("b").enter(free);
        assert!(bound.is_ok(), "{port} is released again: {bound:?}");
    }
    let held = shared.node.process().namespaces();
    assert_eq!(held, 3, "its own and those of both pods");
    shared.session.snapshot().unwrap();
    assert!(!shared.node.is_ready());
    shared
        .node
        .wait_metric("workload_manager_pending_proxy_count", &[], 1);
    let dump = shared.node.admin("GET", "/config_dump").body;
    assert!(dump.contains("\"Pending\""));
    drop(taken);
    shared.wait_ready(true);
    shared
        .node
        .wait_metric("workload_manager_proxies_started_total", &[], 2);
    let _app = Server::start(&shared.host("b"), PORT, apps::double);
    let to = shared.at("b", PORT);
    let answer = shared.host("a").enter(|| apps::exchange(to, b"x"));
    assert_eq!(answer.unwrap(), b"xx");
}

fn pods_are_served_while_the_agent_is_away(driver: Driver) {
    let shared = Shared::start(CORELANE, &options(driver, &["a", "b", "c"]));
    shared.serve(&["a", "b", "c"]);
    let _app = Server::start(&shared.host("b"), PORT, apps::echo);
    let to = shared.at("b", PORT);
    let mut open = shared.host("a").enter(|| apps::connect(to)).unwrap();
    assert_eq!(apps::round_trip(&mut open, b"x").unwrap(), b"x");
    let shared = shared.reconnect();
    assert!(!shared.node.is_ready(), "the agent has not said all yet");
    assert_eq!(apps::round_trip(&mut open, b"y").unwrap(), b"y");
    shared.session.keep("a").unwrap();
    shared.add("b").unwrap();
    shared.session.snapshot().unwrap();
    shared.wait_ready(true);
    assert_eq!(apps::round_trip(&mut open, b"z").unwrap(), b"z");
    let active = "workload_manager_active_proxy_count";
    shared.node.wait_metric(active, &[], 2);
    let started = "workload_manager_proxies_started_total";
    shared.node.wait_metric(started, &[], 3);
}

fn an_agent_that_breaks_the_rules_ends_the_node(driver: Driver) {
    let mut shared = Shared::start(CORELANE, &options(driver, &["a"]));
    shared.serve(&["a"]);
    let namespace = shared.host("a");
    let nobody = agent::add("x", None);
    shared.session.send(&nobody, &[namespace.handle()]);
    let error = shared.session.acknowledged().unwrap_err();
    assert!(
        error.starts_with("failure to process message : "),
        "{error}"
    );
    let status = shared.node.process_mut().wait_end(REPORT_LIMIT);
    assert_eq!(status.code(), Some(1));
}

fn a_node_that_stops_lets_its_pods_connections_end(driver: Driver) {
    let mut shared = Shared::start(
        CORELANE,
        &Options {
            env: &[("CONNECTION_TERMINATION_DEADLINE", "60s")],
            ..options(driver, &["a", "b"])
        },
    );
    shared.serve(&["a", "b"]);
    let _app = Server::start(&shared.host("b"), PORT, apps::echo);
    let to = shared.at("b", PORT);
    let mut open = shared.host("a").enter(|| apps::connect(to)).unwrap();
    assert_eq!(apps::round_trip(&mut open, b"x").unwrap(), b"x");
    shared.node.process().signal(Signal::TERM);
    shared.session.wait_closed();
    clock::wait_for("closed listeners", REPORT_LIMIT, || {
        let refused = shared.host("a").enter(|| apps::exchange(to, b"x"));
        refused
            .map_or_else(|_| true, |bytes| bytes.is_empty())
            .then_some(())
    });
    assert_eq!(apps::round_trip(&mut open, b"y").unwrap(), b"y");
    drop(open);
    let status = shared.node.process_mut().wait_end(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
}

fn a_node_that_is_a_workload_itself_takes_tunnels_to_itself(driver: Driver) {
    // The node's own host is known to the mesh as pod `a` only by name: the namespace differs.
    let shared = Shared::start(
        CORELANE,
        &Options {
            env: &[
                ("POD_NAME", "a"),
                ("POD_NAMESPACE", "default"),
                ("SERVICE_ACCOUNT", "a"),
            ],
            ..options(driver, &["a"])
        },
    );
    shared.serve(&[]);
    let own = shared
        .authority
        .issue(&corelane_harness::pki::Leaf::for_account("a"));
    let to = SocketAddr::from((shared.host("node").v4(), 15_008));
    let chain = shared.host(OUTSIDE).enter(|| {
        let tunnel = corelane_harness::wire::Tunnel::open(to, &own).unwrap();
        tunnel.server_chain()
    });
    assert_eq!(chain.len(), 1);
}
