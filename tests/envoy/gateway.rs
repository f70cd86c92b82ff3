//! Two networks with an Envoy between them: a node opens a tunnel to the gateway, and inside it one to
//! the node behind it, which the gateway forwards unread.

mod config;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use corelane_harness::apps::{self, PATIENCE, Server};
use corelane_harness::clock;
use corelane_harness::node::{Node, REPORT_LIMIT};
use corelane_harness::pki::{Leaf, spiffe};
use corelane_harness::state::{State, Workload, host_name};

use crate::mesh::{APP_PORT, HBONE_PORT, Mesh, check_bytes, check_refused};
use crate::node::{self, Setup};
use crate::peer::Envoy;

const SERVICE_PORT: u16 = 80;
const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
const GATEWAY_ID: &str = "spiffe://cluster.local/ns/default/sa/gateway";
const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";

/// What the client asks both tunnels for.
fn authority() -> String {
    format!("{}:{SERVICE_PORT}", host_name("server"))
}

fn workload<'a>(
    name: &'a str,
    ips: &'a [IpAddr],
    services: &'a [(&'a str, u16, u16)],
) -> Workload<'a> {
    Workload {
        name,
        ips,
        hbone: true,
        services,
    }
}

/// What the client's node knows: the server is somewhere behind the gateway, and `vouched` may answer.
fn near(mesh: &Mesh, vouched: &str) -> String {
    let [client, gateway, service] =
        [mesh.client_ip(), mesh.gateway_ip(), mesh.service_ip()].map(|ip| [IpAddr::V4(ip)]);
    let reference = format!(
        "networkGateway: {{destination: far/{}, hboneMtlsPort: {HBONE_PORT}}}",
        mesh.gateway_ip()
    );
    let state = State::default()
        .workload(&workload("client", &client, &[]))
        .workload_with("network: near")
        .workload(&workload("gateway", &gateway, &[]))
        .workload_with("network: far")
        .workload(&workload(
            "server",
            &[],
            &[("server", SERVICE_PORT, APP_PORT)],
        ))
        .workload_with("network: far")
        .workload_with(&reference)
        .service("server", &service, SERVICE_PORT, APP_PORT)
        .service_with(&format!("subjectAltNames: [{vouched}]"));
    state.to_yaml().replace("vips: [\"/", "vips: [\"near/")
}

/// What the server's node knows: itself and the gateway, whose address its connections come from.
fn far(mesh: &Mesh) -> State {
    let [server, gateway] = [mesh.server_ip(), mesh.gateway_ip()].map(|ip| [IpAddr::V4(ip)]);
    State::default()
        .workload(&workload(
            "server",
            &server,
            &[("server", SERVICE_PORT, APP_PORT)],
        ))
        .workload_with("network: far")
        .workload(&workload("gateway", &gateway, &[]))
        .workload_with("network: far")
        .service("server", &[], SERVICE_PORT, APP_PORT)
}

fn start_client(mesh: &Mesh, vouched: &str) -> Node {
    let state = near(mesh, vouched);
    let service = SocketAddr::from((mesh.service_ip(), SERVICE_PORT));
    let setup = Setup {
        account: "client",
        ip: mesh.client_ip(),
        certificate: &mesh.issue("client"),
        network: "near",
        state: &state,
        inbound: None,
        forward: Some((mesh.entry_at(), service)),
    };
    node::start_as(mesh, &setup)
}

fn start_server(mesh: &Mesh, state: &State) -> Node {
    let setup = Setup {
        account: "server",
        ip: mesh.server_ip(),
        certificate: &mesh.issue("server"),
        network: "far",
        state: &state.to_yaml(),
        inbound: Some(mesh.hbone_at()),
        forward: None,
    };
    node::start_as(mesh, &setup)
}

fn start_gateway(mesh: &Mesh) -> Envoy {
    config::start(mesh, &mesh.issue("gateway"), &authority())
}

