//! Policies, endpoints and waypoints change many times a second while connections are made: what was acknowledged
//! counts for every connection that begins after it, and whoever is permitted notices nothing.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use corelane::proto::discovery::Resource;
use corelane_harness::apps::{self, Server};
use corelane_harness::load::Load;
use corelane_harness::node::Node;
use corelane_harness::{clock, requirements};

use crate::mesh::Mesh;
use crate::plane::{ADDRESS, AUTHORIZATION, Plane, Stream};
use crate::resources::{a_workload, backing, deny_account, service_on, waypoint, workload};

/// Between two changes.
const PAUSE: Duration = Duration::from_millis(50);

/// Threads that make connections whose outcome depends on the changes.
const PROBES: usize = 2;

/// Port of the forward of the identity that is denied at times.
const OTHER: u16 = 5_450;
/// Ports of the forwards to the service that moves: one application answers with its address, one
/// sends everything back.
const WHERE: u16 = 5_451;
const ECHO: u16 = 5_452;
/// Port of the applications that answer with their address.
const WHERE_APP: u16 = 8_081;

/// Which state is in force: 2n after change n was acknowledged, 2n + 1 while change n + 1 is under way.
#[derive(Clone, Default)]
struct Epoch(Arc<AtomicU64>);

impl Epoch {
    /// The number of the change in force, if none is under way.
    fn settled(&self) -> Option<u64> {
        let now = self.0.load(Ordering::SeqCst);
        now.is_multiple_of(2).then_some(now / 2)
    }

