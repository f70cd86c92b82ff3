//! A node as waypoint: whose connections it takes (routing 5.3 and the inbound table of routing 9), and
//! what the program behind it is told.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use corelane_harness::apps::{self, Server};
use corelane_harness::fleet::Fleet;
use corelane_harness::hosts::Family;
use corelane_harness::node::{Driver, Node};
use corelane_harness::pki::{Leaf, spiffe};
use corelane_harness::shared::{self, Shared};
use corelane_harness::state::{State, Workload, host_name};
use corelane_harness::wire::{Reply, Tunnel};

use crate::CORELANE;

const APP_PORT: u16 = 8_080;
const HBONE_PORT: u16 = 15_008;
/// Port of what is behind a waypoint that wants a PROXY header.
const INNER_PORT: u16 = 15_088;
/// Address of the service of [`SERVER`].
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Address of one more service.
const OTHER_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);

const SERVER: &str = "server";
/// The waypoint that takes bytes as they are.
const BARE: &str = "bare";
/// The waypoint that wants a PROXY header.
const PROXIED: &str = "proxied";
/// The workload whose tunnel says a port and no protocol.
const PORTED: &str = "ported";
/// That port.
const PORTED_PORT: u16 = 9_000;

with_both_drivers!(
    an_authority_is_served_by_whom_it_names_or_by_its_waypoint_alone,
    what_is_behind_a_waypoint_is_told_who_calls_and_what_was_asked,
    what_is_behind_a_waypoint_is_dialled_on_loopback_unless_that_is_off,
    a_tunnel_without_protocol_leads_to_its_port_and_changes_no_byte,
    a_waypoint_that_is_a_pod_of_a_shared_node_is_reached_in_its_own_namespace,
);

struct Bed {
    nodes: Vec<Node>,
    fleet: Fleet,
}

impl Bed {
    fn start(driver: Driver, hosts: &[&str], env: &[(&str, &str)]) -> Self {
        let fleet = Fleet::new(CORELANE, &["client", SERVER, BARE, PROXIED, PORTED]);
        fleet.publish(&state(&fleet).to_yaml());
        let env = [&[("CORELANE_DRIVER", driver.as_str())], env].concat();
        let nodes = hosts.iter().map(|host| fleet.start_node(host, &env));
        Self {
            nodes: nodes.collect(),
            fleet,
        }
    }

    /// A tunnel to the node of `host`, from a client without one.
    fn open(&self, host: &str, family: Family) -> Tunnel {
        let certificate = self.fleet.authority.issue(&Leaf::for_account("client"));
        let to = SocketAddr::new(self.fleet.host(host).ip(family), HBONE_PORT);
        self.fleet.host("client").enter(|| {
            let mut tunnel = Tunnel::open(to, &certificate).unwrap();
            tunnel.start_http2().unwrap();
            tunnel
        })
    }

    /// What whoever serves `authority` at `host` says, or the status of the refusal.
    fn ask(&self, host: &str, authority: &str) -> Result<String, Reply> {
        self.ask_over(Family::V4, host, authority)
    }

    fn ask_over(&self, family: Family, host: &str, authority: &str) -> Result<String, Reply> {
        let mut tunnel = self.open(host, family);
        tunnel.connect(1, authority).unwrap();
        let reply = tunnel.reply(1).unwrap();
        if reply != Reply::Status(200) {
            return Err(reply);
        }
        let answer = tunnel.receive_data(1).unwrap();
        Ok(String::from_utf8(answer).unwrap())
    }
}

/// Address of a workload that exists only by name; each is different in whose waypoint it has.
const fn workload_ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 50, 0, last)
}

/// Address of a service that exists only by name.
const fn service_ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 60, 0, last)
}

/// Ways to refer to a waypoint: by its address, its service's address, its service's name.
fn references(fleet: &Fleet) -> [String; 3] {
    let named = format!("default/{}", host_name(BARE));
    [format!("/{}", fleet.ip(BARE)), "/10.96.0.30".into(), named]
        .map(|destination| format!("{{destination: {destination}, hboneMtlsPort: {HBONE_PORT}}}"))
}

fn workload<'a>(
    name: &'a str,
    ips: &'a [IpAddr],
    services: &'a [(&'a str, u16, u16)],
) -> Workload<'a> {
    Workload {
        name,
        ips,
        hbone: true,
        services,
    }
}

