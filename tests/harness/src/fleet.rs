//! Any number of hosts of one mesh: a node on those that want one, one state file for all nodes.
//!
//! The workload of a host has its name, in namespace `default`, and its service account too.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::capture;
use crate::hosts::{Family, Host, Network};
use crate::node::{Addresses, Node};
use crate::pki::{Authority, Leaf};
use crate::process::replace_file;
use crate::requirements;

/// The hosts. Nodes that run on them have to end before it is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// Root of all certificates.
    pub authority: Authority,
    binary: OsString,
    network: Network,
    dir: TempDir,
}

impl Fleet {
    /// Makes the hosts; nodes will run `binary`.
    ///
    /// # Panics
    /// If a command fails; needs root.
    #[must_use]
    pub fn new(binary: &str, hosts: &[&str]) -> Self {
        Self {
            authority: Authority::new("corelane test root"),
            binary: binary.into(),
            network: Network::new(hosts),
            dir: requirements::scratch_dir(),
        }
    }

    /// A host.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        self.network.host(name)
    }

    /// Its first IPv4 address.
    #[must_use]
    pub fn ip(&self, name: &str) -> Ipv4Addr {
        self.host(name).v4()
    }

    /// A port at its first IPv4 address.
    #[must_use]
    pub fn at(&self, name: &str, port: u16) -> SocketAddr {
        SocketAddr::from((self.ip(name), port))
    }

    /// One more IPv4 address of a host, which ends in `last`.
    ///
    /// # Panics
    /// If the host has it already.
    #[must_use]
    pub fn add_ip(&self, name: &str, last: u8) -> Ipv4Addr {
        let host = self.host(name);
        let [a, b, c, _] = host.v4().octets();
        let ip = Ipv4Addr::new(a, b, c, last);
        host.apply_ip(Family::V4, &format!("addr add {ip}/24 dev eth0\n"));
        ip
    }

    /// Where the nodes read and write.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the state of all nodes.
    ///
    /// # Panics
    /// If the file system refuses.
    pub fn publish(&self, yaml: &str) {
        replace_file(&self.state_file(), yaml);
    }

    /// Captures the traffic of a host and starts its node, in dedicated mode.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start_node(&self, name: &str, env: &[(&str, &str)]) -> Node {
        let host = self.host(name);
        capture::apply(&host);
        let mut command = host.command(&self.binary.to_string_lossy());
        command.arg("proxy");
        self.prepare(name, &mut command);
        command.envs(env.iter().copied());
        let addresses = Addresses::at(Ipv4Addr::LOCALHOST);
        Node::start(name, command, Some(host), addresses, self.dir())
    }

    /// Gives a command the settings of the node of host `name`.
    ///
    /// # Panics
    /// If the file system refuses.
    pub fn prepare(&self, name: &str, command: &mut Command) {
        let identities = self.dir().join(format!("identities-{name}"));
        let issued = self.authority.issue(&Leaf::for_account(name));
        issued.install(&identities, name, self.authority.pem());
        command
            .current_dir(self.dir())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PROXY_MODE", "dedicated")
            .env("PROXY_WORKLOAD_INFO", format!("default/{name}/{name}"))
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS_PATH", self.state_file())
            .env("CORELANE_IDENTITY_DIR", identities)
            .env("ZTUNNEL_WORKER_THREADS", "2")
            .env("PACKET_MARK", capture::NODE_MARK.to_string())
            .env("RUST_BACKTRACE", "1");
    }

    /// The addresses of a host, for its workload.
    #[must_use]
    pub fn ips(&self, name: &str) -> [IpAddr; 1] {
        [IpAddr::V4(self.ip(name))]
    }

    fn state_file(&self) -> PathBuf {
        self.dir().join("state.yaml")
    }
}
