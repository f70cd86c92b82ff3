//! What the nodes of the demo are given: identities, workloads, policies, configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::DemoError;
use super::scratch::Scratch;
use crate::model::identity::Identity;
use crate::tls::dev_pki::folder::{self, Request};

const TRUST_DOMAIN: &str = "cluster.local";
const NAMESPACE: &str = "default";
/// Name of the state document in the demo's folder.
pub(super) const STATE_FILE: &str = "state.yaml";
/// Name of the folder with certificates in the demo's folder.
pub(super) const IDENTITY_FOLDER: &str = "ids";
/// Name of the service everybody asks for.
pub(super) const SERVICE: &str = "server.default.svc.cluster.local";
/// Port of the service; the application listens somewhere else.
pub(super) const SERVICE_PORT: u16 = 80;
/// The policy that lets the client in.
pub(super) const ALLOW_POLICY: &str = "default/web-client-may-talk";
/// The policy that keeps the intruder out.
pub(super) const DENY_POLICY: &str = "default/no-intruders";
/// Life of the certificates: longer than anybody looks at a demo with `--keep`.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(24);
/// Log levels of the nodes: the handshakes and the rules that decided, besides the usual.
pub(super) const LOG_FILTER: &str = "info,corelane::tunnel=debug,corelane::authorization=debug";

/// One of the three workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// May talk to the server.
    WebClient,
    /// May not.
    Intruder,
    /// The application.
    Server,
}

impl Who {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::WebClient, Self::Intruder, Self::Server];

    /// Name of the workload and of its service account.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::WebClient => "web-client",
            Self::Intruder => "intruder",
            Self::Server => "server",
        }
    }

    /// The node it lives on.
    pub(super) const fn node(self) -> &'static str {
        match self {
            Self::WebClient | Self::Intruder => "node-a",
            Self::Server => "node-b",
        }
    }

    /// Its identity.
    pub(super) fn identity(self) -> Identity {
        Identity::new(TRUST_DOMAIN, NAMESPACE, self.name())
    }
}

/// Makes a certificate authority that nobody keeps, and from it one certificate and key for each
/// workload.
pub(super) fn write_identities(scratch: &Scratch, now: SystemTime) -> Result<(), DemoError> {
    let request = Request {
        out: &scratch.path().join(IDENTITY_FOLDER),
        identities: &Who::ALL.map(Who::identity),
        lifetime: CERTIFICATE_LIFETIME,
        force: false,
        keep_authority: false,
    };
    folder::write(&request, now)?;
    Ok(())
}

/// Where the workloads are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mesh {
    pub(super) web_client: IpAddr,
    pub(super) intruder: IpAddr,
    /// Where the application really listens.
    pub(super) server: SocketAddr,
    /// Address of the service.
    pub(super) vip: IpAddr,
}

