//! The two hosts of docs/vm.md, exactly as the guide has them, in two network namespaces.

use std::fs;
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

#[test]
fn the_two_hosts_of_the_guide_talk_through_the_tunnel_and_nobody_else_does() {
    if !has_netns("the_two_hosts_of_the_guide_talk_through_the_tunnel") {
        return;
    }
    let network = Network::new(&["vm-a", "vm-b"]);
    let [a, b] = ["vm-a", "vm-b"].map(|name| network.host(name));
    // The guide's addresses become those of the namespaces.
    let here = |text: String| {
        let text = text.replace("10.0.0.1", &a.v4().to_string());
        text.replace("10.0.0.2", &b.v4().to_string())
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let state = here(block("- uid: vms//client"));
    for (dir, name) in dirs.iter().zip(["vm-a", "vm-b"]) {
        let config = here(block(&format!("nodeName: {name}")));
        fs::write(dir.path().join("corelane.yaml"), config).unwrap();
        fs::write(dir.path().join("state.yaml"), &state).unwrap();
    }
    // Made on the first host, as the guide says; each host keeps its own workload's folder.
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
    fs::create_dir_all(accounts(dirs[1].path())).unwrap();
    fs::rename(
        accounts(dirs[0].path()).join("db"),
        accounts(dirs[1].path()).join("db"),
    )
    .unwrap();

    let _database = Server::start(&b, DATABASE, apps::double);
    let _a = start(&a, "vm-a", dirs[0].path());
    let server = start(&b, "vm-b", dirs[1].path());
    let forward = ([127, 0, 0, 1], DATABASE).into();
    let answer = a.enter(|| apps::exchange(forward, b"guide"));
    assert_eq!(answer.unwrap(), b"guideguide");
    for identity in ["sa/client", "sa/db"] {
        server.wait_output(identity, PATIENCE);
    }
    // The same tunnel for somebody the policy does not name.
    let denied = state.replace("ns/default/sa/client]", "ns/default/sa/other]");
    assert_ne!(denied, state);
    fs::write(dirs[1].path().join("state.yaml"), denied).unwrap();
    clock::wait_for("the refusal", PATIENCE, || {
        let answer = a.enter(|| apps::exchange(forward, b"guide"));
        (answer.unwrap_or_default() != b"guideguide").then_some(())
    });
}
