//! How a service or a workload says which waypoint it has: each form leads there, and one that leads
//! nowhere closes the connection (routing 3.3). Nothing but the waypoint keeps clients from the server:
//! a connection that went another way would be answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::fleet::Fleet;
use corelane_harness::node::{Node, REPORT_LIMIT};
use corelane_harness::pki::spiffe;
use corelane_harness::state::{State, host_name};

use super::config::Waypoint;
use super::{SERVICE_PORT, check_closed, reference, workload};
use crate::CORELANE;
use crate::mesh::{APP_PORT, HBONE_PORT};
use crate::peer::Envoy;

/// A file change must be in force by then.
const NOTICED: Duration = Duration::from_secs(10);

/// Accounts of the waypoints; all are on one host and in one Envoy.
const WAYPOINTS: [&str; 3] = ["left", "right", "idle"];

/// Address of a service without endpoints.
const EMPTY: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 99);
/// A reference that leads nowhere.
const NOWHERE: &str = "default/nowhere.example";

struct Bed {
    client: Node,
    server: Node,
    app: Server,
    _envoy: Envoy,
    ips: [Ipv4Addr; 3],
    fleet: Fleet,
}

impl Bed {
    fn start(envoy: &Path, state: impl FnOnce(&Fleet, State) -> State) -> Self {
        Self::start_as(envoy, WAYPOINTS, state)
    }

    /// The waypoints have the certificates of these accounts.
    fn start_as(
        envoy: &Path,
        accounts: [&str; 3],
        state: impl FnOnce(&Fleet, State) -> State,
    ) -> Self {
        let fleet = Fleet::new(CORELANE, &["client", "waypoint", "server"]);
        let ips = [
            fleet.ip("waypoint"),
            fleet.add_ip("waypoint", 3),
            fleet.add_ip("waypoint", 4),
        ];
        fleet.publish(&state(&fleet, waypoints(&fleet, ips)).to_yaml());
        let server_at = fleet.at("server", APP_PORT);
        let envoy = ips
            .iter()
            .zip(accounts)
            .fold(
                Waypoint::new(&fleet, "waypoint"),
                |config, (ip, account)| {
                    let cluster = format!("{account}-server");
                    config
                        .tunnels(*ip, account, &cluster)
                        .tunnel_to(&cluster, server_at, account, "server")
                },
            )
            .start(envoy);
        Self {
            client: fleet.start_node("client", &[]),
            server: fleet.start_node("server", &[]),
            app: Server::start(&fleet.host("server"), APP_PORT, apps::double),
            _envoy: envoy,
            ips,
            fleet,
        }
    }

    fn works(&self, to: SocketAddr) -> bool {
        let client = self.fleet.host("client");
        let answer = client.enter(|| apps::exchange(to, b"x"));
        answer.is_ok_and(|answer| answer == b"xx")
    }

    /// A connection to `to` is answered, and goes through the waypoint of that number.
    #[track_caller]
    fn check_through(&self, to: SocketAddr, waypoint: usize) {
        assert!(self.works(to), "{to} through {}", WAYPOINTS[waypoint]);
        self.check_line(to, waypoint);
    }

    #[track_caller]
    fn check_line(&self, to: SocketAddr, waypoint: usize) {
        let (account, dialled) = (WAYPOINTS[waypoint], self.ips[waypoint]);
        let (asked, dialled) = (to.to_string(), format!("{dialled}:{HBONE_PORT}"));
        let fields = [("dst.hbone_addr", &*asked), ("dst.addr", &dialled)];
        let line = self.client.wait_access_line("connection complete", &fields);
        assert_eq!(line.field("dst.workload"), account);
        let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
        let fields = [("src.identity", &*identity), ("dst.workload", "server")];
        let _ = self.server.wait_access_line("connection complete", &fields);
    }

    /// A connection to `to` ends, with `error` in the log, and the server does not see it.
    #[track_caller]
    fn check_unknown(&self, to: SocketAddr, error: &str) {
        let before = self.app.accepted();
        check_closed(&self.fleet.host("client"), to);
        let complaint = || {
            let lines = self.client.access_lines();
            let found = lines.into_iter().find(|l| l.field("error").contains(error));
            found.map(|line| assert_eq!(line.message, "connection failed"))
        };
        clock::wait_for(error, REPORT_LIMIT, complaint);
        assert_eq!(self.app.accepted(), before, "the application was reached");
    }
}

