//! The outbound tables of routing.md 9 and hbone.md 17, weighted waypoints, and targets by name.

use super::*;
use crate::decision::fixture::{
    Mesh, backing, gateway_at, gateway_named, seeded, service, workload,
};
use crate::model::gateway::GatewayAddress;
use crate::model::service::{
    HealthPolicy, IpFamilies, LoadBalancer, Scope, Visibility, WeightedWaypoint,
};
use crate::model::workload::{AppTunnelProtocol, ApplicationTunnel, HealthStatus, NetworkMode};

fn source() -> Workload {
    workload("ns", "source-workload", &["127.0.0.1", "::1"])
}

/// The defaults of the tables: the source, a waypoint at 127.0.0.10 and a dual-stack one.
fn mesh() -> Mesh {
    let waypoint = |name, ips: &[&str]| Workload {
        service_account: "waypoint".into(),
        ..workload("ns", name, ips)
    };
    Mesh::default()
        .workload(source())
        .workload(waypoint("waypoint", &["127.0.0.10"]))
        .workload(waypoint("waypoint-dual", &["127.0.0.11", "ff06::c5"]))
}

fn hbone(workload: Workload) -> Workload {
    Workload {
        protocol: WorkloadProtocol::Hbone,
        ..workload
    }
}

fn behind(waypoint: GatewayAddress, workload: Workload) -> Workload {
    Workload {
        waypoint: Some(waypoint),
        ..workload
    }
}

fn waypoint() -> GatewayAddress {
    gateway_at("127.0.0.10", 15008)
}

/// Service `example.com` of the source's namespace.
fn example(vips: &[&str], ports: &[(u16, u16)]) -> Service {
    Service {
        hostname: "example.com".into(),
        ..service("ns", "example", vips, ports)
    }
}

fn balanced(mode: BalanceMode, preferences: &[Scope], service: Service) -> Service {
    Service {
        load_balancer: Some(LoadBalancer {
            routing_preferences: preferences.to_vec(),
            mode,
            health_policy: HealthPolicy::OnlyHealthy,
        }),
        ..service
    }
}

/// An endpoint of `service` on the network `remote`, without address, behind its gateway.
fn remote_endpoint(service: &Service, gateway: Option<GatewayAddress>) -> Workload {
    let remote = Workload {
        network: "remote".into(),
        network_gateway: gateway,
        ..workload("ns", "remote", &[])
    };
    backing(service, &[(80, 8080)], hbone(remote))
}

fn gateway_ref() -> GatewayAddress {
    gateway_at("remote/10.22.1.1", 15009)
}

fn gateway_workload() -> Workload {
    Workload {
        network: "remote".into(),
        service_account: "gateway".into(),
        ..workload("ns", "gateway", &["10.22.1.1"])
    }
}

fn request(target: Target) -> RouteRequest {
    RouteRequest {
        source: Arc::new(source()),
        client: ClientAddr::new("127.0.0.1:50000".parse().unwrap()),
        target,
        network: "".into(),
        hbone_port: 15008,
    }
}

/// `ip:port` or `hostname:port`.
fn target(text: &str) -> Target {
    if let Ok(address) = text.parse() {
        return Target::Address(OrigDstAddr::new(address));
    }
    let (host, port) = text.rsplit_once(':').unwrap();
    Target::Hostname(host.into(), port.parse().unwrap())
}

fn find(mesh: Mesh, to: &str) -> Result<Route, RouteError> {
    route(&request(target(to)), &mesh.snapshot(), &mut seeded(1))
}

/// `TCP NEXT`, `HBONE AUTHORITY, NEXT`, `DOUBLE AUTHORITY, NEXT` or the error's text.
fn show(route: &Result<Route, RouteError>) -> String {
    let route = match route {
        Ok(route) => route,
        Err(error) => return error.to_string(),
    };
    let next = match &route.next_hop {
        NextHop::Address(address) => address.to_string(),
        NextHop::Hostname(host, port) => format!("dns {host}:{port}"),
    };
    match &route.via {
        Via::Tcp => format!("TCP {next}"),
        Via::Hbone { authority } => format!("HBONE {authority}, {next}"),
        Via::DoubleHbone { authority, .. } => format!("DOUBLE {authority}, {next}"),
    }
}

fn expect(mesh: Mesh, to: &str, way: &str) -> Route {
    let found = find(mesh, to);
    assert_eq!(show(&found), way, "to {to}");
    found.unwrap()
}

fn refuse(mesh: Mesh, to: &str, error: &str) {
    assert_eq!(show(&find(mesh, to)), error, "to {to}");
}

fn names(identities: &[Identity]) -> Vec<String> {
    identities.iter().map(ToString::to_string).collect()
}

fn dialled(route: &Route) -> Option<&str> {
    let workload = route.destination_workload.as_ref();
    workload.map(|workload| &*workload.name)
}

fn addressed(route: &Route) -> Option<&str> {
    let service = route.destination_service.as_ref();
    service.map(|service| &*service.hostname)
}

const NO_WAY: &str = "no valid routing destination for workload: \
                      Workload{remote with uid cluster//Pod/ns/remote (HBONE)}";

