//! Nodes on loopback, fed by a control plane: `client` with a forward to the application of `server`,
//! which takes tunnels, as `second` or `waypoint` does for tests that want one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use corelane::proto::discovery::Resource;
use corelane_harness::apps::{self, Server};
use corelane_harness::load::Load;
use corelane_harness::loopback::Block;
use corelane_harness::node::{Addresses, Node};
use corelane_harness::pki::{Authority, Issued, Leaf};
use corelane_harness::{clock, http};
use tempfile::TempDir;

use crate::CORELANE;
use crate::plane::PATIENCE;
use crate::resources::{a_workload, workload};

/// Port of the client's forward to the application.
pub(crate) const FORWARD: u16 = 5_432;

/// Addresses, certificates and the application.
pub(crate) struct Mesh {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    block: Block,
    forwards: Vec<(u16, SocketAddr, &'static str)>,
    resolv_conf: bool,
    app: Server,
    app_port: u16,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let block = Block::take();
        let authority = Authority::new("root");
        for account in ["client", "other", "server", "second", "waypoint"] {
            let issued = authority.issue(&Leaf::for_account(account));
            issued.install(&dir.path().join("ids"), account, authority.pem());
        }
        let app_port = 8_080;
        let app = Server::start_here(block.ip(2).into(), app_port, apps::echo);
        Self {
            dir,
            authority,
            block,
            forwards: vec![(FORWARD, (block.ip(2), app_port).into(), "client")],
            resolv_conf: false,
            app,
            app_port,
        }
    }

    /// An address of this mesh: 1 is the client's, 2 the server's, 3 that of the
    /// second server or of the waypoint.
    pub(crate) const fn ip(&self, last: u8) -> Ipv4Addr {
        self.block.ip(last)
    }

    /// Another forward of the client's node, for an account of namespace `default`.
    pub(crate) fn forward(&mut self, port: u16, to: SocketAddr, account: &'static str) {
        self.forwards.push((port, to, account));
    }

    /// The client's node answers queries for names, and has a name server for others.
    pub(crate) fn with_names(&mut self, name_server: Ipv4Addr) -> SocketAddr {
        let path = self.dir.path().join("resolv.conf");
        fs::write(path, format!("nameserver {name_server}\n")).unwrap();
        self.resolv_conf = true;
        (self.ip(1), 15_053).into()
    }

    /// A certificate that nodes believe, unless they have those of another authority.
    pub(crate) fn certificate(&self, account: &str) -> Issued {
        self.authority.issue(&Leaf::for_account(account))
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
        Addresses::at(self.ip(match name {
            "client" => 1,
            "server" => 2,
            "second" | "waypoint" => 3,
            _ => panic!("no node is called {name}"),
        }))
    }

    /// The lines of the configuration that differ between nodes: their listeners, and what hangs on
    /// them.
    fn listeners(&self, name: &str, ip: IpAddr) -> String {
        let at = |port| SocketAddr::from((ip, port));
        if name != "client" {
            return format!("  inbound: \"{}\"\n", at(15_008));
        }
        let mut lines = "  inbound: off\n".to_owned();
        if self.resolv_conf {
            let _ = writeln!(
                lines,
                "  dns: \"{}\"\ndns: {{resolvConf: resolv.conf}}",
                at(15_053)
            );
        }
        lines += "forwards:\n";
        for (port, to, account) in &self.forwards {
            let listen = at(*port);
            let _ = writeln!(
                lines,
                "- {{listen: \"{listen}\", to: \"{to}\", as: default/{account}}}"
            );
        }
        lines
    }

    /// Starts a node, which is not ready before its control plane has answered.
    pub(crate) fn launch(&self, name: &str, url: &str, env: &[(&str, &str)]) -> Node {
        let addresses = self.addresses(name);
        let listeners = self.listeners(name, addresses.admin.ip());
        let config = format!(
            "mode: node
nodeName: {name}
identityDir: ids
shards: {{count: 2, pin: false}}
ringEntries: 256
log: {{filter: \"info,corelane::xds=debug\"}}
listeners:
  outbound: off
  inboundPlaintext: off
  admin: \"{}\"
  stats: \"{}\"
  readiness: \"{}\"
{listeners}",
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
        self.connector(FORWARD)()
    }

    /// Connects through a forward of the client's node.
    pub(crate) fn connector(
        &self,
        port: u16,
    ) -> impl Fn() -> io::Result<TcpStream> + Clone + Send + 'static {
        let to = SocketAddr::new(self.client_ip(), port);
        move || apps::connect(to)
    }

    /// 200 requests a second through the first forward: half of them on connections of their own, half
    /// on connections that stay.
    pub(crate) fn load(&self) -> Load {
        let mut load = Load::new(None);
        for _ in 0..4 {
            load = load.short(25, self.connector(FORWARD));
        }
        for _ in 0..2 {
            load = load.long(50, 10, self.connector(FORWARD));
        }
        load
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