/// The waypoints: each a workload with an address and a name, behind a service with the same.
fn waypoints(fleet: &Fleet, ips: [Ipv4Addr; 3]) -> State {
    let state = State::default()
        .workload(&workload("client", &fleet.ips("client"), &[]))
        // Whose waypoint a client has itself says nothing about where it goes.
        .workload_with(&format!("waypoint: {}", reference(NOWHERE)));
    let mut number = 0;
    ips.iter().zip(WAYPOINTS).fold(state, |state, (ip, name)| {
        number += 1;
        state
            .workload(&workload(
                name,
                &[IpAddr::V4(*ip)],
                &[(name, HBONE_PORT, HBONE_PORT)],
            ))
            .workload_with(&format!("hostname: {name}.example"))
            .service(
                name,
                &[IpAddr::from([10, 96, 0, number])],
                HBONE_PORT,
                HBONE_PORT,
            )
    })
}

/// Adds the server, reached by services at 10.96.1.1 and so on, each with settings of its own.
fn server(fleet: &Fleet, state: State, services: &[String]) -> State {
    let names: Vec<_> = (1..=services.len()).map(|n| format!("s{n}")).collect();
    let endpoints: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), SERVICE_PORT, APP_PORT))
        .collect();
    let state = state.workload(&workload("server", &fleet.ips("server"), &endpoints));
    names
        .iter()
        .zip(services)
        .enumerate()
        .fold(state, |state, (at, (name, setting))| {
            let SocketAddr::V4(vip) = service(at) else {
                unreachable!("IPv4")
            };
            let vips = [IpAddr::V4(*vip.ip()), service_v6(at).ip()];
            state
                .service(name, &vips, SERVICE_PORT, APP_PORT)
                .service_with(setting)
        })
}

/// Where the service of that number is.
fn service(at: usize) -> SocketAddr {
    let last = u8::try_from(at + 1).unwrap();
    SocketAddr::from(([10, 96, 1, last], SERVICE_PORT))
}

/// Its other address.
fn service_v6(at: usize) -> SocketAddr {
    let last = u16::try_from(at + 1).unwrap();
    SocketAddr::from(([0xfd96, 0, 0, 0, 0, 0, 1, last], SERVICE_PORT))
}

#[test]
fn a_service_finds_its_waypoint_by_every_form_of_reference_or_is_closed() {
    let name = "a_service_finds_its_waypoint_by_every_form_of_reference_or_is_closed";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let wrong_port = format!(
        "{{destination: default/{}, hboneMtlsPort: 15009}}",
        host_name("left")
    );
    let rows = |ip: Ipv4Addr| {
        [
            (reference(&format!("default/{}", host_name("right"))), Ok(1)),
            (reference("/10.96.0.3"), Ok(2)),
            (reference(&format!("/{ip}")), Ok(0)),
            (reference("default/right.example"), Ok(1)),
            (reference(NOWHERE), Err("nowhere.example")),
            (reference("/10.96.99.99"), Err("10.96.99.99")),
            (wrong_port.clone(), Err("left.default.svc.cluster.local")),
        ]
    };
    let bed = Bed::start(&envoy, |fleet, state| {
        let settings = rows(fleet.ip("waypoint")).map(|(to, _)| format!("waypoint: {to}"));
        server(fleet, state, &settings)
            .service("empty", &[EMPTY.into()], SERVICE_PORT, APP_PORT)
            .service_with(&settings[0])
    });
    for (at, (reference, expected)) in rows(bed.ips[0]).into_iter().enumerate() {
        match expected {
            Ok(waypoint) => {
                bed.check_through(service(at), waypoint);
                // The waypoint has IPv4 alone, which carries what was meant for IPv6.
                bed.check_through(service_v6(at), waypoint);
            }
            Err(name) => {
                let error = format!("unknown waypoint: waypoint {name} not found");
                bed.check_unknown(service(at), &error);
            }
        }
        assert!(bed.client.is_ready(), "{reference}");
    }
    // What is behind a waypoint is the waypoint's business.
    bed.check_through((EMPTY, SERVICE_PORT).into(), 1);
}

#[test]
fn a_waypoint_is_believed_with_its_own_identity_or_one_its_service_vouches_for() {
    let name = "a_waypoint_is_believed_with_its_own_identity_or_one_its_service_vouches_for";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let accounts = ["left", "impostor", "deputy"];
    let by_name = |name: &str| format!("waypoint: {}", reference(&format!("default/{name}")));
    let bed = Bed::start_as(&envoy, accounts, |fleet, state| {
        let vouched = format!("subjectAltNames: [{}]", spiffe("cluster.local", "deputy"));
        let state = state.service_with(&vouched);
        let services = ["left", "right", "idle"].map(|name| by_name(&host_name(name)));
        // The workload alone vouches for nobody else.
        let services = [&services[..], &[by_name("idle.example")]].concat();
        server(fleet, state, &services)
    });
    for (at, believed) in [(0, true), (1, false), (2, true), (3, false)] {
        let before = bed.app.accepted();
        assert_eq!(bed.works(service(at)), believed, "service {at}");
        if !believed {
            assert_eq!(bed.app.accepted(), before, "the application was reached");
            let asked = service(at).to_string();
            let fields = [("dst.hbone_addr", &*asked), ("direction", "outbound")];
            let line = bed.client.wait_access_line("connection complete", &fields);
            assert_eq!(line.level, "error", "{line:?}");
        }
    }
}

