//! A client's and a server's node in Istio's mesh: what they learn, who they become, what they allow.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::loopback::Block;
use corelane_harness::node::{Addresses, Node};
use corelane_harness::{clock, http, requirements};
use serde_json::Value;

use crate::CORELANE;
use crate::cluster::Cluster;
use crate::objects;

/// For what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the service `server`.
const VIP: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 1);

/// Two pods on two nodes, and a service before one of them.
struct Mesh {
    client: Node,
    server: Node,
    _app: Server,
    block: Block,
    /// Last, for it has the directory of the nodes.
    cluster: Cluster,
}

impl Mesh {
    fn start(test: &str, env: &[(&str, &str)]) -> Option<Self> {
        let mut cluster = Cluster::start(test)?;
        let block = Block::take();
        let mut objects = objects::namespace("default");
        for (name, last) in [("client", 1), ("server", 2)] {
            objects += &objects::node(name, "here", "z1");
            objects += &objects::pod(name, block.ip(last));
        }
        objects += &objects::service("server", VIP);
        cluster.apply(&objects);
        let app = Server::start_here(block.ip(2).into(), 8_080, apps::echo);
        let server = launch(&cluster, block, "server", env);
        let client = launch(&cluster, block, "client", env);
        for (name, node) in [("client", &client), ("server", &server)] {
            let what = format!("readiness of {name}");
            clock::wait_for(&what, PATIENCE, || node.is_ready().then_some(()));
        }
        Some(Self {
            cluster,
            block,
            client,
            server,
            _app: app,
        })
    }

    /// The client's forward to that port of the service.
    fn forward(&self, port: u16) -> SocketAddr {
        (self.block.ip(1), 5_000 + port).into()
    }

    fn connect(&self, port: u16) -> TcpStream {
        apps::connect(self.forward(port)).unwrap()
    }

    fn answers(&self, port: u16) -> bool {
        let stream = apps::connect(self.forward(port));
        stream.is_ok_and(|mut stream| {
            apps::round_trip(&mut stream, b"hello").is_ok_and(|answer| answer == b"hello")
        })
    }

    /// Waits until a connection to port 80 of the service is answered, or refused.
    #[track_caller]
    fn wait_answers(&self, yes: bool) {
        let what = format!("a connection that is answered: {yes}");
        clock::wait_for(&what, PATIENCE, || (self.answers(80) == yes).then_some(()));
    }
}

fn launch(cluster: &Cluster, block: Block, name: &str, env: &[(&str, &str)]) -> Node {
    let last = if name == "client" { 1 } else { 2 };
    let addresses = Addresses::at(block.ip(last));
    let at = |port: u16| SocketAddr::from((block.ip(last), port));
    let forwards = if name == "client" {
        let forward =
            |port: u16| format!("{{listen: \"{}\", to: \"{VIP}:{port}\"}}", at(5_000 + port));
        format!("[{}, {}]", forward(80), forward(81))
    } else {
        "[]".to_owned()
    };
    let config = format!(
        "shards: {{count: 1, pin: false}}
listeners:
  outbound: off
  inboundPlaintext: off
  inbound: \"{}\"
  admin: \"{}\"
  stats: \"{}\"
  readiness: \"{}\"
forwards: {forwards}
",
        at(15_008),
        addresses.admin,
        addresses.stats,
        addresses.readiness
    );
    let dir = cluster.dir();
    let file = dir.join(format!("{name}.yaml"));
    fs::write(&file, config).unwrap();
    let token = dir.join(format!("{name}.token"));
    fs::write(
        &token,
        format!("spiffe://cluster.local/ns/default/sa/{name}"),
    )
    .unwrap();
    let mut command = Command::new(CORELANE);
    command
        .arg("proxy")
        .arg("--config")
        .arg(&file)
        .current_dir(dir)
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .env("PROXY_MODE", "dedicated")
        .env("PROXY_WORKLOAD_INFO", format!("default/{name}/{name}"))
        .env("NODE_NAME", name)
        .env("POD_NAME", name)
        .env("POD_NAMESPACE", "default")
        .env("INSTANCE_IP", block.ip(last).to_string())
        .env("AUTH_TOKEN", &token)
        .env("RUST_LOG", "info,corelane::xds=debug")
        .envs(cluster.environment())
        .envs(env.iter().copied());
    Node::launch(name, command, None, addresses, dir)
}

