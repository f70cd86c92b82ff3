//! Corelane: one node in dedicated mode on each host that needs one.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use corelane_harness::hosts::Host;
use corelane_harness::node::{Addresses, Node};
use corelane_harness::pki::{Authority, Leaf};
use corelane_harness::process::replace_file;
use corelane_harness::state::{State, Workload};

use super::{Corelane, NodeProcess, Starter, Way};
use crate::tool;

pub(super) fn start(starter: &Starter<'_>, variant: &Corelane) -> Vec<NodeProcess> {
    let lab = starter.lab;
    let authority = Authority::new("corelane perf root");
    replace_file(&lab.dir().join("state.yaml"), &mesh(starter, variant.way));
    for host in [&lab.client, &lab.server] {
        host.enter(|| {
            for (key, value) in &variant.sysctls {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}"));
            }
        });
    }
    let sides = [("client", &lab.client), ("server", &lab.server)];
    let nodes = match variant.way {
        Way::Passthrough => 1,
        Way::Tunnel => 2,
    };
    // The server's node first: the client's may open tunnels at once.
    let starting = sides.iter().take(nodes).rev();
    starting
        .map(|(account, host)| {
            let identities = lab.dir().join(format!("identities-{account}"));
            let issued = authority.issue(&Leaf::for_account(account));
            issued.install(&identities, account, authority.pem());
            let node = Node::start(
                &format!("corelane-{account}"),
                command(starter, variant, account, host),
                Some((*host).clone()),
                Addresses::at(Ipv4Addr::LOCALHOST),
                lab.dir(),
            );
            NodeProcess::Corelane(Box::new(node))
        })
        .collect()
}

fn command(starter: &Starter<'_>, variant: &Corelane, account: &str, host: &Host) -> Command {
    let (lab, shape) = (starter.lab, starter.shape);
    let mut command = tool::command(host, &variant.binary.to_string_lossy());
    command.process_group(0);
    command.arg("proxy");
    let filter = if shape.access_log {
        "info"
    } else {
        "info,access=off"
    };
    let mut settings = vec![
        // The peers do not keep the client's address either.
        ("socket.originalSource", "never"),
        ("log.filter", filter),
    ];
    if !shape.pooled {
        settings.push(("pool.maxStreamsPerConnection", "1"));
    }
    let own = variant
        .settings
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()));
    for (name, value) in settings.into_iter().chain(own) {
        command.args(["--set", &format!("{name}={value}")]);
    }
    command
        .current_dir(lab.dir())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PROXY_MODE", "dedicated")
        .env(
            "PROXY_WORKLOAD_INFO",
            format!("default/{account}/{account}"),
        )
        .env("XDS_ADDRESS", "")
        .env("LOCAL_XDS_PATH", lab.dir().join("state.yaml"))
        .env(
            "CORELANE_IDENTITY_DIR",
            lab.dir().join(format!("identities-{account}")),
        )
        .env("CORELANE_DRIVER", variant.driver.as_str())
        .env("ZTUNNEL_WORKER_THREADS", shape.shards.to_string());
    command
}

fn mesh(starter: &Starter<'_>, way: Way) -> String {
    let lab = starter.lab;
    let workload = |name, ips, hbone| Workload {
        name,
        ips,
        hbone,
        services: &[],
    };
    let [client, server] = [&lab.client, &lab.server].map(|host| [IpAddr::V4(host.v4())]);
    State::default()
        .workload(&workload("client", &client, true))
        .workload(&workload("server", &server, way == Way::Tunnel))
        .to_yaml()
}
