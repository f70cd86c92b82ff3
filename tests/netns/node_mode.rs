//! A host of many workloads: one node serves them all, told apart by control group, user and address.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use corelane_harness::apps::{self, Server};
use corelane_harness::capture;
use corelane_harness::hosts::{Family, Host, Network};
use corelane_harness::node::{Addresses, Driver, Node};
use corelane_harness::pki::{Authority, Leaf, spiffe};
use corelane_harness::process::{Process, replace_file};
use corelane_harness::requirements;
use corelane_harness::state::{State, Workload};
use rustix::process::Uid;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::CORELANE;

const PORT: u16 = 8_080;
/// A second address of the host.
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 41, 1, 10);
/// Users of workloads `user` and `other`.
const USER: u32 = 4_101;
const OTHER: u32 = 4_102;
/// Belongs to no workload.
const STRANGER: u32 = 4_103;

with_both_drivers!(
    each_workload_of_a_host_has_its_own_identity,
    a_process_that_belongs_to_no_workload_is_refused,
    socks_clients_are_told_by_their_user,
    workloads_that_share_an_address_have_their_own_ports,
);

/// A control group of version 2 that goes with the value. Its process must have ended.
struct Group(PathBuf);

impl Group {
    /// `None`: this machine has no writable hierarchy, and the test says so.
    fn make(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounted = mounts.lines().map(|line| line.split(' '));
        let root = mounted.find_map(|mut fields| {
            let place = fields.nth(1)?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
        });
        let made = root.and_then(|root| {
            let name = format!("corelane-{}-{test}", std::process::id());
            let group = root.join(name);
            fs::create_dir(&group).ok().map(|()| Self(group))
        });
        requirements::has_cgroup(test, made.is_some()).then_some(())?;
        made
    }

    /// As processes and configuration name it.
    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }

    /// Answer of a server to a process of this group on `host`.
    fn ask(&self, host: &Host, to: SocketAddr) -> Vec<u8> {
        let procs = self.0.join("cgroup.procs");
        let script = format!(
            "echo $$ > {} && exec 3<>/dev/tcp/{}/{} && cat <&3",
            procs.display(),
            to.ip(),
            to.port()
        );
        let mut command = on(host, "bash");
        command.arg("-c").arg(script).stdin(Stdio::null());
        command.output().unwrap().stdout
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A command on that host that sees this machine's control groups, which `ip netns exec` hides.
fn on(host: &Host, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", host.namespace()))
        .arg(program);
    command
}

/// A node of many on host `many`, a dedicated one on host `server`.
struct Many {
    node: Node,
    server: Node,
    many_host: Host,
    server_host: Host,
    outside_host: Host,
    _network: Network,
    _dir: TempDir,
}

impl Many {
    fn start(driver: Driver, group: Option<&Group>) -> Self {
        let network = Network::new(&["many", "server", "outside"]);
        let [many_host, server_host, outside_host] =
            ["many", "server", "outside"].map(|name| network.host(name));
        many_host.apply_ip(Family::V4, &format!("addr add {SECOND}/24 dev eth0\n"));
        let dir = requirements::scratch_dir();
        let authority = Authority::new("corelane test root");
        let v4 = |host: &Host| IpAddr::V4(host.v4());
        let mut state = State::default();
        let shared = v4(&many_host);
        let records = [
            ("grouped", Vec::new()),
            ("other", Vec::new()),
            ("user", vec![shared]),
            ("addressed", vec![IpAddr::V4(SECOND)]),
            ("server", vec![v4(&server_host)]),
        ];
        for (name, ips) in &records {
            state = state.workload(&Workload {
                name,
                ips,
                hbone: true,
                services: &[],
            });
            let issued = authority.issue(&Leaf::for_account(name));
            issued.install(&dir.path().join("ids"), name, authority.pem());
        }
        let other = "[[[{principals: [!Exact cluster.local/ns/default/sa/other]}]]]";
        let state = state.policy("no-other", "Deny", other);
        replace_file(&dir.path().join("state.yaml"), &state.to_yaml());
        fs::write(dir.path().join("many.yaml"), config(shared, group)).unwrap();
        for host in [&many_host, &server_host] {
            capture::apply(host);
        }
        let launch = |name: &str, host: &Host, env: &[(&str, &str)]| {
            let mut command = on(host, CORELANE);
            command
                .arg("proxy")
                .current_dir(dir.path())
                .env_clear()
                .env("XDS_ADDRESS", "")
                .env("LOCAL_XDS_PATH", "state.yaml")
                .env("CORELANE_IDENTITY_DIR", "ids")
                .env("CORELANE_DRIVER", driver.as_str())
                .env("ZTUNNEL_WORKER_THREADS", "2")
                .env("PACKET_MARK", capture::NODE_MARK.to_string())
                .env("UNSTABLE_ENABLE_SOCKS5", "true")
                .env("RUST_BACKTRACE", "1")
                .envs(env.iter().copied());
            let addresses = Addresses::at(Ipv4Addr::LOCALHOST);
            Node::start(name, command, Some(host.clone()), addresses, dir.path())
        };
        let node = [("PROXY_MODE", "node"), ("CORELANE_CONFIG", "many.yaml")];
        let dedicated = [
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "default/server/server"),
        ];
        Self {
            node: launch("many", &many_host, &node),
            server: launch("server", &server_host, &dedicated),
            many_host,
            server_host,
            outside_host,
            _network: network,
            _dir: dir,
        }
    }

    fn server_at(&self) -> SocketAddr {
        SocketAddr::from((self.server_host.v4(), PORT))
    }

    /// Runs `work` on the host of many, as that user.
    fn enter_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        self.many_host.enter(|| {
            rustix::thread::set_thread_uid(Uid::from_raw(uid)).unwrap();
            work()
        })
    }

    /// Waits until the server has reported a connection of that workload; its error.
    fn arrived(&self, account: &str) -> String {
        let id = spiffe("cluster.local", account);
        let fields = [("direction", "inbound"), ("src.identity", &id)];
        let line = self.server.wait_access_line("connection complete", &fields);
        line.field("error").to_owned()
    }
}

