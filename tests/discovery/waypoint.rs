//! A waypoint that a control plane gives to a workload and takes away again.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use corelane::proto::discovery::Resource;
use corelane::proto::workload as raw;
use corelane_harness::apps::{self, Server};

use crate::mesh::Mesh;
use crate::plane::{ADDRESS, Plane};
use crate::resources::{a_workload, workload};

/// Times the waypoint comes and goes.
const CHANGES: usize = 10;

/// What clients send, and what comes back from the server and from the waypoint.
const ASKED: &[u8] = b"hello";
const BY_SERVER: &[u8] = ASKED;
const BY_WAYPOINT: &[u8] = b"HELLO";

/// Sends everything back, louder.
fn shout(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        buffer[..length].make_ascii_uppercase();
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// The server, behind the waypoint at that address.
fn behind(mesh: &Mesh, waypoint: Option<IpAddr>) -> Resource {
    let mut server = a_workload("server", mesh.server_ip(), "server");
    server.waypoint = waypoint.map(|ip| {
        let IpAddr::V4(ip) = ip else {
            unreachable!("loopback addresses are of IPv4")
        };
        let address = raw::NetworkAddress {
            address: ip.octets().to_vec(),
            ..raw::NetworkAddress::default()
        };
        raw::GatewayAddress {
            hbone_mtls_port: 15_008,
            destination: Some(raw::gateway_address::Destination::Address(address)),
        }
    });
    workload(server)
}

fn answer(mesh: &Mesh) -> Vec<u8> {
    let mut stream = mesh.connect();
    apps::round_trip(&mut stream, ASKED).expect("a permitted connection")
}

/// Ends the client, however the test ends.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_waypoint_that_comes_and_goes_with_its_workload_fails_no_connection() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let _app = Server::start_here(mesh.waypoint_ip(), mesh.app_port(), shout);
    let waypoint = || workload(a_workload("waypoint", mesh.waypoint_ip(), "waypoint"));
    let with = || behind(&mesh, Some(mesh.waypoint_ip()));
    let _server = mesh.launch("server", &plane.url(), &[]);
    let _to_server = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
    let _waypoint = mesh.launch("waypoint", &plane.url(), &[]);
    let _to_waypoint = plane.stream_with(vec![waypoint(), with()], vec![]);
    mesh.wait_ready("waypoint");
    let _client = mesh.launch("client", &plane.url(), &[]);
    let mut to_client = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("client");

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = EndOnDrop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let answer = answer(&mesh);
                assert!(answer == BY_SERVER || answer == BY_WAYPOINT, "{answer:?}");
            }
        });
        for _ in 0..CHANGES {
            assert_eq!(answer(&mesh), BY_SERVER);
            // Once the node says that it knows, no connection passes the waypoint by.
            to_client.push(ADDRESS, vec![with(), waypoint()], &[]);
            assert_eq!(answer(&mesh), BY_WAYPOINT);
            to_client.push(ADDRESS, vec![behind(&mesh, None)], &["waypoint"]);
        }
        assert_eq!(answer(&mesh), BY_SERVER);
        drop(end);
    });

    // A waypoint that nobody knows yet is not gone around.
    to_client.push(ADDRESS, vec![with()], &[]);
    let before = mesh.reached();
    let ended = mesh
        .try_connect()
        .and_then(|mut stream| apps::round_trip(&mut stream, ASKED));
    assert!(ended.is_err_and(|error| apps::is_close(&error)));
    assert_eq!(mesh.reached(), before, "the application was reached");
    to_client.push(ADDRESS, vec![waypoint()], &[]);
    assert_eq!(answer(&mesh), BY_WAYPOINT);
}
