//! The built program follows a control plane.

use std::fs;

use corelane_harness::{apps, clock};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::Status;

use crate::mesh::{Mesh, dumped};
use crate::plane::{ADDRESS, AUTHORIZATION, PATIENCE, Plane};
use crate::resources::{a_workload, deny_port, resource, workload};

#[test]
fn nodes_wait_for_their_control_plane_then_follow_it() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let server = mesh.launch("server", &plane.url(), &[]);
    let (mut to_server, [addresses, policies]) = plane.stream_begun();
    assert_eq!(addresses.type_url, ADDRESS.url());
    assert_eq!(policies.type_url, AUTHORIZATION.url());
    mesh.wait_not_ready("server");
    to_server.push(ADDRESS, mesh.workloads(), &[]);
    mesh.wait_not_ready("server");
    to_server.push(AUTHORIZATION, vec![], &[]);
    mesh.wait_ready("server");
    let client = mesh.launch("client", &plane.url(), &[]);
    let to_client = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("client");

    let uids: Vec<_> = dumped(&server, "workloads")
        .iter()
        .map(|w| w["uid"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(uids, ["client", "server"]);
    assert!(dumped(&server, "policies").is_empty());
    let mut open = mesh.connect();
    assert_eq!(apps::round_trip(&mut open, b"hello").unwrap(), b"hello");

    // A policy for another port changes nothing.
    to_server.push(
        AUTHORIZATION,
        vec![deny_port("other", mesh.app_port() + 1)],
        &[],
    );
    assert_eq!(apps::round_trip(&mut open, b"hello").unwrap(), b"hello");
    to_server.push(AUTHORIZATION, vec![], &["default/other"]);
    // A policy closes what it denies, at once, and stops what comes.
    to_server.push(AUTHORIZATION, vec![deny_port("no", mesh.app_port())], &[]);
    assert_eq!(dumped(&server, "policies")[0]["name"], "no");
    let closed = apps::read_to_end(&mut open);
    assert!(closed.is_err_and(|error| apps::is_close(&error)));
    let before = mesh.reached();
    assert!(!mesh.works());
    assert_eq!(mesh.reached(), before, "nothing reaches the application");
    server
        .process()
        .wait_output("explicitly denied by: default/no", PATIENCE);
    to_server.push(AUTHORIZATION, vec![], &["default/no"]);
    assert!(mesh.works());

    // Without its control plane a node goes on with what it knows.
    let at = plane.address();
    to_server.fail(Status::aborted("restart"));
    drop((to_client, plane));
    assert!(mesh.works());
    server.wait_metric("corelane_xds_connected", &[], 0);
    let plane = Plane::again(at);
    let mut again = [plane.stream_begun(), plane.stream_begun()];
    for (_, [addresses, _]) in &again {
        let mut names: Vec<_> = addresses.initial_resource_versions.keys().collect();
        names.sort();
        assert_eq!(names, ["client", "server"]);
    }
    for (stream, _) in &mut again {
        stream.push(ADDRESS, vec![], &["server"]);
    }
    clock::wait_for("the removal", PATIENCE, || {
        (dumped(&server, "workloads").len() == 1).then_some(())
    });
    let metrics = server.metrics();
    let count = |name: &str, label: (&str, &str)| metrics.sum(name, &[label]);
    assert!(count("istio_xds_message_total", ("url", ADDRESS.url())) >= 2.0);
    assert!(count("istio_xds_message_bytes_total", ("url", ADDRESS.url())) > 0.0);
    // By its status, or by the end of the connection, whichever was seen first.
    assert!(metrics.sum("istio_xds_connection_terminations_total", &[]) >= 1.0);
    drop(client);
}

#[test]
fn a_bad_resource_is_refused_by_name_and_the_last_good_one_stays() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let server = mesh.launch("server", &plane.url(), &[]);
    let mut stream = plane.stream_with(mesh.workloads(), vec![deny_port("no", 1)]);
    mesh.wait_ready("server");
    let garbage = resource("default/no", vec![0xff; 9]);
    let answer = stream.answer(AUTHORIZATION, vec![garbage, deny_port("more", 2)], &[]);
    let detail = answer.error_detail.unwrap();
    assert!(
        detail.message.starts_with("default/no: "),
        "{}",
        detail.message
    );
    let names: Vec<_> = dumped(&server, "policies")
        .iter()
        .map(|policy| policy["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        ["more", "no"],
        "refused, the former policy still holds"
    );
    server.wait_metric("corelane_xds_rejected_resources_total", &[], 1);
}

/// TLS of a server for `localhost`, and its root.
fn tls(host: &str) -> (rustls::ServerConfig, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([host.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, der)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (config, certificate.pem())
}

#[test]
fn over_tls_the_control_plane_is_checked_and_shown_token_and_headers() {
    let mesh = Mesh::new();
    let (config, root) = tls("localhost");
    let plane = Plane::with_tls(config);
    let url = format!("https://localhost:{}", plane.address().port());
    fs::write(mesh.dir.path().join("root.pem"), root).unwrap();
    fs::write(mesh.dir.path().join("token"), "one").unwrap();
    let _server = mesh.launch(
        "server",
        &url,
        &[
            ("XDS_ROOT_CA", "root.pem"),
            ("AUTH_TOKEN", "token"),
            ("CLUSTER_ID", "c1"),
            ("XDS_HEADER_HEADER_FOO", "foo"),
            ("POD_NAME", "zt"),
            ("POD_NAMESPACE", "istio-system"),
            ("INSTANCE_IP", "10.1.2.3"),
            ("ISTIO_META_ZONE", "a"),
        ],
    );
    let (mut stream, [first, _]) = plane.stream_begun();
    let header = |name: &str| stream.headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!(header("authorization"), Some("Bearer one"));
    assert_eq!(header("clusterid"), Some("c1"));
    assert_eq!(header("header_foo"), Some("foo"));
    let node = first.node.unwrap();
    assert_eq!(
        node.id,
        "ztunnel~10.1.2.3~zt.istio-system~istio-system.svc.cluster.local"
    );
    let metadata = node.metadata.unwrap().fields;
    assert!(metadata.contains_key("ZONE") && metadata.contains_key("NODE_NAME"));
    stream.push(ADDRESS, mesh.workloads(), &[]);
    stream.push(AUTHORIZATION, vec![], &[]);
    mesh.wait_ready("server");
    // The token is read for each stream.
    fs::write(mesh.dir.path().join("token"), "two").unwrap();
    stream.fail(Status::unauthenticated("expired"));
    let stream = plane.stream();
    assert_eq!(stream.headers.get("authorization").unwrap(), "Bearer two");
}

#[test]
fn a_control_plane_with_an_unknown_root_or_another_name_is_not_believed() {
    for (host, root_known) in [("localhost", false), ("other", true)] {
        let mesh = Mesh::new();
        let (config, root) = tls(host);
        let plane = Plane::with_tls(config);
        let root = if root_known { root } else { tls(host).1 };
        fs::write(mesh.dir.path().join("root.pem"), &root).unwrap();
        let url = format!("https://localhost:{}", plane.address().port());
        let env = [("XDS_ROOT_CA", "root.pem")];
        let server = mesh.launch("server", &url, &env);
        server
            .process()
            .wait_output("control plane not reached", PATIENCE);
        mesh.wait_not_ready("server");
        if root_known {
            drop(server);
            let alternative = [env[0], ("ALT_XDS_HOSTNAME", "other")];
            let _server = mesh.launch("server", &url, &alternative);
            let _stream = plane.stream_with(mesh.workloads(), vec![]);
            mesh.wait_ready("server");
        }
    }
}

#[test]
fn a_file_and_a_control_plane_are_served_together() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let state = "workloads:\n- {uid: local, name: local, namespace: default, workloadIps: \
                 [127.99.0.1], services: {}}\nservices: []\npolicies: []\n";
    fs::write(mesh.dir.path().join("state.yaml"), state).unwrap();
    let server = mesh.launch("server", &plane.url(), &[("LOCAL_XDS_PATH", "state.yaml")]);
    let mut stream = plane.stream_with(mesh.workloads(), vec![]);
    mesh.wait_ready("server");
    assert_eq!(dumped(&server, "workloads").len(), 3);
    let mut other = a_workload("local", mesh.server_ip(), "elsewhere");
    other.hostname = "from.afar".into();
    stream.push(ADDRESS, vec![workload(other)], &[]);
    let local = || {
        let all = dumped(&server, "workloads");
        let mut all = all.into_iter();
        all.find(|workload| workload["uid"] == "local").unwrap()
    };
    assert_eq!(local()["hostname"], "from.afar");
    stream.push(ADDRESS, vec![], &["local"]);
    assert_eq!(local()["workloadIps"][0], "127.99.0.1");
}

#[test]
fn a_node_stops_in_order_while_it_waits() {
    let (mesh, plane) = (Mesh::new(), Plane::start());
    let mut server = mesh.launch("server", &plane.url(), &[]);
    mesh.wait_not_ready("server");
    server.admin("POST", "/quitquitquit");
    assert!(server.process_mut().wait_end(PATIENCE).success());
}