#[test]
fn bytes_cross_through_an_envoy_and_both_nodes_know_whom_they_talk_to() {
    let name = "bytes_cross_through_an_envoy_and_both_nodes_know_whom_they_talk_to";
    let Some(mesh) = Mesh::new(name) else { return };
    let _app = mesh.start_app();
    let server = start_server(&mesh, &far(&mesh));
    let gateway = start_gateway(&mesh);
    let client = start_client(&mesh, SERVER_ID);
    check_bytes(mesh.entry_at());
    let echo = apps::exchange(mesh.entry_at(), b"11 bytes...");
    assert_eq!(echo.unwrap(), b"11 bytes...");
    let gateway_at = format!("{}:{HBONE_PORT}", mesh.gateway_ip());
    let line = client.wait_access_line("connection complete", &[("bytes_sent", "11")]);
    let fields = [
        ("src.workload", "client"),
        ("src.identity", CLIENT_ID),
        ("dst.addr", &gateway_at),
        ("dst.hbone_addr", &authority()),
        ("dst.service", &host_name("server")),
        ("dst.workload", "server-owner"),
        ("dst.identity", SERVER_ID),
        ("direction", "outbound"),
        ("bytes_recv", "11"),
        ("error", ""),
    ];
    assert!(line.has(&fields), "{line:?}");
    let line = server.wait_access_line("connection complete", &[("bytes_sent", "11")]);
    // The address is the gateway's, the name that came with the request is the client's.
    assert!(
        line.field("src.addr")
            .starts_with(&mesh.gateway_ip().to_string()),
        "{line:?}"
    );
    let fields = [
        ("src.workload", "client"),
        ("src.identity", CLIENT_ID),
        ("dst.hbone_addr", &authority()),
        ("dst.workload", "server"),
        ("direction", "inbound"),
        ("error", ""),
    ];
    assert!(line.has(&fields), "{line:?}");
    // The gateway learns the name and who asks; where from only the node behind it is told.
    let line = gateway.wait_access_line(&["200", CLIENT_ID, &authority()]);
    assert!(line.contains("network=- baggage=k8s."), "{line}");
    assert!(line.contains("traceparent=00-"), "{line}");
    check_metrics(&client, &server);
}

/// Four connections were opened and closed between client and server, whatever is in between.
#[track_caller]
fn check_metrics(client: &Node, server: &Node) {
    let ends = [
        ("source_workload", "client-owner"),
        ("source_principal", CLIENT_ID),
        ("destination_workload", "server-owner"),
        ("destination_principal", SERVER_ID),
        ("destination_service", "server.default.svc.cluster.local"),
        ("connection_security_policy", "mutual_tls"),
    ];
    for (node, reporter) in [(client, "source"), (server, "destination")] {
        let labels: Vec<_> = ends.into_iter().chain([("reporter", reporter)]).collect();
        node.wait_metric("istio_tcp_connections_opened_total", &labels, 4);
        node.wait_metric("istio_tcp_connections_closed_total", &labels, 4);
        node.wait_metric("istio_tcp_connections_opened_total", &[], 4);
        node.wait_metric("istio_tcp_connections_failed_total", &[], 0);
    }
    // Four inner tunnels have come and gone; each shard may keep an outer one.
    server.wait_metric("corelane_tunnels_open", &[("role", "server")], 0);
    let role = [("role", "client")];
    clock::wait_for("inner tunnels to end", REPORT_LIMIT, || {
        let open = client.metrics().sum("corelane_tunnels_open", &role);
        (1.0..=2.0).contains(&open).then_some(())
    });
    let opened = client.metrics().sum("corelane_tunnels_opened_total", &role);
    assert!((5.0..=6.0).contains(&opened), "{opened}");
}

#[test]
fn a_gateway_or_a_server_with_another_name_is_refused() {
    let Some(mesh) = Mesh::new("a_gateway_or_a_server_with_another_name_is_refused") else {
        return;
    };
    let app = mesh.start_app();
    let _server = start_server(&mesh, &far(&mesh));
    // The server's certificate is good, and even the right one behind the gateway; not at it.
    let wrong = [
        spiffe("cluster.local", "server"),
        spiffe("elsewhere.example", "gateway"),
    ];
    let client = start_client(&mesh, SERVER_ID);
    for (name, refused) in wrong.iter().zip(1..) {
        let certificate = mesh.authority.issue(&Leaf::named(name));
        let gateway = config::start(&mesh, &certificate, &authority());
        check_refused(mesh.entry_at(), &app);
        drop(gateway);
        let labels = [("destination_workload", "gateway-owner")];
        client.wait_metric("istio_tcp_connections_failed_total", &labels, refused);
    }
    let line = client.wait_access_line("connection complete", &[("direction", "outbound")]);
    let error = line.field("error");
    assert!(error.contains("identity verification error"), "{line:?}");
    assert!(error.contains("outer tunnel, to the gateway"), "{line:?}");
    let ignorant = config::start(&mesh, &mesh.issue("gateway"), "elsewhere.example:80");
    check_refused(mesh.entry_at(), &app);
    drop(ignorant);
    let error = "http status: 404 Not Found (outer tunnel";
    clock::wait_for("the gateway's answer in the log", REPORT_LIMIT, || {
        let lines = client.access_lines();
        let mut errors = lines.iter().map(|line| line.field("error"));
        errors.find(|found| found.starts_with(error)).map(drop)
    });
    let _gateway = start_gateway(&mesh);
    check_bytes(mesh.entry_at());
    drop(client);
    for vouched in [GATEWAY_ID, CLIENT_ID] {
        let client = start_client(&mesh, vouched);
        check_refused(mesh.entry_at(), &app);
        let line = client.wait_access_line("connection complete", &[("direction", "outbound")]);
        let error = line.field("error");
        assert!(error.contains("identity verification error"), "{line:?}");
        assert!(error.contains("inner tunnel, through"), "{line:?}");
    }
}