/// Workloads 1 to 3 and services 1 to 3 have the waypoint [`BARE`] by one kind of reference each.
/// Workload 4 is behind service 1 and service 4 has workload 1: neither has a waypoint itself.
fn state(fleet: &Fleet) -> State {
    let one = |ip: Ipv4Addr| [IpAddr::V4(ip)];
    let mut state = State::default()
        .workload(&workload(
            SERVER,
            &fleet.ips(SERVER),
            &[(SERVER, 80, APP_PORT)],
        ))
        .workload(&workload(
            BARE,
            &fleet.ips(BARE),
            &[(BARE, HBONE_PORT, HBONE_PORT)],
        ))
        .workload(&workload(PROXIED, &fleet.ips(PROXIED), &[]))
        .workload_with(&format!(
            "applicationTunnel: {{protocol: PROXY, port: {INNER_PORT}}}"
        ))
        .workload(&workload(PORTED, &fleet.ips(PORTED), &[]))
        .workload_with(&format!(
            "applicationTunnel: {{protocol: NONE, port: {PORTED_PORT}}}"
        ))
        .service(SERVER, &one(SERVICE), 80, APP_PORT)
        .service(BARE, &one([10, 96, 0, 30].into()), HBONE_PORT, HBONE_PORT);
    for (number, reference) in (1..).zip(references(fleet)) {
        let waypoint = format!("waypoint: {reference}");
        let (pod, service) = (format!("pod{number}"), format!("service{number}"));
        let backs = [("service4", 80, APP_PORT)];
        let services = if number == 1 { &backs[..] } else { &[] };
        state = state
            .workload(&workload(&pod, &one(workload_ip(number)), services))
            .workload_with(&waypoint)
            .service(&service, &one(service_ip(number)), 80, APP_PORT)
            .service_with(&waypoint);
    }
    state
        .workload(&workload(
            "pod4",
            &one(workload_ip(4)),
            &[("service1", 80, APP_PORT)],
        ))
        .service("service4", &one(service_ip(4)), 80, APP_PORT)
}

fn says(text: &'static str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        let _ = stream.write_all(text.as_bytes());
    }
}

fn an_authority_is_served_by_whom_it_names_or_by_its_waypoint_alone(driver: Driver) {
    let bed = Bed::start(driver, &[SERVER, BARE], &[]);
    let _apps = [
        Server::start(&bed.fleet.host(SERVER), APP_PORT, says(SERVER)),
        Server::start(&bed.fleet.host(BARE), APP_PORT, says(BARE)),
    ];
    let (server, bare) = (bed.fleet.ip(SERVER), bed.fleet.ip(BARE));
    let at = |ip: Ipv4Addr| format!("{ip}:{APP_PORT}");
    let good = [
        (SERVER, at(server)),
        (SERVER, format!("{}:80", host_name(SERVER))),
        (BARE, at(bare)),
        (BARE, at(workload_ip(1))),
        (BARE, at(workload_ip(2))),
        (BARE, at(workload_ip(3))),
        (BARE, at(service_ip(1))),
        (BARE, at(service_ip(2))),
        (BARE, at(service_ip(3))),
    ];
    for (host, authority) in good {
        let answer = bed.ask(host, &authority);
        assert_eq!(answer.as_deref(), Ok(host), "{authority} at {host}");
    }
    let bad = [
        (SERVER, bed.fleet.ip("client")),
        (BARE, bed.fleet.ip("client")),
        (BARE, server),
        (BARE, SERVICE),
        (BARE, workload_ip(4)),
        (BARE, service_ip(4)),
        (SERVER, workload_ip(1)),
        (SERVER, service_ip(1)),
    ];
    for (host, ip) in bad {
        let answer = bed.ask(host, &at(ip));
        assert_eq!(answer, Err(Reply::Status(400)), "{ip} at {host}");
        let node = &bed.nodes[usize::from(host == BARE)];
        let error = format!("ip mismatch: {} != {ip}", bed.fleet.ip(host));
        let fields = [("direction", "inbound"), ("error", &*error)];
        let _ = node.wait_access_line("connection failed", &fields);
    }
}

fn ip(octets: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
    }
}

/// Says what the PROXY header in front of the bytes holds: `SOURCE DESTINATION IDENTITY`, as far as
/// they are there, and where the connection comes from.
fn tells_header(mut stream: TcpStream) {
    let from = stream.peer_addr().unwrap().ip().to_canonical();
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[..13], *b"\r\n\r\n\0\r\nQUIT\n\x21");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut rest).unwrap();
    let octets = match head[13] {
        0x11 => 4,
        0x21 => 16,
        0x01 => 0,
        other => panic!("family {other:#x}"),
    };
    let ports = if octets == 0 { 0 } else { 4 };
    let (addresses, fields) = rest.split_at(2 * octets + ports);
    let mut said = if octets == 0 {
        "- -".to_owned()
    } else {
        let (source, target) = (ip(&addresses[..octets]), ip(&addresses[octets..2 * octets]));
        let port = u16::from_be_bytes([addresses[2 * octets + 2], addresses[2 * octets + 3]]);
        format!("{source} {}", SocketAddr::new(target, port))
    };
    if let [0xd0, high, low, value @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        assert_eq!(value.len(), length);
        said += &format!(" {}", String::from_utf8_lossy(value));
    }
    let _ = stream.write_all(format!("{said} dialled from {from}").as_bytes());
}

