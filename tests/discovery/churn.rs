//! Policies and endpoints change many times a second while connections are made: what was acknowledged
//! counts for every connection that begins after it, and whoever is permitted notices nothing.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::{clock, requirements};

use crate::mesh::Mesh;
use crate::plane::{ADDRESS, AUTHORIZATION, Plane};
use crate::resources::{a_workload, backing, deny_account, service, workload};

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

fn endpoints(changes: u64) {
    let (mut mesh, plane) = (Mesh::new(), Plane::start());
    let vip = Ipv4Addr::new(10, 9, 0, 1);
    mesh.forward(WHERE, (vip, 8_081).into(), "client");
    mesh.forward(ECHO, (vip, mesh.app_port()).into(), "client");
    let ips = [mesh.ip(2), mesh.ip(3)];
    let _where = ips.map(|ip| {
        Server::start_here(ip.into(), 8_081, move |mut stream| {
            let _ = stream.write_all(&ip.octets());
        })
    });
    let _echo = Server::start_here(ips[1].into(), mesh.app_port(), apps::echo);
    // The endpoint of the service is the first or the second server.
    let all = move |at: u64| {
        let server = |number: u64, name: &str| {
            let ip = ips[usize::from(number == 1)];
            let one = a_workload(name, ip.into(), name);
            workload(if number == at {
                backing(one, "moving")
            } else {
                one
            })
        };
        vec![server(0, "server"), server(1, "second")]
    };
    let echo_port = u32::from(mesh.app_port());
    let mut both = vec![service(
        "moving",
        vip.into(),
        &[(8_081, 8_081), (echo_port, echo_port)],
    )];
    both.extend(all(0));
    both.push(workload(a_workload("client", mesh.client_ip(), "client")));
    let mut streams = Vec::new();
    let nodes = ["server", "second", "client"].map(|name| {
        let node = mesh.launch(name, &plane.url(), &[]);
        streams.push(plane.stream_with(both.clone(), vec![]));
        mesh.wait_ready(name);
        node
    });
    let mut to_client = streams.pop().unwrap();
    let load = corelane_harness::load::Load::new(None)
        .short(50, mesh.connector(ECHO))
        .long(50, 10, mesh.connector(ECHO));
    let reached = mesh.connector(WHERE);
    let seen = churn(
        changes,
        move || {
            let mut ip = [0; 4];
            io::Read::read_exact(&mut reached()?, &mut ip)?;
            Ok(u64::from(Ipv4Addr::from(ip) == ips[1]))
        },
        |number| to_client.push(ADDRESS, all(number % 2), &[]),
    );
    let done = load.stop();
    println!("permitted: {done:?}");
    done.assert_whole(1);
    assert!(seen.settled.iter().all(|count| *count > 20), "{seen:?}");
    drop(nodes);
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
#[ignore = "long: two minutes"]
fn thousands_of_changes_of_policies_and_endpoints_lead_to_no_wrong_verdict() {
    let changes = requirements::number("CHURN_CHANGES", 1_200);
    policies(changes);
    endpoints(changes);
}