#[test]
fn policy_behind_the_gateway_is_about_the_client_and_not_about_the_gateway() {
    let name = "policy_behind_the_gateway_is_about_the_client_and_not_about_the_gateway";
    let Some(mesh) = Mesh::new(name) else { return };
    let app = mesh.start_app();
    let _gateway = start_gateway(&mesh);
    let client = start_client(&mesh, SERVER_ID);
    let allow = |account| {
        let rules = format!("[[[{{principals: [!Exact cluster.local/ns/default/sa/{account}]}}]]]");
        far(&mesh).policy("allow", "Allow", &rules)
    };
    let server = start_server(&mesh, &allow("gateway"));
    check_refused(mesh.entry_at(), &app);
    let line = client.wait_access_line("connection complete", &[("direction", "outbound")]);
    let error = line.field("error");
    assert!(error.contains("http status: 401 Unauthorized"), "{line:?}");
    let denied = [("src.identity", CLIENT_ID), ("direction", "inbound")];
    let line = server.wait_access_line("connection complete", &denied);
    assert!(line.field("error").contains("policy rejection"), "{line:?}");
    drop(server);
    let _server = start_server(&mesh, &allow("client"));
    check_bytes(mesh.entry_at());
}

/// An application that hands its connections out.
fn app(mesh: &Mesh) -> (Server, Receiver<TcpStream>) {
    let (hand, taken) = channel();
    let serve = move |stream| {
        let _ = hand.send(stream);
    };
    let server = Server::start_here(IpAddr::V4(mesh.server_ip()), APP_PORT, serve);
    (server, taken)
}

/// A connection and its other end, over which a byte went each way.
fn open(mesh: &Mesh, taken: &Receiver<TcpStream>) -> (TcpStream, TcpStream) {
    let mut client = apps::connect(mesh.entry_at()).unwrap();
    client.write_all(b"u").unwrap();
    let mut server = taken.recv_timeout(PATIENCE).unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"d").unwrap();
    client.read_exact(&mut [0]).unwrap();
    (client, server)
}

#[test]
fn each_side_may_end_first_and_a_reset_stays_one() {
    let Some(mesh) = Mesh::new("each_side_may_end_first_and_a_reset_stays_one") else {
        return;
    };
    let (_app, taken) = app(&mesh);
    let server_node = start_server(&mesh, &far(&mesh));
    let _gateway = start_gateway(&mesh);
    let client_node = start_client(&mesh, SERVER_ID);
    let words = vec![7; 3_000_000];
    for client_first in [true, false] {
        let (client, server) = open(&mesh, &taken);
        let (mut first, mut second) = if client_first {
            (client, server)
        } else {
            (server, client)
        };
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(apps::read_to_end(&mut second).unwrap(), 0);
        std::thread::scope(|scope| {
            let words = &words;
            // Closed behind its last byte: what is under way must arrive all the same.
            scope.spawn(move || second.write_all(words).unwrap());
            let heard = apps::read_to_end(&mut first).unwrap();
            assert_eq!(heard, words.len(), "client first: {client_first}");
        });
    }
    let opened = "istio_tcp_connections_opened_total";
    client_node.wait_metric(opened, &[], 2);
    for client_resets in [true, false] {
        let (client, server) = open(&mesh, &taken);
        let (gone, mut left) = if client_resets {
            (client, server)
        } else {
            (server, client)
        };
        apps::reset(gone);
        let error = apps::read_to_end(&mut left).unwrap_err();
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{client_resets}");
    }
    for node in [&client_node, &server_node] {
        node.wait_metric("istio_tcp_connections_closed_total", &[], 4);
        node.wait_metric("istio_tcp_connections_failed_total", &[], 0);
    }
}

#[test]
fn a_gateway_that_dies_resets_what_crosses_it_and_a_new_one_is_used() {
    let name = "a_gateway_that_dies_resets_what_crosses_it_and_a_new_one_is_used";
    let Some(mesh) = Mesh::new(name) else { return };
    let (_app, taken) = app(&mesh);
    let _server = start_server(&mesh, &far(&mesh));
    let gateway = start_gateway(&mesh);
    let client_node = start_client(&mesh, SERVER_ID);
    let (mut client, mut server) = open(&mesh, &taken);
    drop(gateway);
    for left in [&mut client, &mut server] {
        let error = apps::read_to_end(left).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let line = client_node.wait_access_line("connection complete", &[]);
    assert!(line.field("error").contains("outer tunnel"), "{line:?}");
    let _gateway = start_gateway(&mesh);
    drop(open(&mesh, &taken));
}
