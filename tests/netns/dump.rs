//! The dump of a running node, decoded by a model of what `istioctl ztunnel-config` reads, which
//! refuses what the contract does not name.

use std::collections::BTreeMap;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::node::{Driver, REPORT_LIMIT};
use corelane_harness::pki::spiffe;
use corelane_harness::shared::{Options, Shared};
use serde::Deserialize;
use serde_json::Value;

use crate::CORELANE;

const PORT: u16 = 8_080;

with_both_drivers!(the_dump_is_what_the_tools_of_the_mesh_read);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dump {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    policies: Vec<Policy>,
    staged_services: BTreeMap<String, BTreeMap<String, Endpoint>>,
    certificates: Vec<Certificates>,
    workload_state: BTreeMap<String, Pod>,
    static_config: StaticConfig,
    version: BTreeMap<String, String>,
    config: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StaticConfig {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    policies: Vec<Policy>,
}

/// Those with a default may be missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "decoding is the test")]
struct Workload {
    workload_ips: Vec<std::net::IpAddr>,
    protocol: Protocol,
    network_mode: NetworkMode,
    name: String,
    namespace: String,
    status: Status,
    cluster_id: String,
    capacity: u32,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    trust_domain: String,
    #[serde(default)]
    service_account: String,
    #[serde(default)]
    network: String,
    #[serde(default)]
    workload_name: String,
    #[serde(default)]
    workload_type: String,
    #[serde(default)]
    canonical_name: String,
    #[serde(default)]
    canonical_revision: String,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    native_tunnel: bool,
    #[serde(default)]
    authorization_policies: Vec<String>,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    waypoint: Option<Gateway>,
    #[serde(default)]
    network_gateway: Option<Gateway>,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Protocol {
    Tcp,
    Hbone,
}

#[derive(Deserialize)]
enum NetworkMode {
    Standard,
    HostNetwork,
}

#[derive(Deserialize, PartialEq)]
enum Status {
    Healthy,
    Unhealthy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "decoding is the test")]
struct Gateway {
    destination: String,
    hbone_mtls_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "decoding is the test")]
struct Service {
    name: String,
    namespace: String,
    hostname: String,
    vips: Vec<String>,
    ports: BTreeMap<u16, u16>,
    endpoints: BTreeMap<String, Endpoint>,
    subject_alt_names: Vec<String>,
    canonical: bool,
    visibility: Visibility,
    #[serde(default)]
    waypoint: Option<Gateway>,
    #[serde(default)]
    ip_families: Option<Families>,
}

#[derive(Deserialize)]
enum Visibility {
    Public,
    Namespace,
}

#[derive(Deserialize)]
enum Families {
    Dual,
    IPv4,
    IPv6,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "decoding is the test")]
