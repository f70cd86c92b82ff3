//! A captured client reaches a captured server through HBONE: bytes, metrics, access log,
//! identities, source address.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::Family;
use corelane_harness::node::{Driver, Node, REPORT_LIMIT};
use corelane_harness::pair::{
    CLIENT_ID, Options, Pair, SERVER_ID, SERVER_PORT, SERVICE_PORT, SERVICE_V4, SERVICE_V6,
};

use crate::{CORELANE, live};

const REQUEST: &[u8] = b"hello world";
const ANSWER: &[u8] = b"hello worldhello world";

with_both_drivers!(
    bytes_metrics_and_logs_agree_over_ipv4,
    bytes_metrics_and_logs_agree_over_ipv6,
    a_service_address_reaches_its_endpoint,
    the_application_sees_the_clients_address,
    a_large_transfer_is_intact_in_both_directions,
    connections_share_a_tunnel,
    closed_connections_leave_no_descriptor,
    a_node_without_ipv6_serves_ipv4,
);

fn bytes_metrics_and_logs_agree_over_ipv4(driver: Driver) {
    bytes_metrics_and_logs_agree(driver, Family::V4);
}

fn bytes_metrics_and_logs_agree_over_ipv6(driver: Driver) {
    bytes_metrics_and_logs_agree(driver, Family::V6);
}

fn bytes_metrics_and_logs_agree(driver: Driver, family: Family) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let to = pair.server_at(family, SERVER_PORT);
    let answer = pair
        .client_host
        .enter(|| apps::exchange(to, REQUEST))
        .unwrap();
    assert_eq!(answer, ANSWER);

    for (node, reporter) in [(&pair.client, "source"), (&pair.server, "destination")] {
        metrics_count_one_connection(node, reporter);
    }
    let common = [
        ("src.workload", "client"),
        ("src.namespace", "default"),
        ("src.identity", CLIENT_ID),
        ("src.cluster", "Kubernetes"),
        ("dst.workload", "server"),
        ("dst.namespace", "default"),
        ("dst.identity", SERVER_ID),
        ("dst.cluster", "Kubernetes"),
        ("dst.hbone_addr", &to.to_string()),
    ];
    let line = pair.client.wait_access_line("connection complete", &common);
    assert!(line.has(&[
        ("direction", "outbound"),
        ("bytes_sent", "11"),
        ("bytes_recv", "22")
    ]));
    assert_eq!(
        line.field("dst.addr"),
        pair.server_at(family, 15_008).to_string()
    );
    let line = pair.server.wait_access_line("connection complete", &common);
    assert!(line.has(&[
        ("direction", "inbound"),
        ("bytes_sent", "22"),
        ("bytes_recv", "11")
    ]));
    assert_eq!(
        line.field("dst.addr"),
        pair.server_at(family, 15_008).to_string()
    );
    assert_eq!((line.level.as_str(), line.field("error")), ("info", ""));
}

/// Telemetry, test-derived corner cases, row 1.
fn metrics_count_one_connection(node: &Node, reporter: &str) {
    let traffic = [
        ("reporter", reporter),
        ("response_flags", "-"),
        ("request_protocol", "tcp"),
        ("connection_security_policy", "mutual_tls"),
        ("source_principal", CLIENT_ID),
        ("destination_principal", SERVER_ID),
        ("source_workload", "client-owner"),
        ("destination_workload", "server-owner"),
        ("source_canonical_service", "client"),
        ("destination_canonical_service", "server"),
        ("source_workload_namespace", "default"),
        ("destination_workload_namespace", "default"),
        ("source_cluster", "Kubernetes"),
        ("destination_cluster", "Kubernetes"),
    ];
    node.wait_metric("istio_tcp_connections_closed_total", &traffic, 1);
    node.wait_metric("istio_tcp_connections_opened_total", &traffic, 1);
    node.wait_metric("istio_tcp_received_bytes_total", &traffic, 11);
    node.wait_metric("istio_tcp_sent_bytes_total", &traffic, 22);
    node.wait_metric(
        "istio_tcp_connections_failed_total",
        &[("reporter", reporter)],
        0,
    );
}

