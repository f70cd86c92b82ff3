//! The two hosts of docs/vm.md, exactly as the guide has them, in two network namespaces; then both
//! captured by the rules that are shipped.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::{Host, Network};
use corelane_harness::http;
use corelane_harness::process::Process;
use corelane_harness::requirements::has_netns;

use crate::guides::blocks;
use crate::{run, text};

const PATIENCE: Duration = Duration::from_secs(20);
const DATABASE: u16 = 5_432;

/// The YAML block of the guide that holds `line`.
fn block(line: &str) -> String {
    let guide = text("docs/vm.md");
    let found = blocks(&guide).into_iter().find(|block| {
        block.language == "yaml" && block.text.lines().any(|found| found.trim() == line)
    });
    found.unwrap_or_else(|| panic!("no block with {line}")).text
}

fn start(host: &Host, name: &str, dir: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command
        .args(["proxy", "--config", "corelane.yaml"])
        .env_clear()
        .current_dir(dir);
    let node = host.enter(|| Process::start(name, command, dir));
    let readiness = ([127, 0, 0, 1], 15_021).into();
    clock::wait_for("a ready node", PATIENCE, || {
        let answer = host.enter(|| http::request("GET", readiness, "/healthz/ready"));
        answer.ok().filter(|answer| answer.status == 200)
    });
    node
}

/// The guide's two hosts with their files, and a third host that is no part of it.
struct World {
    network: Network,
    dirs: [tempfile::TempDir; 2],
    state: String,
}

impl World {
    /// Certificates are made on the first host, as the guide says; each host keeps its own workload's.
    fn new() -> Self {
        let network = Network::new(&["vm-a", "vm-b", "outside"]);
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let made = [
            "dev",
            "pki",
            "--out",
            "ids",
            "--identity",
            "default/client",
            "default/db",
        ];
        assert!(run(&made, &[], dirs[0].path()).succeeded);
        let accounts = |dir: &Path| dir.join("ids/ns/default/sa");
        let [a, b] = dirs.each_ref().map(|dir| accounts(dir.path()));
        fs::create_dir_all(&b).unwrap();
        fs::rename(a.join("db"), b.join("db")).unwrap();
        let mut world = Self {
            network,
            dirs,
            state: String::new(),
        };
        world.state = world.here(&block("- uid: vms//client"));
        world.publish(&world.state);
        world
    }

    /// The guide's addresses become those of the namespaces.
    fn here(&self, text: &str) -> String {
        let [a, b] = ["vm-a", "vm-b"].map(|name| self.network.host(name).v4().to_string());
        text.replace("10.0.0.1", &a).replace("10.0.0.2", &b)
    }

    fn publish(&self, state: &str) {
        for dir in &self.dirs {
            fs::write(dir.path().join("state.yaml"), state).unwrap();
        }
    }

    /// Starts the nodes of both hosts, each with its configuration.
    fn start(&self, configs: [&str; 2]) -> [Process; 2] {
        let [a, b] = [0, 1].map(|index| {
            let (name, dir) = (["vm-a", "vm-b"][index], self.dirs[index].path());
            fs::write(dir.join("corelane.yaml"), self.here(configs[index])).unwrap();
            start(&self.network.host(name), name, dir)
        });
        [a, b]
    }
}

/// Waits until the server no longer answers the client.
fn wait_refused(host: &Host, to: SocketAddr) {
    clock::wait_for("the refusal", PATIENCE, || {
        let answer = host.enter(|| apps::exchange(to, b"guide"));
        (answer.unwrap_or_default() != b"guideguide").then_some(())
    });
}

#[test]
fn the_two_hosts_of_the_guide_talk_through_the_tunnel_and_nobody_else_does() {
    if !has_netns("the_two_hosts_of_the_guide_talk_through_the_tunnel") {
        return;
    }
    let world = World::new();
    let [a, b] = ["vm-a", "vm-b"].map(|name| world.network.host(name));
    let _database = Server::start(&b, DATABASE, apps::double);
    let configs = ["vm-a", "vm-b"].map(|name| block(&format!("nodeName: {name}")));
    let [_client, server] = world.start(configs.each_ref().map(String::as_str));
    let forward = ([127, 0, 0, 1], DATABASE).into();
    let answer = a.enter(|| apps::exchange(forward, b"guide"));
    assert_eq!(answer.unwrap(), b"guideguide");
    for identity in ["sa/client", "sa/db"] {
        server.wait_output(identity, PATIENCE);
    }
    // The same tunnel for somebody the policy does not name.
    let denied = world
        .state
        .replace("ns/default/sa/client]", "ns/default/sa/other]");
    assert_ne!(denied, world.state);
    world.publish(&denied);
    wait_refused(&a, forward);
}

/// A node for the one workload of a captured host, without a control plane.
fn captured(workload: &str) -> String {
    format!(
        "mode: dedicated
workload: default/{workload}/{workload}
localState: state.yaml
identityDir: ids
socket: {{packetMark: 1337, originalSource: never}}
"
    )
}

#[test]
fn the_shipped_capture_rules_bring_a_hosts_traffic_into_the_tunnel_and_leave_ssh_alone() {
    if !has_netns("the_shipped_capture_rules_bring_a_hosts_traffic_into_the_tunnel") {
        return;
    }
    let world = World::new();
    let [a, b, outside] = ["vm-a", "vm-b", "outside"].map(|name| world.network.host(name));
    let _database = Server::start(&b, DATABASE, apps::double);
    let _ssh = Server::start(&b, 22, apps::double);
    let [_client, server] = world.start([&*captured("client"), &*captured("db")]);
    // The user need not exist on the machine that runs the tests.
    let rules = text("packaging/config/capture.nft").replace("\"corelane\"", "65533");
    for host in [&a, &b] {
        host.apply_nft(&rules);
    }
    let to = (b.v4(), DATABASE).into();
    let answer = a.enter(|| apps::exchange(to, b"guide"));
    assert_eq!(answer.unwrap(), b"guideguide");
    for identity in ["sa/client", "sa/db"] {
        server.wait_output(identity, PATIENCE);
    }
    // From outside: plain text meets the policy, the way of the administrator stays open.
    assert_ne!(
        outside
            .enter(|| apps::exchange(to, b"guide"))
            .unwrap_or_default(),
        b"guideguide"
    );
    server.wait_output("allow policies exist, but none allowed", PATIENCE);
    let ssh = (b.v4(), 22).into();
    assert_eq!(
        outside.enter(|| apps::exchange(ssh, b"ssh")).unwrap(),
        b"sshssh"
    );
    // Without the rules nothing is captured any more.
    a.apply_nft("delete table inet corelane\n");
    b.apply_nft("delete table inet corelane\n");
    assert_eq!(
        outside.enter(|| apps::exchange(to, b"free")).unwrap(),
        b"freefree"
    );
}
