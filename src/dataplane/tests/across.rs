//! Three shards and two networks: a client, a gateway that forwards what it cannot read, a server behind
//! it. The gateway is a shard of ours too: it ends the outer tunnel and takes the server's HBONE port
//! for an application.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::conversations::{SEED, play, serve};
use super::node::{
    DRIVERS, Mute, Node, Running, any, exchange, forward, is_reset, patient, pattern, server,
    until, workload,
};
use crate::config::{Config, DriverChoice, HboneEngine, NodeMode};
use crate::dataplane::shard::{ListenerRole, Message};
use crate::model::addr::NetworkAddress;
use crate::model::gateway::{GatewayAddress, GatewayDestination};
use crate::model::identity::Identity;
use crate::model::local::{LocalWorkload, LocalWorkloads};
use crate::model::policy::{Policy, PolicyAction, PolicyMatch, PolicyScope, StringMatch};
use crate::model::service::Service;
use crate::model::workload::{Workload, WorkloadInfo, WorkloadProtocol};
use crate::snapshot::builder::Change;
use crate::telemetry::counters::{Limit, Role};
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialState, CredentialStore, Credentials};
use crate::tls::dev_pki::{Authority, Issued, Leaf};
use crate::tls::revocation::{RevocationList, Revocations};

const NEAR: &str = "near";
const FAR: &str = "far";
/// The service in the near network; nobody listens there.
const VIP: &str = "127.9.9.9:80";
const HOST: &str = "example.com";

const ACCOUNTS: [&str; 3] = ["client", "gateway", "server"];
const CLIENT: usize = 0;
const GATEWAY: usize = 1;
const SERVER: usize = 2;

/// What a test may change before its nodes run.
struct Plan {
    tune: fn(&mut Config),
    /// How long the server's certificate is good.
    server_lives: Duration,
    /// Account of the gateway, as the client knows it.
    gateway: &'static str,
    /// Accounts the service vouches for.
    vouched: &'static [&'static str],
    /// The only account that may enter, as the server sees it.
    allowed: Option<&'static str>,
    /// Where the gateway leads instead of to the server.
    detour: Option<SocketAddr>,
    /// Where the server's application is, if not at its listener.
    application: Option<SocketAddr>,
    /// The only account that may enter a workload at the server's address, which has the application.
    beside: Option<&'static str>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            tune: |_| {},
            server_lives: Duration::from_hours(1),
            gateway: "gateway",
            vouched: &["server"],
            allowed: None,
            detour: None,
            application: None,
            beside: None,
        }
    }
}

impl Plan {
    fn start(self, driver: DriverChoice) -> Networks {
        let authority = Authority::new("root", SystemTime::now()).unwrap();
        let list = RevocationList::new(Revocations::default());
        let (listener, application) = server();
        let application = self.application.unwrap_or(application);
        let issued = ACCOUNTS.map(|account| {
            let now = SystemTime::now();
            let lives = if account == "server" {
                self.server_lives
            } else {
                Duration::from_hours(1)
            };
            let leaf = Leaf::new(&identity(account), now);
            let leaf = leaf.valid(now - Duration::from_mins(1), now + lives);
            authority.issue(&leaf).unwrap()
        });
        let port = application.port();
        let start = |index: usize, network: &str, listen, change| {
            let mut node = Node::new(listen);
            node.config.network = network.into();
            if index == SERVER && self.beside.is_some() {
                node.config.mode = shared_address(port);
            }
            (self.tune)(&mut node.config);
            node.credentials = store(&identity(ACCOUNTS[index]), &issued[index], &list);
            node.change = change;
            node.start(driver)
        };
        let inbound = || (any(), ListenerRole::Inbound);
        let mut change = far("server", application.port());
        if let Some(allowed) = self.allowed {
            change.policies = vec![("default/allow".into(), allow(allowed))];
        }
        if let Some(allowed) = self.beside {
            let mut other = member(FAR, OTHER, None);
            other.authorization_policies = vec!["default/allow".into()];
            let mut policy = allow(allowed);
            policy.scope = PolicyScope::WorkloadSelector;
            change.policies = vec![("default/allow".into(), policy)];
            change.workloads.push(other);
        }
        let server = start(SERVER, FAR, inbound(), change);
        let behind = self.detour.unwrap_or_else(|| server.addr());
        let gateway = start(GATEWAY, FAR, inbound(), far("gateway", behind.port()));
        let entry = forward(VIP.parse().unwrap(), "client");
        let change = near(gateway.addr(), self.gateway, self.vouched);
        let client = start(CLIENT, NEAR, entry, change);
        Networks {
            client,
            gateway,
            server,
            application: listener,
            authority,
            issued,
            list,
        }
    }
}