fn a_service_address_reaches_its_endpoint(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    for (ip, family) in [
        (IpAddr::V4(SERVICE_V4), Family::V4),
        (IpAddr::V6(SERVICE_V6), Family::V6),
    ] {
        let service = SocketAddr::new(ip, SERVICE_PORT);
        let answer = pair
            .client_host
            .enter(|| apps::exchange(service, REQUEST))
            .unwrap();
        assert_eq!(answer, ANSWER, "{service}");
        let endpoint = pair.server_at(family, SERVER_PORT).to_string();
        let fields = [
            ("dst.hbone_addr", endpoint.as_str()),
            ("dst.service", "server.default.svc.cluster.local"),
        ];
        let _ = pair.client.wait_access_line("connection complete", &fields);
        let _ = pair.server.wait_access_line("connection complete", &fields);
    }
    let labels = [
        ("destination_service", "server.default.svc.cluster.local"),
        ("destination_service_name", "server"),
        ("destination_service_namespace", "default"),
        ("destination_principal", SERVER_ID),
    ];
    pair.client
        .wait_metric("istio_tcp_connections_closed_total", &labels, 2);
    pair.server
        .wait_metric("istio_tcp_connections_closed_total", &labels, 2);
}

fn the_application_sees_the_clients_address(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let (tell, told) = mpsc::channel();
    let _app = Server::start(&pair.server_host, SERVER_PORT, move |stream| {
        let _ = tell.send(stream.peer_addr());
        apps::echo(stream);
    });
    for family in [Family::V4, Family::V6] {
        let to = pair.server_at(family, SERVER_PORT);
        pair.client_host
            .enter(|| apps::exchange(to, REQUEST))
            .unwrap();
        let seen = told.recv_timeout(REPORT_LIMIT).unwrap().unwrap();
        assert_eq!(seen.ip().to_canonical(), pair.client_host.ip(family));
    }
}

fn a_large_transfer_is_intact_in_both_directions(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let mut request = vec![0; 32 * 1024 * 1024];
    fastrand::Rng::with_seed(1).fill(&mut request);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    // An echo needs sending and receiving at the same time.
    let answer = pair.client_host.enter(|| {
        let stream = apps::connect(to)?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                std::io::Write::write_all(&mut &stream, &request)?;
                stream.shutdown(std::net::Shutdown::Write)
            });
            let mut answer = Vec::new();
            std::io::Read::read_to_end(&mut &stream, &mut answer)?;
            sender.join().unwrap().map(|()| answer)
        })
    });
    assert!(answer.unwrap() == request, "32 MiB came back changed");
}

fn connections_share_a_tunnel(driver: Driver) {
    // One shard, so that all connections could share one tunnel.
    let pair = Pair::start(
        CORELANE,
        Options::new(driver).env("ZTUNNEL_WORKER_THREADS", "1"),
    );
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = pair.client_host.enter(|| apps::connect(to)).unwrap();
        assert_eq!(apps::round_trip(&mut stream, b"x").unwrap(), b"x");
        streams.push(stream);
    }
    // The gauge counts TCP connections to 15008, not streams.
    pair.server
        .wait_metric("istio_tcp_sockets_open", &[("reporter", "destination")], 1);
    pair.client
        .wait_metric("istio_tcp_sockets_open", &[("reporter", "source")], 20);
    drop(streams);
    pair.client
        .wait_metric("istio_tcp_sockets_open", &[("reporter", "source")], 0);
}

fn closed_connections_leave_no_descriptor(driver: Driver) {
    const CONNECTIONS: usize = 200;
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    // The first round opens what stays open: the tunnels of each shard.
    drop(live::open(&pair, SERVER_PORT, CONNECTIONS));
    let settled = |node: &Node| {
        let labels = [("reporter", "source")];
        pair.client
            .wait_metric("istio_tcp_sockets_open", &labels, 0);
        node.process().descriptors()
    };
    let before = [&pair.client, &pair.server].map(settled);
    for _ in 0..3 {
        drop(live::open(&pair, SERVER_PORT, CONNECTIONS));
    }
    let nodes = [(&pair.client, before[0]), (&pair.server, before[1])];
    for (node, before) in nodes {
        // A tunnel more or less may be open; a descriptor for each connection may not.
        let tolerated = before + CONNECTIONS as u64 / 10;
        clock::wait_for("descriptors to be closed", REPORT_LIMIT, || {
            (node.process().descriptors() <= tolerated).then_some(())
        });
    }
}

fn a_node_without_ipv6_serves_ipv4(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver).env("IPV6_ENABLED", "false"));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let answer = pair
        .client_host
        .enter(|| apps::exchange(to, REQUEST))
        .unwrap();
    assert_eq!(answer, ANSWER);
    let _ = pair
        .server
        .wait_access_line("connection complete", &[("src.identity", CLIENT_ID)]);
    // Nothing listens for captured IPv6.
    let to = pair.server_at(Family::V6, SERVER_PORT);
    assert!(
        pair.client_host
            .enter(|| apps::exchange(to, REQUEST))
            .is_err()
    );
}