fn dump(node: &Node) -> Value {
    let answer = node.admin("GET", "/config_dump");
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

/// The entry of a list of the dump whose member `key` is `value`.
fn entry(node: &Node, list: &str, key: &str, value: &str) -> Option<Value> {
    let dump = dump(node);
    let list = dump[list].as_array().unwrap();
    list.iter().find(|entry| entry[key] == value).cloned()
}

#[test]
fn nodes_learn_the_mesh_get_their_identities_and_carry_traffic() {
    let Some(mesh) = Mesh::start("nodes_learn_the_mesh", &[]) else {
        return;
    };
    assert!(mesh.answers(80));
    assert!(mesh.answers(81), "a named port");
    let server = entry(&mesh.client, "workloads", "name", "server").unwrap();
    assert_eq!(server["uid"], "Kubernetes//Pod/default/server");
    assert_eq!(server["protocol"], "HBONE");
    assert_eq!(server["serviceAccount"], "server");
    assert_eq!(server["locality"]["region"], "here");
    assert_eq!(server["workloadIps"][0], mesh.block.ip(2).to_string());
    let service = entry(&mesh.client, "services", "name", "server").unwrap();
    assert_eq!(service["hostname"], "server.default.svc.cluster.local");
    assert_eq!(service["vips"][0], format!("/{VIP}"));
    assert!(service["endpoints"]["Kubernetes//Pod/default/server"].is_object());
    let certificates = dump(&mesh.server)["certificates"].clone();
    assert_eq!(
        certificates[0]["identity"],
        "spiffe://cluster.local/ns/default/sa/server"
    );
    assert_eq!(certificates[0]["state"], "Available");
    let fields = [
        ("src.workload", "client"),
        (
            "src.identity",
            "spiffe://cluster.local/ns/default/sa/client",
        ),
        ("dst.service", "server.default.svc.cluster.local"),
        (
            "dst.identity",
            "spiffe://cluster.local/ns/default/sa/server",
        ),
    ];
    let _line = mesh.server.wait_access_line("connection complete", &fields);
}

#[test]
fn policies_of_istio_are_enforced_and_open_connections_ended() {
    let Some(mut mesh) = Mesh::start("policies_of_istio", &[]) else {
        return;
    };
    assert!(mesh.answers(80));
    let mut open = mesh.connect(80);
    assert_eq!(apps::round_trip(&mut open, b"before").unwrap(), b"before");
    let client = "{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}";
    let deny = objects::policy("no-client", "server", "DENY", client);
    mesh.cluster.apply(&deny);
    mesh.wait_answers(false);
    let closed = apps::read_to_end(&mut open);
    assert!(closed.is_err_and(|error| apps::is_close(&error)));
    mesh.server
        .process()
        .wait_output("default/no-client", PATIENCE);
    mesh.cluster.delete(&deny);
    mesh.wait_answers(true);
    // Allowing somebody else denies the client; allowing it too admits it.
    let other = client.replace("sa/client", "sa/other");
    mesh.cluster
        .apply(&objects::policy("allow", "server", "ALLOW", &other));
    mesh.wait_answers(false);
    mesh.cluster
        .apply(&objects::policy("allow", "server", "ALLOW", client));
    mesh.wait_answers(true);
}

#[test]
fn a_policy_only_a_waypoint_can_enforce_denies_by_what_is_left_of_it() {
    let Some(mut mesh) = Mesh::start("a_policy_only_a_waypoint", &[]) else {
        return;
    };
    assert!(mesh.answers(80));
    // Istio leaves rules about requests out of what it tells a node: nothing is allowed any more.
    let rule = "{to: [{operation: {methods: [GET]}}]}";
    let allow = objects::policy("only-get", "server", "ALLOW", rule);
    mesh.cluster.apply(&allow);
    mesh.wait_answers(false);
    mesh.cluster.delete(&allow);
    mesh.wait_answers(true);
}

#[test]
fn workloads_that_move_or_go_are_followed() {
    let Some(mut mesh) = Mesh::start("workloads_that_move", &[]) else {
        return;
    };
    assert!(mesh.answers(80));
    let pod = objects::pod("server", mesh.block.ip(2));
    mesh.cluster.delete(&pod);
    mesh.wait_answers(false);
    clock::wait_for("the workload to go", PATIENCE, || {
        entry(&mesh.client, "workloads", "name", "server")
            .is_none()
            .then_some(())
    });
    mesh.cluster.apply(&pod);
    mesh.wait_answers(true);
}

#[test]
fn on_demand_only_what_is_used_is_asked_for() {
    let Some(mesh) = Mesh::start("on_demand_only", &[("XDS_ON_DEMAND", "true")]) else {
        return;
    };
    assert!(mesh.answers(80));
    assert!(entry(&mesh.client, "services", "name", "server").is_some());
}

#[test]
fn a_shared_node_gets_the_certificates_of_the_pods_on_its_node_only() {
    const TEST: &str = "a_shared_node_gets_the_certificates";
    if !requirements::has_netns(TEST) {
        return;
    }
    let Some(mut cluster) = Cluster::start(TEST) else {
        return;
    };
    let block = Block::take();
    let mut objects = objects::namespace("default") + &objects::node_proxy("proxy", "client");
    for (name, last) in [("client", 1), ("server", 2)] {
        objects += &objects::node(name, "here", "z1");
        objects += &objects::pod(name, block.ip(last));
    }
    cluster.apply(&objects);
    let addresses = Addresses::at(block.ip(1));
    let config = format!(
        "listeners: {{admin: \"{}\", stats: \"{}\", readiness: \"{}\"}}",
        addresses.admin, addresses.stats, addresses.readiness
    );
    let dir = cluster.dir();
    fs::write(dir.join("shared.yaml"), config).unwrap();
    // What a token of Kubernetes says: whose it is, and of which pod.
    let token =
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel istio-system/proxy/uid-proxy/ztunnel";
    let mut command = Command::new(CORELANE);
    command
        .args(["proxy", "ztunnel", "--config", "shared.yaml"])
        .current_dir(dir)
        .env_clear()
        .env("PROXY_MODE", "shared")
        .env("INPOD_UDS", "nobody.sock")
        .env("NODE_NAME", "client")
        .env("POD_NAME", "proxy")
        .env("POD_NAMESPACE", "istio-system")
        .env("AUTH_TOKEN", token)
        .envs(cluster.environment());
    let admin = addresses.admin;
    let _node = Node::launch("shared", command, None, addresses, dir);
    let certificates = clock::wait_for("a certificate", PATIENCE, || {
        let answer = http::request("GET", admin, "/config_dump").ok()?;
        let dump: Value = serde_json::from_str(&answer.body).unwrap();
        let certificates = dump["certificates"].as_array()?.clone();
        let settled = certificates
            .iter()
            .any(|one| one["state"] != "Initializing");
        settled.then_some(certificates)
    });
    let [certificate] = certificates.as_slice() else {
        panic!("{certificates:?}");
    };
    assert_eq!(
        certificate["identity"],
        "spiffe://cluster.local/ns/default/sa/client"
    );
    assert_eq!(certificate["state"], "Available");
}

#[test]
fn the_command_line_of_istio_reads_the_dump_of_a_node() {
    let Some(mut mesh) = Mesh::start("the_command_line_of_istio", &[]) else {
        return;
    };
    let from = "{from: [{source: {namespaces: [default]}}]}";
    let allow = objects::policy("allow", "server", "ALLOW", from);
    mesh.cluster.apply(&allow);
    clock::wait_for("the policy", PATIENCE, || {
        entry(&mesh.server, "policies", "name", "allow").map(drop)
    });
    assert!(mesh.answers(80));
    let tables = mesh
        .cluster
        .read(&mesh.server.admin("GET", "/config_dump").body);
    let ip = mesh.block.ip(2).to_string();
    for row in [
        // Namespace, pod, address, node, waypoint, protocol.
        &["default", "server", &ip, "server", "None", "HBONE"][..],
        // Namespace, service, address, waypoint, endpoints.
        &["default", "server", "240.240.0.1", "None", "1/1"],
        // Namespace, policy, action, scope.
        &["default", "allow", "Allow", "WorkloadSelector"],
        // Identity, place in the chain, state, valid.
        &[
            "spiffe://cluster.local/ns/default/sa/server",
            "Leaf",
            "Available",
            "true",
        ],
        &[
            "spiffe://cluster.local/ns/default/sa/server",
            "Root",
            "Available",
            "true",
        ],
    ] {
        let found = tables.lines().any(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns.starts_with(row)
        });
        assert!(found, "{row:?} in\n{tables}");
    }
}

