//! Options of a running node's sockets, as the kernel has them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use corelane_harness::apps::{self, Server};
use corelane_harness::capture::NODE_MARK;
use corelane_harness::hosts::{Family, Host};
use corelane_harness::node::{Driver, Node};
use corelane_harness::pair::{Options, Pair, SERVER_PORT};
use corelane_harness::shared::{self, Shared};
use socket2::SockRef;

use crate::CORELANE;

/// What a node's listeners ask for when no limit of the host is lower.
const BACKLOG: u32 = 128;

with_both_drivers!(
    sockets_of_a_running_node_have_the_options_of_their_role,
    sockets_in_the_namespace_of_a_pod_have_them_too,
);

/// Seconds of keepalive (idle, between probes), its probes, and milliseconds of the user timeout.
type Life = Option<(u64, u64, u32, u128)>;

fn life(socket: &SockRef<'_>) -> Life {
    let timeout = socket.tcp_user_timeout().unwrap().unwrap_or_default();
    socket.keepalive().unwrap().then(|| {
        (
            socket.tcp_keepalive_time().unwrap().as_secs(),
            socket.tcp_keepalive_interval().unwrap().as_secs(),
            socket.tcp_keepalive_retries().unwrap(),
            timeout.as_millis(),
        )
    })
}

fn local(socket: &SockRef<'_>) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

fn peer(socket: &SockRef<'_>) -> Option<SocketAddr> {
    let peer = socket.peer_addr().ok()?.as_socket()?;
    Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// The TCP connections among `sockets` of which that holds.
fn connections(sockets: &[OwnedFd], is_one: impl Fn(&SockRef<'_>) -> bool) -> Vec<SockRef<'_>> {
    let all = sockets.iter().map(SockRef::from);
    all.filter(|socket| !socket.is_listener().unwrap_or(true) && is_one(socket))
        .collect()
}

#[track_caller]
fn assert_options(sockets: &[SockRef<'_>], mark: u32, expected: Life) {
    assert!(!sockets.is_empty(), "no such connection");
    for socket in sockets {
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.mark().unwrap(), mark);
        assert_eq!(life(socket), expected);
    }
}

/// Listeners of a node's data plane on a host: one for each of two shards, marked, shared, with room.
#[track_caller]
fn assert_listeners(node: &Node, host: &Host, mark: u32) {
    let sockets = node.process().sockets();
    for port in [15_001, 15_006, 15_008] {
        let listeners: Vec<_> = sockets
            .iter()
            .map(SockRef::from)
            .filter(|socket| socket.is_listener().unwrap_or(false))
            .filter(|socket| local(socket).is_some_and(|at| at.port() == port))
            .collect();
        assert!(listeners.len() >= 2 && listeners.len() % 2 == 0, "{port}");
        for listener in listeners {
            assert_eq!(listener.mark().unwrap(), mark, "{port}");
            assert!(listener.reuse_port().unwrap(), "{port}");
            assert!(listener.ip_transparent_v4().unwrap(), "{port}");
        }
        // ss(8) tells the length of a listener's queue in its third column.
        let filter = format!("sport = :{port}");
        let output = host
            .command("ss")
            .args(["-H", "-l", "-t", "-n", &filter])
            .output()
            .expect("ss");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let queues: Vec<u32> = text
            .lines()
            .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
            .collect();
        assert_eq!(queues, [BACKLOG; 2], "{port}: {text}");
    }
}

fn sockets_of_a_running_node_have_the_options_of_their_role(driver: Driver) {
    let configured = [
        ("KEEPALIVE_TIME", "10s"),
        ("KEEPALIVE_INTERVAL", "2s"),
        ("KEEPALIVE_RETRIES", "5"),
        ("USER_TIMEOUT_ENABLED", "true"),
    ];
    let off = [("KEEPALIVE_ENABLED", "false")];
    let cases: [(&[(&str, &str)], Life); 3] = [
        (&[], Some((180, 180, 9, 0))),
        (&configured, Some((10, 2, 5, 20_000))),
        (&off, None),
    ];
    for (env, expected) in cases {
        let options = env
            .iter()
            .fold(Options::new(driver), |options, (name, value)| {
                options.env(name, value)
            });
        let pair = Pair::start(CORELANE, options);
        let _app = Server::start(&pair.server_host, SERVER_PORT, apps::echo);
        let to = pair.server_at(Family::V4, SERVER_PORT);
        let mut open = pair.client_host.enter(|| apps::connect(to)).unwrap();
        assert_eq!(apps::round_trip(&mut open, b"x").unwrap(), b"x");
        assert_listeners(&pair.client, &pair.client_host, NODE_MARK);
        let from = open.local_addr().unwrap();

        // Dead peers of a tunnel are noticed soon, whatever is said about workloads' connections.
        let tunnel = Some((15, 15, 3, 30_000));
        let sockets = pair.client.process().sockets();
        let accepted = connections(&sockets, |socket| peer(socket) == Some(from));
        assert_options(&accepted, NODE_MARK, expected);
        let dialled = connections(&sockets, |socket| {
            peer(socket).is_some_and(|peer| peer.port() == 15_008)
        });
        assert_options(&dialled, NODE_MARK, tunnel);

        let sockets = pair.server.process().sockets();
        let accepted = connections(&sockets, |socket| {
            local(socket).is_some_and(|at| at.port() == 15_008)
        });
        assert_options(&accepted, NODE_MARK, tunnel);
        let dialled = connections(&sockets, |socket| peer(socket) == Some(to));
        assert_options(&dialled, NODE_MARK, expected);
    }
}

fn sockets_in_the_namespace_of_a_pod_have_them_too(driver: Driver) {
    let options = shared::Options {
        driver,
        pods: &["a", "b"],
        policies: &[],
        services: &[],
        settings: &[],
        env: &[],
    };
    let shared = Shared::start(CORELANE, &options);
    shared.serve(&["a", "b"]);
    let _app = Server::start(&shared.host("b"), SERVER_PORT, apps::echo);
    let to = shared.at("b", SERVER_PORT);
    let mut open = shared.host("a").enter(|| apps::connect(to)).unwrap();
    assert_eq!(apps::round_trip(&mut open, b"x").unwrap(), b"x");
    let mark = 1_337;
    assert_listeners(&shared.node, &shared.host("a"), mark);
    let sockets = shared.node.process().sockets();
    let to_app = connections(&sockets, |socket| peer(socket) == Some(to));
    assert_options(&to_app, mark, Some((180, 180, 9, 0)));
    let tunnels = connections(&sockets, |socket| {
        [local(socket), peer(socket)]
            .iter()
            .flatten()
            .any(|end| end.port() == 15_008)
    });
    assert_options(&tunnels, mark, Some((15, 15, 3, 30_000)));
}
