//! CONNECT requests that a correct peer never sends, frame by frame (hbone 3.5 and 6): each gets its
//! answer, nothing reaches the application, and the node goes on.

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

fn every_malformed_connect_gets_its_answer(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let certificate = pair.authority.issue(&Leaf::for_account("client"));
    let good = pair.server_at(Family::V4, SERVER_PORT).to_string();
    let elsewhere = format!("{}:{SERVER_PORT}", pair.client_host.v4());
    let own_port = format!("{}:15008", pair.server_host.v4());
    let nobody = format!("{}:9", pair.server_host.v4());
    let connect = |authority| vec![(":method", "CONNECT"), (":authority", authority)];
    let with = |field| {
        let mut fields = connect(&good);
        fields.push(field);
        fields
    };
    let get = |authority| {
        vec![
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/"),
            (":authority", authority),
        ]
    };
    let cases = [
        ("GET", get(&good), Reply::Status(400)),
        (
            "no port",
            connect("server.default.svc.cluster.local"),
            Reply::Status(400),
        ),
        ("no host", connect(":80"), Reply::Status(400)),
        (
            "a port too large",
            connect("10.41.2.2:65536"),
            Reply::Status(400),
        ),
        (
            "somebody else's address",
            connect(&elsewhere),
            Reply::Status(400),
        ),
        (
            "an unknown host",
            connect("nowhere.example.com:80"),
            Reply::Status(503),
        ),
        (
            "the node's own port",
            connect(&own_port),
            Reply::Status(503),
        ),
        (
            "a port nobody listens on",
            connect(&nobody),
            Reply::Status(503),
        ),
        (
            ":scheme",
            with((":scheme", "https")),
            Reply::Reset(PROTOCOL_ERROR),
        ),
        (":path", with((":path", "/")), Reply::Reset(PROTOCOL_ERROR)),
        (
            ":protocol",
            with((":protocol", "websocket")),
            Reply::Reset(PROTOCOL_ERROR),
        ),
        (
            ":status",
            with((":status", "200")),
            Reply::Reset(PROTOCOL_ERROR),
        ),
        (
            "no method",
            vec![(":authority", good.as_str())],
            Reply::Reset(PROTOCOL_ERROR),
        ),
        (
            "a broken authority",
            connect("[::1"),
            Reply::Reset(PROTOCOL_ERROR),
        ),
    ];
    for (name, fields, expected) in cases {
        let mut tunnel = open(&pair, &certificate);
        tunnel.request(1, &fields).unwrap();
        let reply = tunnel.reply(1).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(reply, expected, "{name}");
    }
    assert_eq!(app.accepted(), 0, "the application was reached");
    let mut tunnel = open(&pair, &certificate);
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
