//! A node that starts while its control plane is away.

use std::fs;
use std::path::PathBuf;

use corelane_harness::clock;
use corelane_harness::node::Node;

use crate::mesh::{Mesh, dumped};
use crate::plane::{ADDRESS, AUTHORIZATION, PATIENCE, Plane};
use crate::resources::{deny_port, resource};

const ENV: [(&str, &str); 1] = [("CORELANE_XDS_CACHE_DIR", "kept")];

fn file(mesh: &Mesh) -> PathBuf {
    mesh.dir.path().join("kept/corelane-xds-v1")
}

fn stop(mut node: Node) {
    node.admin("POST", "/quitquitquit");
    assert!(node.process_mut().wait_end(PATIENCE).success());
}

/// A node that has known both workloads and a policy, stopped; its control plane is away.
fn former_life() -> (Mesh, String) {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let node = mesh.launch("server", &plane.url(), &ENV);
    let _stream = plane.stream_with(mesh.workloads(), vec![deny_port("no", 1)]);
    mesh.wait_ready("server");
    clock::wait_for("the cache", PATIENCE, || file(&mesh).exists().then_some(()));
    stop(node);
    let url = plane.url();
    (mesh, url)
}

#[test]
fn a_node_serves_what_it_knew_until_its_control_plane_answers() {
    let (mesh, url) = former_life();
    let node = mesh.launch("server", &url, &ENV);
    mesh.wait_ready("server");
    assert_eq!(dumped(&node, "workloads").len(), 2);
    assert_eq!(dumped(&node, "policies").len(), 1);
    node.process()
        .wait_output("starting from the kept state", PATIENCE);
    let at = url.trim_start_matches("http://").parse().unwrap();
    let plane = Plane::again(at);
    let (mut stream, [addresses, policies]) = plane.stream_begun();
    let versions = addresses.initial_resource_versions;
    assert!(
        versions.len() == 2 && versions.values().all(String::is_empty),
        "all is sent again"
    );
    assert_eq!(policies.initial_resource_versions["default/no"], "");
    stream.push(AUTHORIZATION, vec![deny_port("yes", 2)], &["default/no"]);
    stream.push(ADDRESS, vec![], &["client", "server"]);
    assert_eq!(dumped(&node, "policies")[0]["name"], "yes");
    assert!(
        dumped(&node, "workloads").is_empty(),
        "what is kept counts no more"
    );
}

#[test]
fn a_damaged_cache_is_a_warning_and_the_node_waits() {
    let (mesh, url) = former_life();
    let mut bytes = fs::read(file(&mesh)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file(&mesh), bytes).unwrap();
    let node = mesh.launch("server", &url, &ENV);
    node.process().wait_output("is damaged", PATIENCE);
    mesh.wait_not_ready("server");
    assert!(dumped(&node, "workloads").is_empty());
}

#[test]
fn nothing_is_kept_before_the_policies_are_known() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let node = mesh.launch("server", &plane.url(), &ENV);
    let (mut stream, _) = plane.stream_begun();
    stream.push(ADDRESS, mesh.workloads(), &[]);
    let bad = resource("default/no", vec![0xff]);
    let refused = stream.answer(AUTHORIZATION, vec![bad], &[]);
    assert!(refused.error_detail.is_some());
    mesh.wait_not_ready("server");
    stop(node);
    assert!(!file(&mesh).exists());
}
