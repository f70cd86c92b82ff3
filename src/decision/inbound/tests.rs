//! The inbound tables of routing.md 9 and hbone.md 17.

use super::*;
use crate::decision::fixture::{
    Mesh, backing, gateway_at, gateway_named, network_address, service, workload,
};
use crate::model::gateway::GatewayAddress;
use crate::model::service::{Visibility, WeightedWaypoint};
use crate::model::workload::ApplicationTunnel;

const SERVER_HOST: &str = "server.default.svc.cluster.local";

/// What varies between the rows: who is the waypoint of what, and its tunnel.
#[derive(Clone, Default)]
struct Setup {
    workload_waypoint: Option<GatewayAddress>,
    service_waypoint: Option<GatewayAddress>,
    tunnel: Option<ApplicationTunnel>,
}

impl Setup {
    /// Client 10.0.0.1, server pod 10.0.0.2 behind VIP 10.10.0.1, waypoint pod 10.0.0.3 behind
    /// VIP 10.10.0.2, service port 80 to 8080.
    fn snapshot(&self) -> Arc<Snapshot> {
        let server = Service {
            waypoint: self.service_waypoint.clone(),
            ..service("default", "server", &["10.10.0.1"], &[(80, 8080)])
        };
        let waypoint = service("default", "waypoint", &["10.10.0.2"], &[(80, 8080)]);
        let server_pod = Workload {
            waypoint: self.workload_waypoint.clone(),
            ..workload("default", "server", &["10.0.0.2"])
        };
        let waypoint_pod = Workload {
            application_tunnel: self.tunnel,
            ..workload("default", "waypoint", &["10.0.0.3"])
        };
        Mesh::default()
            .workload(workload("default", "client", &["10.0.0.1"]))
            .workload(backing(&server, &[(80, 8080)], server_pod))
            .workload(backing(&waypoint, &[(80, 8080)], waypoint_pod))
            .service(server)
            .service(waypoint)
            .snapshot()
    }
}

