//! A node without capture: its own configuration file, loopback addresses, one forward.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

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

/// Starts a node in that role with that certificate.
pub(crate) fn start(mesh: &Mesh, role: Role, certificate: &Issued) -> Node {
    let (account, ip) = match role {
        Role::Client => ("client", mesh.client_ip()),
        Role::Server => ("server", mesh.server_ip()),
    };
    let dir = mesh.dir.path();
    let identities = dir.join(format!("identities-{account}"));
    certificate.install(&identities, account, mesh.authority.pem());
    let state = dir.join("state.yaml");
    replace_file(&state, &both_workloads(mesh).to_yaml());
    let addresses = Addresses::at(ip);
    let at = |port| SocketAddr::from((ip, port));
    let (inbound, forwards) = match role {
        Role::Client => {
            let forward = format!(
                "[{{listen: \"{}\", to: \"{}\"}}]",
                mesh.entry_at(),
                mesh.app_at()
            );
            ("\"off\"".to_owned(), forward)
        }
        Role::Server => (format!("\"{}\"", mesh.hbone_at()), "[]".to_owned()),
    };
    let config = format!(
        "mode: dedicated
workload: default/{account}/{account}
localState: {}
identityDir: {}
shards: {{count: 2}}
listeners:
  outbound: \"{}\"
  inboundPlaintext: \"{}\"
  inbound: {inbound}
  admin: \"{}\"
  stats: \"{}\"
  readiness: \"{}\"
forwards: {forwards}
",
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
