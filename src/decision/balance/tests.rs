//! The load-balancing table of routing.md 9, and the rules of section 4 one by one.

use std::collections::BTreeSet;

use super::*;
use crate::decision::fixture::{self, Mesh, backing, gateway_at};
use crate::model::service::HealthPolicy;
use crate::model::workload::{
    AppTunnelProtocol, ApplicationTunnel, HealthStatus, Locality, PortMap,
};

fn at(network: &str, region: &str, zone: &str, workload: Workload) -> Workload {
    Workload {
        network: network.into(),
        locality: Locality {
            region: region.into(),
            zone: zone.into(),
            subzone: "".into(),
        },
        ..workload
    }
}

fn source() -> Workload {
    fixture::workload("ns", "source", &["10.0.0.1"])
}

fn balanced(mode: BalanceMode, preferences: &[Scope]) -> Service {
    Service {
        load_balancer: Some(LoadBalancer {
            routing_preferences: preferences.to_vec(),
            mode,
            health_policy: HealthPolicy::OnlyHealthy,
        }),
        ..fixture::service("ns", "svc", &["10.1.0.1"], &[(80, 8080)])
    }
}

/// The service as the snapshot has it, beside the snapshot.
fn publish(
    service: Service,
    workloads: impl IntoIterator<Item = Workload>,
) -> (Arc<Snapshot>, Service) {
    let key = service.key();
    let snapshot = workloads
        .into_iter()
        .fold(Mesh::default().service(service), Mesh::workload)
        .snapshot();
    let service = (**snapshot.service(&key).unwrap()).clone();
    (snapshot, service)
}

/// Names of all workloads that some draw picks.
fn reached(
    source: &Workload,
    (snapshot, service): &(Arc<Snapshot>, Service),
    wanted: (u16, Purpose),
) -> BTreeSet<String> {
    (0..60)
        .filter_map(|draw| pick(source, service, wanted, snapshot, &mut |bound| draw % bound))
        .map(|picked| picked.workload.name.to_string())
        .collect()
}

const STANDARD: (u16, Purpose) = (80, Purpose::Standard);

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// The endpoints of the table; `no-ip` has neither address nor gateway, and one endpoint belongs
/// to a workload nobody knows.
fn spread(mode: BalanceMode) -> (Arc<Snapshot>, Service) {
    let service = balanced(mode, &[Scope::Network, Scope::Region, Scope::Zone]);
    let endpoint =
        |name: &str, ip: &[&str]| backing(&service, &[(80, 80)], fixture::workload("ns", name, ip));
    let workloads = [
        at("network", "reg", "zone", endpoint("match", &["10.0.0.2"])),
        at(
            "network",
            "reg",
            "not-zone",
            endpoint("almost", &["10.0.0.3"]),
        ),
        at("network", "", "", endpoint("no-loc", &["10.0.0.4"])),
        at("other", "reg", "zone", endpoint("other", &["10.0.0.5"])),
        at("network", "reg", "zone", endpoint("no-ip", &[])),
    ];
    let (snapshot, mut service) = publish(service.clone(), workloads);
    service.endpoints.insert(
        "unknown-uid".into(),
        Endpoint {
            workload_uid: "unknown-uid".into(),
            ports: PortMap::from([(80, 80)]),
            status: HealthStatus::Healthy,
        },
    );
    (snapshot, service)
}

