//! Envoy opens tunnels to a node.

use corelane_harness::pki::{Leaf, spiffe};

use crate::mesh::{Mesh, check_bytes, check_refused};
use crate::node::{self, Role};
use crate::peer::{Envoy, Options};

const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";

#[test]
fn envoy_carries_bytes_to_a_node_and_both_know_whom_they_talk_to() {
    let name = "envoy_carries_bytes_to_a_node_and_both_know_whom_they_talk_to";
    let Some(mesh) = Mesh::new(name) else { return };
    let _app = mesh.start_app();
    let node = node::start(&mesh, Role::Server, &mesh.issue("server"));
    let client = mesh.issue("client");
    let envoy = Envoy::client(
        &mesh,
        &Options {
            certificate: &client,
            expected_peer: SERVER_ID,
            tunnel_age_max: None,
        },
    );
    check_bytes(mesh.entry_at());
    envoy.wait_access_line(&[SERVER_ID, "TLSv1.3"]);
    let authority = mesh.app_at().to_string();
    let _ = node.wait_access_line(
        "connection complete",
        &[
            ("src.identity", CLIENT_ID),
            ("dst.identity", SERVER_ID),
            ("dst.hbone_addr", &authority),
        ],
    );
}

#[test]
fn a_node_refuses_an_envoy_of_another_trust_domain() {
    let Some(mesh) = Mesh::new("a_node_refuses_an_envoy_of_another_trust_domain") else {
        return;
    };
    let app = mesh.start_app();
    let node = node::start(&mesh, Role::Server, &mesh.issue("server"));
    let foreign = mesh
        .authority
        .issue(&Leaf::named(&spiffe("elsewhere.example", "client")));
    let envoy = Envoy::client(
        &mesh,
        &Options {
            certificate: &foreign,
            expected_peer: SERVER_ID,
            tunnel_age_max: None,
        },
    );
    check_refused(mesh.entry_at(), &app);
    let _ = node.wait_access_line("connection failed", &[("direction", "inbound")]);
    drop(envoy);
    let right = mesh.issue("client");
    let _envoy = Envoy::client(
        &mesh,
        &Options {
            certificate: &right,
            expected_peer: SERVER_ID,
            tunnel_age_max: None,
        },
    );
    check_bytes(mesh.entry_at());
}

#[test]
fn an_envoy_refuses_a_node_with_another_name() {
    let Some(mesh) = Mesh::new("an_envoy_refuses_a_node_with_another_name") else {
        return;
    };
    let app = mesh.start_app();
    let node = node::start(&mesh, Role::Server, &mesh.issue("server"));
    let client = mesh.issue("client");
    let other = spiffe("cluster.local", "other");
    let envoy = Envoy::client(
        &mesh,
        &Options {
            certificate: &client,
            expected_peer: &other,
            tunnel_age_max: None,
        },
    );
    check_refused(mesh.entry_at(), &app);
    envoy.wait_counted("ssl.fail_verify_san");
    assert!(node.is_ready());
}
