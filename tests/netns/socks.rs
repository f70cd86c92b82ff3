//! SOCKS5 on loopback for programs that are not captured: the same routing, and success is told only
//! once the other side is open.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use corelane_harness::apps::{self, Server};
use corelane_harness::hosts::Family;
use corelane_harness::node::Driver;
use corelane_harness::pair::{CLIENT_ID, Options, Pair, SERVER_PORT, SERVICE_PORT, SERVICE_V4};

use crate::CORELANE;

const SOCKS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 15_080);

/// RFC 1928 section 6.
const SUCCEEDED: u8 = 0;

with_both_drivers!(
    a_socks_client_reaches_a_service_through_a_tunnel,
    a_socks_client_is_told_when_the_destination_refuses,
    a_socks_client_with_another_command_is_refused,
);

fn start(driver: Driver) -> Pair {
    Pair::start(
        CORELANE,
        Options::new(driver).env("UNSTABLE_ENABLE_SOCKS5", "true"),
    )
}

/// Greets, asks for `command` to `to`, and returns the reply code with the open stream.
fn ask(command: u8, to: SocketAddrV4) -> io::Result<(u8, TcpStream)> {
    let mut stream = apps::connect(SocketAddr::V4(SOCKS))?;
    stream.write_all(&[5, 1, 0])?;
    let mut choice = [0; 2];
    stream.read_exact(&mut choice)?;
    assert_eq!(choice, [5, 0]);
    let mut request = vec![5, command, 0, 1];
    request.extend_from_slice(&to.ip().octets());
    request.extend_from_slice(&to.port().to_be_bytes());
    stream.write_all(&request)?;
    let mut reply = [0; 10];
    stream.read_exact(&mut reply)?;
    assert_eq!(reply[0], 5);
    Ok((reply[1], stream))
}

fn a_socks_client_reaches_a_service_through_a_tunnel(driver: Driver) {
    let pair = start(driver);
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
    let service = SocketAddrV4::new(SERVICE_V4, SERVICE_PORT);
    let (reply, mut stream) = pair.client_host.enter(|| ask(1, service)).unwrap();
    assert_eq!(reply, SUCCEEDED);
    assert_eq!(
        apps::round_trip(&mut stream, b"by proxy").unwrap(),
        b"by proxy"
    );
    drop(stream);
    let fields = [
        ("src.identity", CLIENT_ID),
        ("dst.service", "server.default.svc.cluster.local"),
    ];
    let _ = pair.server.wait_access_line("connection complete", &fields);
}

fn a_socks_client_is_told_when_the_destination_refuses(driver: Driver) {
    let pair = start(driver);
    // Nothing listens on either: the one is reached through a tunnel, the other in plain text.
    for host in [&pair.server_host, &pair.outside_host] {
        let to = SocketAddrV4::new(host.v4(), 9);
        let (reply, mut stream) = pair.client_host.enter(|| ask(1, to)).unwrap();
        assert_ne!(reply, SUCCEEDED, "{to}");
        let ended = apps::read_to_end(&mut stream);
        assert!(
            ended.as_ref().map_or_else(apps::is_close, |n| *n == 0),
            "{ended:?}"
        );
    }
}

fn a_socks_client_with_another_command_is_refused(driver: Driver) {
    const BIND: u8 = 2;
    let pair = start(driver);
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let SocketAddr::V4(to) = to else {
        panic!("{to} is not IPv4")
    };
    let (reply, _stream) = pair.client_host.enter(|| ask(BIND, to)).unwrap();
    assert_eq!(reply, 7);
}
