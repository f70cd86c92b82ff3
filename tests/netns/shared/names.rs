//! Names in pods: each pod has a DNS proxy of its own, which asks name servers from the pod.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};

use corelane_harness::apps::PATIENCE;
use corelane_harness::hosts::Host;
use corelane_harness::node::Driver;
use corelane_harness::shared::{OUTSIDE, Options, Shared};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::options;
use crate::CORELANE;

const PORT: u16 = 15_053;
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// What the name server says.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

with_both_drivers!(
    each_pod_asks_its_own_proxy_which_asks_from_the_pod,
    a_pod_whose_dns_port_is_taken_is_refused_whole,
    a_pod_without_ipv6_is_answered_by_ipv4,
);

/// A reply to a query by UDP.
pub(super) fn ask_udp(to: IpAddr, query: &[u8]) -> Vec<u8> {
    let any = IpAddr::from([0; 4]);
    let from = if to.is_ipv4() {
        any
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(query, (to, PORT)).unwrap();
    let mut buffer = vec![0; 4_096];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn ask_tcp(to: IpAddr, query: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((to, PORT)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = u16::try_from(query.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    reply
}

type Ask = fn(IpAddr, &[u8]) -> Vec<u8>;

/// What a name has for addresses, on this thread's host.
pub(super) fn addresses(name: &str, ask: Ask) -> Vec<IpAddr> {
    addresses_at(LOOPBACKS[0], name, ask)
}

fn addresses_at(proxy: IpAddr, name: &str, ask: Ask) -> Vec<IpAddr> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    let reply = Message::from_vec(&ask(proxy, &message.to_vec().unwrap())).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    reply
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

/// Answers every name on `host`, and tells who asked.
fn name_server(host: &Host) -> Receiver<SocketAddr> {
    let socket = host
        .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)))
        .unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Ok(mut message) = Message::from_vec(&buffer[..length]) else {
                continue;
            };
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            let name = message.queries[0].name().clone();
            message.add_answer(Record::from_rdata(name, 60, RData::A(A(ELSEWHERE))));
            if socket.send_to(&message.to_vec().unwrap(), from).is_err() || tell.send(from).is_err()
            {
                return;
            }
        }
    });
    told
}

fn start(driver: Driver, pods: &[&str]) -> (Shared, tempfile::TempDir) {
    let dir = corelane_harness::requirements::scratch_dir();
    let file = dir.path().join("resolv.conf");
    // The second host of the network is the one outside the mesh.
    std::fs::write(&file, "nameserver 10.41.2.2\n").unwrap();
    let resolv_conf = format!("dns.resolvConf={}", file.display());
    let options = Options {
        services: &[("web", IpAddr::V4(WEB))],
        settings: &[&resolv_conf],
        env: &[("ISTIO_META_DNS_CAPTURE", "true")],
        ..options(driver, pods)
    };
    (Shared::start(CORELANE, &options), dir)
}

/// Loses what leaves `host` for a name server without the node's mark.
fn drop_unmarked(host: &Host) {
    host.apply_nft(
        "table inet unmarked {
    chain out {
        type filter hook output priority 0; policy accept;
        udp dport 53 meta mark & 0xfff != 0x539 drop
    }
}
",
    );
}

fn each_pod_asks_its_own_proxy_which_asks_from_the_pod(driver: Driver) {
    let (shared, _dir) = start(driver, &["a", "b"]);
    assert_eq!(
        IpAddr::V4(shared.host(OUTSIDE).v4()),
        IpAddr::from([10, 41, 2, 2])
    );
    let asked = name_server(&shared.host(OUTSIDE));
    for pod in ["a", "b"] {
        drop_unmarked(&shared.host(pod));
    }
    shared.serve(&["a", "b"]);
    for pod in ["a", "b"] {
        let host = shared.host(pod);
        for proxy in LOOPBACKS {
            for ask in [ask_udp as Ask, ask_tcp] {
                for name in ["web", "web.default", "web.default.svc.cluster.local"] {
                    let found = host.enter(|| addresses_at(proxy, name, ask));
                    assert_eq!(found, [WEB], "{pod} {proxy} {name}");
                }
            }
        }
        assert!(asked.try_recv().is_err(), "the mesh knows that name");
        let name = format!("{pod}.example");
        let found = host.enter(|| addresses(&name, ask_udp));
        assert_eq!(found, [ELSEWHERE], "{pod}");
        let from = asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(from.ip(), IpAddr::V4(host.v4()), "asked from the pod");
        assert_eq!(
            asked.try_iter().filter(|who| who.ip() != from.ip()).count(),
            0
        );
    }
    let own = shared
        .host("node")
        .enter(|| TcpStream::connect((LOOPBACKS[0], PORT)));
    assert!(own.is_err(), "the node's own namespace has no proxy");
    shared.node.wait_metric(
        "istio_dns_upstream_requests_total",
        &[("source_canonical_service", "b")],
        1,
    );

    shared.session.delete("a").unwrap();
    let gone = shared.host("a").enter(|| {
        let tcp = TcpStream::connect((LOOPBACKS[0], PORT));
        // Free for whoever comes next.
        let udp = UdpSocket::bind((LOOPBACKS[0], PORT));
        tcp.is_err() && udp.is_ok()
    });
    assert!(gone, "once the agent was answered");
    let left = shared.host("b").enter(|| addresses("web", ask_udp));
    assert_eq!(left, [WEB], "the other pod is served");
}

fn a_pod_whose_dns_port_is_taken_is_refused_whole(driver: Driver) {
    let (shared, _dir) = start(driver, &["a"]);
    let taken = shared
        .host("a")
        .enter(|| UdpSocket::bind((LOOPBACKS[0], PORT)));
    let refused = shared.add("a").unwrap_err();
    assert!(refused.contains("127.0.0.1:15053 (dns proxy)"), "{refused}");
    for port in [15_001, 15_006, 15_008, PORT] {
        let free = shared
            .host("a")
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        assert!(free.is_ok(), "{port} is not held: {free:?}");
    }
    drop(taken);
    shared.session.snapshot().unwrap();
    shared.wait_ready(true);
    let found = shared.host("a").enter(|| addresses("web", ask_tcp));
    assert_eq!(found, [WEB]);
}

fn a_pod_without_ipv6_is_answered_by_ipv4(driver: Driver) {
    let (shared, _dir) = start(driver, &["a"]);
    let host = shared.host("a");
    host.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1"))
        .unwrap();
    shared.serve(&["a"]);
    assert_eq!(host.enter(|| addresses("web", ask_udp)), [WEB]);
}