/// The local state document: three workloads, one service, two policies.
pub(super) fn state(mesh: &Mesh) -> String {
    let port = mesh.server.port();
    let workload = |who: Who, ip: IpAddr, rest: &str| {
        let (name, node) = (who.name(), who.node());
        format!(
            "- uid: demo//v1/Pod/{NAMESPACE}/{name}
  name: {name}
  workloadName: {name}
  canonicalName: {name}
  namespace: {NAMESPACE}
  serviceAccount: {name}
  trustDomain: {TRUST_DOMAIN}
  node: {node}
  workloadIps: [\"{ip}\"]
  protocol: HBONE
{rest}"
        )
    };
    let nothing = "  services: {}\n";
    let serves = format!(
        "  services: {{\"{NAMESPACE}/{SERVICE}\": {{{SERVICE_PORT}: {port}}}}}
  authorizationPolicies: [{ALLOW_POLICY}, {DENY_POLICY}]
"
    );
    let policy = |key: &str, action: &str, who: Who| {
        let name = key.rsplit('/').next().unwrap_or(key);
        let principal = who.identity().to_string();
        let principal = principal.trim_start_matches("spiffe://");
        format!(
            "- name: {name}
  namespace: {NAMESPACE}
  scope: WorkloadSelector
  action: {action}
  dryRun: false
  rules: [[[{{principals: [!Exact {principal}]}}]]]
"
        )
    };
    format!(
        "# Made by `corelane demo`. Both nodes read it, and again whenever it changes.
workloads:
{}{}{}services:
- name: server
  namespace: {NAMESPACE}
  hostname: {SERVICE}
  vips: [\"/{}\"]
  ports: {{{SERVICE_PORT}: {port}}}
policies:
{}{}",
        workload(Who::WebClient, mesh.web_client, nothing),
        workload(Who::Intruder, mesh.intruder, nothing),
        workload(Who::Server, mesh.server.ip(), &serves),
        mesh.vip,
        policy(ALLOW_POLICY, "Allow", Who::WebClient),
        policy(DENY_POLICY, "Deny", Who::Intruder),
    )
}

/// Endpoints of a node on this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoints {
    pub(super) admin: SocketAddr,
    pub(super) stats: SocketAddr,
    pub(super) readiness: SocketAddr,
}

/// Configuration file of a node on this host, without capture.
pub(super) fn configuration(
    folder: &Path,
    node: &str,
    endpoints: &Endpoints,
    inbound: Option<SocketAddr>,
    forwards: &[(SocketAddr, Who)],
) -> String {
    let state = quoted(&folder.join(STATE_FILE));
    let identities = quoted(&folder.join(IDENTITY_FOLDER));
    let Endpoints {
        admin,
        stats,
        readiness,
    } = endpoints;
    let inbound = inbound.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let mut text = format!(
        "# Made by `corelane demo`.
mode: node
nodeName: {node}
localState: {state}
identityDir: {identities}
shards:
  count: 2
  pin: false # the other node and the load run on the same CPUs
ringEntries: 256
listeners:
  outbound: off
  inboundPlaintext: off
  inbound: {inbound}
  admin: {admin}
  stats: {stats}
  readiness: {readiness}
log:
  filter: \"{LOG_FILTER}\"
"
    );
    if !forwards.is_empty() {
        text.push_str("forwards:\n");
    }
    for (listen, who) in forwards {
        let account = who.name();
        text.push_str(&format!(
            "- {{listen: \"{listen}\", to: \"{SERVICE}:{SERVICE_PORT}\", as: {NAMESPACE}/{account}}}\n"
        ));
    }
    text
}

/// A path as a YAML text; JSON's quoting is part of YAML's.
fn quoted(path: &Path) -> String {
    serde_json::Value::String(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::check;
    use crate::config::raw::{RawConfig, Sources};
    use crate::config::{ForwardTarget, Node, NodeMode};
    use crate::control::local_state::parse;

    fn endpoints() -> Endpoints {
        let at = |port| SocketAddr::from(([127, 0, 1, 1], port));
        Endpoints {
            admin: at(15_000),
            stats: at(15_020),
            readiness: at(15_021),
        }
    }

    #[test]
    fn the_configurations_are_taken_without_a_word_of_warning() {
        let scratch = Scratch::new().unwrap();
        let forward = SocketAddr::from(([127, 0, 1, 1], 8001));
        let inbound = SocketAddr::from(([127, 0, 2, 1], 15_008));
        for (node, inbound, forwards) in [
            ("node-a", None, vec![(forward, Who::WebClient)]),
            ("node-b", Some(inbound), Vec::new()),
        ] {
            let text = configuration(scratch.path(), node, &endpoints(), inbound, &forwards);
            let file = scratch.write(format!("{node}.yaml"), &text).unwrap();
            let read_file = |path: &Path| std::fs::read_to_string(path);
            let checked = check(RawConfig::read(&Sources::of_file(file, &read_file))).unwrap();
            assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
            let config = checked.config;
            assert_eq!(config.mode, NodeMode::Node(Node::default()));
            assert_eq!(config.node_name.as_deref(), Some(node));
            assert_eq!(config.listeners.inbound, inbound);
            assert_eq!(
                (config.listeners.outbound, config.listeners.socks5),
                (None, None)
            );
            assert_eq!(config.listeners.forwards.len(), forwards.len());
            if let Some(first) = config.listeners.forwards.first() {
                assert_eq!(first.listen, forward);
                assert_eq!(
                    first.to,
                    ForwardTarget::Hostname(SERVICE.into(), SERVICE_PORT)
                );
                let account = first.as_workload.as_ref().unwrap();
                assert_eq!(&*account.service_account, "web-client");
            }
        }
    }

    #[test]
    fn the_state_is_taken_without_a_word_of_warning() {
        let mesh = Mesh {
            web_client: [127, 0, 1, 10].into(),
            intruder: [127, 0, 1, 11].into(),
            server: SocketAddr::from(([127, 0, 2, 1], 4000)),
            vip: [127, 0, 2, 80].into(),
        };
        let state = parse(&state(&mesh), "state.yaml").unwrap();
        assert!(state.warnings.is_empty(), "{:?}", state.warnings);
        let names: Vec<_> = state
            .workloads
            .iter()
            .map(|workload| &*workload.name)
            .collect();
        assert_eq!(names, ["web-client", "intruder", "server"]);
        for (workload, who) in state.workloads.iter().zip(Who::ALL) {
            assert_eq!(workload.identity(), who.identity());
        }
        let policies: Vec<_> = state.policies.iter().map(|(key, _)| &**key).collect();
        assert_eq!(policies, [ALLOW_POLICY, DENY_POLICY]);
        let listed: Vec<_> = state.workloads[2]
            .authorization_policies
            .iter()
            .map(|key| &**key)
            .collect();
        assert_eq!(listed, policies);
        assert_eq!(state.services.len(), 1);
    }

    #[test]
    fn each_workload_gets_a_key_and_nobody_keeps_the_authority() {
        let scratch = Scratch::new().unwrap();
        write_identities(&scratch, SystemTime::now()).unwrap();
        for who in Who::ALL {
            let folder = scratch.path().join("ids/ns/default/sa").join(who.name());
            for name in ["tls.crt", "tls.key", "ca.crt"] {
                assert!(folder.join(name).is_file(), "{name} of {}", who.name());
            }
        }
        let top: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
        assert_eq!(top.len(), 1, "only the folder of identities");
    }
}