struct Networks {
    client: Running,
    gateway: Running,
    server: Running,
    application: TcpListener,
    authority: Authority,
    issued: [Issued; 3],
    /// All follow it.
    list: RevocationList,
}

impl Networks {
    fn start(driver: DriverChoice) -> Self {
        Plan::default().start(driver)
    }

    fn open(&self) -> (TcpStream, TcpStream) {
        let client = self.client.connect();
        (client, patient(self.application.accept().unwrap().0))
    }

    /// A connection that does not come about, for a reason whose text holds all of `parts`.
    fn refuses(&self, parts: &[&str]) {
        assert!(is_reset(&mut self.client.connect()), "{parts:?}");
        let line = self.client.line_with(parts[0]);
        for part in parts.iter().chain(&["connection complete"]) {
            assert!(line.contains(part), "{part:?} in {line}");
        }
        self.application.set_nonblocking(true).unwrap();
        assert!(self.application.accept().is_err(), "{parts:?}");
        self.application.set_nonblocking(false).unwrap();
    }

    /// Nothing is open any more, and nothing went wrong.
    fn comes_to_rest(&self) {
        let nodes = [&self.client, &self.gateway, &self.server];
        until("streams and inner tunnels to end", || {
            nodes
                .iter()
                .all(|node| node.counters.relays_open.get() == 0)
                && self.server.counters.tunnels_server_open.get() == 0
                && self.client.counters.tunnels_client_open.get() == 1
        });
        for node in nodes {
            assert_eq!(node.counters.panics.get(), 0);
            assert!(!node.metrics().contains("connections_failed"));
        }
    }

    /// Stops all, from the outside in.
    fn stop(self) {
        self.client.stop(Message::Drain);
        self.gateway.stop(Message::Drain);
        self.server.stop(Message::Drain);
    }
}

/// Shares the server's address.
const OTHER: &str = "other";

/// A node whose address has `server`, which shakes hands for both, and `other`, whose port this is.
fn shared_address(port: u16) -> NodeMode {
    let listed = |name: &str, ports: &[u16]| LocalWorkload {
        info: Arc::new(WorkloadInfo {
            name: name.into(),
            namespace: "default".into(),
            service_account: name.into(),
        }),
        cgroups: Vec::new(),
        uids: Vec::new(),
        addresses: vec![any().ip()],
        ports: ports.to_vec(),
        is_default: ports.is_empty(),
    };
    let workloads = LocalWorkloads::new(vec![listed("server", &[]), listed(OTHER, &[port])]);
    NodeMode::Node(crate::config::Node {
        workloads: workloads.unwrap(),
        cgroup_root: None,
    })
}

fn identity(account: &str) -> Identity {
    workload(account, None).identity()
}

fn store(identity: &Identity, issued: &Issued, list: &RevocationList) -> CredentialStore {
    let (options, now) = (TlsOptions::default(), SystemTime::now());
    let loaded = Credentials::load(identity, &issued.material(), options, now).unwrap();
    loaded.enforce(list);
    let state = CredentialState::Available(loaded.into());
    CredentialStore::new([(identity.clone(), state)])
}

fn allow(account: &str) -> Policy {
    let principal = format!("cluster.local/ns/default/sa/{account}");
    Policy {
        name: "allow".into(),
        namespace: "default".into(),
        scope: PolicyScope::Namespace,
        action: PolicyAction::Allow,
        rules: vec![vec![vec![PolicyMatch {
            principals: vec![StringMatch::Exact(principal.into())],
            ..PolicyMatch::default()
        }]]],
        dry_run: false,
    }
}

fn example(port: u16) -> Service {
    Service {
        name: "example".into(),
        namespace: "default".into(),
        hostname: HOST.into(),
        ports: [(80, port)].into(),
        ..Service::default()
    }
}