#[test]
fn a_weighted_set_uses_each_member_that_has_weight_and_no_other() {
    let name = "a_weighted_set_uses_each_member_that_has_weight_and_no_other";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let member = |name: &str, weight: u8| {
        let reference = reference(&format!("default/{}", host_name(name)));
        format!("{{destination: {reference}, weight: {weight}}}")
    };
    let set = |weights: [u8; 3]| {
        let members = WAYPOINTS.iter().zip(weights);
        let members: Vec<_> = members.map(|(name, weight)| member(name, weight)).collect();
        let fallback = reference(&format!("default/{}", host_name("idle")));
        format!(
            "weightedWaypoints: [{}]\n  waypoint: {fallback}",
            members.join(", ")
        )
    };
    let bed = Bed::start(&envoy, |fleet, state| {
        server(fleet, state, &[set([1, 1, 0]), set([0, 0, 0])])
    });
    const ROUNDS: usize = 40;
    for _ in 0..ROUNDS {
        assert!(bed.works(service(0)));
    }
    let asked = service(0).to_string();
    let lines = clock::wait_for("a line for each connection", REPORT_LIMIT, || {
        let mut lines = bed.client.access_lines();
        lines.retain(|line| line.has(&[("dst.hbone_addr", &asked)]));
        (lines.len() == ROUNDS).then_some(lines)
    });
    let used = WAYPOINTS.map(|name| {
        let lines = lines.iter();
        lines.filter(|l| l.has(&[("dst.workload", name)])).count()
    });
    assert!(used[0] > 0 && used[1] > 0, "{used:?}");
    assert_eq!((used[0] + used[1], used[2]), (ROUNDS, 0), "{used:?}");
    // Nobody has weight: the plain reference counts.
    bed.check_through(service(1), 2);
}

#[test]
fn a_workload_has_a_waypoint_too_and_a_change_of_it_is_followed() {
    let name = "a_workload_has_a_waypoint_too_and_a_change_of_it_is_followed";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let with = |fleet: &Fleet, ips: [Ipv4Addr; 3], reference: Option<&str>| {
        let state = server(fleet, waypoints(fleet, ips), &[String::new()]);
        match reference {
            None => state,
            Some(to) => state.workload_with(&format!("waypoint: {}", super::reference(to))),
        }
    };
    let bed = Bed::start(&envoy, |fleet, state| {
        server(fleet, state, &[String::new()])
    });
    let to = bed.fleet.at("server", APP_PORT);
    // Without a waypoint, straight to the server's own node.
    assert!(bed.works(to));
    let own = bed.fleet.at("server", HBONE_PORT).to_string();
    let fields = [("dst.addr", &*own), ("dst.workload", "server")];
    let _ = bed.client.wait_access_line("connection complete", &fields);
    let by_ip = format!("/{}", bed.ips[2]);
    let by_name = format!("default/{}", host_name("left"));
    for (reference, waypoint) in [
        (&*by_name, 0),
        ("/10.96.0.2", 1),
        (&*by_ip, 2),
        ("default/left.example", 0),
    ] {
        bed.fleet
            .publish(&with(&bed.fleet, bed.ips, Some(reference)).to_yaml());
        let seen = bed.client.access_lines().len();
        let through = format!("{}:{HBONE_PORT}", bed.ips[waypoint]);
        clock::wait_for("the waypoint", NOTICED, || {
            assert!(bed.works(to), "{reference}: permitted all the while");
            let lines = bed.client.access_lines();
            let mut new = lines[seen..].iter();
            new.any(|line| line.field("dst.addr") == through)
                .then_some(())
        });
        bed.check_line(to, waypoint);
        // Reached by way of a service, the workload's waypoint does not count.
        let seen = bed.client.access_lines().len();
        assert!(bed.works(service(0)));
        clock::wait_for("the service's line", REPORT_LIMIT, || {
            let lines = bed.client.access_lines();
            let mut new = lines[seen..].iter();
            new.any(|line| line.has(&fields)).then_some(())
        });
    }
    bed.fleet
        .publish(&with(&bed.fleet, bed.ips, Some(NOWHERE)).to_yaml());
    clock::wait_for("the refusal", NOTICED, || (!bed.works(to)).then_some(()));
    bed.check_unknown(to, "unknown waypoint: waypoint nowhere.example not found");
    bed.fleet
        .publish(&with(&bed.fleet, bed.ips, None).to_yaml());
    clock::wait_for("the direct way", NOTICED, || bed.works(to).then_some(()));
}
