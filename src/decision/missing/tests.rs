//! Each thing a route needs is asked for once, in the order in which it is needed.

use super::*;
use crate::decision::fixture::{Mesh, backing, gateway_at, gateway_named, service, workload};
use crate::model::addr::{ClientAddr, OrigDstAddr};

fn request(target: Target) -> RouteRequest {
    RouteRequest {
        source: Arc::new(workload("ns", "client", &["10.0.0.1"])),
        client: ClientAddr::new("10.0.0.1:1".parse().unwrap()),
        target,
        network: "".into(),
        hbone_port: 15_008,
    }
}

fn to(address: &str) -> Target {
    Target::Address(OrigDstAddr::new(address.parse().unwrap()))
}

fn missed(target: Target, mesh: Mesh, asked: &[&str]) -> Option<String> {
    let asked: Vec<Arc<str>> = asked.iter().map(|key| (*key).into()).collect();
    missing(&request(target), &mesh.snapshot(), &asked).map(|key| key.to_string())
}

#[test]
fn an_unknown_destination_is_asked_for_unless_it_was() {
    let address = missed(to("10.9.9.9:80"), Mesh::default(), &[]);
    assert_eq!(address.as_deref(), Some("/10.9.9.9"));
    assert_eq!(
        missed(to("10.9.9.9:80"), Mesh::default(), &["/10.9.9.9"]),
        None
    );
    let named = |host: &str| missed(Target::Hostname(host.into(), 80), Mesh::default(), &[]);
    assert_eq!(named("db").as_deref(), Some("ns/db"));
    assert_eq!(
        named("a.other.svc.x").as_deref(),
        Some("other/a.other.svc.x")
    );
    assert_eq!(named("a.example.com").as_deref(), Some("ns/a.example.com"));
}

#[test]
fn what_is_known_and_leads_nowhere_else_misses_nothing() {
    let known = Mesh::default().workload(workload("ns", "a", &["10.0.0.2"]));
    assert_eq!(missed(to("10.0.0.2:80"), known, &[]), None);
    let known = || Mesh::default().service(service("ns", "a", &["10.9.0.1"], &[(80, 8080)]));
    assert_eq!(missed(to("10.9.0.1:80"), known(), &[]), None);
    let host = "a.ns.svc.cluster.local";
    assert_eq!(
        missed(Target::Hostname(host.into(), 80), known(), &[]),
        None
    );
}

#[test]
fn waypoints_of_services_and_workloads_are_asked_for() {
    let mut waypointed = service("ns", "a", &["10.9.0.1"], &[(80, 8080)]);
    waypointed.waypoint = Some(gateway_named("ns/waypoint.ns", 15_008));
    let mesh = || Mesh::default().service(waypointed.clone());
    let key = missed(to("10.9.0.1:80"), mesh(), &[]);
    assert_eq!(key.as_deref(), Some("ns/waypoint.ns"));
    assert_eq!(missed(to("10.9.0.1:80"), mesh(), &["ns/waypoint.ns"]), None);
    let mut waypointed = workload("ns", "b", &["10.0.0.2"]);
    waypointed.waypoint = Some(gateway_at("10.0.0.9", 15_008));
    let mesh = || Mesh::default().workload(waypointed.clone());
    assert_eq!(
        missed(to("10.0.0.2:80"), mesh(), &[]).as_deref(),
        Some("/10.0.0.9")
    );
    let known = mesh().workload(workload("ns", "w", &["10.0.0.9"]));
    assert_eq!(missed(to("10.0.0.2:80"), known, &[]), None);
}

#[test]
fn gateways_of_endpoints_on_other_networks_are_asked_for() {
    let behind = service("ns", "a", &["10.9.0.1"], &[(80, 8080)]);
    let mut far = workload("ns", "far", &[]);
    far.network = "far".into();
    far.network_gateway = Some(gateway_at("far/192.0.2.1", 15_008));
    let mesh = Mesh::default()
        .workload(backing(&behind, &[(80, 8080)], far))
        .service(behind);
    let key = missed(to("10.9.0.1:80"), mesh, &[]);
    assert_eq!(key.as_deref(), Some("far/192.0.2.1"));
}

#[test]
fn waypoints_that_name_each_other_are_not_followed_for_ever() {
    let mut one = workload("ns", "one", &["10.0.0.2"]);
    one.waypoint = Some(gateway_at("10.0.0.3", 15_008));
    let mut other = workload("ns", "other", &["10.0.0.3"]);
    other.waypoint = Some(gateway_at("10.0.0.2", 15_008));
    let mesh = Mesh::default().workload(one).workload(other);
    assert_eq!(missed(to("10.0.0.2:80"), mesh, &[]), None);
}
