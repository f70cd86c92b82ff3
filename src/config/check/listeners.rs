//! Where the node listens: defaults, switches, conflicts, forwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::problem::{Origin, ProblemKind};
use super::super::raw::RawForward;
use super::super::schema::{FORWARDS, Key};
use super::super::value::{Account, Address, Addresses, Bool, Integer, Kind, Or, Target};
use super::super::{
    ADMIN_PORT, Forward, INBOUND_PLAINTEXT_PORT, INBOUND_PORT, Listeners, NodeMode, OUTBOUND_PORT,
    READINESS_PORT, SOCKS5_PORT, STATS_PORT, wildcard,
};
use super::resolver::Resolver;

const OFF: &str = "off";

pub(super) fn listeners(
    r: &mut Resolver,
    mode: Option<&NodeMode>,
    ipv6: bool,
    enable_proxy: bool,
) -> Listeners {
    let mut proxy = |key, port| {
        let address = r.get(key, Some(wildcard(ipv6, port)), &Or(OFF, Address));
        address.filter(|_| enable_proxy)
    };
    let outbound = proxy(Key::ListenOutbound, OUTBOUND_PORT);
    let inbound_plaintext = proxy(Key::ListenInboundPlaintext, INBOUND_PLAINTEXT_PORT);
    let inbound = proxy(Key::ListenInbound, INBOUND_PORT);
    let socks5 = socks5(r).filter(|_| enable_proxy);
    // Each workload of a shared node has a loopback of its own, which is looked at when it comes.
    let ipv6_loopback = r.raw.host.ipv6_loopback || mode.is_some_and(|m| m.shared().is_some());
    let listeners = Listeners {
        outbound,
        inbound_plaintext,
        inbound,
        socks5,
        dns: super::dns::listen(r, ipv6 && ipv6_loopback),
        admin: admin(r, ipv6),
        stats: stats(r, ipv6),
        readiness: r.get(
            Key::ListenReadiness,
            Some(wildcard(ipv6, READINESS_PORT)),
            &Or(OFF, Address),
        ),
        forwards: forwards(r, mode),
    };
    check_something_runs(r, &listeners);
    check_conflicts(r, &listeners);
    check_families(r, &listeners);
    listeners
}

/// Ports on which a connection would come back to this node: the fixed ones, because a peer's node
/// has them too, and our own.
pub(super) fn illegal_ports(listeners: &Listeners) -> Vec<u16> {
    let own = [
        listeners.outbound,
        listeners.inbound_plaintext,
        listeners.inbound,
        listeners.socks5,
    ];
    let own = own
        .iter()
        .flatten()
        .map(SocketAddr::port)
        .filter(|port| *port != 0);
    let mut ports: Vec<_> = [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, INBOUND_PORT]
        .into_iter()
        .chain(own)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// On by its switch or by an address; of the two the one with the higher precedence decides.
fn socks5(r: &mut Resolver) -> Option<SocketAddr> {
    let default = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), SOCKS5_PORT);
    let switch = r.optional_with_origin(Key::EnableSocks5, &Bool);
    let address = r.winner(Key::ListenSocks5, &Or(OFF, Address));
    let (address, origin) = match (address, switch) {
        (Some((address, from)), Some((switch, by))) if by.rank() > from.rank() => {
            (switch.then(|| address.unwrap_or(default)), by)
        }
        (Some((address, from)), _) => (address, from),
        (None, Some((switch, by))) => (switch.then_some(default), by),
        (None, None) => (None, Origin::Default),
    };
    r.record(Key::ListenSocks5, Or(OFF, Address).show(&address), origin);
    address
}

fn admin(r: &mut Resolver, ipv6: bool) -> Vec<SocketAddr> {
    let on = |port| {
        let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
        if ipv6 { vec![v4, v6] } else { vec![v4] }
    };
    let port = r.winner(Key::AdminPort, &Integer(1..=u16::MAX));
    let given = r.winner(Key::ListenAdmin, &Or(OFF, Addresses));
    let (addresses, origin) = match (given, port) {
        (Some((_, from)), Some((port, by))) if by.rank() > from.rank() => (on(port), by),
        (Some((addresses, from)), _) => (addresses.unwrap_or_default(), from),
        (None, Some((port, by))) => (on(port), by),
        (None, None) => (on(ADMIN_PORT), Origin::Default),
    };
    for address in &addresses {
        if !address.ip().to_canonical().is_loopback() {
            let message = format!(
                "{address} is not loopback, and the admin endpoint asks nobody \
                 for credentials"
            );
            r.warn(
                origin.clone(),
                Key::ListenAdmin,
                ProblemKind::Surprise(message),
            );
        }
    }
    let shown = (!addresses.is_empty()).then(|| addresses.clone());
    r.record(Key::ListenAdmin, Or(OFF, Addresses).show(&shown), origin);
    addresses
}

fn stats(r: &mut Resolver, ipv6: bool) -> Option<SocketAddr> {
    let port = r.winner(Key::StatsPort, &Integer(1..=u16::MAX));
    let given = r.winner(Key::ListenStats, &Or(OFF, Address));
    let (address, origin) = match (given, port) {
        (Some((_, from)), Some((port, by))) if by.rank() > from.rank() => {
            (Some(wildcard(ipv6, port)), by)
        }
        (Some((address, from)), _) => (address, from),
        (None, Some((port, by))) => (Some(wildcard(ipv6, port)), by),
        (None, None) => (Some(wildcard(ipv6, STATS_PORT)), Origin::Default),
    };
    r.record(Key::ListenStats, Or(OFF, Address).show(&address), origin);
    address
}