#[test]
fn an_unknown_address_is_passed_through() {
    let found = expect(mesh(), "1.2.3.4:80", "TCP 1.2.3.4:80");
    assert_eq!(dialled(&found), None);
    assert_eq!(addressed(&found), None);
    assert!(found.next_hop_identities.is_empty());
}

#[test]
fn a_workload_is_reached_by_its_protocol_wherever_it_runs() {
    for node in ["local-node", "remote-node"] {
        let on_node = |workload| Workload {
            node: node.into(),
            ..workload
        };
        let peer = || on_node(workload("ns", "peer", &["127.0.0.2"]));
        expect(mesh().workload(peer()), "127.0.0.2:80", "TCP 127.0.0.2:80");
        let found = expect(
            mesh().workload(hbone(peer())),
            "127.0.0.2:80",
            "HBONE 127.0.0.2:80, 127.0.0.2:15008",
        );
        assert_eq!(dialled(&found), Some("peer"));
        assert_eq!(
            names(&found.next_hop_identities),
            ["spiffe://cluster.local/ns/ns/sa/default"]
        );
    }
}

#[test]
fn a_dual_stack_workload_is_reached_at_the_address_asked_for() {
    let dual = || workload("ns", "dual", &["127.0.0.2", "ff06::c3"]);
    let mesh = || mesh().workload(dual());
    expect(mesh(), "127.0.0.2:80", "TCP 127.0.0.2:80");
    expect(mesh(), "[ff06::c3]:80", "TCP [ff06::c3]:80");
}

