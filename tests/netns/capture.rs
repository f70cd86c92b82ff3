//! The test hosts themselves: the capture rules do to traffic what the other tests rely on. Plain
//! sockets stand in for the node.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::capture;
use corelane_harness::hosts::{Family, Host, Network};
use corelane_harness::requirements::has_netns;
use socket2::{Domain, SockRef, Socket, Type};

const SOON: Duration = Duration::from_secs(5);

fn listen(host: &Host, port: u16) -> TcpListener {
    host.enter(|| apps::listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
}

/// Where the client of a redirected connection meant to go.
fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let mapped = stream.local_addr().unwrap().ip();
    let v4 = mapped.is_ipv4() || matches!(mapped, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    let found = if v4 {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    found.unwrap().as_socket().unwrap()
}

fn marked_socket(host: &Host, to: SocketAddr, from: Option<SocketAddr>) -> TcpStream {
    host.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_mark(capture::NODE_MARK).unwrap();
        if let Some(from) = from {
            socket.set_ip_transparent_v4(true).unwrap();
            socket.bind(&from.into()).unwrap();
        }
        socket.connect_timeout(&to.into(), SOON).unwrap();
        socket.into()
    })
}

#[test]
fn outbound_connections_arrive_at_15001_with_their_destination() {
    if !has_netns("outbound_connections_arrive_at_15001_with_their_destination") {
        return;
    }
    let network = Network::new(&["a", "b"]);
    let (a, b) = (network.host("a"), network.host("b"));
    capture::apply(&a);
    let node = listen(&a, 15_001);
    for family in [Family::V4, Family::V6] {
        let to = SocketAddr::new(b.ip(family), 4_321);
        let client = a.enter(|| apps::connect(to)).unwrap();
        let accepted = apps::accept_within(&node, SOON).unwrap();
        assert_eq!(original_destination(&accepted), to);
        drop(client);
    }
}

#[test]
fn connections_with_the_nodes_mark_or_the_exempt_user_are_not_captured() {
    if !has_netns("connections_with_the_nodes_mark_or_the_exempt_user_are_not_captured") {
        return;
    }
    let network = Network::new(&["a", "b"]);
    let (a, b) = (network.host("a"), network.host("b"));
    capture::apply(&a);
    let app = Server::start(&b, 0, apps::echo);
    let to = SocketAddr::new(b.ip(Family::V4), app.port());
    let mut marked = marked_socket(&a, to, None);
    assert_eq!(apps::round_trip(&mut marked, b"marked").unwrap(), b"marked");
    let exempt = a.enter(|| {
        let uid = rustix::process::Uid::from_raw(capture::EXEMPT_UID);
        rustix::thread::set_thread_uid(uid).unwrap();
        apps::exchange(to, b"exempt")
    });
    assert_eq!(exempt.unwrap(), b"exempt");
    // No node listens on 15001, so a captured connection is refused.
    assert!(a.enter(|| apps::exchange(to, b"captured")).is_err());
}

#[test]
fn inbound_connections_arrive_at_15006_except_hbone() {
    if !has_netns("inbound_connections_arrive_at_15006_except_hbone") {
        return;
    }
    let network = Network::new(&["a", "b"]);
    let (a, b) = (network.host("a"), network.host("b"));
    capture::apply(&b);
    let (plaintext, hbone) = (listen(&b, 15_006), listen(&b, 15_008));
    for family in [Family::V4, Family::V6] {
        let to = SocketAddr::new(b.ip(family), 8_080);
        let client = a.enter(|| apps::connect(to)).unwrap();
        let accepted = apps::accept_within(&plaintext, SOON).unwrap();
        assert_eq!(original_destination(&accepted), to);
        drop(client);
        let tunnel = a
            .enter(|| apps::connect(SocketAddr::new(b.ip(family), 15_008)))
            .unwrap();
        apps::accept_within(&hbone, SOON).unwrap();
        drop(tunnel);
    }
}

#[test]
fn answers_to_a_connection_with_the_clients_address_stay_on_the_host() {
    if !has_netns("answers_to_a_connection_with_the_clients_address_stay_on_the_host") {
        return;
    }
    let network = Network::new(&["a", "b"]);
    let (a, b) = (network.host("a"), network.host("b"));
    capture::apply(&b);
    let app = Server::start(&b, 8_080, apps::echo);
    let to = SocketAddr::new(b.ip(Family::V4), app.port());
    let from = SocketAddr::new(a.ip(Family::V4), 0);
    let mut stream = marked_socket(&b, to, Some(from));
    stream.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(apps::round_trip(&mut stream, b"from a").unwrap(), b"from a");
    assert_eq!(stream.local_addr().unwrap().ip(), a.ip(Family::V4));
}

#[test]
fn a_dropped_port_falls_silent_and_its_neighbour_does_not() {
    if !has_netns("a_dropped_port_falls_silent_and_its_neighbour_does_not") {
        return;
    }
    let network = Network::new(&["a"]);
    let a = network.host("a");
    let app = Server::start(&a, 0, apps::echo);
    let to = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), app.port());
    let [mut silent, mut loud] = [(); 2].map(|()| a.enter(|| apps::connect(to)).unwrap());
    assert!(apps::round_trip(&mut silent, b"x").is_ok());
    capture::drop_port(&a, silent.local_addr().unwrap().port());
    silent
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(apps::round_trip(&mut silent, b"x").is_err());
    assert!(apps::round_trip(&mut loud, b"x").is_ok());
}

#[test]
fn a_removed_network_leaves_no_namespace() {
    if !has_netns("a_removed_network_leaves_no_namespace") {
        return;
    }
    let ours = format!("cl{}-", std::process::id());
    let count = |marker: &str| {
        let names = std::fs::read_dir("/run/netns").unwrap();
        let named = |name: &str| name.starts_with(&ours) && name.ends_with(marker);
        names
            .filter(|n| named(n.as_ref().unwrap().file_name().to_str().unwrap()))
            .count()
    };
    let network = Network::new(&["shortlived"]);
    assert_eq!(count("-shortlived"), 1);
    drop(network);
    assert_eq!(count("-shortlived"), 0);
}