fn config(shared: IpAddr, group: Option<&Group>) -> String {
    let who = |name: &str| format!("name: {name}, namespace: default, serviceAccount: {name}");
    let grouped = group.map_or_else(String::new, |group| {
        let (who, path) = (who("grouped"), group.path());
        format!("  - {{{who}, cgroups: ['{path}']}}\n")
    });
    format!(
        "timeouts: {{workloadWait: 200ms}}
node:
  workloads:
  - {{{}, uids: [{USER}], addresses: [{shared}], default: true}}
  - {{{}, uids: [{OTHER}], addresses: [{shared}], ports: [{OTHER_PORT}]}}
  - {{{}, addresses: [{SECOND}]}}
{grouped}",
        who("user"),
        who("other"),
        who("addressed"),
    )
}

/// Of workload `other`, on the address it shares.
const OTHER_PORT: u16 = 8_082;

/// Connects from one of the host's addresses.
fn exchange_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    let mut answer = Vec::new();
    TcpStream::from(socket).read_to_end(&mut answer)?;
    Ok(answer)
}

fn greet(mut stream: TcpStream) {
    let _ = std::io::Write::write_all(&mut stream, b"hello");
}

fn is_refusal(answer: &std::io::Result<Vec<u8>>) -> bool {
    answer.as_ref().map_or_else(apps::is_close, Vec::is_empty)
}

fn each_workload_of_a_host_has_its_own_identity(driver: Driver) {
    let group = Group::make(&format!("own-identity-{}", driver.as_str()));
    let many = Many::start(driver, group.as_ref());
    let app = Server::start(&many.server_host, PORT, greet);
    let to = many.server_at();
    let host = many.many_host.v4();

    assert_eq!(
        many.enter_as(USER, || exchange_from(host, to)).unwrap(),
        b"hello"
    );
    assert_eq!(many.arrived("user"), "");
    let second = many.many_host.enter(|| exchange_from(SECOND, to));
    assert_eq!(second.unwrap(), b"hello");
    assert_eq!(many.arrived("addressed"), "");
    if let Some(group) = &group {
        assert_eq!(group.ask(&many.many_host, to), b"hello");
        assert_eq!(many.arrived("grouped"), "");
    }
    let called = app.accepted();

    let denied = many.enter_as(OTHER, || exchange_from(host, to));
    assert!(is_refusal(&denied), "{denied:?}");
    assert!(many.arrived("other").contains("default/no-other"));
    // A user says more than the address it uses.
    let from_second = many.enter_as(OTHER, || exchange_from(SECOND, to));
    assert!(is_refusal(&from_second), "{from_second:?}");
    assert_eq!(app.accepted(), called, "the application was not called");
    many.server.wait_metric(
        "istio_tcp_connections_opened_total",
        &[
            ("reporter", "destination"),
            ("source_principal", &spiffe("cluster.local", "other")),
        ],
        2,
    );
}

