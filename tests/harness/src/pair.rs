//! Two nodes in dedicated mode on two captured hosts, and a third host outside the mesh.
//!
//! Workloads `client` and `server` of namespace `default` speak HBONE and have IPv4 and IPv6
//! addresses. Service `server` has the addresses 10.96.0.10 and fd96::10 and maps port 80 to 8080.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::capture;
use crate::hosts::{Family, Host, Network};
use crate::node::{Addresses, Driver, Node};
use crate::pki::{Authority, Leaf, Validity};
use crate::process::{Process, replace_file};
use crate::requirements;
use crate::state::{State, Workload};

/// Port of the application behind the service.
pub const SERVER_PORT: u16 = 8_080;
/// Port of the service.
pub const SERVICE_PORT: u16 = 80;
/// IPv4 address of the service.
pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// IPv6 address of the service.
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x10);
/// Identity of the client workload.
pub const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";
/// Identity of the server workload.
pub const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";

/// How to start a pair.
#[derive(Debug)]
pub struct Options {
    driver: Driver,
    env: Vec<(String, String)>,
    settings: Vec<String>,
    policies: Vec<(String, String, String)>,
    client_certificate: Option<Leaf>,
    server_certificate: Option<Leaf>,
    client_root_differs: bool,
    server_hbone: bool,
    mounted_state: bool,
}

impl Options {
    /// Two healthy nodes with that driver.
    #[must_use]
    pub const fn new(driver: Driver) -> Self {
        Self {
            driver,
            env: Vec::new(),
            settings: Vec::new(),
            policies: Vec::new(),
            client_certificate: None,
            server_certificate: None,
            client_root_differs: false,
            server_hbone: true,
            mounted_state: false,
        }
    }

    /// Sets an environment variable of both nodes.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets something on the command line of both nodes: `--set NAME=VALUE`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(format!("{name}={value}"));
        self
    }

    /// Adds a policy of namespace `default`.
    #[must_use]
    pub fn policy(mut self, name: &str, action: &str, rules: &str) -> Self {
        self.policies
            .push((name.into(), action.into(), rules.into()));
        self
    }

    /// Gives the client node another certificate.
    #[must_use]
    pub fn client_certificate(mut self, leaf: Leaf) -> Self {
        self.client_certificate = Some(leaf);
        self
    }

    /// Gives the server node another certificate.
    #[must_use]
    pub fn server_certificate(mut self, leaf: Leaf) -> Self {
        self.server_certificate = Some(leaf);
        self
    }

    /// The client's certificate comes from a root the server does not trust.
    #[must_use]
    pub const fn client_of_another_root(mut self) -> Self {
        self.client_root_differs = true;
        self
    }

    /// The local state file is reached through links that are swapped on a change, as Kubernetes
    /// mounts configuration.
    #[must_use]
    pub const fn mounted_state(mut self) -> Self {
        self.mounted_state = true;
        self
    }

    /// The server workload is declared to speak plain TCP.
    #[must_use]
    pub const fn plaintext_server(mut self) -> Self {
        self.server_hbone = false;
        self
    }
}

/// The running pair. Nodes end before their hosts are removed.
#[derive(Debug)]
pub struct Pair {
    /// Node of the client host.
    pub client: Node,
    /// Node of the server host.
    pub server: Node,
    /// Captured host of workload `client`.
    pub client_host: Host,
    /// Captured host of workload `server`.
    pub server_host: Host,
    /// Host without a node, unknown to the mesh.
    pub outside_host: Host,
    /// Root of both nodes' certificates.
    pub authority: Authority,
    state: State,
    launch: Launch,
    _network: Network,
}

#[derive(Debug)]
struct Launch {
    binary: String,
    driver: Driver,
    env: Vec<(String, String)>,
    settings: Vec<String>,
    mounted_state: bool,
    dir: TempDir,
}

impl Pair {
    /// Makes the hosts, starts the nodes of `binary` and waits until both are ready.
    ///
    /// # Panics
    /// If a node does not become ready.
    #[must_use]
    pub fn start(binary: &str, options: Options) -> Self {
        let network = Network::new(&["client", "server", "outside"]);
        let [client_host, server_host, outside_host] =
            ["client", "server", "outside"].map(|name| network.host(name));
        let launch = Launch {
            binary: binary.to_owned(),
            driver: options.driver,
            env: options.env,
            settings: options.settings,
            mounted_state: options.mounted_state,
            dir: requirements::scratch_dir(),
        };
        let authority = Authority::new("corelane test root");
        let state = mesh(&client_host, &server_host, options.server_hbone);
        let state = options
            .policies
            .iter()
            .fold(state, |s, (n, a, r)| s.policy(n, a, r));
        launch.publish(&state.to_yaml());

        let client_leaf = options
            .client_certificate
            .unwrap_or_else(|| Leaf::for_account("client"));
        let server_leaf = options
            .server_certificate
            .unwrap_or_else(|| Leaf::for_account("server"));
        let stranger = Authority::new("another root");
        let signer = if options.client_root_differs {
            &stranger
        } else {
            &authority
        };
        let roots = authority.pem();
        signer
            .issue(&client_leaf)
            .install(&launch.identities("client"), "client", roots);
        authority
            .issue(&server_leaf)
            .install(&launch.identities("server"), "server", roots);

        for host in [&client_host, &server_host] {
            capture::apply(host);
        }
        let client = launch.node("client", &client_host);
        let server = launch.node("server", &server_host);
        Self {
            client,
            server,
            client_host,
            server_host,
            outside_host,
            authority,
            state,
            launch,
            _network: network,
        }
    }

