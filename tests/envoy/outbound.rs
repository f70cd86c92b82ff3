//! A node opens tunnels to Envoy.

use std::time::Duration;

use corelane_harness::pki::{Leaf, spiffe};

use crate::mesh::{Mesh, check_bytes, check_refused, check_service_without_gap};
use crate::node::{self, Role};
use crate::peer::{Envoy, Options};

const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";

#[test]
fn a_node_carries_bytes_to_an_envoy_and_both_know_whom_they_talk_to() {
    let name = "a_node_carries_bytes_to_an_envoy_and_both_know_whom_they_talk_to";
    let Some(mesh) = Mesh::new(name) else { return };
    let _app = mesh.start_app();
    let server = mesh.issue("server");
    let envoy = Envoy::server(
        &mesh,
        &Options {
            certificate: &server,
            expected_peer: CLIENT_ID,
            tunnel_age_max: None,
        },
    );
    let node = node::start(&mesh, Role::Client, &mesh.issue("client"));
    check_bytes(mesh.entry_at());
    let authority = mesh.app_at().to_string();
    let line = envoy.wait_access_line(&["200", CLIENT_ID, "TLSv1.3", &authority]);
    // The request carries what HBONE asks for (hbone 4).
    assert!(line.contains("forwarded=for=\"127."), "{line}");
    assert!(line.contains("k8s.namespace.name=default"), "{line}");
    assert!(line.contains("traceparent=00-"), "{line}");
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
fn a_node_refuses_an_envoy_with_another_name() {
    let Some(mesh) = Mesh::new("a_node_refuses_an_envoy_with_another_name") else {
        return;
    };
    let app = mesh.start_app();
    let node = node::start(&mesh, Role::Client, &mesh.issue("client"));
    let wrong = [
        spiffe("cluster.local", "other"),
        spiffe("elsewhere.example", "server"),
    ];
    for name in wrong {
        let certificate = mesh.authority.issue(&Leaf::named(&name));
        let envoy = Envoy::server(
            &mesh,
            &Options {
                certificate: &certificate,
                expected_peer: CLIENT_ID,
                tunnel_age_max: None,
            },
        );
        check_refused(mesh.entry_at(), &app);
        drop(envoy);
    }
    let line = node.wait_access_line("connection complete", &[("direction", "outbound")]);
    assert_eq!(line.level, "error", "{line:?}");
    let certificate = mesh.issue("server");
    let _envoy = Envoy::server(
        &mesh,
        &Options {
            certificate: &certificate,
            expected_peer: CLIENT_ID,
            tunnel_age_max: None,
        },
    );
    check_bytes(mesh.entry_at());
}

#[test]
fn an_envoy_refuses_a_node_of_another_trust_domain() {
    let Some(mesh) = Mesh::new("an_envoy_refuses_a_node_of_another_trust_domain") else {
        return;
    };
    let app = mesh.start_app();
    let server = mesh.issue("server");
    let expected = spiffe("elsewhere.example", "client");
    let envoy = Envoy::server(
        &mesh,
        &Options {
            certificate: &server,
            expected_peer: &expected,
            tunnel_age_max: None,
        },
    );
    let node = node::start(&mesh, Role::Client, &mesh.issue("client"));
    check_refused(mesh.entry_at(), &app);
    envoy.wait_counted("ssl.fail_verify_san");
    let line = node.wait_access_line("connection complete", &[("direction", "outbound")]);
    assert_eq!(line.level, "error", "{line:?}");
}

#[test]
fn no_connection_fails_when_envoy_says_goaway_again_and_again() {
    let name = "no_connection_fails_when_envoy_says_goaway_again_and_again";
    let Some(mesh) = Mesh::new(name) else { return };
    let _app = mesh.start_app();
    let server = mesh.issue("server");
    let age = Some(Duration::from_millis(500));
    let envoy = Envoy::server(
        &mesh,
        &Options {
            certificate: &server,
            expected_peer: CLIENT_ID,
            tunnel_age_max: age,
        },
    );
    let _node = node::start(&mesh, Role::Client, &mesh.issue("client"));
    check_service_without_gap(mesh.entry_at(), Duration::from_secs(6));
    envoy.wait_counted("downstream_cx_max_duration_reached");
}
