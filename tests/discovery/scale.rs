//! A large mesh arrives while connections are served.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use corelane::proto::discovery::Resource;
use corelane_harness::node::Node;
use corelane_harness::{apps, clock, requirements};

use crate::mesh::Mesh;
use crate::plane::{ADDRESS, AUTHORIZATION, Plane};
use crate::resources::{a_workload, workload};

/// Longest pause of a connection during a push. The aim is 20 ms; a machine that others use too and a
/// program without optimization get more, and a shard that is held up shows all the same.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The allocator gives pages back after at most as long.
const SETTLING: Duration = Duration::from_secs(8);

fn mesh_of(count: u32, generation: u32) -> Vec<Resource> {
    let one = |n: u32| {
        let ip = IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n));
        let mut message = a_workload(&format!("cluster//Pod/default/w{n}"), ip, "elsewhere");
        message.canonical_revision = format!("r{generation}");
        workload(message)
    };
    (0..count).map(one).collect()
}

/// What a node holds in memory once the allocator has given back what a push left behind: the least of
/// some seconds.
fn settled(node: &Node) -> u64 {
    let mut least = u64::MAX;
    clock::must_hold("life", SETTLING, || {
        least = least.min(node.process().memory("VmRSS"));
        least > 0
    });
    least
}

#[test]
fn a_large_push_delays_no_connection_and_costs_no_more_than_twice_the_memory() {
    let count = u32::try_from(requirements::number("DISCOVERY_WORKLOADS", 20_000)).unwrap();
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let server = mesh.launch("server", &plane.url(), &[]);
    let mut to_server = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
    let _client = mesh.launch("client", &plane.url(), &[]);
    let _to_client = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("client");
    let empty = server.process().memory("VmRSS");
    let mut connection = mesh.connect();
    // The calmest of several pushes: what else runs on the machine pauses connections too.
    let (mut calmest, mut steady) = (Duration::MAX, 0);
    for generation in 0..3 {
        let nonce = to_server.send(ADDRESS, mesh_of(count, generation), &[]);
        // As long as the push is under way, and a moment more for what it leaves behind.
        let (mut rounds_after, mut longest) = (0, Duration::ZERO);
        let mut answered = false;
        while rounds_after < 200 {
            let before = clock::now();
            assert_eq!(apps::round_trip(&mut connection, b"x").unwrap(), b"x");
            longest = longest.max(before.elapsed());
            answered = answered
                || to_server
                    .try_request()
                    .is_some_and(|r| r.response_nonce == nonce);
            rounds_after += u32::from(answered);
        }
        calmest = calmest.min(longest);
        if generation == 0 {
            steady = settled(&server);
        }
    }
    to_server.push(AUTHORIZATION, vec![], &[]);
    let peak = server.process().memory("VmHWM");
    println!(
        "{count} workloads: calmest {calmest:?}, {empty} bytes empty, {steady} full, {peak} peak"
    );
    assert!(calmest < PAUSE_MAX, "{calmest:?}");
    assert!(peak <= 2 * steady, "{peak} bytes at most, {steady} in use");
}