/// A workload of that network with values for telemetry, at an address of it if it has one.
fn member(network: &str, name: &str, address: Option<SocketAddr>) -> Workload {
    Workload {
        network: network.into(),
        workload_name: format!("{name}-owner").into(),
        workload_type: "deployment".into(),
        canonical_name: name.into(),
        protocol: WorkloadProtocol::Hbone,
        ..workload(name, address)
    }
}

/// What `name`, a node of the far network, knows: the service's port 80 is its `port`.
fn far(name: &str, port: u16) -> Change {
    let service = example(port);
    let mut local = member(FAR, name, Some(any()));
    local.services.insert(service.key(), [(80, port)].into());
    Change {
        workloads: vec![local],
        services: vec![service],
        ..Change::default()
    }
}

/// What the client's node knows.
fn near(at: SocketAddr, gateway: &str, vouched: &[&str]) -> Change {
    let address = |network: &str, ip| NetworkAddress {
        network: network.into(),
        ip,
    };
    let mut service = example(8080);
    service.vips = vec![address(NEAR, VIP.parse::<SocketAddr>().unwrap().ip())];
    service.subject_alt_names = vouched
        .iter()
        .map(|account| identity(account).to_string().into())
        .collect();
    let mut remote = member(FAR, "server", None);
    remote.services.insert(service.key(), [(80, 8080)].into());
    remote.network_gateway = Some(GatewayAddress {
        destination: GatewayDestination::Address(address(FAR, at.ip())),
        hbone_mtls_port: at.port(),
    });
    Change {
        workloads: vec![
            member(NEAR, "client", None),
            member(FAR, gateway, Some(at)),
            remote,
        ],
        services: vec![service],
        ..Change::default()
    }
}

/// A large request, its end, a large answer and its end.
fn converse(networks: &Networks, seed: u64) {
    let (mut client, mut server) = networks.open();
    let (up, down) = (pattern(3_000_000, seed), pattern(5_000_000, seed + 10));
    let application = {
        let down = down.clone();
        std::thread::spawn(move || {
            let mut received = Vec::new();
            server.read_to_end(&mut received).unwrap();
            server.write_all(&down).unwrap();
            received
        })
    };
    client.write_all(&up).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == down, "server to client");
    assert!(application.join().unwrap() == up, "client to server");
}

#[test]
fn bytes_and_half_closes_pass_and_only_the_outer_tunnel_is_shared() {
    for driver in DRIVERS {
        for tune in [(|_| {}) as fn(&mut Config), |config| {
            config.http2.engine = HboneEngine::H2
        }] {
            let networks = Plan {
                tune,
                ..Plan::default()
            }
            .start(driver);
            for seed in 0..3 {
                converse(&networks, seed);
            }
            networks.comes_to_rest();
            let [client, gateway, server] =
                [&networks.client, &networks.gateway, &networks.server].map(|node| &node.counters);
            assert_eq!(gateway.tunnels_server_opened.get(), 1, "{driver:?}");
            assert_eq!(gateway.streams_server_opened.get(), 3);
            assert_eq!(server.tunnels_server_opened.get(), 3);
            assert_eq!(client.handshakes_ok(Role::Client).get(), 4);
            // Payload, without what the inner tunnels add.
            assert_eq!(client.relayed_bytes.get(), 3 * 8_000_000);
            assert_eq!(server.relayed_bytes.get(), 3 * 8_000_000);
            networks.stop();
        }
    }
}

#[test]
fn what_the_client_says_last_arrives_although_the_server_ended_first() {
    for driver in DRIVERS {
        let networks = Networks::start(driver);
        let words = pattern(2_000_000, 7);
        for _ in 0..5 {
            let (mut client, mut server) = networks.open();
            server.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            client.write_all(&words).unwrap();
            drop(client);
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).unwrap();
            assert!(heard == words, "{driver:?}: {} bytes", heard.len());
        }
        networks.comes_to_rest();
        networks.stop();
    }
}

