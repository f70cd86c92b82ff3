//! Waypoints come, change and go while connections are made: none that is permitted fails, and none
//! that is not is let through.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::fleet::Fleet;
use corelane_harness::node::Node;
use corelane_harness::requirements;
use corelane_harness::state::{State, host_name};

use super::config::Waypoint;
use super::{SERVICE, SERVICE_PORT, reference, workload};
use crate::CORELANE;
use crate::mesh::{APP_PORT, HBONE_PORT, check_bytes};
use crate::peer::Envoy;

/// A file change must be in force by then.
const NOTICED: Duration = Duration::from_secs(10);
/// Port on which the server may be called by nobody.
const FORBIDDEN_PORT: u16 = 8_081;
/// Clients that connect at the same time.
const CLIENTS: usize = 3;

/// Lets in the client and both waypoints, on the one port.
const ONLY_THESE: &str = "[[[{principals: [!Exact cluster.local/ns/default/sa/client, \
                          !Exact cluster.local/ns/default/sa/left, \
                          !Exact cluster.local/ns/default/sa/right], destinationPorts: [8080]}]]]";

/// What a service may have, and who is dialled then.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Direct,
    Left,
    Right,
    Both,
}

impl Stage {
    fn setting(self) -> String {
        let to = |name: &str| reference(&format!("default/{}", host_name(name)));
        match self {
            Self::Direct => String::new(),
            Self::Left => format!("waypoint: {}", to("left")),
            Self::Right => format!("waypoint: {}", to("right")),
            Self::Both => format!(
                "weightedWaypoints: [{{destination: {}, weight: 1}}, {{destination: {}, weight: 1}}]",
                to("left"),
                to("right")
            ),
        }
    }

    /// Who may be dialled in this stage.
    const fn dialled(self) -> &'static [&'static str] {
        match self {
            Self::Direct => &["server"],
            Self::Left => &["left"],
            Self::Right => &["right"],
            Self::Both => &["left", "right"],
        }
    }
}

fn state(fleet: &Fleet, stage: Stage) -> State {
    let [left, right] = ips(fleet).map(|ip| [IpAddr::V4(ip)]);
    let hbone = |name| [(name, HBONE_PORT, HBONE_PORT)];
    State::default()
        .workload(&workload("client", &fleet.ips("client"), &[]))
        .workload(&workload("left", &left, &hbone("left")))
        .workload(&workload("right", &right, &hbone("right")))
        .workload(&workload(
            "server",
            &fleet.ips("server"),
            &[("server", SERVICE_PORT, APP_PORT)],
        ))
        .workload_with("authorizationPolicies: [default/only-these]")
        .service("left", &[], HBONE_PORT, HBONE_PORT)
        .service("right", &[], HBONE_PORT, HBONE_PORT)
        .service("server", &[SERVICE.into()], SERVICE_PORT, APP_PORT)
        .service_with(&stage.setting())
        .selected_policy("only-these", "Allow", ONLY_THESE)
}

/// Addresses of both waypoints, on one host.
fn ips(fleet: &Fleet) -> [Ipv4Addr; 2] {
    let [a, b, c, _] = fleet.ip("waypoint").octets();
    [2, 3].map(|last| Ipv4Addr::new(a, b, c, last))
}

fn waypoints(fleet: &Fleet, envoy: &Path) -> Envoy {
    let server = fleet.at("server", APP_PORT);
    let accounts = ips(fleet).into_iter().zip(["left", "right"]);
    accounts
        .fold(Waypoint::new(fleet, "waypoint"), |config, (ip, account)| {
            let cluster = format!("{account}-server");
            config
                .tunnels(ip, account, &cluster)
                .tunnel_to(&cluster, server, account, "server")
        })
        .start(envoy)
}

/// What the clients have seen so far.
#[derive(Debug, Default)]
struct Seen {
    rounds: AtomicU32,
    done: AtomicBool,
}

impl Seen {
    /// Waits until all clients have been through `more` rounds together.
    #[track_caller]
    fn wait_rounds(&self, more: u32) {
        let until = self.rounds.load(Ordering::Relaxed) + more;
        clock::wait_for("rounds", NOTICED, || {
            (self.rounds.load(Ordering::Relaxed) >= until).then_some(())
        });
    }
}

/// Ends the clients, however the test ends.
struct EndOnDrop<'a>(&'a Seen);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