    /// The server application's address.
    #[must_use]
    pub fn server_at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.server_host.ip(family), port)
    }

    /// The state the nodes started with.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Replaces the local state file of both nodes, as an editor or a mount does.
    ///
    /// # Panics
    /// If the file system refuses.
    pub fn publish(&self, yaml: &str) {
        self.launch.publish(yaml);
    }

    /// The directory with everything the nodes read.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.launch.dir.path()
    }

    /// Identity directory of one node.
    #[must_use]
    pub fn identities(&self, account: &str) -> PathBuf {
        self.launch.identities(account)
    }

    /// Installs a certificate valid from now for the node of that account.
    ///
    /// # Panics
    /// If the file system refuses.
    pub fn renew(&self, account: &str) {
        let leaf = Leaf::for_account(account).valid(Validity::Now);
        let issued = self.authority.issue(&leaf);
        issued.install(
            &self.launch.identities(account),
            account,
            self.authority.pem(),
        );
    }

    /// Starts the server's node once more, beside the one that runs, without waiting.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn start_second_server(&self) -> Process {
        let command = self.launch.command("server", &self.server_host);
        Process::start("server-second", command, self.launch.dir.path())
    }

    /// Starts the server's node again after it has ended.
    ///
    /// # Panics
    /// If it still runs, or the new one does not become ready.
    pub fn restart_server(&mut self) {
        assert!(
            self.server.process_mut().ended().is_some(),
            "the node still runs"
        );
        self.server = self.launch.node("server", &self.server_host);
    }
}

impl Launch {
    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn state_file(&self) -> PathBuf {
        self.state_dir().join("state.yaml")
    }

    fn publish(&self, yaml: &str) {
        let dir = self.state_dir();
        fs::create_dir_all(&dir).expect("state directory");
        if self.mounted_state {
            swap_mounted(&dir, yaml);
        } else {
            replace_file(&self.state_file(), yaml);
        }
    }

    fn identities(&self, account: &str) -> PathBuf {
        self.dir.path().join(format!("identities-{account}"))
    }

    fn node(&self, account: &str, host: &Host) -> Node {
        let addresses = Addresses::at(Ipv4Addr::LOCALHOST);
        let command = self.command(account, host);
        Node::start(
            account,
            command,
            Some(host.clone()),
            addresses,
            self.dir.path(),
        )
    }

    fn command(&self, account: &str, host: &Host) -> Command {
        let mut command = host.command(&self.binary);
        command
            .arg("proxy")
            .args(self.settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PROXY_MODE", "dedicated")
            .env(
                "PROXY_WORKLOAD_INFO",
                format!("default/{account}/{account}"),
            )
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS_PATH", self.state_file())
            .env("CORELANE_IDENTITY_DIR", self.identities(account))
            .env("CORELANE_DRIVER", self.driver.as_str())
            .env("ZTUNNEL_WORKER_THREADS", "2")
            .env("PACKET_MARK", capture::NODE_MARK.to_string())
            .env("RUST_BACKTRACE", "1")
            .envs(
                self.env
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            );
        command
    }
}

/// `state.yaml` → `..data/state.yaml`, `..data` → the directory of the newest version: a change makes
/// a new directory, renames a new link over `..data` and removes the old directory.
fn swap_mounted(dir: &Path, yaml: &str) {
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    let version = tempfile::Builder::new()
        .prefix("..version-")
        .tempdir_in(dir)
        .expect("version");
    let version = version.keep();
    fs::write(version.join("state.yaml"), yaml).expect("write");
    let aside = dir.join("..data_new");
    symlink(version.file_name().expect("named"), &aside).expect("link");
    fs::rename(&aside, &data).expect("rename");
    let name = dir.join("state.yaml");
    if fs::symlink_metadata(&name).is_err() {
        symlink("..data/state.yaml", &name).expect("link");
    }
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old)).expect("remove the old version");
    }
}

fn mesh(client: &Host, server: &Host, server_hbone: bool) -> State {
    let both = |host: &Host| [IpAddr::V4(host.v4()), IpAddr::V6(host.v6())];
    State::default()
        .workload(&Workload {
            name: "client",
            ips: &both(client),
            hbone: true,
            services: &[],
        })
        .workload(&Workload {
            name: "server",
            ips: &both(server),
            hbone: server_hbone,
            services: &[("server", SERVICE_PORT, SERVER_PORT)],
        })
        .service(
            "server",
            &[IpAddr::V4(SERVICE_V4), IpAddr::V6(SERVICE_V6)],
            SERVICE_PORT,
            SERVER_PORT,
        )
}