#[test]
fn random_conversations_cross_unchanged_and_end_in_order() {
    const CONVERSATIONS: u64 = 40;
    for driver in DRIVERS {
        let networks = Networks::start(driver);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&networks.application, CONVERSATIONS));
            for worker in 0..5 {
                let entry = networks.client.addr();
                scope.spawn(move || {
                    for seed in (worker..CONVERSATIONS).step_by(5).map(|n| SEED + n) {
                        let mut stream = patient(TcpStream::connect(entry).unwrap());
                        stream.write_all(&seed.to_be_bytes()).unwrap();
                        play(stream, seed, true);
                    }
                });
            }
        });
        networks.comes_to_rest();
        networks.stop();
    }
}

#[test]
fn a_crossing_ends_with_the_certificate_of_the_server() {
    let networks = Plan {
        server_lives: Duration::from_secs(4),
        ..Plan::default()
    }
    .start(DriverChoice::Auto);
    let (mut client, mut server) = networks.open();
    exchange(&mut client, &mut server);
    assert!(is_reset(&mut client));
    assert!(is_reset(&mut server));
    let counters = &networks.client.counters;
    until("the inner tunnel to end", || {
        counters.tunnels_client_open.get() == 1
    });
    // Certificates end on whole seconds: for a moment new ones may come about, and are cut.
    until("new ones to be refused", || {
        assert!(is_reset(&mut networks.client.connect()));
        counters.handshakes_failed(Role::Client).get() > 0
    });
    networks.stop();
}

#[test]
fn a_reset_passes_through_both_tunnels_in_both_directions() {
    for driver in DRIVERS {
        let networks = Networks::start(driver);
        for client_resets in [true, false] {
            let (mut client, mut server) = networks.open();
            exchange(&mut client, &mut server);
            let (gone, mut left) = if client_resets {
                (client, server)
            } else {
                (server, client)
            };
            crate::sys::socket::reset_on_close(gone.as_fd());
            drop(gone);
            assert!(is_reset(&mut left), "{driver:?}");
        }
        networks.comes_to_rest();
        networks.stop();
    }
}

#[test]
fn each_layer_accepts_its_own_names_only_and_the_log_says_which_refused() {
    for driver in DRIVERS {
        let networks = Plan {
            gateway: "other",
            ..Plan::default()
        }
        .start(driver);
        networks.refuses(&[
            "identity verification error",
            "outer tunnel, to the gateway",
        ]);
        assert_eq!(networks.server.counters.tunnels_server_opened.get(), 0);
        networks.stop();
        // The gateway's name is no name of the server, nor the other way round.
        for vouched in [&["gateway"][..], &["client", "other"]] {
            let networks = Plan {
                vouched,
                ..Plan::default()
            }
            .start(driver);
            let inner = "inner tunnel, through the gateway";
            networks.refuses(&["identity verification error", inner]);
            // Told why, through the gateway, and not just cut.
            networks.server.logged("not an identity it accepts here");
            assert_eq!(networks.gateway.counters.streams_server_opened.get(), 1);
            networks.stop();
        }
        let networks = Plan {
            vouched: &[],
            ..Plan::default()
        }
        .start(driver);
        networks.refuses(&["nobody is accepted", "subjectAltNames"]);
        assert_eq!(networks.gateway.counters.connections_open.get(), 0);
        networks.stop();
    }
}

#[test]
fn the_server_decides_by_the_clients_identity_and_not_by_the_gateways() {
    for driver in DRIVERS {
        let networks = Plan {
            allowed: Some("gateway"),
            ..Plan::default()
        }
        .start(driver);
        networks.refuses(&["http status: 401 Unauthorized", "inner tunnel"]);
        networks.stop();
        let networks = Plan {
            allowed: Some("client"),
            ..Plan::default()
        }
        .start(driver);
        converse(&networks, 1);
        networks.stop();
    }
}

#[test]
fn a_policy_that_comes_later_ends_the_connection() {
    for driver in DRIVERS {
        let mut networks = Networks::start(driver);
        let (mut client, mut server) = networks.open();
        exchange(&mut client, &mut server);
        networks.server.change(Change {
            policies: vec![("default/allow".into(), allow("somebody-else"))],
            ..Change::default()
        });
        assert!(is_reset(&mut client), "{driver:?}");
        assert!(is_reset(&mut server), "{driver:?}");
        networks.stop();
    }
}

