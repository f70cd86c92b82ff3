//! Nodes on loopback, fed by a control plane: `client` with a forward to the application of `server`,
//! which takes tunnels, and `waypoint`, which does too, for tests that want one.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use corelane::proto::discovery::Resource;
use corelane_harness::apps::{self, Server};
use corelane_harness::loopback::Block;
use corelane_harness::node::{Addresses, Node};
use corelane_harness::pki::{Authority, Leaf};
use corelane_harness::{clock, http};
use tempfile::TempDir;

use crate::CORELANE;
use crate::plane::PATIENCE;
use crate::resources::{a_workload, workload};

/// Addresses, certificates and the application.
pub(crate) struct Mesh {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    block: Block,
    app: Server,
    app_port: u16,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let block = Block::take();
        let authority = Authority::new("root");
        for account in ["client", "server", "waypoint"] {
            let issued = authority.issue(&Leaf::for_account(account));
            issued.install(&dir.path().join("ids"), account, authority.pem());
        }
        let app_port = 8_080;
        let app = Server::start_here(block.ip(2).into(), app_port, apps::echo);
        Self {
            dir,
            authority,
            block,
            app,
            app_port,
        }
    }

    pub(crate) const fn app_port(&self) -> u16 {
        self.app_port
    }

    /// Connections that reached the application.
    pub(crate) fn reached(&self) -> usize {
        self.app.accepted()
    }

    pub(crate) fn client_ip(&self) -> IpAddr {
        self.block.ip(1).into()
    }

    pub(crate) fn server_ip(&self) -> IpAddr {
        self.block.ip(2).into()
    }

    pub(crate) fn waypoint_ip(&self) -> IpAddr {
        self.block.ip(3).into()
    }

    /// Both workloads.
    pub(crate) fn workloads(&self) -> Vec<Resource> {
        vec![
            workload(a_workload("client", self.client_ip(), "client")),
            workload(a_workload("server", self.server_ip(), "server")),
        ]
    }

    fn addresses(&self, name: &str) -> Addresses {
        let last = match name {
            "client" => 1,
            "server" => 2,
            "waypoint" => 3,
            other => panic!("no node {other}"),
        };
        Addresses::at(self.block.ip(last))
    }

    /// Starts a node, which is not ready before its control plane has answered.
    pub(crate) fn launch(&self, name: &str, url: &str, env: &[(&str, &str)]) -> Node {
        let addresses = self.addresses(name);
        let at = |port| SocketAddr::from((addresses.admin.ip(), port));
        let (inbound, forwards) = if name == "client" {
            let to = SocketAddr::new(self.server_ip(), self.app_port);
            let forward = format!(
                "[{{listen: \"{}\", to: \"{to}\", as: default/client}}]",
                at(5_432)
            );
            ("off".to_owned(), forward)
        } else {
            (format!("\"{}\"", at(15_008)), "[]".to_owned())
        };
        let config = format!(
            "mode: node
nodeName: {name}
identityDir: ids
shards: {{count: 2, pin: false}}
ringEntries: 256
listeners:
  outbound: off
  inboundPlaintext: off
  inbound: {inbound}
  admin: \"{}\"
  stats: \"{}\"
  readiness: \"{}\"
forwards: {forwards}
log: {{filter: \"info,corelane::xds=debug\"}}
",
            addresses.admin, addresses.stats, addresses.readiness
        );
        let file = self.dir.path().join(format!("{name}.yaml"));
        fs::write(&file, config).unwrap();
        let mut command = Command::new(CORELANE);
        command
            .arg("proxy")
            .arg("--config")
            .arg(&file)
            .current_dir(self.dir.path())
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .env("XDS_ADDRESS", url)
            .envs(env.iter().copied());
        Node::launch(name, command, None, addresses, self.dir.path())
    }

    /// What readiness says, or nothing yet.
    pub(crate) fn readiness(&self, name: &str) -> Option<(u16, String)> {
        let answer = http::request("GET", self.addresses(name).readiness, "/healthz/ready");
        answer.ok().map(|answer| (answer.status, answer.body))
    }

    #[track_caller]
    pub(crate) fn wait_not_ready(&self, name: &str) {
        clock::wait_for("an answer about readiness", PATIENCE, || {
            let (status, body) = self.readiness(name)?;
            assert_eq!(
                (status, &*body),
                (500, "not ready, pending: state manager\n")
            );
            Some(())
        });
    }

    #[track_caller]
    pub(crate) fn wait_ready(&self, name: &str) {
        clock::wait_for("readiness", PATIENCE, || {
            (self.readiness(name)?.0 == 200).then_some(())
        });
    }

    /// Connects through the client's forward.
    pub(crate) fn connect(&self) -> TcpStream {
        self.try_connect().unwrap()
    }

    /// The same, which may be refused.
    pub(crate) fn try_connect(&self) -> io::Result<TcpStream> {
        apps::connect((self.client_ip(), 5_432).into())
    }

    /// Whether a connection through both nodes works.
    pub(crate) fn works(&self) -> bool {
        let mut stream = self.connect();
        apps::round_trip(&mut stream, b"hello").is_ok_and(|answer| answer == b"hello")
    }
}

/// A member of the dump of a node.
#[track_caller]
pub(crate) fn dumped(node: &Node, member: &str) -> Vec<serde_json::Value> {
    let answer = node.admin("GET", "/config_dump");
    assert_eq!(answer.status, 200);
    let dump: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    dump[member].as_array().unwrap().clone()
}