/// Connects to the service, and where nobody may, until told to stop. One connection stays.
fn connect_again_and_again(forbidden: SocketAddr, seen: &Seen) {
    let to = SocketAddr::from((SERVICE, SERVICE_PORT));
    let mut staying = apps::connect(to).unwrap();
    while !seen.done.load(Ordering::Relaxed) {
        let short = apps::exchange(to, b"short");
        assert!(short.as_ref().is_ok_and(|a| a == b"short"), "{short:?}");
        let stays = apps::round_trip(&mut staying, b"stays");
        assert!(stays.as_ref().is_ok_and(|a| a == b"stays"), "{stays:?}");
        let refused = apps::exchange(forbidden, b"never");
        let closed = refused.as_ref().map_or_else(apps::is_close, Vec::is_empty);
        assert!(closed, "{refused:?}");
        seen.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn bytes_and_half_closes_pass_a_waypoint_in_both_directions() {
    let name = "bytes_and_half_closes_pass_a_waypoint_in_both_directions";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let fleet = Fleet::new(CORELANE, &["client", "waypoint", "server"]);
    let _ = fleet.add_ip("waypoint", 3);
    fleet.publish(&state(&fleet, Stage::Right).to_yaml());
    let _envoy = waypoints(&fleet, &envoy);
    let _app = Server::start(&fleet.host("server"), APP_PORT, apps::echo);
    let epoll = [("CORELANE_DRIVER", "epoll")];
    let _server = fleet.start_node("server", &epoll);
    let client = fleet.start_node("client", &epoll);
    let to = SocketAddr::from((SERVICE, SERVICE_PORT));
    fleet.host("client").enter(|| check_bytes(to));
    let fields = [("direction", "outbound"), ("dst.workload", "right")];
    let _ = client.wait_access_line("connection complete", &fields);
    let lines = client.access_lines();
    assert!(lines.iter().all(|line| line.has(&fields)), "{lines:?}");
}

#[test]
fn while_waypoints_come_change_and_go_no_permitted_connection_fails_and_no_other_passes() {
    let name =
        "while_waypoints_come_change_and_go_no_permitted_connection_fails_and_no_other_passes";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let changes = requirements::number("WAYPOINT_CHANGES", 12);
    let fleet = Fleet::new(CORELANE, &["client", "waypoint", "server"]);
    let _ = fleet.add_ip("waypoint", 3);
    fleet.publish(&state(&fleet, Stage::Direct).to_yaml());
    let _envoy = waypoints(&fleet, &envoy);
    let _app = Server::start(&fleet.host("server"), APP_PORT, apps::echo);
    let forbidden = Server::start(&fleet.host("server"), FORBIDDEN_PORT, apps::echo);
    let server = fleet.start_node("server", &[]);
    let client = fleet.start_node("client", &[]);
    let seen = Seen::default();
    let host = fleet.host("client");
    let forbidden_at = fleet.at("server", FORBIDDEN_PORT);
    std::thread::scope(|scope| {
        let end = EndOnDrop(&seen);
        for _ in 0..CLIENTS {
            scope.spawn(|| host.enter(|| connect_again_and_again(forbidden_at, &seen)));
        }
        seen.wait_rounds(5);
        let stages = [Stage::Left, Stage::Right, Stage::Both, Stage::Direct];
        for number in 0..usize::try_from(changes).unwrap() {
            let stage = stages[number % stages.len()];
            fleet.publish(&state(&fleet, stage).to_yaml());
            wait_dialled(&client, stage);
            seen.wait_rounds(5);
        }
        drop(end);
    });
    assert_eq!(forbidden.accepted(), 0, "a wrong verdict");
    let denied = [("reporter", "destination"), ("response_flags", "DENY")];
    let rounds = seen.rounds.load(Ordering::Relaxed);
    server.wait_metric("istio_tcp_connections_failed_total", &denied, rounds);
}

/// Waits until new connections to the service go where `stage` sends them, to all of these.
#[track_caller]
fn wait_dialled(client: &Node, stage: Stage) {
    let before = client.access_lines().len();
    let service = host_name("server");
    for workload in stage.dialled() {
        let fields = [("dst.service", &*service), ("dst.workload", workload)];
        clock::wait_for("a connection by way of the stage", NOTICED, || {
            let lines = client.access_lines();
            let mut new = lines[before..].iter();
            new.any(|line| line.has(&fields)).then_some(())
        });
    }
}
