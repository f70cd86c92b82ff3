//! Envoy to Envoy: the configurations the other tests rely on do what they are meant to do.

use std::time::Duration;

use corelane_harness::pki::{Leaf, spiffe};

use crate::mesh::{Mesh, check_bytes, check_refused, check_service_without_gap};
use crate::peer::{Envoy, Options};

const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";

#[test]
fn two_envoys_carry_bytes_and_check_each_other() {
    let Some(mesh) = Mesh::new("two_envoys_carry_bytes_and_check_each_other") else {
        return;
    };
    let (client, server) = (mesh.issue("client"), mesh.issue("server"));
    let _app = mesh.start_app();
    let server = Envoy::server(
        &mesh,
        &Options {
            certificate: &server,
            expected_peer: CLIENT_ID,
            tunnel_age_max: None,
        },
    );
    let client = Envoy::client(
        &mesh,
        &Options {
            certificate: &client,
            expected_peer: SERVER_ID,
            tunnel_age_max: None,
        },
    );
    check_bytes(mesh.entry_at());
    client.wait_access_line(&[SERVER_ID, "TLSv1.3"]);
    server.wait_access_line(&["200", CLIENT_ID, "TLSv1.3", &mesh.app_at().to_string()]);
}

#[test]
fn an_envoy_refuses_the_wrong_name_in_either_role() {
    let Some(mesh) = Mesh::new("an_envoy_refuses_the_wrong_name_in_either_role") else {
        return;
    };
    let foreign = mesh
        .authority
        .issue(&Leaf::named(&spiffe("elsewhere.example", "client")));
    let server = mesh.issue("server");
    let app = mesh.start_app();
    let server = Envoy::server(
        &mesh,
        &Options {
            certificate: &server,
            expected_peer: CLIENT_ID,
            tunnel_age_max: None,
        },
    );
    let client = Envoy::client(
        &mesh,
        &Options {
            certificate: &foreign,
            expected_peer: SERVER_ID,
            tunnel_age_max: None,
        },
    );
    check_refused(mesh.entry_at(), &app);
    server.wait_counted("ssl.fail_verify_san");
    drop(client);
    let right = mesh.issue("client");
    let client = Envoy::client(
        &mesh,
        &Options {
            certificate: &right,
            expected_peer: CLIENT_ID,
            tunnel_age_max: None,
        },
    );
    check_refused(mesh.entry_at(), &app);
    client.wait_counted("ssl.fail_verify_san");
}

#[test]
fn an_envoy_survives_the_goaway_of_another() {
    let Some(mesh) = Mesh::new("an_envoy_survives_the_goaway_of_another") else {
        return;
    };
    let (client, server) = (mesh.issue("client"), mesh.issue("server"));
    let _app = mesh.start_app();
    let age = Some(Duration::from_millis(500));
    let server = Envoy::server(
        &mesh,
        &Options {
            certificate: &server,
            expected_peer: CLIENT_ID,
            tunnel_age_max: age,
        },
    );
    let _client = Envoy::client(
        &mesh,
        &Options {
            certificate: &client,
            expected_peer: SERVER_ID,
            tunnel_age_max: None,
        },
    );
    check_service_without_gap(mesh.entry_at(), Duration::from_secs(4));
    server.wait_counted("downstream_cx_max_duration_reached");
}
