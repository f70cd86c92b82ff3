//! One node in shared mode on a host of its own, its agent, and pods: captured hosts whose namespaces
//! the agent hands to the node.
//!
//! Pod `p` is workload `p` of namespace `default` with account `p`; its uid for the agent is its name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tempfile::TempDir;

use crate::agent::{Agent, Session, Who};
use crate::capture;
use crate::clock;
use crate::hosts::{Host, Network};
use crate::node::{Addresses, Driver, Node, REPORT_LIMIT};
use crate::pki::{Authority, Leaf};
use crate::process::replace_file;
use crate::requirements;
use crate::state::{State, Workload};

/// Host without a node, unknown to the mesh.
pub const OUTSIDE: &str = "outside";

const HOST: &str = "node";

/// Host of a node that takes over.
const NEXT_HOST: &str = "next";

/// How to start.
#[derive(Debug)]
pub struct Options<'a> {
    /// How shards wait.
    pub driver: Driver,
    /// Names of the pods.
    pub pods: &'a [&'a str],
    /// Name, action and rules of policies.
    pub policies: &'a [(&'a str, &'a str, &'a str)],
    /// Name and address of services, which have port 80 and no endpoint.
    pub services: &'a [(&'a str, IpAddr)],
    /// More settings, `NAME=VALUE`.
    pub settings: &'a [&'a str],
    /// More variables.
    pub env: &'a [(&'a str, &'a str)],
}

/// The running node; no pod was added yet, and the agent has said nothing.
#[derive(Debug)]
pub struct Shared {
    /// The node.
    pub node: Node,
    /// The agent's side of the conversation.
    pub session: Session,
    /// The agent.
    pub agent: Agent,
    /// Root of all certificates.
    pub authority: Authority,
    network: Network,
    launch: Launch,
}

/// How nodes are started.
#[derive(Debug)]
struct Launch {
    binary: String,
    driver: Driver,
    settings: Vec<String>,
    env: Vec<(String, String)>,
    dir: TempDir,
}

impl Launch {
    fn node(&self, name: &str, host: Host) -> Node {
        let dir = self.dir.path();
        let mut command = host.command(&self.binary);
        command
            .arg("proxy")
            .args(self.settings.iter().flat_map(|s| ["--set", s]))
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS_PATH", "state.yaml")
            .env("CORELANE_IDENTITY_DIR", "ids")
            .env("CORELANE_DRIVER", self.driver.as_str())
            .env("ZTUNNEL_WORKER_THREADS", "2")
            .env("INPOD_UDS", "agent.sock")
            // On by itself, and then the machine's own name servers would matter.
            .env("ISTIO_META_DNS_CAPTURE", "false")
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        let addresses = Addresses::at(Ipv4Addr::LOCALHOST);
        Node::launch(name, command, Some(host), addresses, dir)
    }
}

impl Shared {
    /// Makes the hosts and starts the node of `binary`.
    ///
    /// # Panics
    /// If the node does not connect to its agent.
    #[must_use]
    pub fn start(binary: &str, options: &Options<'_>) -> Self {
        Self::start_with(binary, options, |state| state)
    }

    /// The same with another state: `change` is given the one with all pods, the last one last.
    ///
    /// # Panics
    /// If the node does not connect to its agent.
    #[must_use]
    pub fn start_with(
        binary: &str,
        options: &Options<'_>,
        change: impl FnOnce(State) -> State,
    ) -> Self {
        let names = [&[HOST, OUTSIDE, NEXT_HOST], options.pods].concat();
        let network = Network::new(&names);
        let dir = requirements::scratch_dir();
        let authority = Authority::new("corelane test root");
        let mut state = State::default();
        for name in options.pods {
            let pod = network.host(name);
            capture::apply(&pod);
            state = state.workload(&Workload {
                name,
                ips: &[IpAddr::V4(pod.v4()), IpAddr::V6(pod.v6())],
                hbone: true,
                services: &[],
            });
            let leaf = Leaf::for_account(name);
            let issued = authority.issue(&leaf);
            issued.install(&dir.path().join("ids"), name, authority.pem());
        }
        for (name, action, rules) in options.policies {
            state = state.policy(name, action, rules);
        }
        for (name, vip) in options.services {
            state = state.service(name, &[*vip], 80, 80);
        }
        replace_file(&dir.path().join("state.yaml"), &change(state).to_yaml());
        let agent = Agent::listen(&dir.path().join("agent.sock"));
        let env = options.env.iter();
        let launch = Launch {
            binary: binary.to_owned(),
            driver: options.driver,
            settings: options.settings.iter().map(|s| (*s).to_owned()).collect(),
            env: env
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            dir,
        };
        let node = launch.node("shared", network.host(HOST));
        let session = agent.accept();
        Self {
            node,
            session,
            agent,
            authority,
            network,
            launch,
        }
    }

    /// Starts a second node beside the first, on a host of its own as a pod of Kubernetes has; what
    /// the agent says to it.
    ///
    /// # Panics
    /// If it does not connect to the agent.
    #[must_use]
    pub fn start_next(&self) -> (Node, Session) {
        let node = self.launch.node("next", self.network.host(NEXT_HOST));
        (node, self.agent.accept())
    }

    /// A pod, or [`OUTSIDE`].
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        self.network.host(name)
    }

    /// Where an application of a pod is.
    #[must_use]
    pub fn at(&self, pod: &str, port: u16) -> SocketAddr {
        SocketAddr::from((self.host(pod).v4(), port))
    }

    /// Hands a pod to the node; the node's error, if it has one.
    ///
    /// # Panics
    /// If the node does not answer.
    #[track_caller]
    pub fn add(&self, pod: &str) -> Result<(), String> {
        self.add_to(&self.session, pod)
    }

    /// Hands a pod to the node of that session; the node's error, if it has one.
    ///
    /// # Panics
    /// If the node does not answer.
    #[track_caller]
    pub fn add_to(&self, session: &Session, pod: &str) -> Result<(), String> {
        let host = self.host(pod);
        let who = Who {
            name: pod,
            namespace: "default",
            account: pod,
        };
        session.add(pod, who, host.handle())
    }

    /// Hands these pods to the node, says that these are all, and waits until the node is ready.
    ///
    /// # Panics
    /// If the node refuses one or does not become ready.
    #[track_caller]
    pub fn serve(&self, pods: &[&str]) {
        for pod in pods {
            self.add(pod).expect("a pod is taken");
        }
        self.session.snapshot().expect("the snapshot is taken");
        self.wait_ready(true);
    }

    /// Waits until the node is ready, or is not.
    ///
    /// # Panics
    /// If it does not come to that.
    #[track_caller]
    pub fn wait_ready(&self, ready: bool) {
        let what = format!("readiness {ready}");
        clock::wait_for(&what, 4 * REPORT_LIMIT, || {
            (self.node.is_ready() == ready).then_some(())
        });
    }

    /// The agent restarts, as the node sees it.
    ///
    /// # Panics
    /// If the node does not connect again.
    pub fn reconnect(self) -> Self {
        let Self { session, .. } = self;
        drop(session);
        Self {
            session: self.agent.accept(),
            ..self
        }
    }
}
