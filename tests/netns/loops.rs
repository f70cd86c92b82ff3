//! Connections aimed at the node's own ports end at once and never reach the node through itself
//! (routing, "Loop protection").

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use corelane_harness::apps;
use corelane_harness::clock;
use corelane_harness::hosts::{Family, Host};
use corelane_harness::node::Driver;
use corelane_harness::pair::{Options, Pair};
use corelane_harness::shared::{self, OUTSIDE, Shared};

use crate::CORELANE;

/// A loop would end too, but only when something runs out.
const AT_ONCE: Duration = Duration::from_secs(5);

with_both_drivers!(
    a_captured_client_cannot_loop_through_its_own_node,
    an_outside_client_cannot_use_the_nodes_ports,
    every_port_of_a_shared_node_answers_each_client_as_it_should,
);

/// Connects, sends text no port understands, and returns what comes back before the end.
#[track_caller]
fn talk_nonsense(host: &Host, to: SocketAddr) -> String {
    let started = clock::now();
    let mut stream = match host.enter(|| apps::connect(to)) {
        Ok(stream) => stream,
        // Accepted, and reset before connect() has returned.
        Err(e) if apps::is_close(&e) => return String::new(),
        Err(e) => panic!("{to}: {e}"),
    };
    // The other side may be gone already: what counts is what it says.
    let _ = stream.write_all(b"nonsense\r\n\r\n");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(e) => assert!(apps::is_close(&e), "{to}: {e}"),
    }
    assert!(
        started.elapsed() < AT_ONCE,
        "{to} took {:?} to end",
        started.elapsed()
    );
    String::from_utf8_lossy(&answer).into_owned()
}

fn a_captured_client_cannot_loop_through_its_own_node(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let own = pair.client_host.ip(Family::V4);
    for ip in [own, IpAddr::V4(Ipv4Addr::LOCALHOST)] {
        for port in [15_001, 15_006] {
            let answer = talk_nonsense(&pair.client_host, SocketAddr::new(ip, port));
            assert_eq!(answer, "", "{ip}:{port}");
        }
        // A TLS port may answer nonsense with an alert record (type 21), and nothing else.
        let answer = talk_nonsense(&pair.client_host, SocketAddr::new(ip, 15_008));
        assert!(
            answer.is_empty() || answer.starts_with('\u{15}'),
            "{answer:?}"
        );
    }
    let fields = [("error", "attempted recursive call to ourselves")];
    let _ = pair.client.wait_access_line("connection failed", &fields);
    assert!(pair.client.is_ready());
}

fn an_outside_client_cannot_use_the_nodes_ports(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    for family in [Family::V4, Family::V6] {
        for port in [15_001, 15_006, 15_080, 15_000] {
            let answer = talk_nonsense(&pair.outside_host, pair.server_at(family, port));
            assert_eq!(answer, "", "{family:?} {port}");
        }
        let answer = talk_nonsense(&pair.outside_host, pair.server_at(family, 15_008));
        assert!(
            answer.is_empty() || answer.starts_with('\u{15}'),
            "{answer:?}"
        );
        // In dedicated mode the node's own endpoints are on this host, reached as plain text.
        for port in [15_020, 15_021] {
            let answer = talk_nonsense(&pair.outside_host, pair.server_at(family, port));
            assert!(
                answer.starts_with("HTTP/1.1 400"),
                "{family:?} {port}: {answer:?}"
            );
        }
    }
    let fields = [("error", "attempted recursive call to ourselves")];
    let _ = pair.server.wait_access_line("connection failed", &fields);
    assert!(pair.server.is_ready());
}

/// What a client sees of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Not even a connection.
    Refused,
    /// A connection that ends without a byte.
    Closed,
    /// A handshake that does not take what is no TLS.
    Tls,
    /// An HTTP server that does not understand.
    BadRequest,
}

/// What `host` sees of `to`.
fn look(host: &Host, to: SocketAddr) -> Seen {
    let connected = host.enter(|| apps::connect(to));
    if connected.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
        return Seen::Refused;
    }
    match talk_nonsense(host, to) {
        answer if answer.is_empty() => Seen::Closed,
        answer if answer.starts_with('\u{15}') => Seen::Tls,
        answer if answer.starts_with("HTTP/1.1 400") => Seen::BadRequest,
        answer => panic!("{to}: {answer:?}"),
    }
}

/// The table of routing 9, with the ports in this order.
fn every_port_of_a_shared_node_answers_each_client_as_it_should(driver: Driver) {
    use Seen::{BadRequest, Closed, Refused, Tls};
    const PORTS: [u16; 7] = [15_001, 15_006, 15_008, 15_080, 15_000, 15_020, 15_021];
    let shared = Shared::start(
        CORELANE,
        &shared::Options {
            driver,
            pods: &["a", "b"],
            policies: &[],
            services: &[],
            settings: &[],
            // So that the node takes tunnels to itself.
            env: &[
                ("POD_NAME", "b"),
                ("POD_NAMESPACE", "default"),
                ("SERVICE_ACCOUNT", "b"),
            ],
        },
    );
    shared.serve(&["a"]);
    let (node, pod) = (shared.host("node"), shared.host("a"));
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Captured as plain text, all but the port of tunnels, which says in TLS why it closes.
    let of_other = [Closed, Closed, Tls, Closed, Closed, Closed, Closed];
    let of_node_captured = [Closed, Closed, Tls, Closed, Closed, BadRequest, BadRequest];
    let of_node = [
        Refused, Refused, Tls, Refused, Refused, BadRequest, BadRequest,
    ];
    let of_itself = [Closed, Closed, Tls, Refused, Refused, Refused, Refused];
    for (client, to, expected) in [
        ("a", node.ip(Family::V4), of_node_captured),
        ("a", pod.ip(Family::V4), of_itself),
        ("a", loopback, of_itself),
        (OUTSIDE, node.ip(Family::V4), of_node),
        (OUTSIDE, pod.ip(Family::V4), of_other),
        ("a", node.ip(Family::V6), of_node_captured),
        ("a", pod.ip(Family::V6), of_itself),
        (OUTSIDE, pod.ip(Family::V6), of_other),
    ] {
        let client_host = shared.host(client);
        let seen = PORTS.map(|port| look(&client_host, SocketAddr::new(to, port)));
        assert_eq!(seen, expected, "{client} to {to}, ports {PORTS:?}");
    }
    assert!(shared.node.is_ready());
}
