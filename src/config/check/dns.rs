//! Whether and where the DNS proxy listens, and what it knows of other names.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::super::problem::{Origin, ProblemKind, excerpt};
use super::super::schema::Key;
use super::super::value::{Addresses, Kind, Name, Or, PathText};
use super::super::{DNS_PORT, Dns};
use super::resolver::Resolver;

const OFF: &str = "off";

/// As the reference reads `DNS_CAPTURE`: on is `true` in any case, everything else is off.
struct Capture;

impl Kind for Capture {
    type Value = bool;

    fn parse(&self, text: &str) -> Option<bool> {
        Some(text.eq_ignore_ascii_case("true"))
    }

    fn expected(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// `localhost:PORT` for both families, or `IP:PORT`.
enum ProxyAddress {
    Localhost(u16),
    At(SocketAddr),
}

/// Capture or an address asks for it; of the two the one with the higher precedence decides. Without
/// either it is on only in mode `shared`, where the node's agent captures the queries of workloads
/// (spec: dns-socks.md A1).
pub(super) fn listen(r: &mut Resolver, shared: bool, ipv6: bool) -> Vec<SocketAddr> {
    let captured_at = proxy_address(r, ipv6);
    let capture = r.winner(Key::DnsCapture, &Capture);
    if let Some((on, origin)) = &capture {
        warn_of_odd_switch(r, origin);
        r.record(Key::DnsCapture, Capture.show(on), origin.clone());
    }
    let given = r.winner(Key::ListenDns, &Or(OFF, Addresses));
    let (addresses, origin) = match (given, capture) {
        (Some((given, from)), Some((on, by))) if by.rank() > from.rank() => {
            let given = given.unwrap_or_else(|| captured_at.clone());
            (if on { given } else { Vec::new() }, by)
        }
        (Some((given, from)), _) => (given.unwrap_or_default(), from),
        (None, Some((on, by))) => (if on { captured_at } else { Vec::new() }, by),
        (None, None) => (
            if shared { captured_at } else { Vec::new() },
            Origin::Default,
        ),
    };
    if addresses.is_empty() && r.is_given(Key::DnsProxyAddr) {
        let origin = r.origin_of(Key::DnsProxyAddr);
        r.warn(
            origin,
            Key::DnsProxyAddr,
            ProblemKind::NoEffect("the DNS proxy is off"),
        );
    }
    let shown = (!addresses.is_empty()).then(|| addresses.clone());
    r.record(Key::ListenDns, Or(OFF, Addresses).show(&shown), origin);
    if !addresses.is_empty() && r.is_given(Key::DnsProxyAddr) {
        let origin = r.origin_of(Key::DnsProxyAddr);
        r.record(Key::DnsProxyAddr, Addresses.show(&addresses), origin);
    }
    addresses
}

fn warn_of_odd_switch(r: &mut Resolver, origin: &Origin) {
    let candidates = r.raw.values.get(&Key::DnsCapture);
    let Some(text) = candidates.and_then(|c| c.first()).map(|c| c.text.clone()) else {
        return;
    };
    if !["true", "false"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
    {
        let message = format!("`{}` leaves the DNS proxy off", excerpt(&text));
        r.warn(
            origin.clone(),
            Key::DnsCapture,
            ProblemKind::Surprise(message),
        );
    }
}

/// Where captured queries arrive.
fn proxy_address(r: &mut Resolver, ipv6: bool) -> Vec<SocketAddr> {
    let both = |port| {
        let v4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
        if ipv6 { vec![v4, v6] } else { vec![v4] }
    };
    let candidates = r.raw.values.get(&Key::DnsProxyAddr);
    let Some(given) = candidates
        .and_then(|candidates| candidates.first())
        .cloned()
    else {
        return both(DNS_PORT);
    };
    let port = given.text.strip_prefix("localhost:").map(str::parse::<u16>);
    let parsed = match port {
        Some(port) => port.ok().map(ProxyAddress::Localhost),
        None => given.text.parse().ok().map(ProxyAddress::At),
    };
    match parsed {
        Some(ProxyAddress::Localhost(port)) => both(port),
        Some(ProxyAddress::At(address)) => vec![address],
        None => {
            let text = excerpt(&given.text);
            let message = format!(
                "failed to parse DNS_PROXY_ADDR: {text}, expected `localhost:PORT` or `IP:PORT`"
            );
            r.problem_named(given.origin, "", ProblemKind::Syntax(message));
            Vec::new()
        }
    }
}

/// The rest of what concerns names.
pub(super) fn names(r: &mut Resolver) -> Dns {
    let default = PathBuf::from("/etc/resolv.conf");
    let origin = r.origin_of(Key::ResolvConf);
    let resolv_conf = r.get(Key::ResolvConf, default, &PathText);
    let preferred = r.optional(Key::PreferredServiceNamespace, &Name);
    Dns {
        resolv_conf: super::resolve(&r.raw.base_dir, &origin, resolv_conf),
        preferred_service_namespace: preferred.filter(|namespace| !namespace.is_empty()),
    }
}