fn authority(text: &str) -> Authority {
    if let Ok(address) = text.parse() {
        return Authority::Address(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap();
    Authority::Hostname(host.into(), port.parse().unwrap())
}

/// Resolves a stream that arrives at `tunnel` for `asked` at the workload with that address.
fn arrive(
    snapshot: &Snapshot,
    tunnel: &str,
    asked: &str,
    forwarded_host: Option<&str>,
) -> Result<InboundTarget, InboundError> {
    let local = snapshot
        .workload_by_address(&network_address(tunnel))
        .unwrap();
    let request = InboundRequest {
        local,
        tunnel_local: SocketAddr::new(tunnel.parse().unwrap(), 15008),
        authority: &authority(asked),
        forwarded_host,
        network: &"".into(),
        illegal_ports: &[15008, 15006, 15001],
    };
    resolve(&request, snapshot)
}

/// `TARGET`, `TARGET (ANNOUNCED)`, or `STATUS TEXT`.
fn show(result: Result<InboundTarget, InboundError>) -> String {
    match result {
        Ok(target) => match target.announce {
            Some(announced) => format!("{} ({announced})", target.address),
            None => target.address.to_string(),
        },
        Err(error) => format!("{} {error}", error.status()),
    }
}

fn proxy_tunnel(port: Option<u16>) -> ApplicationTunnel {
    ApplicationTunnel {
        protocol: AppTunnelProtocol::Proxy,
        port,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn the_authority_must_name_this_workload_or_something_behind_it() {
    let by_pod = || Some(gateway_at("10.0.0.3", 15008));
    let by_vip = || Some(gateway_at("10.10.0.2", 15008));
    let by_name = || {
        let key = "default/waypoint.default.svc.cluster.local";
        Some(gateway_named(key, 15008))
    };
    let none = Setup::default();
    let on_workload = |waypoint| Setup {
        workload_waypoint: waypoint,
        ..Setup::default()
    };
    let on_service = |waypoint| Setup {
        service_waypoint: waypoint,
        ..Setup::default()
    };
    let tunnelled = |setup| Setup {
        tunnel: Some(proxy_tunnel(Some(15088))),
        ..setup
    };
    let (server, waypoint) = ("10.0.0.2", "10.0.0.3");
    let rows = [
        (none.clone(), server, "10.0.0.2:8080", "10.0.0.2:8080"),
        (
            none.clone(),
            server,
            "server.default.svc.cluster.local:80",
            "10.0.0.2:8080",
        ),
        (
            on_workload(by_pod()),
            waypoint,
            "10.0.0.2:8080",
            "10.0.0.3:8080",
        ),
        (
            on_workload(by_vip()),
            waypoint,
            "10.0.0.2:8080",
            "10.0.0.3:8080",
        ),
        (
            on_workload(by_name()),
            waypoint,
            "10.0.0.2:8080",
            "10.0.0.3:8080",
        ),
        (
            tunnelled(on_workload(by_vip())),
            waypoint,
            "10.0.0.2:8080",
            "10.0.0.3:15088 (10.0.0.2:8080)",
        ),
        (
            on_service(by_pod()),
            waypoint,
            "10.10.0.1:8080",
            "10.0.0.3:8080",
        ),
        (
            on_service(by_vip()),
            waypoint,
            "10.10.0.1:8080",
            "10.0.0.3:8080",
        ),
        (
            on_service(by_name()),
            waypoint,
            "10.10.0.1:8080",
            "10.0.0.3:8080",
        ),
        (
            tunnelled(on_service(by_vip())),
            waypoint,
            "10.10.0.1:8080",
            "10.0.0.3:15088 (10.10.0.1:8080)",
        ),
        (
            none.clone(),
            server,
            "10.0.0.1:8080",
            "400 ip mismatch: 10.0.0.2 != 10.0.0.1",
        ),
        (
            none,
            waypoint,
            "10.0.0.1:8080",
            "400 ip mismatch: 10.0.0.3 != 10.0.0.1",
        ),
        (
            on_service(by_pod()),
            waypoint,
            "10.0.0.2:8080",
            "400 ip mismatch: 10.0.0.3 != 10.0.0.2",
        ),
        (
            on_workload(by_pod()),
            waypoint,
            "10.10.0.1:8080",
            "400 ip mismatch: 10.0.0.3 != 10.10.0.1",
        ),
    ];
    for (row, (setup, tunnel, asked, expected)) in rows.into_iter().enumerate() {
        let seen = show(arrive(&setup.snapshot(), tunnel, asked, None));
        assert_eq!(seen, expected, "row {row}: {asked} at {tunnel}");
    }
}

#[test]
fn what_the_check_of_an_authority_misses_is_named_and_nothing_else() {
    let known = |waypoint| {
        let on_service = Setup {
            service_waypoint: waypoint,
            ..Setup::default()
        };
        on_service.snapshot()
    };
    let (vip, host) = ("10.10.0.1:80", "absent.other.svc.cluster.local:80");
    let rows = [
        (None, "10.9.9.9:80", Some("/10.9.9.9")),
        (None, host, Some("other/absent.other.svc.cluster.local")),
        // Known, and nobody's business here.
        (None, vip, None),
        (Some(gateway_at("10.0.0.1", 15008)), vip, None),
        (Some(gateway_at("10.9.9.8", 15008)), vip, Some("/10.9.9.8")),
        (
            Some(gateway_named("default/wp.example", 15008)),
            vip,
            Some("default/wp.example"),
        ),
        (None, "10.0.0.3:15008", None),
    ];
    for (waypoint, asked, expected) in rows {
        let snapshot = known(waypoint);
        let local = snapshot
            .workload_by_address(&network_address("10.0.0.3"))
            .unwrap();
        let request = InboundRequest {
            local,
            tunnel_local: "10.0.0.3:15008".parse().unwrap(),
            authority: &authority(asked),
            forwarded_host: None,
            network: &"".into(),
            illegal_ports: &[15008],
        };
        let error = resolve(&request, &snapshot).unwrap_err();
        let key = missing(&request, &error, &snapshot);
        assert_eq!(key.as_deref(), expected, "{asked}: {error}");
    }
}

#[test]
fn a_waypoint_known_by_workload_hostname_serves_what_refers_to_it() {
    let server = Workload {
        waypoint: Some(gateway_named("default/wp.example", 15008)),
        ..workload("default", "server", &["10.0.0.2"])
    };
    let waypoint = |hostname: &str| Workload {
        hostname: hostname.into(),
        ..workload("default", "waypoint", &["10.0.0.3"])
    };
    let mesh = |hostname| {
        Mesh::default()
            .workload(server.clone())
            .workload(waypoint(hostname))
            .snapshot()
    };
    let served = arrive(&mesh("wp.example"), "10.0.0.3", "10.0.0.2:80", None);
    assert_eq!(show(served), "10.0.0.3:80");
    let refused = arrive(&mesh("other.example"), "10.0.0.3", "10.0.0.2:80", None);
    assert_eq!(refused.unwrap_err().status(), 400);
}

#[test]
fn a_weighted_waypoint_does_not_pass_validation() {
    let mut server = service("default", "server", &["10.10.0.1"], &[(80, 8080)]);
    server.weighted_waypoints = vec![WeightedWaypoint {
        destination: gateway_at("10.0.0.3", 15008),
        weight: 1,
    }];
    let snapshot = Mesh::default()
        .service(server)
        .workload(workload("default", "waypoint", &["10.0.0.3"]))
        .snapshot();
    let refused = arrive(&snapshot, "10.0.0.3", "10.10.0.1:8080", None);
    assert_eq!(refused.unwrap_err().status(), 400);
}

#[test]
fn a_mapped_authority_is_not_the_workloads_ipv4_address() {
    let snapshot = Setup::default().snapshot();
    let refused = arrive(&snapshot, "10.0.0.2", "[::ffff:10.0.0.2]:8080", None);
    assert_eq!(
        show(refused),
        "400 ip mismatch: 10.0.0.2 != ::ffff:10.0.0.2"
    );
}

/// A server whose service maps `ports` and whose endpoint maps `own`.
fn named(ports: &[(u16, u16)], own: &[(u16, u16)]) -> Arc<Snapshot> {
    let server = service("default", "server", &["10.10.0.1"], ports);
    Mesh::default()
        .workload(backing(
            &server,
            own,
            workload("default", "server", &["10.0.0.2"]),
        ))
        .service(server)
        .snapshot()
}

#[test]
fn a_hostname_port_is_the_endpoints_own_else_the_services() {
    let unresolved =
        format!("503 requested service {SERVER_HOST}:80 found, but cannot resolve port");
    let rows: [(&[_], &[_], &str); 6] = [
        (&[(80, 8080)], &[], "10.0.0.2:8080"),
        (&[(80, 0)], &[(80, 8080)], "10.0.0.2:8080"),
        (&[(80, 8080)], &[(80, 9090)], "10.0.0.2:9090"),
        (&[(80, 0)], &[(81, 8080)], &unresolved),
        (&[(81, 8080)], &[], &unresolved),
        (
            &[(80, 15001)],
            &[],
            "503 attempted recursive call to ourselves",
        ),
    ];
    let asked = format!("{SERVER_HOST}:80");
    for (ports, own, expected) in rows {
        let seen = show(arrive(&named(ports, own), "10.0.0.2", &asked, None));
        assert_eq!(seen, expected, "service {ports:?}, endpoint {own:?}");
    }
}

#[test]
fn an_unknown_or_invisible_hostname_is_unavailable() {
    let mut hidden = service("other", "hidden", &["10.10.0.9"], &[(80, 8080)]);
    hidden.visibility = Visibility::Namespace;
    let shown = service("other", "shown", &["10.10.0.8"], &[(80, 8080)]);
    let snapshot = Mesh::default()
        .workload(workload("default", "server", &["10.0.0.2"]))
        .service(hidden)
        .service(shown)
        .snapshot();
    let ask = |host: &str| show(arrive(&snapshot, "10.0.0.2", &format!("{host}:80"), None));
    for host in ["absent.example", "hidden.other.svc.cluster.local"] {
        assert_eq!(
            ask(host),
            format!("503 no service or workload for hostname: {host}")
        );
    }
    assert_eq!(ask("shown.other.svc.cluster.local"), "10.0.0.2:8080");
}

#[test]
fn our_own_ports_are_refused_before_the_tunnel_overrides_them() {
    let tunnelled = Setup {
        tunnel: Some(proxy_tunnel(Some(15088))),
        ..Setup::default()
    };
    let rows = [
        (Setup::default(), "10.0.0.3:15008", true),
        (Setup::default(), "10.0.0.3:15006", true),
        (Setup::default(), "10.0.0.3:15020", false),
        (tunnelled.clone(), "10.0.0.3:15008", true),
        (tunnelled, "10.0.0.3:15088", false),
    ];
    for (setup, asked, refused) in rows {
        let result = arrive(&setup.snapshot(), "10.0.0.3", asked, None);
        let seen = matches!(result, Err(InboundError::SelfCall));
        assert_eq!(seen, refused, "{asked}");
    }
    assert!(self_call(15006, &[15006]));
    assert!(!self_call(80, &[15006]));
}

#[test]
fn the_announced_address_of_a_hostname_is_the_best_vip_with_the_service_port() {
    let announced = |vips: &[&str]| {
        let server = service("default", "server", vips, &[(80, 8080)]);
        let pod = Workload {
            application_tunnel: Some(proxy_tunnel(None)),
            ..workload("default", "server", &["10.0.0.2"])
        };
        let snapshot = Mesh::default()
            .workload(backing(&server, &[], pod))
            .service(server)
            .snapshot();
        let asked = format!("{SERVER_HOST}:80");
        show(arrive(&snapshot, "10.0.0.2", &asked, None))
    };
    assert_eq!(
        announced(&["far/10.9.0.1", "fd00::1", "10.10.0.1"]),
        "10.0.0.2:8080 (10.10.0.1:80)"
    );
    assert_eq!(
        announced(&["far/10.9.0.1", "fd00::1"]),
        "10.0.0.2:8080 ([fd00::1]:80)"
    );
    assert_eq!(announced(&["far/10.9.0.1"]), "10.0.0.2:8080 (10.9.0.1:80)");
    assert_eq!(
        announced(&[]),
        format!("503 requested service {SERVER_HOST} found, but has no IP addresses")
    );
}

#[test]
fn a_tunnel_without_protocol_overrides_the_port_and_announces_nothing() {
    let setup = Setup {
        tunnel: Some(ApplicationTunnel {
            protocol: AppTunnelProtocol::None,
            port: Some(9000),
        }),
        ..Setup::default()
    };
    let seen = arrive(&setup.snapshot(), "10.0.0.3", "10.0.0.2:8080", None);
    assert_eq!(show(seen), "10.0.0.3:9000");
}

/// A pod behind services `a` (80 → 8080) and `b` (90 → named, mapped to 9090 by the pod), beside
/// a service it does not back.
fn two_services() -> Arc<Snapshot> {
    let a = service("default", "a", &["10.10.0.1"], &[(80, 8080)]);
    let b = service("default", "b", &["10.10.0.2"], &[(90, 0)]);
    let foreign = service("default", "foreign", &["10.10.0.3"], &[(80, 7070)]);
    let pod = workload("default", "server", &["10.0.0.2"]);
    Mesh::default()
        .workload(backing(&a, &[], backing(&b, &[(90, 9090)], pod)))
        .service(a)
        .service(b)
        .service(foreign)
        .snapshot()
}

#[test]
fn a_stream_is_booked_on_the_forwarded_service_or_the_one_of_its_port() {
    let snapshot = two_services();
    let host = |name: &str| format!("{name}.default.svc.cluster.local");
    let rows = [
        ("10.0.0.2:8080", None, Some("a")),
        ("10.0.0.2:9090", None, Some("b")),
        ("10.0.0.2:8080", Some("b"), Some("b")),
        ("10.0.0.2:8080", Some("foreign"), Some("a")),
        ("10.0.0.2:7070", Some("foreign"), None),
        ("10.0.0.2:1", None, None),
        ("a.default.svc.cluster.local:80", Some("b"), Some("a")),
        ("b.default.svc.cluster.local:90", None, Some("b")),
    ];
    for (asked, forwarded, expected) in rows {
        let forwarded = forwarded.map(host);
        let target = arrive(&snapshot, "10.0.0.2", asked, forwarded.as_deref()).unwrap();
        let seen = target.service.map(|service| service.name.to_string());
        assert_eq!(seen.as_deref(), expected, "{asked}, {forwarded:?}");
    }
}

#[test]
fn plain_text_is_booked_by_port_alone() {
    let snapshot = two_services();
    let local = snapshot
        .workload_by_address(&network_address("10.0.0.2"))
        .unwrap();
    let name = |port| plaintext_service(local, port, &snapshot).map(|found| found.name.to_string());
    assert_eq!(name(8080).as_deref(), Some("a"));
    assert_eq!(name(9090).as_deref(), Some("b"));
    assert_eq!(name(7070), None);
}
