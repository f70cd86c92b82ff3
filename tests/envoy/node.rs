//! A node without capture: its own configuration file, loopback addresses, one forward.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use corelane_harness::apps;
use corelane_harness::node::{Addresses, Node};
use corelane_harness::pki::Issued;
use corelane_harness::process::replace_file;
use corelane_harness::state::{State, Workload};

use crate::CORELANE;
use crate::mesh::{APP_PORT, Mesh};

/// Whom the node speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Workload `client`, with a forward to the application.
    Client,
    /// Workload `server`, taking tunnels.
    Server,
}

/// What a node is told.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// Name and account of its workload.
    pub(crate) account: &'a str,
    /// Where its endpoints are.
    pub(crate) ip: Ipv4Addr,
    /// What it presents.
    pub(crate) certificate: &'a Issued,
    /// Own network.
    pub(crate) network: &'a str,
    /// The state file.
    pub(crate) state: &'a str,
    /// Where it takes tunnels, if it does.
    pub(crate) inbound: Option<SocketAddr>,
    /// A forward: from where, to where.
    pub(crate) forward: Option<(SocketAddr, SocketAddr)>,
}

/// Starts a node in that role with that certificate.
pub(crate) fn start(mesh: &Mesh, role: Role, certificate: &Issued) -> Node {
    let state = both_workloads(mesh).to_yaml();
    let setup = Setup {
        account: "client",
        ip: mesh.client_ip(),
        certificate,
        network: "",
        state: &state,
        inbound: None,
        forward: Some((mesh.entry_at(), mesh.app_at())),
    };
    start_as(
        mesh,
        &match role {
            Role::Client => setup,
            Role::Server => Setup {
                account: "server",
                ip: mesh.server_ip(),
                inbound: Some(mesh.hbone_at()),
                forward: None,
                ..setup
            },
        },
    )
}

/// Starts a node with that setup.
pub(crate) fn start_as(mesh: &Mesh, setup: &Setup<'_>) -> Node {
    let account = setup.account;
    let dir = mesh.dir.path();
    let identities = dir.join(format!("identities-{account}"));
    setup
        .certificate
        .install(&identities, account, mesh.authority.pem());
    let state = dir.join(format!("state-{account}.yaml"));
    replace_file(&state, setup.state);
    let addresses = Addresses::at(setup.ip);
    let at = |port| SocketAddr::from((setup.ip, port));
    let captures = [at(15_001), at(15_006)];
    let listeners = setup.inbound.into_iter().chain(captures);
    for listener in listeners.chain(setup.forward.map(|(listen, _)| listen)) {
        // A node that ran here before may have ended a moment ago.
        drop(apps::listen_when_free(listener.ip(), listener.port()));
    }
    let inbound = setup
        .inbound
        .map_or_else(|| "off".to_owned(), |at| at.to_string());
    let forwards = setup.forward.map_or_else(String::new, |(listen, to)| {
        format!("{{listen: \"{listen}\", to: \"{to}\"}}")
    });
    let config = format!(
        "mode: dedicated
workload: default/{account}/{account}
network: \"{}\"
localState: {}
identityDir: {}
shards: {{count: 2}}
listeners:
  outbound: \"{}\"
  inboundPlaintext: \"{}\"
  inbound: \"{inbound}\"
  admin: \"{}\"
  stats: \"{}\"
  readiness: \"{}\"
forwards: [{forwards}]
",
        setup.network,
        state.display(),
        identities.display(),
        at(15_001),
        at(15_006),
        addresses.admin,
        addresses.stats,
        addresses.readiness,
    );
    let file = dir.join(format!("{account}.yaml"));
    fs::write(&file, config).unwrap();
    let mut command = Command::new(CORELANE);
    command
        .arg("proxy")
        .arg("--config")
        .arg(&file)
        .env_clear()
        .env("RUST_BACKTRACE", "1");
    Node::start(
        &format!("corelane-{account}"),
        command,
        None,
        addresses,
        dir,
    )
}

fn both_workloads(mesh: &Mesh) -> State {
    let workload = |name, ip, services| Workload {
        name,
        ips: ip,
        hbone: true,
        services,
    };
    let [client, server] = [mesh.client_ip(), mesh.server_ip()].map(|ip| [IpAddr::V4(ip)]);
    State::default()
        .workload(&workload("client", &client, &[]))
        .workload(&workload("server", &server, &[("server", 80, APP_PORT)]))
        .service("server", &[], 80, APP_PORT)
}