#[test]
fn locality_decides_as_the_table_says() {
    let rows: [(_, _, _, &[&str], &[&str]); 5] = [
        ("network", "reg", "zone", &["match"], &["match"]),
        (
            "no-match",
            "no-match",
            "no-match",
            &[],
            &["match", "almost", "no-loc", "other"],
        ),
        ("network", "reg", "", &[], &["match", "almost"]),
        (
            "network",
            "no-match",
            "no-match",
            &[],
            &["match", "almost", "no-loc"],
        ),
        ("no-match", "reg", "zone", &[], &["match", "other"]),
    ];
    let (strict, failover) = (spread(BalanceMode::Strict), spread(BalanceMode::Failover));
    for (network, region, zone, strictly, at_best) in rows {
        let source = at(network, region, zone, source());
        let what = format!("{network}/{region}/{zone}");
        assert_eq!(
            reached(&source, &strict, STANDARD),
            names(strictly),
            "strict, {what}"
        );
        assert_eq!(
            reached(&source, &failover, STANDARD),
            names(at_best),
            "failover, {what}"
        );
    }
    assert_eq!(reached(&source(), &strict, STANDARD), names(&[]));
}

#[test]
fn without_a_balancer_every_usable_endpoint_is_reached() {
    let mut mesh = spread(BalanceMode::Standard);
    let all = names(&["match", "almost", "no-loc", "other"]);
    assert_eq!(reached(&source(), &mesh, STANDARD), all);
    mesh.1.load_balancer = None;
    assert_eq!(reached(&source(), &mesh, STANDARD), all);
    mesh.1.load_balancer = Some(LoadBalancer {
        routing_preferences: vec![],
        mode: BalanceMode::Failover,
        health_policy: HealthPolicy::OnlyHealthy,
    });
    assert_eq!(reached(&source(), &mesh, STANDARD), all);
}

#[test]
fn scopes_after_a_mismatch_do_not_count() {
    let service = balanced(BalanceMode::Failover, &[Scope::Region, Scope::Zone]);
    let endpoint = |name: &str| {
        let workload = fixture::workload("ns", name, &["10.0.0.2"]);
        backing(&service, &[], workload)
    };
    let mesh = publish(
        service.clone(),
        [
            at("", "reg", "far", endpoint("region")),
            at("", "far", "zone", endpoint("zone-only")),
        ],
    );
    let source = at("", "reg", "zone", source());
    assert_eq!(reached(&source, &mesh, STANDARD), names(&["region"]));
}

#[test]
fn network_is_an_ordinary_scope_unless_it_comes_first() {
    let service = balanced(
        BalanceMode::Failover,
        &[Scope::Region, Scope::Network, Scope::Zone],
    );
    let endpoint = |name: &str| {
        let workload = fixture::workload("ns", name, &["10.0.0.2"]);
        backing(&service, &[], workload)
    };
    let mesh = publish(
        service.clone(),
        [
            at("far", "reg", "zone", endpoint("zone")),
            at("far", "reg", "far", endpoint("region")),
            at("near", "far", "zone", endpoint("network")),
        ],
    );
    let source = at("near", "reg", "zone", source());
    let expected = names(&["zone", "region"]);
    assert_eq!(reached(&source, &mesh, STANDARD), expected);
}

#[test]
fn node_cluster_and_subzone_are_compared_each_with_its_own_field() {
    for scope in [Scope::Node, Scope::Cluster, Scope::Subzone] {
        let service = balanced(BalanceMode::Strict, &[scope]);
        let endpoint = |name: &str, value: &str| {
            let mut workload = fixture::workload("ns", name, &["10.0.0.2"]);
            match scope {
                Scope::Node => workload.node = value.into(),
                Scope::Cluster => workload.cluster_id = value.into(),
                Scope::Subzone | Scope::Region | Scope::Zone | Scope::Network => {
                    workload.locality.subzone = value.into();
                }
            }
            backing(&service, &[], workload)
        };
        let mesh = publish(
            service.clone(),
            [endpoint("near", "here"), endpoint("far", "there")],
        );
        let source = endpoint("source", "here");
        let expected = names(&["near"]);
        assert_eq!(reached(&source, &mesh, STANDARD), expected, "{scope:?}");
    }
}