    fn change(&self, change: impl FnOnce()) {
        self.0.fetch_add(1, Ordering::SeqCst);
        change();
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// What became of the connections of a probe.
#[derive(Debug, Default)]
struct Seen {
    /// Began and ended between two changes, by what was in force.
    settled: [usize; 2],
    /// Met a change: both outcomes are right.
    overlapping: usize,
    /// Ended otherwise than what was in force said.
    wrong: Vec<String>,
}

/// Makes connections until told to stop. `outcome` gives 0 or 1, and so must the number of the change in
/// force, modulo 2.
fn probe(
    epoch: &Epoch,
    stop: &Arc<AtomicBool>,
    outcome: impl Fn() -> io::Result<u64> + Send + 'static,
) -> JoinHandle<Seen> {
    let (epoch, stop) = (epoch.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        while !stop.load(Ordering::Relaxed) {
            let before = epoch.settled();
            let outcome = outcome();
            let in_force = before.filter(|_| epoch.settled() == before);
            match (outcome, in_force) {
                (Ok(outcome), Some(change)) if outcome == change % 2 => {
                    seen.settled[usize::from(outcome == 1)] += 1;
                }
                (Ok(_), None) => seen.overlapping += 1,
                (other, _) => seen
                    .wrong
                    .push(format!("{other:?} after change {in_force:?}")),
            }
        }
        seen
    })
}

/// Makes that many changes, one each [`PAUSE`], and says what the probes saw.
fn churn(
    changes: u64,
    outcome: impl Fn() -> io::Result<u64> + Clone + Send + 'static,
    mut change: impl FnMut(u64),
) -> Seen {
    let (epoch, stop) = (Epoch::default(), Arc::<AtomicBool>::default());
    let probes: Vec<_> = (0..PROBES)
        .map(|_| probe(&epoch, &stop, outcome.clone()))
        .collect();
    let began = clock::now();
    for number in 1..=changes {
        let due = PAUSE * u32::try_from(number).unwrap();
        clock::wait_for("the time of the next change", due + PAUSE, || {
            (began.elapsed() >= due).then_some(())
        });
        epoch.change(|| change(number));
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Seen::default();
    for probe in probes {
        let seen = probe.join().unwrap();
        all.settled[0] += seen.settled[0];
        all.settled[1] += seen.settled[1];
        all.overlapping += seen.overlapping;
        all.wrong.extend(seen.wrong);
    }
    println!("{changes} changes in {:?}: {all:?}", began.elapsed());
    assert!(all.wrong.is_empty(), "{all:?}");
    all
}

/// Whether a connection of the other identity was denied. A stall is an error.
fn denied(stream: io::Result<TcpStream>) -> io::Result<u64> {
    let answer = stream.and_then(|mut stream| apps::round_trip(&mut stream, b"hello"));
    match answer {
        Ok(_) => Ok(0),
        Err(error) if apps::is_close(&error) => Ok(1),
        Err(error) => Err(error),
    }
}

fn policies(changes: u64) {
    let (mut mesh, plane) = (Mesh::new(), Plane::start());
    mesh.forward(OTHER, (mesh.ip(2), mesh.app_port()).into(), "other");
    let mut all = mesh.workloads();
    all.push(workload(a_workload("other", mesh.ip(4).into(), "client")));
    let _server = mesh.launch("server", &plane.url(), &[]);
    let mut to_server = plane.stream_with(all.clone(), vec![]);
    mesh.wait_ready("server");
    let _client = mesh.launch("client", &plane.url(), &[]);
    let _to_client = plane.stream_with(all, vec![]);
    mesh.wait_ready("client");
    let load = mesh.load();
    let other = mesh.connector(OTHER);
    let seen = churn(
        changes,
        move || denied(other()),
        |number| {
            if number % 2 == 1 {
                to_server.push(AUTHORIZATION, vec![deny_account("no", "other")], &[]);
            } else {
                to_server.push(AUTHORIZATION, vec![], &["default/no"]);
            }
        },
    );
    let done = load.stop();
    println!("permitted: {done:?}");
    done.assert_whole(1);
    assert!(seen.settled.iter().all(|count| *count > 20), "{seen:?}");
}

/// Nodes of both servers, whose applications say where they are or send everything back, and of the
/// client, with that state.
struct Servers {
    mesh: Mesh,
    to_client: Stream,
    _nodes: [Node; 3],
    _streams: Vec<Stream>,
    _apps: [Server; 3],
    _plane: Plane,
}

impl Servers {
    /// The forwards of the client lead to `target`.
    fn start(target: impl Fn(&Mesh) -> Ipv4Addr, all: impl Fn(&Mesh) -> Vec<Resource>) -> Self {
        let (mut mesh, plane) = (Mesh::new(), Plane::start());
        let (target, echo_port) = (target(&mesh), mesh.app_port());
        mesh.forward(WHERE, (target, WHERE_APP).into(), "client");
        mesh.forward(ECHO, (target, echo_port).into(), "client");
        let where_at = |ip: Ipv4Addr| {
            Server::start_here(ip.into(), WHERE_APP, move |mut stream| {
                let _ = stream.write_all(&ip.octets());
            })
        };
        let second = mesh.ip(3);
        let apps = [
            where_at(mesh.ip(2)),
            where_at(second),
            Server::start_here(second.into(), echo_port, apps::echo),
        ];
        let mut all = all(&mesh);
        all.push(workload(a_workload("client", mesh.client_ip(), "client")));
        let mut streams = Vec::new();
        let nodes = ["server", "second", "client"].map(|name| {
            let node = mesh.launch(name, &plane.url(), &[]);
            streams.push(plane.stream_with(all.clone(), vec![]));
            mesh.wait_ready(name);
            node
        });
        Self {
            to_client: streams.pop().unwrap(),
            mesh,
            _nodes: nodes,
            _streams: streams,
            _apps: apps,
            _plane: plane,
        }
    }

    /// Changes what the client's node knows: after an odd number connections lead to the second server,
    /// else to the first.
    fn churn(mut self, changes: u64, change: impl Fn(&Mesh, bool) -> Vec<Resource>) {
        let load = Load::new(None).short(50, self.mesh.connector(ECHO)).long(
            50,
            10,
            self.mesh.connector(ECHO),
        );
        let (reached, second) = (self.mesh.connector(WHERE), self.mesh.ip(3));
        let seen = churn(
            changes,
            move || {
                let mut ip = [0; 4];
                io::Read::read_exact(&mut reached()?, &mut ip)?;
                Ok(u64::from(Ipv4Addr::from(ip) == second))
            },
            |number| {
                let changed = change(&self.mesh, number % 2 == 1);
                self.to_client.push(ADDRESS, changed, &[]);
            },
        );
        let done = load.stop();
        println!("permitted: {done:?}");
        done.assert_whole(1);
        assert!(seen.settled.iter().all(|count| *count > 20), "{seen:?}");
    }
}

/// Both servers; one of them backs the service.
fn backed_by(mesh: &Mesh, second: bool) -> Vec<Resource> {
    let server = |last, name: &str, backs: bool| {
        let one = a_workload(name, mesh.ip(last).into(), name);
        workload(if backs { backing(one, "moving") } else { one })
    };
    vec![server(2, "server", !second), server(3, "second", second)]
}

fn endpoints(changes: u64) {
    let vip = Ipv4Addr::new(10, 9, 0, 1);
    let all = |mesh: &Mesh| {
        let ports = [u32::from(WHERE_APP), u32::from(mesh.app_port())];
        let ports = ports.map(|port| (port, port));
        let mut all = vec![service_on("moving", vip.into(), &ports, None)];
        all.extend(backed_by(mesh, false));
        all
    };
    Servers::start(|_| vip, all).churn(changes, backed_by);
}

/// The server, behind the second one or not.
fn behind(mesh: &Mesh, waypoint_first: bool) -> Vec<Resource> {
    let mut server = a_workload("server", mesh.server_ip(), "server");
    server.waypoint = waypoint_first.then(|| waypoint(mesh.ip(3).into(), 15_008));
    vec![workload(server)]
}

/// The second server takes what the first one is sent, as its waypoint.
fn waypoints(changes: u64) {
    let all = |mesh: &Mesh| {
        let mut all = behind(mesh, true);
        all.push(workload(a_workload("second", mesh.ip(3).into(), "second")));
        all
    };
    let mut servers = Servers::start(|mesh| mesh.ip(2), all);
    // The client begins without the waypoint.
    let without = behind(&servers.mesh, false);
    servers.to_client.push(ADDRESS, without, &[]);
    servers.churn(changes, behind);
}

#[test]
fn a_policy_that_comes_and_goes_is_heeded_by_every_connection_that_begins_after_it() {
    policies(100);
}

#[test]
fn connections_follow_an_endpoint_that_moves_and_open_ones_stay() {
    endpoints(100);
}

#[test]
fn connections_follow_a_waypoint_that_comes_and_goes_and_open_ones_stay() {
    waypoints(100);
}

#[test]
#[ignore = "long: three minutes"]
fn thousands_of_changes_of_policies_endpoints_and_waypoints_lead_to_no_wrong_verdict() {
    let changes = requirements::number("CHURN_CHANGES", 1_200);
    policies(changes);
    endpoints(changes);
    waypoints(changes);
}