fn a_process_that_belongs_to_no_workload_is_refused(driver: Driver) {
    let many = Many::start(driver, None);
    let app = Server::start(&many.server_host, PORT, greet);
    let (host, to) = (many.many_host.v4(), many.server_at());
    let refused = many.enter_as(STRANGER, || exchange_from(host, to));
    assert!(is_refusal(&refused), "{refused:?}");
    let fields = [("direction", "outbound"), ("src.identity", "")];
    let line = many.node.wait_access_line("connection failed", &fields);
    let error = line.field("error");
    assert!(error.contains("uid 4103, address 10.41.1.2"), "{error}");
    assert!(error.contains("node.workloads"), "{error}");
    assert_eq!(app.accepted(), 0);
    let allowed = many.enter_as(USER, || exchange_from(host, to));
    assert_eq!(
        allowed.unwrap(),
        b"hello",
        "the same, as a user that is listed"
    );
}

fn socks_clients_are_told_by_their_user(driver: Driver) {
    let many = Many::start(driver, None);
    let _app = Server::start(&many.server_host, PORT, greet);
    let to = many.server_at();
    let ask = || {
        let mut stream = apps::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, 15_080)))?;
        let mut request = vec![5, 1, 0, 5, 1, 0, 1];
        let SocketAddr::V4(to) = to else {
            panic!("{to}")
        };
        request.extend(to.ip().octets());
        request.extend(to.port().to_be_bytes());
        std::io::Write::write_all(&mut stream, &request)?;
        let mut replies = [0; 12];
        stream.read_exact(&mut replies)?;
        Ok::<_, std::io::Error>(replies[3])
    };
    assert_eq!(many.enter_as(USER, ask).unwrap(), 0);
    assert_eq!(many.arrived("user"), "");
    assert_eq!(many.enter_as(STRANGER, ask).unwrap(), 2, "not allowed");
}

fn workloads_that_share_an_address_have_their_own_ports(driver: Driver) {
    let many = Many::start(driver, None);
    let _apps = [PORT, OTHER_PORT].map(|port| Server::start(&many.many_host, port, greet));
    let at = |port| SocketAddr::from((many.many_host.v4(), port));
    for (port, workload) in [(PORT, "user"), (OTHER_PORT, "other")] {
        let tunnelled = many.server_host.enter(|| apps::exchange(at(port), b""));
        assert_eq!(tunnelled.unwrap(), b"hello", "{port}");
        let plain = many.outside_host.enter(|| apps::exchange(at(port), b""));
        assert_eq!(plain.unwrap(), b"hello", "{port}");
        let id = spiffe("cluster.local", "server");
        for source in [id.as_str(), ""] {
            let fields = [
                ("direction", "inbound"),
                ("src.identity", source),
                ("dst.workload", workload),
            ];
            let line = many.node.wait_access_line("connection complete", &fields);
            assert_eq!(line.field("error"), "", "{port} {source}");
        }
    }
}

#[test]
fn a_host_that_cannot_tell_processes_stops_the_start() {
    if !requirements::has_netns("a_host_that_cannot_tell_processes_stops_the_start") {
        return;
    }
    let network = Network::new(&["alone"]);
    let dir = requirements::scratch_dir();
    let refused = |node: &str, name: &str| {
        let file = dir.path().join(name);
        let text = format!(
            "mode: node\nlocalStateInline: '{{}}'\nidentityDir: {}\nnode:\n  {node}\n  workloads:\n  \
             - {{name: a, namespace: n, serviceAccount: s, cgroups: [/a]}}\n",
            dir.path().display()
        );
        fs::write(&file, text).unwrap();
        let mut command = on(&network.host("alone"), CORELANE);
        command.args(["proxy", "--config"]).arg(&file);
        let mut process = Process::start(name, command, Path::new(dir.path()));
        let status = process.wait_end(corelane_harness::node::REPORT_LIMIT);
        assert!(!status.success());
        process.output()
    };
    let output = refused("cgroupRoot: /proc", "wrong");
    assert!(
        output.contains("mode `node` cannot tell workloads by their processes"),
        "{output}"
    );
    assert!(output.contains("/proc is no cgroup v2"), "{output}");
    assert!(output.contains("CAP_DAC_READ_SEARCH"), "{output}");
}