#[test]
fn waypoints_and_hosts_of_istio_are_learnt() {
    let Some(mut mesh) = Mesh::start("waypoints_and_hosts", &[]) else {
        return;
    };
    mesh.cluster
        .apply(&objects::waypoint("way", mesh.block.ip(3)));
    mesh.cluster
        .apply(&objects::workload_entry("host", mesh.block.ip(4)));
    let used = objects::service("server", VIP).replace(
        "namespace: default",
        "namespace: default, labels: {istio.io/use-waypoint: way}",
    );
    mesh.cluster.apply(&used);
    let waypoint = clock::wait_for("the waypoint of the service", PATIENCE, || {
        let service = entry(&mesh.client, "services", "name", "server")?;
        service.get("waypoint").cloned()
    });
    assert_eq!(waypoint["destination"], format!("/{}", mesh.block.ip(3)));
    assert_eq!(waypoint["hboneMtlsPort"], 15_008);
    let host = clock::wait_for("the host", PATIENCE, || {
        entry(&mesh.client, "workloads", "name", "host")
    });
    assert_eq!(host["serviceAccount"], "host");
    assert_eq!(host["workloadIps"][0], mesh.block.ip(4).to_string());
    // Nobody is at the waypoint: traffic that must pass it does not go round it.
    mesh.wait_answers(false);
}