fn what_is_behind_a_waypoint_is_told_who_calls_and_what_was_asked(driver: Driver) {
    let bed = Bed::start(driver, &[PROXIED], &[]);
    let _inner = Server::start(&bed.fleet.host(PROXIED), INNER_PORT, tells_header);
    let client = bed.fleet.ip("client");
    let identity = spiffe("cluster.local", "client");
    let own = bed.fleet.ip(PROXIED);
    // With an application tunnel any address is taken: what is behind it decides.
    let server = bed.fleet.ip(SERVER);
    for (authority, announced) in [
        (format!("{server}:8080"), format!("{server}:8080")),
        (format!("{SERVICE}:8080"), format!("{SERVICE}:8080")),
        (format!("{own}:9"), format!("{own}:9")),
        (format!("{}:80", host_name(SERVER)), format!("{SERVICE}:80")),
    ] {
        let expected = format!("{client} {announced} {identity} dialled from 127.0.0.1");
        assert_eq!(bed.ask(PROXIED, &authority), Ok(expected));
    }
    // Another family than the client's: no addresses, and the identity all the same.
    let expected = format!("- - {identity} dialled from 127.0.0.1");
    assert_eq!(bed.ask(PROXIED, "[fd96::10]:8080"), Ok(expected));
    // Over IPv6, to a service of that family.
    let client = bed.fleet.host("client").v6();
    let expected = format!("{client} [fd96::10]:8080 {identity} dialled from ::1");
    let answer = bed.ask_over(Family::V6, PROXIED, "[fd96::10]:8080");
    assert_eq!(answer, Ok(expected));
    // Our own port, though it would be overridden.
    let own_port = format!("{own}:{HBONE_PORT}");
    assert_eq!(bed.ask(PROXIED, &own_port), Err(Reply::Status(503)));
}

fn what_is_behind_a_waypoint_is_dialled_on_loopback_unless_that_is_off(driver: Driver) {
    for (loopback, text) in [(true, "true"), (false, "false")] {
        let env = [("LOCALHOST_APP_TUNNEL", text)];
        let bed = Bed::start(driver, &[PROXIED], &env);
        let _inner = Server::start(&bed.fleet.host(PROXIED), INNER_PORT, tells_header);
        let client = IpAddr::V4(bed.fleet.ip("client"));
        let from = if loopback {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            client
        };
        let asked = SocketAddr::from((SERVICE, APP_PORT));
        let identity = spiffe("cluster.local", "client");
        let expected = format!("{client} {asked} {identity} dialled from {from}");
        assert_eq!(bed.ask(PROXIED, &asked.to_string()), Ok(expected), "{text}");
    }
}

fn a_tunnel_without_protocol_leads_to_its_port_and_changes_no_byte(driver: Driver) {
    let bed = Bed::start(driver, &[PORTED], &[]);
    let host = bed.fleet.host(PORTED);
    let _inner = Server::start(&host, PORTED_PORT, |mut stream| {
        let ends = [stream.peer_addr(), stream.local_addr()];
        let [from, to] = ends.map(|end| end.unwrap().ip().to_canonical());
        let _ = stream.write_all(format!("{from} to {to}").as_bytes());
    });
    let (client, own) = (bed.fleet.ip("client"), bed.fleet.ip(PORTED));
    for asked in [own, SERVICE] {
        let answer = bed.ask(PORTED, &format!("{asked}:{APP_PORT}"));
        assert_eq!(answer, Ok(format!("{client} to {own}")));
    }
}

fn a_waypoint_that_is_a_pod_of_a_shared_node_is_reached_in_its_own_namespace(driver: Driver) {
    let pods = ["caller", "waypoint"];
    let options = shared::Options {
        driver,
        pods: &pods,
        policies: &[],
        services: &[],
        settings: &[],
        env: &[],
    };
    let uid = "cluster1//Pod/default/waypoint";
    let to_waypoint = "{destination: default/waypoint.example, hboneMtlsPort: 15008}";
    let shared = Shared::start_with(CORELANE, &options, |state| {
        state
            .workload_with("hostname: waypoint.example")
            .workload_with(&format!(
                "applicationTunnel: {{protocol: PROXY, port: {INNER_PORT}}}"
            ))
            .service("behind", &[SERVICE.into()], 80, APP_PORT)
            .service_with(&format!("waypoint: {to_waypoint}"))
            // A service without the port leads there too, since the workload has a tunnel.
            .service("portless", &[], 80, 80)
            .service_with(&format!(
                "endpoints: {{\"{uid}\": {{workloadUid: {uid}, port: {{}}, status: Healthy}}}}"
            ))
            .service("behind-portless", &[OTHER_SERVICE.into()], 80, APP_PORT)
            .service_with(&format!(
                "waypoint: {{destination: default/{}, hboneMtlsPort: 15008}}",
                host_name("portless")
            ))
    });
    shared.serve(&pods);
    // What listens at the same place of the node's own namespace has nothing to do with it.
    let wrong = Server::start(&shared.host("node"), INNER_PORT, tells_header);
    let _inner = Server::start(&shared.host("waypoint"), INNER_PORT, tells_header);
    let caller = shared.host("caller");
    let identity = spiffe("cluster.local", "caller");
    for asked in [
        SocketAddr::from((SERVICE, 80)),
        SocketAddr::from((OTHER_SERVICE, 80)),
        shared.at("waypoint", APP_PORT),
    ] {
        let answer = caller.enter(|| apps::exchange(asked, b"")).unwrap();
        let expected = format!("{} {asked} {identity} dialled from 127.0.0.1", caller.v4());
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }
    assert_eq!(wrong.accepted(), 0);
}
