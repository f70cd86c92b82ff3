//! Plain text: towards destinations the mesh does not know, and arriving from outside the mesh.

use std::net::SocketAddr;

use corelane_harness::apps::{self, Server};
use corelane_harness::hosts::Family;
use corelane_harness::node::Driver;
use corelane_harness::pair::{CLIENT_ID, Options, Pair, SERVER_PORT};

use crate::CORELANE;

with_both_drivers!(
    an_unknown_destination_is_reached_in_plain_text,
    a_workload_without_hbone_is_reached_in_plain_text,
    plain_text_from_outside_is_allowed_without_policy,
    plain_text_from_outside_is_refused_when_an_identity_is_required,
    an_unreachable_destination_closes_the_connection,
);

fn an_unknown_destination_is_reached_in_plain_text(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let app = Server::start(&pair.outside_host, 9_000, apps::double);
    for family in [Family::V4, Family::V6] {
        let to = SocketAddr::new(pair.outside_host.ip(family), app.port());
        let answer = pair
            .client_host
            .enter(|| apps::exchange(to, b"out"))
            .unwrap();
        assert_eq!(answer, b"outout");
        let fields = [
            ("dst.addr", to.to_string()),
            ("direction", "outbound".into()),
        ];
        let fields = fields.each_ref().map(|(k, v)| (*k, v.as_str()));
        let line = pair.client.wait_access_line("connection complete", &fields);
        assert!(line.has(&[
            ("src.identity", ""),
            ("dst.identity", ""),
            ("dst.hbone_addr", "")
        ]));
        assert!(line.has(&[("bytes_sent", "3"), ("bytes_recv", "6")]));
    }
    let labels = [
        ("reporter", "source"),
        ("connection_security_policy", "unknown"),
        ("source_principal", "unknown"),
        ("destination_workload", "unknown"),
    ];
    pair.client
        .wait_metric("istio_tcp_connections_closed_total", &labels, 2);
}

fn a_workload_without_hbone_is_reached_in_plain_text(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver).plaintext_server());
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let answer = pair
        .client_host
        .enter(|| apps::exchange(to, b"plain"))
        .unwrap();
    assert_eq!(answer, b"plainplain");
    let fields = [
        ("dst.workload", "server"),
        ("dst.hbone_addr", ""),
        ("dst.identity", ""),
    ];
    let line = pair.client.wait_access_line("connection complete", &fields);
    assert_eq!(line.field("dst.addr"), to.to_string());
    let line = pair
        .server
        .wait_access_line("connection complete", &[("direction", "inbound")]);
    assert_eq!(line.field("src.identity"), "");
}

fn plain_text_from_outside_is_allowed_without_policy(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    for family in [Family::V4, Family::V6] {
        let to = pair.server_at(family, SERVER_PORT);
        let answer = pair
            .outside_host
            .enter(|| apps::exchange(to, b"in"))
            .unwrap();
        assert_eq!(answer, b"inin");
        let fields = [
            ("dst.addr", to.to_string()),
            ("direction", "inbound".into()),
        ];
        let fields = fields.each_ref().map(|(k, v)| (*k, v.as_str()));
        let line = pair.server.wait_access_line("connection complete", &fields);
        assert!(line.has(&[("src.identity", ""), ("dst.workload", "server")]));
        assert!(line.has(&[("bytes_sent", "4"), ("bytes_recv", "2")]));
    }
    let labels = [
        ("reporter", "destination"),
        ("connection_security_policy", "unknown"),
    ];
    pair.server
        .wait_metric("istio_tcp_connections_closed_total", &labels, 2);
}

fn plain_text_from_outside_is_refused_when_an_identity_is_required(driver: Driver) {
    let principal = CLIENT_ID.trim_start_matches("spiffe://");
    let rules = format!("[[[{{principals: [!Exact {principal}]}}]]]");
    let options = Options::new(driver).policy("only-client", "Allow", &rules);
    let pair = Pair::start(CORELANE, options);
    let app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let refused = pair.outside_host.enter(|| apps::exchange(to, b"in"));
    assert!(
        refused.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{refused:?}"
    );
    assert_eq!(app.accepted(), 0, "the application was reached");
    let line = pair
        .server
        .wait_access_line("connection complete", &[("direction", "inbound")]);
    assert_eq!(line.level, "error");
    assert!(
        line.field("error")
            .contains("allow policies exist, but none allowed"),
        "{line:?}"
    );
    let denied = [("reporter", "destination"), ("response_flags", "DENY")];
    pair.server
        .wait_metric("istio_tcp_connections_failed_total", &denied, 1);
    // The identity that is allowed gets through.
    let answer = pair
        .client_host
        .enter(|| apps::exchange(to, b"in"))
        .unwrap();
    assert_eq!(answer, b"inin");
}

fn an_unreachable_destination_closes_the_connection(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    // Nothing listens there: the host answers with a reset.
    let to = SocketAddr::new(pair.outside_host.ip(Family::V4), 9_999);
    let ended = pair.client_host.enter(|| apps::exchange(to, b""));
    assert!(
        ended.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{ended:?}"
    );
    let fields = [("dst.addr", to.to_string())];
    let fields = fields.each_ref().map(|(k, v)| (*k, v.as_str()));
    let line = pair.client.wait_access_line("connection complete", &fields);
    assert_eq!(line.level, "error");
    let failed = [("reporter", "source"), ("response_flags", "CONNECT")];
    pair.client
        .wait_metric("istio_tcp_connections_failed_total", &failed, 1);
}
