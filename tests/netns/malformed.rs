//! CONNECT requests that a correct peer never sends, frame by frame (hbone 3.5 and 6): each gets its
//! answer, nothing reaches the application, and the node goes on.

use std::net::Ipv4Addr;

use corelane_harness::apps::{self, Server};
use corelane_harness::hosts::Family;
use corelane_harness::node::Driver;
use corelane_harness::pair::{Options, Pair, SERVER_PORT};
use corelane_harness::pki::{Issued, Leaf};
use corelane_harness::wire::{Reply, Tunnel};

use crate::CORELANE;

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;

with_both_drivers!(
    every_malformed_connect_gets_its_answer,
    bytes_that_are_not_http2_end_the_connection,
    a_denied_connect_is_answered_401_and_the_tunnel_lives_on,
);

fn open(pair: &Pair, certificate: &Issued) -> Tunnel {
    let hbone = pair.server_at(Family::V4, 15_008);
    pair.outside_host.enter(|| {
        let mut tunnel = Tunnel::open(hbone, certificate).unwrap();
        tunnel.start_http2().unwrap();
        tunnel
    })
}

type Fields = Vec<(&'static str, String)>;

fn connect(authority: &str) -> Fields {
    vec![
        (":method", "CONNECT".to_owned()),
        (":authority", authority.to_owned()),
    ]
}

/// A CONNECT with one more pseudo-header.
fn connect_with(authority: &str, name: &'static str, value: &str) -> Fields {
    let mut fields = connect(authority);
    fields.push((name, value.to_owned()));
    fields
}

fn get(authority: &str) -> Fields {
    let mut fields = connect_with(authority, ":path", "/");
    fields[0].1 = "GET".to_owned();
    fields.insert(1, (":scheme", "https".to_owned()));
    fields
}

/// What is wrong, the request, the answer. `server` and `client` are the hosts' addresses.
fn malformed(server: Ipv4Addr, client: Ipv4Addr) -> Vec<(&'static str, Fields, Reply)> {
    let good = format!("{server}:{SERVER_PORT}");
    let bad_request = |name, fields| (name, fields, Reply::Status(400));
    let unavailable = |name, authority: &str| (name, connect(authority), Reply::Status(503));
    let broken = |name, fields| (name, fields, Reply::Reset(PROTOCOL_ERROR));
    vec![
        bad_request("GET", get(&good)),
        bad_request("no port", connect("server.default.svc.cluster.local")),
        bad_request("no host", connect(":80")),
        bad_request("a port too large", connect(&format!("{server}:65536"))),
        bad_request(
            "somebody else's address",
            connect(&format!("{client}:{SERVER_PORT}")),
        ),
        unavailable("an unknown host", "nowhere.example.com:80"),
        unavailable("the node's own port", &format!("{server}:15008")),
        unavailable("a port nobody listens on", &format!("{server}:9")),
        broken(":scheme", connect_with(&good, ":scheme", "https")),
        broken(":path", connect_with(&good, ":path", "/")),
        broken(":protocol", connect_with(&good, ":protocol", "websocket")),
        broken(":status", connect_with(&good, ":status", "200")),
        broken("no method", connect(&good).split_off(1)),
        broken("a broken authority", connect("[::1")),
    ]
}

fn every_malformed_connect_gets_its_answer(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let certificate = pair.authority.issue(&Leaf::for_account("client"));
    for (name, fields, expected) in malformed(pair.server_host.v4(), pair.client_host.v4()) {
        let mut tunnel = open(&pair, &certificate);
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        tunnel.request(1, &fields).unwrap();
        let reply = tunnel.reply(1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(reply, expected, "{name}");
    }
    assert_eq!(app.accepted(), 0, "the application was reached");
    let mut tunnel = open(&pair, &certificate);
    let good = pair.server_at(Family::V4, SERVER_PORT).to_string();
    tunnel.connect(1, &good).unwrap();
    assert_eq!(tunnel.reply(1).unwrap(), Reply::Status(200));
}

fn bytes_that_are_not_http2_end_the_connection(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let certificate = pair.authority.issue(&Leaf::for_account("client"));
    let hbone = pair.server_at(Family::V4, 15_008);
    pair.outside_host.enter(|| {
        let mut tunnel = Tunnel::open(hbone, &certificate).unwrap();
        tunnel
            .send_raw(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        loop {
            match tunnel.receive() {
                // GOAWAY may come first; what matters is that the end does.
                Ok(_) => {}
                Err(e) => return assert!(apps::is_close(&e), "{e}"),
            }
        }
    });
    assert!(pair.server.is_ready());
}

fn a_denied_connect_is_answered_401_and_the_tunnel_lives_on(driver: Driver) {
    let rules = "[[[{destinationPorts: [8081]}]]]";
    let pair = Pair::start(
        CORELANE,
        Options::new(driver).policy("not-8081", "Deny", rules),
    );
    let _open = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let denied = Server::start(&pair.server_host, 8_081, apps::double);
    let certificate = pair.authority.issue(&Leaf::for_account("client"));
    let mut tunnel = open(&pair, &certificate);
    tunnel
        .connect(1, &pair.server_at(Family::V4, 8_081).to_string())
        .unwrap();
    assert_eq!(tunnel.reply(1).unwrap(), Reply::Status(401));
    tunnel
        .connect(3, &pair.server_at(Family::V4, SERVER_PORT).to_string())
        .unwrap();
    assert_eq!(tunnel.reply(3).unwrap(), Reply::Status(200));
    tunnel.send_data(3, b"x", true).unwrap();
    assert_eq!(tunnel.receive_data(3).unwrap(), b"xx");
    assert_eq!(denied.accepted(), 0);
}
