//! Settings that change what the other end sees, each beside its opposite.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::fleet::Fleet;
use corelane_harness::hosts::Family;
use corelane_harness::node::{Addresses, Driver, Node};
use corelane_harness::pair::{Options, Pair, SERVER_PORT};
use corelane_harness::pki::Leaf;
use corelane_harness::state::{State, Workload};
use corelane_harness::wire::{Tunnel, frame};

use crate::CORELANE;

const PATIENCE: Duration = Duration::from_secs(20);

with_both_drivers!(
    a_server_tells_who_it_is_and_listens_to_its_client_unless_that_is_off,
    an_application_sees_its_clients_address_unless_that_is_off,
    a_node_that_cannot_keep_addresses_starts_unless_it_must,
);

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

fn a_server_tells_who_it_is_and_listens_to_its_client_unless_that_is_off(driver: Driver) {
    for (setting, told) in [(None, true), (Some("true"), true), (Some("false"), false)] {
        let options = Options::new(driver);
        let options = match setting {
            Some(value) => options.env("ENABLE_RESPONSE_BAGGAGE", value),
            None => options,
        };
        let pair = Pair::start(CORELANE, options);
        let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
        let certificate = pair.authority.issue(&Leaf::for_account("client"));
        let hbone = pair.server_at(Family::V4, 15_008);
        let authority = pair.server_at(Family::V4, SERVER_PORT).to_string();
        let mut tunnel = pair.outside_host.enter(|| {
            let mut tunnel = Tunnel::open(hbone, &certificate).unwrap();
            tunnel.start_http2().unwrap();
            tunnel
        });
        let fields = [
            (":method", "CONNECT"),
            (":authority", &authority),
            (
                "baggage",
                "k8s.namespace.name=far,k8s.deployment.name=caller",
            ),
        ];
        tunnel.request(1, &fields).unwrap();
        let answer = tunnel.receive().unwrap();
        assert_eq!((answer.kind, answer.stream), (frame::HEADERS, 1));
        assert_eq!(answer.payload[0], 0x88, "status 200");
        let own = "k8s.deployment.name=server-owner";
        assert_eq!(contains(&answer.payload, own), told, "{setting:?}");
        assert_eq!(contains(&answer.payload, "baggage"), told, "{setting:?}");
        tunnel.send_data(1, b"x", true).unwrap();
        assert_eq!(tunnel.receive_data(1).unwrap(), b"xx");
        // The client's address is nobody's: what it says of itself is all there is to count by.
        let source = if told { "caller" } else { "unknown" };
        let labels = [("reporter", "destination"), ("source_workload", source)];
        pair.server
            .wait_metric("istio_tcp_connections_closed_total", &labels, 1);
    }
}

/// Answers with the address it was called from.
fn who_calls(mut stream: TcpStream) {
    let ip = stream.peer_addr().unwrap().ip().to_canonical();
    let _ = stream.write_all(ip.to_string().as_bytes());
}

fn an_application_sees_its_clients_address_unless_that_is_off(driver: Driver) {
    for (setting, kept) in [("true", true), ("false", false)] {
        let options = Options::new(driver).env("ENABLE_ORIG_SRC", setting);
        let pair = Pair::start(CORELANE, options);
        let _app = Server::start(&pair.server_host, SERVER_PORT, who_calls);
        for family in [Family::V4, Family::V6] {
            let to = pair.server_at(family, SERVER_PORT);
            for host in [&pair.client_host, &pair.outside_host] {
                let answer = host.enter(|| apps::exchange(to, b"")).unwrap();
                let seen: IpAddr = String::from_utf8(answer).unwrap().parse().unwrap();
                let expected = if kept { host.ip(family) } else { to.ip() };
                assert_eq!(seen, expected, "{setting} {family:?} {}", host.name());
            }
        }
    }
}

/// Without the capabilities for it, no socket may have a foreign address.
fn a_node_that_cannot_keep_addresses_starts_unless_it_must(driver: Driver) {
    let fleet = Fleet::new(CORELANE, &["server"]);
    let workload = Workload {
        name: "server",
        ips: &fleet.ips("server"),
        hbone: true,
        services: &[],
    };
    fleet.publish(&State::default().workload(&workload).to_yaml());
    let host = fleet.host("server");
    let launch = |setting: Option<&str>| {
        let mut command = host.command("setpriv");
        command.args(["--bounding-set=-net_admin,-net_raw", CORELANE, "proxy"]);
        fleet.prepare("server", &mut command);
        command
            .env("CORELANE_DRIVER", driver.as_str())
            .env_remove("PACKET_MARK")
            .envs(setting.map(|value| ("ENABLE_ORIG_SRC", value)));
        let addresses = Addresses::at(Ipv4Addr::LOCALHOST);
        Node::launch(
            "server",
            command,
            Some(host.clone()),
            addresses,
            fleet.dir(),
        )
    };
    let mut required = launch(Some("true"));
    assert_eq!(required.process_mut().wait_end(PATIENCE).code(), Some(1));
    let output = required.process().output();
    assert!(
        output.contains("15008") || output.contains("15006"),
        "{output}"
    );
    drop(required);
    let _app = Server::start(&host, SERVER_PORT, who_calls);
    for setting in [None, Some("false")] {
        let node = launch(setting);
        corelane_harness::clock::wait_for("readiness", PATIENCE, || node.is_ready().then_some(()));
        let certificate = fleet.authority.issue(&Leaf::for_account("server"));
        let to = fleet.at("server", 15_008);
        let answer = host.enter(|| {
            let mut tunnel = Tunnel::open(to, &certificate).unwrap();
            tunnel.start_http2().unwrap();
            let app = SocketAddr::new(to.ip(), SERVER_PORT);
            tunnel.connect(1, &app.to_string()).unwrap();
            tunnel.reply(1).unwrap();
            tunnel.receive_data(1).unwrap()
        });
        assert_eq!(answer, to.ip().to_string().as_bytes(), "{setting:?}");
    }
}