fn forwards(r: &mut Resolver, mode: Option<&NodeMode>) -> Vec<Forward> {
    let raw = std::mem::take(&mut r.raw.forwards);
    raw.into_iter()
        .filter_map(|forward| self::forward(r, &forward, mode))
        .collect()
}

fn forward(r: &mut Resolver, raw: &RawForward, mode: Option<&NodeMode>) -> Option<Forward> {
    let mut need = |name: &str, expected: String| {
        let kind = ProblemKind::Missing { expected };
        r.problem_named(raw.origin.clone(), &format!("{FORWARDS}.{name}"), kind);
    };
    if raw.listen.is_none() {
        need("listen", Address.expected());
    }
    if raw.to.is_none() {
        need("to", Target.expected());
    }
    if raw.as_workload.is_none() && matches!(mode, Some(NodeMode::Node(_) | NodeMode::Shared(_))) {
        need("as", format!("{} of a local workload", Account.expected()));
    }
    let listen = raw
        .listen
        .as_ref()
        .and_then(|c| r.parse("forwards.listen", c, &Address));
    let to = raw
        .to
        .as_ref()
        .and_then(|c| r.parse("forwards.to", c, &Target));
    let as_workload = match &raw.as_workload {
        Some(candidate) => Some(r.parse("forwards.as", candidate, &Account)?),
        None => None,
    };
    if let (Some(NodeMode::Dedicated { workload }), Some(account)) = (mode, &as_workload) {
        let same = (&workload.namespace, &workload.service_account)
            == (&account.namespace, &account.service_account);
        if !same {
            let message = format!("a dedicated node speaks for {workload} only");
            let origin = raw
                .as_workload
                .as_ref()
                .map_or(&raw.origin, |c| &c.origin)
                .clone();
            r.problem_named(origin, "forwards.as", ProblemKind::Conflict(message));
        }
    }
    Some(Forward {
        listen: listen?,
        to: to?,
        as_workload,
    })
}

fn check_something_runs(r: &mut Resolver, l: &Listeners) {
    let idle = l.outbound.is_none()
        && l.inbound_plaintext.is_none()
        && l.inbound.is_none()
        && l.socks5.is_none()
        && l.dns.is_empty()
        && l.forwards.is_empty();
    if idle {
        let message = "nothing would run: every listener for traffic is off".to_owned();
        let origin = r.origin_of(Key::EnableProxy);
        r.problem(origin, Key::EnableProxy, ProblemKind::Conflict(message));
    }
}

/// Every listener with its name.
fn named(l: &Listeners) -> Vec<(&'static str, SocketAddr)> {
    let single = [
        (Key::ListenOutbound, l.outbound),
        (Key::ListenInboundPlaintext, l.inbound_plaintext),
        (Key::ListenInbound, l.inbound),
        (Key::ListenSocks5, l.socks5),
        (Key::ListenStats, l.stats),
        (Key::ListenReadiness, l.readiness),
    ];
    let single = single
        .into_iter()
        .filter_map(|(key, address)| Some((key.name(), address?)));
    let admin = l
        .admin
        .iter()
        .map(|address| (Key::ListenAdmin.name(), *address));
    let forwards = l
        .forwards
        .iter()
        .map(|forward| ("forwards.listen", forward.listen));
    let dns = l
        .dns
        .iter()
        .map(|address| (Key::ListenDns.name(), *address));
    single.chain(dns).chain(admin).chain(forwards).collect()
}

fn check_conflicts(r: &mut Resolver, l: &Listeners) {
    let all = named(l);
    for (index, (name, address)) in all.iter().enumerate() {
        for (other_name, other) in &all[..index] {
            if overlap(*address, *other) {
                let message = format!("{address} is taken by {other_name} ({other})");
                let origin = listener_origin(r, name);
                r.problem_named(origin, name, ProblemKind::Conflict(message));
            }
        }
    }
}

/// Whether binding both fails. A wildcard covers its family, the IPv6 one both.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| match a {
        IpAddr::V6(a) if a.is_unspecified() => true,
        IpAddr::V4(a) if a.is_unspecified() => b.is_ipv4(),
        IpAddr::V4(_) | IpAddr::V6(_) => a == b,
    };
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() == b.port() && a.port() != 0 && (covers(x, y) || covers(y, x))
}

fn check_families(r: &mut Resolver, l: &Listeners) {
    if r.raw.host.ipv6 {
        return;
    }
    for (name, address) in named(l) {
        if address.is_ipv6() {
            let message = format!("{address} cannot be bound, the kernel has no IPv6");
            let origin = listener_origin(r, name);
            r.problem_named(origin, name, ProblemKind::Conflict(message));
        }
    }
}

fn listener_origin(r: &Resolver, name: &str) -> Origin {
    super::super::schema::by_path(name).map_or(Origin::Default, |s| r.origin_of(s.key))
}