#[test]
fn another_network_is_reached_through_its_gateway_or_not_at_all() {
    let example = || Service {
        subject_alt_names: vec![
            "spiffe://cluster.local/ns/ns/sa/remote".into(),
            "not-an-identity.example".into(),
        ],
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let no_gateway = Workload {
        addresses: vec!["10.0.0.5".parse().unwrap()],
        ..remote_endpoint(&example(), None)
    };
    let mesh = || mesh().service(example());
    refuse(mesh().workload(no_gateway), "127.0.0.3:80", NO_WAY);

    let by_ip = mesh()
        .workload(remote_endpoint(&example(), Some(gateway_ref())))
        .workload(gateway_workload());
    let found = expect(
        by_ip,
        "127.0.0.3:80",
        "DOUBLE example.com:80, 10.22.1.1:15009",
    );
    assert_eq!(dialled(&found), Some("gateway"));
    assert_eq!(addressed(&found), Some("example.com"));
    let outer = ["spiffe://cluster.local/ns/ns/sa/gateway"];
    assert_eq!(names(&found.next_hop_identities), outer);
    let Via::DoubleHbone {
        final_identities, ..
    } = &found.via
    else {
        panic!("{found:?}");
    };
    let inner = ["spiffe://cluster.local/ns/ns/sa/remote"];
    assert_eq!(names(final_identities), inner);

    let unknown = mesh().workload(remote_endpoint(&example(), Some(gateway_ref())));
    let error = "unknown network gateway: gateway 10.22.1.1 not found";
    refuse(unknown, "127.0.0.3:80", error);
}

#[test]
fn a_gateway_service_is_dialled_at_the_target_port_of_an_endpoint() {
    let example = example(&["127.0.0.3"], &[(80, 8080)]);
    let gateways = |ports: &[(u16, u16)]| Service {
        hostname: "gateway.example".into(),
        ..service("gateways", "gateway", &[], ports)
    };
    let mesh = |gateways: Service| {
        let reference = gateway_named("gateways/gateway.example", 15009);
        let endpoint = workload("gateways", "gateway", &["127.0.0.5"]);
        mesh()
            .service(example.clone())
            .workload(remote_endpoint(&example, Some(reference)))
            .workload(backing(&gateways, &[], endpoint))
            .service(gateways)
    };
    let found = expect(
        mesh(gateways(&[(15009, 15008)])),
        "127.0.0.3:80",
        "DOUBLE example.com:80, 127.0.0.5:15008",
    );
    assert_eq!(addressed(&found), Some("example.com"));
    let error = "unknown network gateway: gateway gateway.example not found";
    refuse(mesh(gateways(&[(80, 15008)])), "127.0.0.3:80", error);
}

/// A mesh whose example service has one endpoint, behind the gateway that `reference` names.
fn behind_gateway(reference: GatewayAddress) -> Mesh {
    let example = example(&["127.0.0.3"], &[(80, 8080)]);
    mesh()
        .workload(remote_endpoint(&example, Some(reference)))
        .service(example)
}

#[test]
fn a_gateway_is_found_by_vip_before_workload_and_by_name_of_either() {
    let gateways = |vips: &[&str], mode| {
        let gateways = Service {
            hostname: "gateway.example".into(),
            subject_alt_names: vec!["spiffe://cluster.local/ns/ns/sa/gateways".into()],
            ..service("ns", "gateway", vips, &[(15009, 15008)])
        };
        balanced(mode, &[], gateways)
    };
    let endpoint = |gateways: &Service| {
        let gateway = Workload {
            network: "remote".into(),
            ..workload("ns", "endpoint", &["127.0.0.5"])
        };
        backing(gateways, &[], gateway)
    };
    let vip = gateways(&["remote/10.22.1.1"], BalanceMode::Standard);
    let both = behind_gateway(gateway_ref())
        .workload(gateway_workload())
        .workload(endpoint(&vip))
        .service(vip);
    let way = "DOUBLE example.com:80, 127.0.0.5:15008";
    let found = expect(both, "127.0.0.3:80", way);
    // The tunnel to it may be answered by its service's names and by its own.
    let outer = [
        "spiffe://cluster.local/ns/ns/sa/gateways",
        "spiffe://cluster.local/ns/ns/sa/default",
    ];
    assert_eq!(names(&found.next_hop_identities), outer);

    // No way round a service that wants the original destination.
    let passes = gateways(&["remote/10.22.1.1"], BalanceMode::Passthrough);
    let mesh = behind_gateway(gateway_ref())
        .workload(gateway_workload())
        .service(passes);
    let error = "unknown network gateway: gateway 10.22.1.1 not found";
    refuse(mesh, "127.0.0.3:80", error);

    let named = |addresses: &[&str]| {
        let gateway = Workload {
            hostname: "gateway.example".into(),
            network: "remote".into(),
            ..workload("ns", "named", addresses)
        };
        behind_gateway(gateway_named("ns/gateway.example", 15009)).workload(gateway)
    };
    let way = "DOUBLE example.com:80, 127.0.0.7:15009";
    expect(named(&["127.0.0.7"]), "127.0.0.3:80", way);
    // What both tunnels are asked for stays when DNS has answered.
    let way = "DOUBLE example.com:80, dns gateway.example:15009";
    let found = expect(named(&[]), "127.0.0.3:80", way);
    let answers = ["127.0.0.8".parse().unwrap()];
    let resolved = found.resolved(&answers, false, &mut seeded(1));
    let way = "DOUBLE example.com:80, 127.0.0.8:15009";
    assert_eq!(show(&resolved), way);
}

#[test]
fn a_gateway_service_needs_the_port_also_with_an_application_tunnel() {
    let gateways = service("ns", "gateway", &[], &[]);
    let gateway = Workload {
        application_tunnel: Some(ApplicationTunnel {
            protocol: AppTunnelProtocol::Proxy,
            port: Some(15088),
        }),
        ..workload("ns", "gateway", &["127.0.0.5"])
    };
    let reference = gateway_named("ns/gateway.ns.svc.cluster.local", 15009);
    let mesh = behind_gateway(reference)
        .workload(backing(&gateways, &[], gateway))
        .service(gateways);
    let error = "unknown network gateway: gateway gateway.ns.svc.cluster.local not found";
    refuse(mesh, "127.0.0.3:80", error);
}

#[test]
fn a_service_by_name_crosses_networks_like_its_own_address() {
    let mesh = || behind_gateway(gateway_ref()).workload(gateway_workload());
    let way = "DOUBLE example.com:80, 10.22.1.1:15009";
    for to in ["127.0.0.3:80", "example.com:80"] {
        let found = expect(mesh(), to, way);
        // Nothing vouches for whoever answers inside: nobody is accepted there.
        let Via::DoubleHbone {
            final_identities, ..
        } = &found.via
        else {
            panic!("{found:?}");
        };
        assert!(final_identities.is_empty(), "{final_identities:?}");
    }
}

#[test]
fn a_service_waypoint_on_another_network_is_reached_through_the_gateway() {
    let waypoints = Service {
        hostname: "waypoint.example".into(),
        subject_alt_names: vec!["spiffe://cluster.local/ns/ns/sa/far-waypoint".into()],
        ..service("ns", "waypoint", &[], &[(15008, 15008)])
    };
    let example = Service {
        waypoint: Some(gateway_named("ns/waypoint.example", 15008)),
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let mesh = |gateway| {
        mesh()
            .service(example.clone())
            .service(waypoints.clone())
            .workload(remote_endpoint(&waypoints, gateway))
            .workload(gateway_workload())
    };
    let way = "DOUBLE example.com:80, 10.22.1.1:15009";
    let found = expect(mesh(Some(gateway_ref())), "127.0.0.3:80", way);
    let Via::DoubleHbone {
        final_identities, ..
    } = &found.via
    else {
        panic!("{found:?}");
    };
    let inner = ["spiffe://cluster.local/ns/ns/sa/far-waypoint"];
    assert_eq!(names(final_identities), inner);
    assert_eq!(addressed(&found), Some("example.com"));
    let error = "unknown waypoint: waypoint waypoint.example not found";
    refuse(mesh(None), "127.0.0.3:80", error);
}

#[test]
fn failover_leaves_the_network_only_when_nothing_healthy_is_on_it() {
    let example = balanced(
        BalanceMode::Failover,
        &[Scope::Network],
        example(&["127.0.0.3"], &[(80, 8080)]),
    );
    let mesh = |status| {
        let local = Workload {
            status,
            ..hbone(workload("ns", "local", &["127.0.0.2"]))
        };
        mesh()
            .service(example.clone())
            .workload(backing(&example, &[(80, 8080)], local))
            .workload(remote_endpoint(&example, Some(gateway_ref())))
            .workload(gateway_workload())
    };
    let local = "HBONE 127.0.0.2:8080, 127.0.0.2:15008";
    expect(mesh(HealthStatus::Healthy), "127.0.0.3:80", local);
    let remote = "DOUBLE example.com:80, 10.22.1.1:15009";
    expect(mesh(HealthStatus::Unhealthy), "127.0.0.3:80", remote);
}

#[test]
fn a_foreign_workload_hidden_by_a_local_address_needs_a_service() {
    let hidden = example(&["127.0.0.2"], &[(80, 8080)]);
    let mesh = mesh()
        .workload(workload("ns", "same-address", &["127.0.0.2"]))
        .workload(remote_endpoint(&hidden, Some(gateway_ref())))
        .service(hidden);
    let error = "no service for target address: 127.0.0.2:80";
    refuse(mesh, "127.0.0.2:80", error);
}

#[test]
fn only_the_destinations_waypoint_is_used() {
    let own = behind(waypoint(), source());
    let peer = || workload("ns", "peer", &["127.0.0.2"]);
    let from_waypointed = RouteRequest {
        source: Arc::new(own.clone()),
        ..request(target("127.0.0.2:80"))
    };
    let snapshot = mesh().workload(own).workload(peer()).snapshot();
    let found = route(&from_waypointed, &snapshot, &mut seeded(1));
    assert_eq!(show(&found), "TCP 127.0.0.2:80");

    let found = expect(
        mesh().workload(behind(waypoint(), peer())),
        "127.0.0.2:80",
        "HBONE 127.0.0.2:80, 127.0.0.10:15008",
    );
    assert_eq!(dialled(&found), Some("waypoint"));
    assert_eq!(
        names(&found.next_hop_identities),
        ["spiffe://cluster.local/ns/ns/sa/waypoint"]
    );
}

#[test]
fn a_waypoint_given_by_address_moves_the_family_and_one_by_name_keeps_it() {
    let dual = || workload("ns", "dual", &["127.0.0.2", "ff06::c3"]);
    let by_ip = behind(gateway_at("127.0.0.11", 15008), dual());
    let moved = "HBONE [ff06::c3]:80, 127.0.0.11:15008";
    expect(mesh().workload(by_ip), "[ff06::c3]:80", moved);

    let waypoints = service("ns", "wp", &[], &[(15008, 15008)]);
    let endpoint = workload("ns", "waypoint-dual", &["127.0.0.11", "ff06::c5"]);
    let by_name = gateway_named("ns/wp.ns.svc.cluster.local", 15008);
    let mesh = mesh()
        .workload(backing(&waypoints, &[], endpoint))
        .service(waypoints)
        .workload(behind(by_name, dual()));
    let kept = "HBONE [ff06::c3]:80, [ff06::c5]:15008";
    expect(mesh, "[ff06::c3]:80", kept);
}

#[test]
fn a_service_waypoint_needs_no_endpoint_and_gets_the_vip() {
    let with = |waypoint| Service {
        waypoint,
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let way = "HBONE 127.0.0.3:80, 127.0.0.10:15008";
    let mesh_with = |waypoint| mesh().service(with(waypoint));
    let found = expect(mesh_with(Some(waypoint())), "127.0.0.3:80", way);
    assert_eq!(dialled(&found), Some("waypoint"));
    assert_eq!(addressed(&found), Some("example.com"));
    let error = "no healthy upstream: 127.0.0.3:80";
    refuse(mesh_with(None), "127.0.0.3:80", error);
}

#[test]
fn a_waypoint_that_is_not_known_is_never_gone_around() {
    let by_ip = gateway_at("127.0.0.99", 15008);
    let by_name = gateway_named("ns/absent.example", 15008);
    let rows = [(by_ip, "127.0.0.99"), (by_name, "absent.example")];
    for (reference, name) in rows {
        let error = format!("unknown waypoint: waypoint {name} not found");
        let example = Service {
            waypoint: Some(reference.clone()),
            ..example(&["127.0.0.3"], &[(80, 8080)])
        };
        let endpoint = backing(&example, &[], workload("ns", "direct", &["127.0.0.4"]));
        let by_service = mesh().workload(endpoint).service(example);
        refuse(by_service, "127.0.0.3:80", &error);
        let peer = behind(reference, workload("ns", "peer", &["127.0.0.2"]));
        refuse(mesh().workload(peer), "127.0.0.2:80", &error);
    }
}

#[test]
fn a_waypoint_may_be_a_service_by_vip_or_name_or_a_workload_by_hostname() {
    let waypoints = || Service {
        subject_alt_names: vec!["spiffe://cluster.local/ns/ns/sa/extra".into()],
        ..service("ns", "wp", &["127.1.0.1"], &[(15008, 15018)])
    };
    let endpoint = || {
        let pod = Workload {
            hostname: "wp-pod.example".into(),
            ..workload("ns", "wp-pod", &["127.0.0.12"])
        };
        backing(&waypoints(), &[], pod)
    };
    let rows = [
        (gateway_at("127.1.0.1", 15008), "127.0.0.12:15018", true),
        (
            gateway_named("ns/wp.ns.svc.cluster.local", 15008),
            "127.0.0.12:15018",
            true,
        ),
        (
            gateway_named("ns/wp-pod.example", 15008),
            "127.0.0.12:15008",
            false,
        ),
    ];
    for (reference, next_hop, with_extra) in rows {
        let mesh = mesh()
            .service(waypoints())
            .workload(endpoint())
            .workload(behind(reference, workload("ns", "peer", &["127.0.0.2"])));
        let way = format!("HBONE 127.0.0.2:80, {next_hop}");
        let found = expect(mesh, "127.0.0.2:80", &way);
        let extra = "spiffe://cluster.local/ns/ns/sa/extra".to_owned();
        assert_eq!(
            names(&found.next_hop_identities).contains(&extra),
            with_extra
        );
        assert_eq!(addressed(&found), None, "never the waypoint's own service");
    }
}

#[test]
fn a_passthrough_waypoint_service_is_usable_by_name_and_not_by_address() {
    let waypoints = balanced(
        BalanceMode::Passthrough,
        &[],
        service("ns", "wp", &["127.1.0.1"], &[(15008, 15008)]),
    );
    let pod = backing(&waypoints, &[], workload("ns", "wp-pod", &["127.0.0.12"]));
    let mesh = |reference| {
        mesh()
            .service(waypoints.clone())
            .workload(pod.clone())
            .workload(behind(reference, workload("ns", "peer", &["127.0.0.2"])))
    };
    let by_name = gateway_named("ns/wp.ns.svc.cluster.local", 15008);
    let way = "HBONE 127.0.0.2:80, 127.0.0.12:15008";
    expect(mesh(by_name), "127.0.0.2:80", way);
    let by_address = gateway_at("127.1.0.1", 15008);
    let error = "unknown waypoint: waypoint 127.1.0.1 not found";
    refuse(mesh(by_address), "127.0.0.2:80", error);
}

#[test]
fn a_waypoint_service_without_ports_works_with_an_application_tunnel() {
    let waypoints = service("ns", "wp", &["127.1.0.1"], &[]);
    let mesh = |tunnel| {
        let pod = Workload {
            application_tunnel: tunnel,
            ..workload("ns", "wp-pod", &["127.0.0.12"])
        };
        let reference = gateway_at("127.1.0.1", 15008);
        mesh()
            .service(waypoints.clone())
            .workload(backing(&waypoints, &[], pod))
            .workload(behind(reference, workload("ns", "peer", &["127.0.0.2"])))
    };
    let tunnel = |port| {
        Some(ApplicationTunnel {
            protocol: AppTunnelProtocol::Proxy,
            port,
        })
    };
    let way = "HBONE 127.0.0.2:80, 127.0.0.12:15008";
    expect(mesh(tunnel(Some(15088))), "127.0.0.2:80", way);
    let error = "unknown waypoint: waypoint 127.1.0.1 not found";
    refuse(mesh(None), "127.0.0.2:80", error);
    refuse(mesh(tunnel(None)), "127.0.0.2:80", error);
}

#[test]
fn a_named_port_is_reached_only_at_endpoints_that_map_it() {
    let example = example(&["127.0.0.3"], &[(80, 0)]);
    let a = workload("ns", "a", &["127.0.0.2"]);
    let b = workload("ns", "b", &["127.0.0.4"]);
    let snapshot = mesh()
        .workload(backing(&example, &[(80, 1234)], a))
        .workload(backing(&example, &[(8080, 9999)], b))
        .service(example)
        .snapshot();
    for seed in 0..20 {
        let found = route(
            &request(target("127.0.0.3:80")),
            &snapshot,
            &mut seeded(seed),
        );
        assert_eq!(show(&found), "TCP 127.0.0.2:1234");
    }
}

#[test]
fn the_target_port_is_the_endpoints_else_the_services() {
    let rows: [(&[_], &[_], &str); 3] = [
        (&[(80, 8080)], &[(80, 9090)], "TCP 127.0.0.2:9090"),
        (&[(80, 8080)], &[], "TCP 127.0.0.2:8080"),
        (
            &[(81, 8080)],
            &[(80, 9090)],
            "no healthy upstream: 127.0.0.3:80",
        ),
    ];
    for (ports, own, way) in rows {
        let example = example(&["127.0.0.3"], ports);
        let endpoint = backing(&example, own, workload("ns", "a", &["127.0.0.2"]));
        let found = find(mesh().workload(endpoint).service(example), "127.0.0.3:80");
        assert_eq!(show(&found), way);
    }
}

#[test]
fn host_network_pods_are_reached_by_service_and_never_by_node_address() {
    let example = example(&["127.0.0.3"], &[(80, 8080)]);
    let pod = |name| Workload {
        network_mode: NetworkMode::HostNetwork,
        ..workload("ns", name, &["127.0.0.2"])
    };
    let mesh = || {
        mesh()
            .workload(pod("bystander"))
            .workload(backing(&example, &[], pod("endpoint")))
            .service(example.clone())
    };
    let found = expect(mesh(), "127.0.0.3:80", "TCP 127.0.0.2:8080");
    assert_eq!(dialled(&found), Some("endpoint"));
    let found = expect(mesh(), "127.0.0.2:80", "TCP 127.0.0.2:80");
    assert_eq!(dialled(&found), None);
}

#[test]
fn ip_families_bound_the_choice_of_address() {
    let (v4, v6) = ("127.0.0.2:8080", "[ff06::c6]:8080");
    let rows = [
        (Some(IpFamilies::Ipv6), "127.0.0.3:80", v6),
        (Some(IpFamilies::Ipv4), "[ff06::3]:80", v4),
        (Some(IpFamilies::Ipv4), "127.0.0.3:80", v4),
        (Some(IpFamilies::Dual), "127.0.0.3:80", v4),
        (Some(IpFamilies::Dual), "[ff06::3]:80", v6),
        (None, "[ff06::3]:80", v6),
    ];
    for (ip_families, to, next) in rows {
        let example = Service {
            ip_families,
            ..example(&["127.0.0.3", "ff06::3"], &[(80, 8080)])
        };
        let dual = hbone(workload("ns", "dual", &["127.0.0.2", "ff06::c6"]));
        let mesh = mesh()
            .workload(backing(&example, &[], dual))
            .service(example);
        let host = next.trim_end_matches(":8080");
        expect(mesh, to, &format!("HBONE {next}, {host}:15008"));
    }
    let v6_only = Service {
        ip_families: Some(IpFamilies::Ipv6),
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let v4_endpoint = backing(&v6_only, &[], workload("ns", "v4", &["127.0.0.2"]));
    refuse(
        mesh().workload(v4_endpoint).service(v6_only),
        "127.0.0.3:80",
        "no valid routing destination for workload: Workload{v4 with uid cluster//Pod/ns/v4 (TCP)}",
    );
}

#[test]
fn a_passthrough_service_keeps_the_original_address_unless_it_has_a_waypoint() {
    let with = |waypoint| Service {
        waypoint,
        ..balanced(
            BalanceMode::Passthrough,
            &[],
            example(&["1.2.3.4"], &[(80, 8080)]),
        )
    };
    let mesh = |service: Service| {
        let endpoint = backing(&service, &[], workload("ns", "a", &["127.0.0.2"]));
        mesh().workload(endpoint).service(service)
    };
    expect(mesh(with(None)), "1.2.3.4:80", "TCP 1.2.3.4:80");
    let way = "HBONE 1.2.3.4:80, 127.0.0.10:15008";
    expect(mesh(with(Some(waypoint()))), "1.2.3.4:80", way);
}

#[test]
fn a_service_the_source_may_not_see_is_an_unknown_address() {
    let with = |visibility| {
        let hidden = Service {
            visibility,
            ..service("other", "hidden", &["127.0.0.3"], &[(80, 8080)])
        };
        let endpoint = backing(&hidden, &[], workload("other", "a", &["127.0.0.2"]));
        mesh().workload(endpoint).service(hidden)
    };
    let found = expect(
        with(Visibility::Namespace),
        "127.0.0.3:80",
        "TCP 127.0.0.3:80",
    );
    assert_eq!(addressed(&found), None);
    expect(
        with(Visibility::Public),
        "127.0.0.3:80",
        "TCP 127.0.0.2:8080",
    );
}

#[test]
fn service_names_that_are_identities_are_accepted_beside_the_workloads_own() {
    let example = Service {
        subject_alt_names: vec![
            "spiffe://cluster.local/ns/ns/sa/extra".into(),
            "example.com".into(),
        ],
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let endpoint = hbone(workload("ns", "a", &["127.0.0.2"]));
    let mesh = mesh()
        .workload(backing(&example, &[], endpoint))
        .service(example);
    let found = expect(
        mesh,
        "127.0.0.3:80",
        "HBONE 127.0.0.2:8080, 127.0.0.2:15008",
    );
    assert_eq!(
        names(&found.next_hop_identities),
        [
            "spiffe://cluster.local/ns/ns/sa/extra",
            "spiffe://cluster.local/ns/ns/sa/default",
        ]
    );
}

#[test]
fn a_waypoint_is_not_sent_to_itself() {
    let waypoints = service("ns", "wp", &["127.1.0.1"], &[(15008, 15008)]);
    let pod = || Workload {
        service_account: "waypoint".into(),
        ..workload("ns", "wp-pod", &["127.0.0.12"])
    };
    let by_address = gateway_at("127.0.0.12", 15008);
    let by_service = gateway_named("ns/wp.ns.svc.cluster.local", 15008);
    let direct = "TCP 127.0.0.2:80";
    let through = "HBONE 127.0.0.2:80, 127.0.0.12:15008";
    for reference in [by_address, by_service] {
        let snapshot = mesh()
            .service(waypoints.clone())
            .workload(backing(&waypoints, &[], pod()))
            .workload(behind(reference, workload("ns", "peer", &["127.0.0.2"])))
            .snapshot();
        let from = |source: Workload, client: &str| {
            let request = RouteRequest {
                source: Arc::new(source),
                client: ClientAddr::new(format!("{client}:1").parse().unwrap()),
                ..request(target("127.0.0.2:80"))
            };
            show(&route(&request, &snapshot, &mut seeded(1)))
        };
        assert_eq!(from(pod(), "127.0.0.12"), direct);
        assert_eq!(from(pod(), "127.0.0.1"), through, "same identity elsewhere");
        assert_eq!(from(source(), "127.0.0.12"), through, "another identity");
    }
}

/// How often each of two weighted waypoints and the plain one is used in 10,000 routes.
fn shares(weights: &[u32]) -> [u32; 3] {
    let addresses = ["127.0.0.10", "127.0.0.11", "127.0.0.12"];
    let weighted = addresses.iter().zip(weights);
    let example = Service {
        weighted_waypoints: weighted
            .map(|(address, weight)| WeightedWaypoint {
                destination: gateway_at(address, 15008),
                weight: *weight,
            })
            .collect(),
        waypoint: Some(gateway_at("127.0.0.12", 15008)),
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let snapshot = mesh()
        .workload(workload("ns", "third", &["127.0.0.12"]))
        .service(example)
        .snapshot();
    let mut random = seeded(3);
    let mut counts = [0; 3];
    for _ in 0..10_000 {
        let found = route(&request(target("127.0.0.3:80")), &snapshot, &mut random);
        let NextHop::Address(next) = found.unwrap().next_hop else {
            panic!("waypoints have addresses");
        };
        let at = addresses
            .iter()
            .position(|address| next.ip().to_string() == *address);
        counts[at.unwrap()] += 1;
    }
    counts
}

#[test]
fn weighted_waypoints_share_by_weight_and_fall_back_when_unusable() {
    assert_eq!(shares(&[100, 0]), [10_000, 0, 0]);
    assert_eq!(shares(&[0, 100]), [0, 10_000, 0]);
    assert_eq!(shares(&[0, 0]), [0, 0, 10_000]);
    assert_eq!(shares(&[]), [0, 0, 10_000]);
    assert_eq!(shares(&[u32::MAX, 1]), [0, 0, 10_000], "sum overflows");
    let [first, second, fallback] = shares(&[75, 25]);
    assert!((7_000..=8_000).contains(&first), "{first}");
    assert_eq!((first + second, fallback), (10_000, 0));
}

#[test]
fn a_picked_waypoint_that_is_not_known_gets_no_second_try() {
    let example = Service {
        weighted_waypoints: vec![WeightedWaypoint {
            destination: gateway_at("127.0.0.99", 15008),
            weight: 1,
        }],
        waypoint: Some(waypoint()),
        ..example(&["127.0.0.3"], &[(80, 8080)])
    };
    let error = "unknown waypoint: waypoint 127.0.0.99 not found";
    refuse(mesh().service(example), "127.0.0.3:80", error);
}

#[test]
fn a_service_by_name_is_reached_like_its_own_address() {
    let rows: [(&[&str], &str); 4] = [
        (
            &["ff06::3", "127.0.0.3"],
            "HBONE 127.0.0.2:8080, 127.0.0.2:15008",
        ),
        (&["ff06::3"], "HBONE [ff06::c6]:8080, [ff06::c6]:15008"),
        (&["far/ff06::3"], "HBONE 127.0.0.2:8080, 127.0.0.2:15008"),
        (&[], "HBONE 127.0.0.2:8080, 127.0.0.2:15008"),
    ];
    for (vips, way) in rows {
        let example = example(vips, &[(80, 8080)]);
        let dual = hbone(workload("ns", "dual", &["ff06::c6", "127.0.0.2"]));
        let mesh = mesh()
            .workload(backing(&example, &[], dual))
            .service(example);
        let found = expect(mesh, "example.com:80", way);
        assert_eq!(addressed(&found), Some("example.com"));
    }
}

#[test]
fn a_name_goes_through_the_waypoint_with_the_vip_or_the_name() {
    let rows: [(&[&str], &str); 2] = [
        (&["127.0.0.3"], "HBONE 127.0.0.3:80, 127.0.0.10:15008"),
        (&[], "HBONE example.com:80, 127.0.0.10:15008"),
    ];
    for (vips, way) in rows {
        let example = Service {
            waypoint: Some(waypoint()),
            ..example(vips, &[(80, 8080)])
        };
        expect(mesh().service(example), "example.com:80", way);
    }
}

#[test]
fn a_name_that_cannot_be_reached_is_an_error_that_says_it() {
    let headless = || example(&[], &[(80, 8080)]);
    let error = "no healthy upstream: example.com:80";
    refuse(mesh().service(headless()), "example.com:80", error);
    let passthrough = |vips: &[&str]| {
        let example = example(vips, &[(80, 8080)]);
        mesh().service(balanced(BalanceMode::Passthrough, &[], example))
    };
    let error = "service example.com passes traffic through to its address, \
                 but has no IP addresses";
    refuse(passthrough(&[]), "example.com:80", error);
    expect(
        passthrough(&["1.2.3.4"]),
        "example.com:80",
        "TCP 1.2.3.4:80",
    );
    let error = "no service or workload for hostname: absent.example";
    refuse(mesh(), "absent.example:80", error);
    let hidden = Service {
        visibility: Visibility::Namespace,
        ..service("other", "hidden", &["127.0.0.3"], &[(80, 8080)])
    };
    let error = "no service or workload for hostname: hidden.other.svc.cluster.local";
    let to = "hidden.other.svc.cluster.local:80";
    refuse(mesh().service(hidden), to, error);
}

#[test]
fn a_workload_by_name_is_found_in_the_sources_namespace_only() {
    let named = |namespace| Workload {
        hostname: "db.example".into(),
        ..hbone(workload(namespace, "db", &["ff06::c6", "127.0.0.2"]))
    };
    let way = "HBONE 127.0.0.2:80, 127.0.0.2:15008";
    let found = expect(mesh().workload(named("ns")), "db.example:80", way);
    assert_eq!(addressed(&found), None);
    let error = "no service or workload for hostname: db.example";
    refuse(mesh().workload(named("other")), "db.example:80", error);
    let far = Workload {
        network: "remote".into(),
        ..named("ns")
    };
    let error = "no service for target address: 127.0.0.2:80";
    refuse(mesh().workload(far), "db.example:80", error);
    let waypointed = behind(waypoint(), named("ns"));
    let way = "HBONE 127.0.0.2:80, 127.0.0.10:15008";
    expect(mesh().workload(waypointed), "db.example:80", way);
}

#[test]
fn a_workload_without_address_is_left_to_dns() {
    let example = example(&["127.0.0.3"], &[(80, 8080)]);
    let named = |protocol| Workload {
        hostname: "db.example".into(),
        protocol,
        ..workload("ns", "db", &[])
    };
    let to = |protocol, way| {
        let endpoint = backing(&example, &[], named(protocol));
        let mesh = mesh().workload(endpoint).service(example.clone());
        expect(mesh, "127.0.0.3:80", way)
    };
    let answers = ["fd00::1".parse().unwrap(), "10.9.9.9".parse().unwrap()];
    let resolve = |route: Route, answers: &[IpAddr], prefer_ipv6| {
        show(&route.resolved(answers, prefer_ipv6, &mut seeded(1)))
    };

    let tcp = to(WorkloadProtocol::Tcp, "TCP dns db.example:8080");
    assert_eq!(resolve(tcp.clone(), &answers, false), "TCP 10.9.9.9:8080");
    assert_eq!(resolve(tcp.clone(), &answers, true), "TCP [fd00::1]:8080");
    let only_ipv6 = resolve(tcp.clone(), &answers[..1], false);
    assert_eq!(only_ipv6, "TCP [fd00::1]:8080");
    assert_eq!(
        resolve(tcp.clone(), &[], false),
        "ip addresses were resolved for workload cluster//Pod/ns/db, \
         but valid dns response had no A/AAAA records"
    );
    assert_eq!(
        tcp.resolution_failed().to_string(),
        "no ip addresses were resolved for workload: cluster//Pod/ns/db"
    );

    let way = "HBONE db.example:8080, dns db.example:15008";
    let tunnel = to(WorkloadProtocol::Hbone, way);
    let way = "HBONE 10.9.9.9:8080, 10.9.9.9:15008";
    assert_eq!(resolve(tunnel, &answers, false), way);
}

#[test]
fn a_waypoint_left_to_dns_keeps_what_the_tunnel_asks_for() {
    let named = Workload {
        hostname: "wp.example".into(),
        ..workload("ns", "wp", &[])
    };
    let peer = workload("ns", "peer", &["127.0.0.2"]);
    let reference = gateway_named("ns/wp.example", 15008);
    let mesh = mesh().workload(named).workload(behind(reference, peer));
    let way = "HBONE 127.0.0.2:80, dns wp.example:15008";
    let found = expect(mesh, "127.0.0.2:80", way);
    let resolved = found.resolved(&["10.9.9.9".parse().unwrap()], false, &mut seeded(1));
    assert_eq!(show(&resolved), "HBONE 127.0.0.2:80, 10.9.9.9:15008");
}

#[test]
fn only_loopback_and_our_own_ports_are_a_call_to_ourselves() {
    let rows = [
        ("127.0.0.1:15001", true),
        ("127.8.8.8:15008", true),
        ("[::1]:15006", true),
        ("[::ffff:127.0.0.1]:15006", true),
        ("127.0.0.1:15020", false),
        ("10.0.0.1:15001", false),
    ];
    for (address, expected) in rows {
        let seen = self_call(address.parse().unwrap(), &[15008, 15006, 15001]);
        assert_eq!(seen, expected, "{address}");
    }
    let text = RouteError::SelfCall.to_string();
    assert_eq!(text, "attempted recursive call to ourselves");
}

#[test]
fn a_route_in_a_named_network_looks_there_and_nowhere_else() {
    let peer = |network: &str| Workload {
        network: network.into(),
        ..workload("ns", "peer", &["127.0.0.2"])
    };
    let snapshot = |network| mesh().workload(hbone(peer(network))).snapshot();
    let request = RouteRequest {
        source: Arc::new(Workload {
            network: "net1".into(),
            ..source()
        }),
        network: "net1".into(),
        ..request(target("127.0.0.2:80"))
    };
    let way = |network| show(&route(&request, &snapshot(network), &mut seeded(1)));
    assert_eq!(way("net1"), "HBONE 127.0.0.2:80, 127.0.0.2:15008");
    assert_eq!(way("net2"), "TCP 127.0.0.2:80");
}