struct Endpoint {
    workload_uid: String,
    port: BTreeMap<u16, u16>,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    name: String,
    namespace: String,
    scope: Scope,
    action: Action,
    rules: Vec<Vec<Vec<Match>>>,
    dry_run: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Scope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Action {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Match {
    #[serde(default)]
    principals: Vec<Text>,
    #[serde(default)]
    not_destination_ports: Vec<u16>,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Text {
    Exact(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificates {
    identity: String,
    state: String,
    cert_chain: Vec<Certificate>,
    root_certs: Vec<Certificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pod {
    state: PodState,
    info: Info,
    connections: Option<Connections>,
}

#[derive(Debug, Deserialize, PartialEq)]
enum PodState {
    Pending,
    Up,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Info {
    name: String,
    namespace: String,
    service_account: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connections {
    inbound: Vec<Connection>,
    outbound: Vec<Connection>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    src: std::net::SocketAddr,
    original_dst: Option<String>,
    actual_dst: std::net::SocketAddr,
    protocol: ConnectionProtocol,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum ConnectionProtocol {
    Tcp,
    Hbone,
    DoubleHbone,
}

fn dump(shared: &Shared) -> Dump {
    let answer = shared.node.admin("GET", "/config_dump");
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error} in {}", answer.body))
}

/// Seconds and `Z`, as the tools parse it.
fn is_time(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00Z"
}

fn the_dump_is_what_the_tools_of_the_mesh_read(driver: Driver) {
    let rules =
        "[[[{notDestinationPorts: [9], principals: [!Exact cluster.local/ns/default/sa/x]}]]]";
    let shared = Shared::start(
        CORELANE,
        &Options {
            driver,
            pods: &["a", "b"],
            policies: &[("shown", "Deny", rules)],
            services: &[],
            settings: &[],
            env: &[],
        },
    );
    shared.serve(&["a", "b"]);
    let _app = Server::start(&shared.host("b"), PORT, apps::echo);
    let to = shared.at("b", PORT);
    let mut open = shared.host("a").enter(|| apps::connect(to)).unwrap();
    assert_eq!(apps::round_trip(&mut open, b"x").unwrap(), b"x");
    let read = dump(&shared);

    check_state(&read);
    check_certificates(&read);
    let pods: BTreeMap<_, _> = read
        .workload_state
        .values()
        .map(|p| (&*p.info.name, p))
        .collect();
    for pod in pods.values() {
        assert_eq!(pod.state, PodState::Up);
        let info = (&*pod.info.namespace, &*pod.info.service_account);
        assert_eq!(info, ("default", &*pod.info.name));
    }
    let [a, b] = ["a", "b"].map(|pod| pods[pod].connections.as_ref().unwrap());
    let client = shared.host("a").v4();
    let [outbound] = &*a.outbound else {
        panic!("{} connections", a.outbound.len())
    };
    assert_eq!(outbound.src, open.local_addr().unwrap());
    assert_eq!(outbound.original_dst.as_deref(), Some(&*to.to_string()));
    assert_eq!(outbound.actual_dst, shared.at("b", 15_008));
    assert_eq!(outbound.protocol, ConnectionProtocol::Hbone);
    let [inbound] = &*b.inbound else {
        panic!("{} streams", b.inbound.len())
    };
    assert_eq!(inbound.src.ip(), client);
    assert_eq!((&inbound.original_dst, inbound.actual_dst), (&None, to));
    assert_eq!(inbound.protocol, ConnectionProtocol::Hbone);
    assert!(a.inbound.is_empty() && b.outbound.is_empty());

    drop(open);
    clock::wait_for("closed connections to leave the dump", REPORT_LIMIT, || {
        let read = dump(&shared);
        let pods = read
            .workload_state
            .values()
            .filter_map(|pod| pod.connections.as_ref());
        let left: usize = pods.map(|pod| pod.inbound.len() + pod.outbound.len()).sum();
        (left == 0).then_some(())
    });
}

fn check_state(read: &Dump) {
    let names: Vec<_> = read.workloads.iter().map(|w| &*w.name).collect();
    assert!(names.contains(&"a") && names.contains(&"b"), "{names:?}");
    assert!(
        read.workloads
            .iter()
            .is_sorted_by_key(|workload| &workload.uid)
    );
    assert!(
        read.services
            .iter()
            .is_sorted_by_key(|service| &service.hostname)
    );
    let [policy] = &*read.policies else {
        panic!("{} policies", read.policies.len())
    };
    assert_eq!(
        (&*policy.namespace, &*policy.name, policy.dry_run),
        ("default", "shown", false)
    );
    assert_eq!(
        (&policy.scope, &policy.action),
        (&Scope::Namespace, &Action::Deny)
    );
    let matched = &policy.rules[0][0][0];
    assert_eq!(matched.not_destination_ports, [9]);
    let principal = "cluster.local/ns/default/sa/x".to_owned();
    assert_eq!(matched.principals, [Text::Exact(principal)]);
    // The same file is the source of both.
    assert_eq!(read.static_config.workloads.len(), read.workloads.len());
    assert_eq!(read.static_config.services.len(), read.services.len());
    assert_eq!(read.static_config.policies.len(), 1);
    assert!(read.staged_services.is_empty());
    assert_eq!(read.config["proxyMode"], "Shared");
    assert_eq!(read.config["windowSize"], 4 * 1024 * 1024);
    assert!(read.version.contains_key("gitRevision"));
}

fn check_certificates(read: &Dump) {
    let identities: Vec<_> = read.certificates.iter().map(|c| &*c.identity).collect();
    for pod in ["a", "b"] {
        assert!(
            identities.contains(&&*spiffe("cluster.local", pod)),
            "{identities:?}"
        );
    }
    assert!(identities.is_sorted());
    let begin = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
    for held in &read.certificates {
        assert_eq!(held.state, "Available", "{}", held.identity);
        assert!(!held.cert_chain.is_empty() && !held.root_certs.is_empty());
        for certificate in held.cert_chain.iter().chain(&held.root_certs) {
            assert!(certificate.pem.starts_with(begin), "{}", certificate.pem);
            assert!(
                certificate
                    .serial_number
                    .bytes()
                    .all(|digit| digit.is_ascii_digit())
            );
            let times = [&certificate.valid_from, &certificate.expiration_time];
            assert!(times.iter().all(|time| is_time(time)), "{times:?}");
        }
    }
}