#[test]
fn an_idle_crossing_holds_less_than_24_kilobytes() {
    const OPEN: i64 = 40;
    for driver in DRIVERS {
        let networks = Networks::start(driver);
        let node = &networks.client;
        let open_all = || {
            let mut ends: Vec<_> = (0..OPEN).map(|_| networks.open()).collect();
            for (client, server) in &mut ends {
                exchange(client, server);
            }
            ends
        };
        drop(open_all());
        networks.comes_to_rest();
        let settled = node.memory.bytes();
        let ends = open_all();
        let held = (node.memory.bytes() - settled) / OPEN;
        assert!((2_000..=24 * 1_024).contains(&held), "{driver:?}: {held}");
        drop(ends);
        networks.stop();
    }
}

/// The value of `name{...}` with all of `labels`, over the lines of a metrics page.
fn sum(page: &str, name: &str, labels: &[&str]) -> u64 {
    page.lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[test]
fn both_nodes_tell_who_is_at_the_other_end_and_not_the_gateway() {
    for driver in DRIVERS {
        let networks = Networks::start(driver);
        let (mut client, mut server) = networks.open();
        exchange(&mut client, &mut server);
        let opened = [
            "destination_workload=\"server-owner\"",
            "destination_principal=\"spiffe://cluster.local/ns/default/sa/server\"",
            "destination_service=\"example.com\"",
        ];
        let page = networks.client.metrics();
        let name = "istio_tcp_connections_opened_total{";
        assert_eq!(sum(&page, name, &opened), 1, "{page}");
        assert_eq!(sum(&page, name, &[]), 1, "{page}");
        drop((client, server));
        let line = networks.client.line_with("connection complete");
        let gateway = format!("dst.addr={}", networks.gateway.addr());
        for field in [
            &*gateway,
            "dst.hbone_addr=example.com:80",
            "dst.service=\"example.com\"",
            "dst.workload=\"server-owner\"",
            "dst.identity=\"spiffe://cluster.local/ns/default/sa/server\"",
            "bytes_sent=1 bytes_recv=1",
        ] {
            assert!(line.contains(field), "{field} in {line}");
        }
        // By address the source would be whoever the gateway's address belongs to.
        let line = networks.server.line_with("connection complete");
        for field in [
            "src.workload=\"client\"",
            "src.identity=\"spiffe://cluster.local/ns/default/sa/client\"",
            "dst.hbone_addr=example.com:80",
            "dst.workload=\"server\"",
        ] {
            assert!(line.contains(field), "{field} in {line}");
        }
        networks.stop();
    }
}

#[test]
fn a_connection_that_does_not_cross_is_counted_once_with_the_gateway_as_destination() {
    let networks = Plan {
        vouched: &["other"],
        ..Plan::default()
    }
    .start(DriverChoice::Auto);
    networks.refuses(&["dst.workload=\"gateway\"", "bytes_sent=0"]);
    let page = networks.client.metrics();
    let labels = ["destination_workload=\"gateway-owner\""];
    for (name, count) in [("opened", 1), ("closed", 1), ("failed", 1)] {
        let name = format!("istio_tcp_connections_{name}_total{{");
        assert_eq!(sum(&page, &name, &labels), count, "{name}: {page}");
    }
    networks.stop();
}

#[test]
fn what_does_not_answer_behind_the_gateway_is_given_up() {
    for driver in DRIVERS {
        let (silent, addr) = server();
        let networks = Plan {
            tune: |config| config.timeouts.handshake = Duration::from_millis(300),
            detour: Some(addr),
            ..Plan::default()
        }
        .start(driver);
        networks.refuses(&["did not finish it within", "inner tunnel"]);
        networks.client.reached(Limit::HandshakeTimeout, 1);
        drop(silent);
        networks.stop();
        let mute = Mute::new();
        let networks = Plan {
            tune: |config| config.timeouts.connect_answer = Duration::from_millis(300),
            application: Some(mute.addr),
            ..Plan::default()
        }
        .start(driver);
        networks.refuses(&["did not answer the CONNECT within", "inner tunnel"]);
        networks.client.reached(Limit::ConnectAnswerTimeout, 1);
        networks.client.stop(Message::Force);
        networks.gateway.stop(Message::Force);
        networks.server.stop(Message::Force);
    }
}

#[test]
fn a_gateway_or_a_server_that_is_revoked_ends_the_connection_with_that_reason() {
    for driver in DRIVERS {
        for whose in [GATEWAY, SERVER] {
            let networks = Networks::start(driver);
            let (mut client, mut server) = networks.open();
            exchange(&mut client, &mut server);
            let leaf = &*networks.issued[whose].leaf;
            let pem = networks.authority.revoke(&[leaf], SystemTime::now());
            let revoked = Revocations::read(pem.unwrap().as_bytes()).unwrap();
            networks.list.replace(revoked);
            // Only the client's node looks: the others must not be what ends it.
            networks.client.mailbox.send(Message::Changed).unwrap();
            assert!(is_reset(&mut client), "{driver:?}");
            assert!(is_reset(&mut server), "{driver:?}");
            let line = networks.client.line_with("connection complete");
            let text = "peer certificate revoked by CRL";
            assert!(line.contains(text), "{line}");
            let rejected = networks.client.counters.crl_rejections(Role::Client);
            assert_eq!(rejected.get(), 1, "{driver:?}");
            assert!(is_reset(&mut networks.client.connect()));
            assert_eq!(rejected.get(), 2, "{driver:?}: none comes up again");
            networks.client.stop(Message::Force);
            networks.gateway.stop(Message::Force);
            networks.server.stop(Message::Force);
        }
    }
}

#[test]
fn a_name_that_leads_to_the_port_of_another_workload_is_judged_by_its_policies() {
    for driver in DRIVERS {
        let beside = |allowed| {
            let plan = Plan {
                beside: Some(allowed),
                ..Plan::default()
            };
            plan.start(driver)
        };
        let networks = beside("client");
        let (mut client, mut server) = networks.open();
        exchange(&mut client, &mut server);
        drop((client, server));
        networks.server.line_with("dst.workload=\"other\"");
        networks.stop();
        let networks = beside("nobody");
        networks.refuses(&["http status: 401 Unauthorized"]);
        networks.stop();
    }
}

#[test]
fn while_the_client_drains_its_crossing_goes_on_and_it_ends_with_it() {
    for driver in DRIVERS {
        let mut networks = Networks::start(driver);
        let (mut client, mut server) = networks.open();
        exchange(&mut client, &mut server);
        networks.client.mailbox.send(Message::Drain).unwrap();
        networks.client.wait_closed();
        exchange(&mut client, &mut server);
        drop((client, server));
        networks.client.ended().unwrap();
        networks.gateway.stop(Message::Drain);
        networks.server.stop(Message::Drain);
    }
}

#[test]
fn whichever_node_is_cut_neither_end_takes_that_for_an_end_in_order() {
    for driver in DRIVERS {
        for cut in [CLIENT, GATEWAY, SERVER] {
            let networks = Networks::start(driver);
            let (mut client, mut server) = networks.open();
            exchange(&mut client, &mut server);
            let Networks {
                client: near,
                gateway,
                server: far,
                ..
            } = networks;
            let mut nodes = vec![near, gateway, far];
            nodes.remove(cut).stop(Message::Force);
            assert!(is_reset(&mut client), "{driver:?}: {cut} cut");
            assert!(is_reset(&mut server), "{driver:?}: {cut} cut");
            for node in nodes {
                node.stop(Message::Force);
            }
        }
    }
}

#[test]
fn a_node_cut_while_a_connection_crosses_counts_it_as_drained() {
    let (silent, addr) = server();
    let networks = Plan {
        detour: Some(addr),
        ..Plan::default()
    }
    .start(DriverChoice::Auto);
    let mut client = networks.client.connect();
    // The outer tunnel is up, the handshake inside it is not.
    let (_inside, _) = silent.accept().unwrap();
    let page = networks.client.metrics();
    assert_eq!(sum(&page, "istio_tcp_connections_opened_total{", &[]), 0);
    networks.client.mailbox.send(Message::Force).unwrap();
    assert!(is_reset(&mut client));
    let line = networks.client.line_with("connection complete");
    assert!(line.contains("connection drain"), "{line}");
    let page = networks.client.metrics();
    assert_eq!(sum(&page, "istio_tcp_connections_opened_total{", &[]), 1);
    assert_eq!(sum(&page, "istio_tcp_connections_closed_total{", &[]), 1);
    networks.gateway.stop(Message::Force);
    networks.server.stop(Message::Force);
}
