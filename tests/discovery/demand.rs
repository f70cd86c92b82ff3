//! Addresses that come when they are needed.

use std::io::Read as _;

use corelane::proto::workload::PortList;
use corelane_harness::apps;
use corelane_harness::pki::Leaf;
use corelane_harness::wire::{Reply, Tunnel};

use crate::mesh::{Mesh, dumped};
use crate::plane::{ADDRESS, AUTHORIZATION, Plane, Stream};
use crate::resources::{a_workload, service, service_behind, workload};

const ENV: [(&str, &str); 1] = [("XDS_ON_DEMAND", "true")];

/// The first requests of a node that asks on demand; policies answered.
fn begun(plane: &Plane) -> Stream {
    let (mut stream, [addresses, policies]) = plane.stream_begun();
    assert_eq!(addresses.resource_names_subscribe, ["*"]);
    assert_eq!(addresses.resource_names_unsubscribe, ["*"]);
    assert!(policies.resource_names_subscribe.is_empty());
    stream.push(AUTHORIZATION, vec![], &[]);
    stream
}

#[test]
fn a_node_is_ready_with_policies_alone_and_asks_for_what_it_meets() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let _server = mesh.launch("server", &plane.url(), &[]);
    let _all = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
    let client = mesh.launch("client", &plane.url(), &ENV);
    let mut stream = begun(&plane);
    mesh.wait_ready("client");
    assert!(dumped(&client, "workloads").is_empty());
    // Its own workload is there, as a control plane tells each node.
    let own = workload(a_workload("client", mesh.client_ip(), "client"));
    stream.push(ADDRESS, vec![own], &[]);
    let mut one = mesh.connect();
    let mut other = mesh.connect();
    let asked = stream.request();
    assert_eq!(
        asked.resource_names_subscribe,
        [format!("/{}", mesh.server_ip())]
    );
    assert_eq!((asked.node, &*asked.response_nonce), (None, ""));
    assert!(stream.is_silent(), "one question for both");
    let mut found = workload(a_workload("server", mesh.server_ip(), "server"));
    found.aliases = vec![format!("/{}", mesh.server_ip())];
    stream.push(ADDRESS, vec![found], &[]);
    for connection in [&mut one, &mut other] {
        assert_eq!(apps::round_trip(connection, b"hello").unwrap(), b"hello");
    }
    assert_eq!(dumped(&client, "workloads").len(), 2);
}

#[test]
fn without_an_answer_no_connection_leaves_in_clear_text() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let client = mesh.launch("client", &plane.url(), &ENV);
    let mut stream = begun(&plane);
    mesh.wait_ready("client");
    let own = workload(a_workload("client", mesh.client_ip(), "client"));
    stream.push(ADDRESS, vec![own], &[]);
    let mut connection = mesh.connect();
    stream.request();
    let ended = connection.read(&mut [0]);
    assert!(
        ended.is_err_and(|error| apps::is_close(&error)),
        "refused after the deadline"
    );
    assert_eq!(mesh.reached(), 0);
    client.wait_metric("corelane_limits_hit_total", &[("limit", "demand_wait")], 1);
    // Known not to exist, the destination is outside the mesh.
    let mut connection = mesh.connect();
    let asked = stream.request().resource_names_subscribe;
    stream.push(ADDRESS, vec![], &[&asked[0]]);
    assert_eq!(
        apps::round_trip(&mut connection, b"hello").unwrap(),
        b"hello"
    );
}

#[test]
fn a_waypoint_asks_whose_waypoint_it_is() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let _server = mesh.launch("server", &plane.url(), &ENV);
    let mut stream = begun(&plane);
    mesh.wait_ready("server");
    // The node's workload backs the waypoint's service, which nobody has told it about.
    let mut own = a_workload("server", mesh.server_ip(), "server");
    let services = [("default/waypoint.default".to_owned(), PortList::default())];
    own.services = services.into();
    stream.push(ADDRESS, vec![workload(own)], &[]);
    let client = mesh.authority.issue(&Leaf::for_account("client"));
    let mut tunnel = Tunnel::open((mesh.server_ip(), 15_008).into(), &client).unwrap();
    tunnel.start_http2().unwrap();
    let port = mesh.app_port();
    let behind = |waypoint| {
        let vip = [10, 9, 9, 9].into();
        service_behind("behind", vip, (80, 80), waypoint)
    };

    // An address that nobody has.
    tunnel.connect(1, &format!("10.9.9.8:{port}")).unwrap();
    assert_eq!(stream.request().resource_names_subscribe, ["/10.9.9.8"]);
    stream.push(ADDRESS, vec![], &["/10.9.9.8"]);
    assert_eq!(tunnel.reply(1).unwrap(), Reply::Status(400));
    // A service behind this waypoint: first who that is, then who its waypoint is.
    let authority = format!("10.9.9.9:{port}");
    tunnel.connect(3, &authority).unwrap();
    assert_eq!(stream.request().resource_names_subscribe, ["/10.9.9.9"]);
    let mut found = behind(Some("waypoint"));
    found.aliases = vec!["/10.9.9.9".to_owned()];
    stream.push(ADDRESS, vec![found], &[]);
    assert_eq!(
        stream.request().resource_names_subscribe,
        ["default/waypoint.default"]
    );
    assert_eq!(mesh.reached(), 0, "nothing is decided yet");
    let waypoint = service("waypoint", [10, 9, 9, 1].into(), (15_008, 15_008));
    stream.push(ADDRESS, vec![waypoint], &[]);
    assert_eq!(tunnel.reply(3).unwrap(), Reply::Status(200));
    tunnel.send_data(3, b"hello", true).unwrap();
    assert_eq!(tunnel.receive_data(3).unwrap(), b"hello");
    // Known, and without a waypoint: refused without another question.
    stream.push(ADDRESS, vec![behind(None)], &[]);
    tunnel.connect(5, &authority).unwrap();
    assert_eq!(tunnel.reply(5).unwrap(), Reply::Status(400));
    assert!(stream.is_silent(), "nothing is left to ask");
}