#[test]
fn an_endpoint_without_address_needs_a_gateway_on_another_network() {
    let service = balanced(BalanceMode::Standard, &[]);
    let rows = [
        ("remote", Some(gateway_at("remote/10.22.1.1", 15009)), true),
        ("", Some(gateway_at("10.22.1.1", 15009)), false),
        ("remote", None, false),
    ];
    for (network, network_gateway, usable) in rows {
        let what = format!("{network:?} {network_gateway:?}");
        let workload = Workload {
            network: network.into(),
            network_gateway,
            ..fixture::workload("ns", "remote", &[])
        };
        let mesh = publish(service.clone(), [backing(&service, &[], workload)]);
        let seen = !reached(&source(), &mesh, STANDARD).is_empty();
        assert_eq!(seen, usable, "{what}");
    }
}

#[test]
fn a_named_port_needs_an_endpoint_that_maps_it() {
    let service = fixture::service("ns", "svc", &["10.1.0.1"], &[(80, 0)]);
    let endpoint = |name: &str, ports: &[(u16, u16)]| {
        let workload = fixture::workload("ns", name, &["10.0.0.2"]);
        backing(&service, ports, workload)
    };
    let mesh = publish(
        service.clone(),
        [endpoint("a", &[(80, 1234)]), endpoint("b", &[(8080, 8080)])],
    );
    assert_eq!(reached(&source(), &mesh, STANDARD), names(&["a"]));
    let other_port = (8080, Purpose::Standard);
    assert_eq!(reached(&source(), &mesh, other_port), names(&[]));
}

#[test]
fn a_waypoint_without_the_port_needs_an_application_tunnel() {
    let service = fixture::service("ns", "wp", &["10.1.0.1"], &[]);
    let plain = backing(
        &service,
        &[],
        fixture::workload("ns", "plain", &["10.0.0.2"]),
    );
    let tunnel = Workload {
        application_tunnel: Some(ApplicationTunnel {
            protocol: AppTunnelProtocol::Proxy,
            port: Some(15088),
        }),
        ..backing(
            &service,
            &[],
            fixture::workload("ns", "tunnel", &["10.0.0.3"]),
        )
    };
    let mesh = publish(service, [plain, tunnel]);
    let as_waypoint = (15008, Purpose::Waypoint);
    assert_eq!(reached(&source(), &mesh, as_waypoint), names(&["tunnel"]));
    let as_destination = (15008, Purpose::Standard);
    assert_eq!(reached(&source(), &mesh, as_destination), names(&[]));
}

#[test]
fn capacity_is_a_share_and_zero_is_none() {
    let service = balanced(BalanceMode::Standard, &[]);
    let endpoint = |name: &str, capacity| Workload {
        capacity,
        ..backing(&service, &[], fixture::workload("ns", name, &["10.0.0.2"]))
    };
    let of = |capacities: [u32; 3]| {
        let [a, b, c] = capacities;
        let workloads = [endpoint("a", a), endpoint("b", b), endpoint("c", c)];
        publish(service.clone(), workloads)
    };
    assert_eq!(
        reached(&source(), &of([1, 0, 2]), STANDARD),
        names(&["a", "c"])
    );
    assert_eq!(reached(&source(), &of([0, 0, 0]), STANDARD), names(&[]));

    let (snapshot, service) = of([1, 0, 3]);
    let mut random = fixture::seeded(7);
    let mut hits = 0;
    for _ in 0..10_000 {
        let picked = pick(&source(), &service, STANDARD, &snapshot, &mut random).unwrap();
        hits += u32::from(&*picked.workload.name == "c");
    }
    assert!((7_200..=7_800).contains(&hits), "{hits} of 10000");
}

#[test]
fn capacities_are_summed_in_64_bits() {
    let mut bound_seen = 0;
    let drawn = weighted([u32::MAX, u32::MAX].into_iter(), &mut |bound| {
        bound_seen = bound;
        bound - 1
    });
    assert_eq!(bound_seen, 2 * u64::from(u32::MAX));
    assert_eq!(drawn, Some(1));
    let first = weighted([u32::MAX, u32::MAX].into_iter(), &mut |_| 0);
    assert_eq!(first, Some(0));
}
