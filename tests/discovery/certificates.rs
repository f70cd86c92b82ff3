//! The built program gets its certificates from an authority, and heeds revocation lists.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use corelane::proto::discovery::Resource;
use corelane_harness::apps;
use corelane_harness::node::Node;

use crate::authority::Ca;
use crate::mesh::{Mesh, dumped};
use crate::plane::{PATIENCE, Plane, Stream};

/// Both nodes, ready, with certificates of `ca` and that state; what speaks to them.
pub(crate) fn nodes(
    mesh: &Mesh,
    plane: &Plane,
    ca: &Ca,
    (all, more): (&[Resource], &[(&str, &str)]),
) -> [(Node, Stream); 2] {
    ca.write_root(&mesh.dir.path().join("ca-root.pem"));
    fs::write(mesh.dir.path().join("token"), "bootstrap").unwrap();
    let url = ca.url();
    let mut env = vec![
        ("CA_ADDRESS", &*url),
        ("CA_ROOT_CA", "ca-root.pem"),
        ("AUTH_TOKEN", "token"),
    ];
    env.extend(more);
    ["server", "client"].map(|name| {
        let node = mesh.launch(name, &plane.url(), &env);
        let stream = plane.stream_with(all.to_vec(), vec![]);
        mesh.wait_ready(name);
        (node, stream)
    })
}

#[test]
fn nodes_get_certificates_from_their_authority_and_renew_them_under_load() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let ca = Ca::start(Duration::from_secs(6));
    let [(server, _s), (client, _c)] = nodes(&mesh, &plane, &ca, (&mesh.workloads(), &[]));
    let mut issued = BTreeMap::<String, usize>::new();
    let mut connections = 0;
    // New connections all the time, until each node has had three certificates.
    while issued.values().filter(|count| **count >= 3).count() < 2 {
        assert!(mesh.works(), "connection {connections} after {issued:?}");
        connections += 1;
        while let Some(next) = ca.try_next() {
            assert_eq!(next.token.as_deref(), Some("Bearer bootstrap"));
            let account = next.identity.service_account.to_string();
            *issued.entry(account).or_default() += 1;
        }
    }
    let names: Vec<_> = issued.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["client", "server"],
        "each asks for its own workload"
    );
    let certificates = dumped(&server, "certificates");
    assert_eq!(certificates[0]["state"], "Available");
    // Without its authority a node goes on with the certificate it has.
    drop(ca);
    assert!(mesh.works());
    drop(client);
}

#[test]
fn an_authority_with_an_unknown_root_is_not_believed() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let ca = Ca::start(Duration::from_hours(1));
    let other = Ca::start(Duration::from_hours(1));
    // The roots of one authority, the address of another.
    other.write_root(&mesh.dir.path().join("ca-root.pem"));
    let url = ca.url();
    let env = [("CA_ADDRESS", &*url), ("CA_ROOT_CA", "ca-root.pem")];
    let server = mesh.launch("server", &plane.url(), &env);
    let _stream = plane.stream_with(mesh.workloads(), vec![]);
    server.process().wait_output(
        "its certificate is not signed by a root of ca-root.pem",
        PATIENCE,
    );
    let state = dumped(&server, "certificates")[0]["state"].to_string();
    assert!(
        state.contains("Unavailable: certificate authority"),
        "{state}"
    );
    assert!(ca.try_next().is_none());
}

#[test]
fn a_revoked_client_loses_its_connections_and_gets_no_new_ones() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let ca = Ca::start(Duration::from_hours(1));
    let lists = mesh.dir.path().join("crl.pem");
    let now = SystemTime::now();
    fs::write(&lists, ca.authority.revoke(&[], now).unwrap()).unwrap();
    let env = [("CRL_PATH", "crl.pem")];
    let [(server, _s), _client] = nodes(&mesh, &plane, &ca, (&mesh.workloads(), &env));
    let issued = [ca.next(), ca.next()];
    let mut open = mesh.connect();
    assert_eq!(apps::round_trip(&mut open, b"hello").unwrap(), b"hello");
    let client = issued
        .iter()
        .find(|issued| &*issued.identity.service_account == "client");
    let leaf = &*client.expect("the client's certificate").leaf;
    let next = mesh.dir.path().join("next.pem");
    fs::write(&next, ca.authority.revoke(&[leaf], now).unwrap()).unwrap();
    fs::rename(&next, &lists).unwrap();
    let closed = apps::read_to_end(&mut open);
    assert!(closed.is_err_and(|error| apps::is_close(&error)));
    server
        .process()
        .wait_output("peer certificate revoked by CRL", PATIENCE);
    let flags = [
        ("reporter", "destination"),
        ("response_flags", "CERT_REVOKED"),
    ];
    server.wait_metric("istio_tcp_connections_failed_total", &flags, 1);
    assert!(!mesh.works());
    let rejected = [("reporter", "destination")];
    let count = server
        .metrics()
        .sum("istio_crl_policy_rejections_total", &rejected);
    assert!(count >= 2.0, "{count}");
}
