//! Corner cases of routing.md 1 and 9.

use std::net::IpAddr;

use super::*;
use crate::model::addr::{NetworkAddress, NetworkCidr};
use crate::model::identity::Identity;
use crate::model::policy::{PolicyAction, PolicyScope};
use crate::model::service::{BalanceMode, HealthPolicy, LoadBalancer, Visibility};
use crate::model::workload::{HealthStatus, NetworkMode, WorkloadInfo, WorkloadProtocol};
use crate::snapshot::{Address, Counts};

fn key(text: &str) -> NamespacedHostname {
    text.parse().unwrap()
}

fn address(text: &str) -> NetworkAddress {
    text.parse().unwrap()
}

fn workload(uid: &str, ip: &str, services: &[(&str, u16)]) -> Workload {
    Workload {
        uid: uid.into(),
        name: uid.rsplit('/').next().unwrap().into(),
        namespace: "ns".into(),
        service_account: "account".into(),
        trust_domain: "td".into(),
        addresses: vec![ip.parse::<IpAddr>().unwrap()],
        services: services
            .iter()
            .map(|(service, port)| (key(service), PortMap::from([(80, *port)])))
            .collect(),
        capacity: 1,
        ..Workload::default()
    }
}

fn service(name: &str, vips: &[&str]) -> Service {
    let name = key(name);
    Service {
        name: "service".into(),
        namespace: name.namespace,
        hostname: name.hostname,
        vips: vips.iter().map(|vip| address(vip)).collect(),
        ports: PortMap::from([(80, 8080)]),
        ..Service::default()
    }
}

fn cidr_service(name: &str, cidrs: &[(&str, &str)]) -> Service {
    let cidr = |(network, cidr): &(&str, &str)| NetworkCidr {
        network: (*network).into(),
        cidr: cidr.parse().unwrap(),
    };
    Service {
        cidr_vips: cidrs.iter().map(cidr).collect(),
        ..service(name, &[])
    }
}

fn allow_all(mut service: Service) -> Service {
    service.load_balancer = Some(LoadBalancer {
        routing_preferences: Vec::new(),
        mode: BalanceMode::Standard,
        health_policy: HealthPolicy::AllowAll,
    });
    service
}

fn private(mut service: Service) -> Service {
    service.visibility = Visibility::Namespace;
    service
}

fn unhealthy(mut workload: Workload) -> Workload {
    workload.status = HealthStatus::Unhealthy;
    workload
}

fn policy(name: &str, scope: PolicyScope) -> (Arc<str>, Policy) {
    let (namespace, name) = name.split_once('/').unwrap();
    let policy = Policy {
        name: name.into(),
        namespace: namespace.into(),
        scope,
        action: PolicyAction::Deny,
        rules: Vec::new(),
        dry_run: false,
    };
    (policy.key().into(), policy)
}

fn workloads(workloads: impl Into<Vec<Workload>>) -> Change {
    Change {
        workloads: workloads.into(),
        ..Change::default()
    }
}

fn services(services: impl Into<Vec<Service>>) -> Change {
    Change {
        services: services.into(),
        ..Change::default()
    }
}

fn policies(policies: impl Into<Vec<(Arc<str>, Policy)>>) -> Change {
    Change {
        policies: policies.into(),
        ..Change::default()
    }
}

fn removed(names: &[&str]) -> Change {
    Change {
        removed_addresses: names.iter().map(|name| Arc::from(*name)).collect(),
        ..Change::default()
    }
}

/// Uids and target ports of the service's endpoints.
fn endpoints(snapshot: &Snapshot, service: &str) -> Vec<(String, u16)> {
    let service = snapshot.service(&key(service)).unwrap();
    let endpoints = service.endpoints.values();
    endpoints
        .map(|endpoint| (endpoint.workload_uid.to_string(), endpoint.ports[&80]))
        .collect()
}

fn vip_namespace(snapshot: &Snapshot, vip: &str, client: Option<&str>) -> Option<String> {
    let found = snapshot.service_by_vip(&address(vip), client)?;
    Some(found.namespace.to_string())
}

fn host_namespace(snapshot: &Snapshot, host: &str, client: Option<&str>) -> Option<String> {
    let found = snapshot.service_by_host(host, client)?;
    Some(found.namespace.to_string())
}

#[test]
fn staged_endpoints_appear_when_their_service_arrives() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(workloads([workload("w", "10.0.0.1", &[("ns/host", 81)])]));
    assert!(snapshot.service(&key("ns/host")).is_none());
    assert_eq!(snapshot.staged()[&key("ns/host")].len(), 1);
    let snapshot = builder.apply(services([service("ns/host", &[])]));
    assert_eq!(endpoints(&snapshot, "ns/host"), [("w".to_owned(), 81)]);
    assert!(snapshot.staged().is_empty());
}

#[test]
fn a_workload_that_drops_a_service_unstages_its_endpoint() {
    let mut builder = Builder::default();
    builder.apply(workloads([workload("w", "10.0.0.1", &[("ns/host", 81)])]));
    let snapshot = builder.apply(workloads([workload("w", "10.0.0.1", &[])]));
    assert!(snapshot.staged().is_empty());
    let snapshot = builder.apply(services([service("ns/host", &[])]));
    assert_eq!(endpoints(&snapshot, "ns/host"), []);
}

#[test]
fn staged_unhealthy_endpoints_are_filtered_when_their_service_arrives() {
    for (record, expected) in [
        (service("ns/host", &[]), 0),
        (allow_all(service("ns/host", &[])), 1),
    ] {
        let mut builder = Builder::default();
        let sick = unhealthy(workload("w", "10.0.0.1", &[("ns/host", 81)]));
        builder.apply(workloads([sick]));
        let snapshot = builder.apply(services([record]));
        assert_eq!(endpoints(&snapshot, "ns/host").len(), expected);
    }
}

#[test]
fn a_service_sent_again_keeps_its_endpoints() {
    let mut builder = Builder::default();
    builder.apply(services([service("ns/host", &[])]));
    builder.apply(workloads([workload("w", "10.0.0.1", &[("ns/host", 81)])]));
    let snapshot = builder.apply(services([service("ns/host", &["/10.1.0.1"])]));
    assert_eq!(endpoints(&snapshot, "ns/host"), [("w".to_owned(), 81)]);
    let by_vip = snapshot
        .service_by_vip(&address("/10.1.0.1"), None)
        .unwrap();
    assert!(Arc::ptr_eq(
        by_vip,
        snapshot.service(&key("ns/host")).unwrap()
    ));
}

#[test]
fn an_endpoint_named_by_the_record_itself_ends_with_that_record() {
    let mut builder = Builder::default();
    builder.apply(workloads([workload("w", "10.0.0.1", &[("ns/host", 81)])]));
    let mut named = service("ns/host", &[]);
    let endpoint = endpoint(&workload("v", "10.0.0.2", &[]), &PortMap::from([(80, 90)]));
    named.endpoints.insert("v".into(), endpoint);
    let snapshot = builder.apply(services([named]));
    let both = [("v".to_owned(), 90), ("w".to_owned(), 81)];
    assert_eq!(endpoints(&snapshot, "ns/host"), both);
    let snapshot = builder.apply(services([service("ns/host", &[])]));
    assert_eq!(endpoints(&snapshot, "ns/host"), [("w".to_owned(), 81)]);
}

#[test]
fn turning_allow_all_off_drops_unhealthy_endpoints_until_they_are_sent_again() {
    let sick = unhealthy(workload("w", "10.0.0.1", &[("ns/host", 81)]));
    let mut builder = Builder::default();
    builder.apply(services([allow_all(service("ns/host", &[]))]));
    let snapshot = builder.apply(workloads([sick.clone()]));
    assert_eq!(endpoints(&snapshot, "ns/host").len(), 1);
    let snapshot = builder.apply(services([service("ns/host", &[])]));
    assert_eq!(endpoints(&snapshot, "ns/host").len(), 0);
    let snapshot = builder.apply(services([allow_all(service("ns/host", &[]))]));
    assert_eq!(endpoints(&snapshot, "ns/host").len(), 0);
    let snapshot = builder.apply(workloads([sick]));
    assert_eq!(
        endpoints(&snapshot, "ns/host").len(),
        1,
        "the same record, sent again"
    );
}

#[test]
fn a_workload_sent_again_as_unhealthy_loses_its_endpoint() {
    let healthy = workload("w", "10.0.0.1", &[("ns/host", 81)]);
    let mut builder = Builder::default();
    builder.apply(services([service("ns/host", &[])]));
    builder.apply(workloads([healthy.clone()]));
    let snapshot = builder.apply(workloads([unhealthy(healthy)]));
    assert_eq!(endpoints(&snapshot, "ns/host"), []);
}

#[test]
fn within_one_push_the_last_record_of_a_workload_counts() {
    let first = workload("w", "10.0.0.1", &[("ns/a", 81), ("ns/b", 81)]);
    let last = workload("w", "10.0.0.1", &[("ns/b", 82)]);
    let mut builder = Builder::default();
    builder.apply(services([service("ns/a", &[]), service("ns/b", &[])]));
    let snapshot = builder.apply(workloads([first, last]));
    assert_eq!(endpoints(&snapshot, "ns/a"), []);
    assert_eq!(endpoints(&snapshot, "ns/b"), [("w".to_owned(), 82)]);
}

#[test]
fn a_workload_sent_and_removed_in_one_push_leaves_nothing() {
    let mut builder = Builder::default();
    let mut change = workloads([workload("w", "10.0.0.1", &[("ns/host", 81)])]);
    change.services.push(service("ns/host", &[]));
    change.removed_addresses.push("w".into());
    let snapshot = builder.apply(change);
    assert_eq!(endpoints(&snapshot, "ns/host"), []);
    assert!(snapshot.workload_by_uid("w").is_none());
    assert!(
        snapshot
            .workload_by_address(&address("/10.0.0.1"))
            .is_none()
    );
}

#[test]
fn removing_a_service_drops_its_endpoints_and_the_staged_ones() {
    let mut builder = Builder::default();
    builder.apply(workloads([workload(
        "w",
        "10.0.0.1",
        &[("ns/a", 81), ("ns/b", 81)],
    )]));
    builder.apply(services([service("ns/a", &["/10.1.0.1"])]));
    let snapshot = builder.apply(removed(&["ns/a", "ns/b"]));
    assert!(snapshot.staged().is_empty());
    assert!(snapshot.service(&key("ns/a")).is_none());
    assert!(
        snapshot
            .service_by_vip(&address("/10.1.0.1"), None)
            .is_none()
    );
    assert!(snapshot.service_by_host("a", None).is_none());
    let snapshot = builder.apply(services([service("ns/a", &[]), service("ns/b", &[])]));
    assert_eq!(endpoints(&snapshot, "ns/a"), []);
    assert_eq!(endpoints(&snapshot, "ns/b"), []);
}

#[test]
fn a_removed_name_means_a_workload_first_then_a_service_then_nothing() {
    let mut builder = Builder::default();
    builder.apply(workloads([workload("ns/host", "10.0.0.1", &[])]));
    builder.apply(services([service("ns/host", &[]), service("ns/a/b", &[])]));
    let snapshot = builder.apply(removed(&["ns/host"]));
    assert!(snapshot.workload_by_uid("ns/host").is_none());
    assert!(snapshot.service(&key("ns/host")).is_some());
    let snapshot = builder.apply(removed(&["ns/host", "unknown", "ns/a/b", "x/y"]));
    assert!(snapshot.service(&key("ns/host")).is_none());
    assert!(
        snapshot.service(&key("ns/a/b")).is_some(),
        "two slashes name no service"
    );
}

#[test]
fn an_address_that_leaves_a_service_is_no_longer_found() {
    let mut builder = Builder::default();
    let mut both = cidr_service("ns/host", &[("", "10.2.0.0/16"), ("", "10.3.0.0/16")]);
    both.vips = vec![address("/10.1.0.1"), address("/10.1.0.2")];
    let snapshot = builder.apply(services([both]));
    assert!(vip_namespace(&snapshot, "/10.1.0.2", None).is_some());
    assert!(vip_namespace(&snapshot, "/10.3.0.1", None).is_some());
    let mut one = cidr_service("ns/host", &[("", "10.2.0.0/16")]);
    one.vips = vec![address("/10.1.0.1")];
    let snapshot = builder.apply(services([one]));
    assert!(vip_namespace(&snapshot, "/10.1.0.1", None).is_some());
    assert!(vip_namespace(&snapshot, "/10.1.0.2", None).is_none());
    assert!(vip_namespace(&snapshot, "/10.2.0.1", None).is_some());
    assert!(vip_namespace(&snapshot, "/10.3.0.1", None).is_none());
}

#[test]
fn all_copies_of_a_service_stay_equal_when_endpoints_change() {
    let mut builder = Builder::default();
    let mut record = cidr_service("ns/host", &[("", "10.2.0.0/16")]);
    record.vips = vec![address("/10.1.0.1")];
    builder.apply(services([record]));
    let snapshot = builder.apply(workloads([workload("w", "10.0.0.1", &[("ns/host", 81)])]));
    let by_key = snapshot.service(&key("ns/host")).unwrap();
    assert_eq!(by_key.endpoints.len(), 1);
    for vip in ["/10.1.0.1", "/10.2.0.1"] {
        let found = snapshot.service_by_vip(&address(vip), None).unwrap();
        assert!(Arc::ptr_eq(found, by_key), "{vip}");
    }
    let by_host = snapshot.service_by_host("host", None).unwrap();
    assert!(Arc::ptr_eq(by_host, by_key));
}

#[test]
fn a_snapshot_taken_earlier_never_changes() {
    let mut builder = Builder::default();
    let before = builder.apply(workloads([workload("w", "10.0.0.1", &[])]));
    let after = builder.apply(removed(&["w"]));
    assert!(before.workload_by_uid("w").is_some());
    assert!(before.workload_by_address(&address("/10.0.0.1")).is_some());
    assert!(after.workload_by_uid("w").is_none());
    assert_eq!((before.generation(), after.generation()), (1, 2));
}

#[test]
fn a_pod_beats_a_workload_entry_then_hbone_wins_then_the_last_inserted() {
    let hbone = |mut w: Workload| {
        w.protocol = WorkloadProtocol::Hbone;
        w
    };
    let ip = "10.0.0.1";
    let mut builder = Builder::default();
    let best = |builder: &mut Builder, change| {
        let snapshot = builder.apply(change);
        let found = snapshot.workload_by_address(&address("/10.0.0.1"));
        found.map(|w| w.uid.to_string()).unwrap_or_default()
    };
    let b = &mut builder;
    assert_eq!(best(b, workloads([workload("entry", ip, &[])])), "entry");
    assert_eq!(best(b, workloads([workload("entry2", ip, &[])])), "entry2");
    assert_eq!(
        best(b, workloads([hbone(workload("entry", ip, &[]))])),
        "entry"
    );
    assert_eq!(
        best(b, workloads([workload("c//Pod/ns/a", ip, &[])])),
        "c//Pod/ns/a"
    );
    let hbone_pod = hbone(workload("c//Pod/ns/b", ip, &[]));
    assert_eq!(best(b, workloads([hbone_pod])), "c//Pod/ns/b");
    let other_pod = workload("c//Pod/ns/c", ip, &[]);
    assert_eq!(best(b, workloads([other_pod])), "c//Pod/ns/b");
    assert_eq!(best(b, removed(&["c//Pod/ns/b"])), "c//Pod/ns/c");
    assert_eq!(
        best(b, removed(&["c//Pod/ns/c", "c//Pod/ns/a", "entry"])),
        "entry2"
    );
    assert_eq!(best(b, removed(&["entry2"])), "");
}

#[test]
fn host_network_workloads_and_other_networks_are_not_found_by_address() {
    let mut host = workload("host", "10.0.0.1", &[]);
    host.network_mode = NetworkMode::HostNetwork;
    let mut far = workload("far", "10.0.0.2", &[]);
    far.network = "remote".into();
    let mut builder = Builder::default();
    let snapshot = builder.apply(workloads([host, far]));
    assert!(
        snapshot
            .workload_by_address(&address("/10.0.0.1"))
            .is_none()
    );
    assert!(
        snapshot
            .workload_by_address(&address("/10.0.0.2"))
            .is_none()
    );
    assert!(
        snapshot
            .workload_by_address(&address("remote/10.0.0.2"))
            .is_some()
    );
    assert!(snapshot.workload_by_uid("host").is_some());
}

#[test]
fn only_workloads_of_this_node_are_found_by_name_and_account() {
    let mut here = workload("here", "10.0.0.1", &[]);
    here.node = "node-a".into();
    let mut there = workload("there", "10.0.0.2", &[]);
    there.node = "node-b".into();
    let info = |name: &str, account: &str| WorkloadInfo {
        name: name.into(),
        namespace: "ns".into(),
        service_account: account.into(),
    };
    let both = workloads([here, there]);
    for (node, expected) in [("node-a", (true, false)), ("", (true, true))] {
        let mut builder = Builder::new(node.into());
        let snapshot = builder.apply(both.clone());
        let found = |name| snapshot.local_workload(&info(name, "account")).is_some();
        assert_eq!((found("here"), found("there")), expected, "node {node:?}");
        let local = |uid| snapshot.is_local(snapshot.workload_by_uid(uid).unwrap());
        assert_eq!((local("here"), local("there")), expected, "node {node:?}");
        assert!(snapshot.local_workload(&info("here", "other")).is_none());
        let by_account = snapshot.local_workload_of("ns", "account").unwrap();
        assert_eq!(&*by_account.uid, "here");
        assert_eq!(
            snapshot.local_identities(),
            [Identity::new("td", "ns", "account")]
        );
    }
}

#[test]
fn an_identity_is_needed_until_its_last_local_workload_leaves() {
    let mut builder = Builder::default();
    builder.apply(workloads([
        workload("a", "10.0.0.1", &[]),
        workload("b", "10.0.0.2", &[]),
    ]));
    let snapshot = builder.apply(removed(&["a"]));
    assert_eq!(snapshot.local_identities().len(), 1);
    let snapshot = builder.apply(removed(&["b"]));
    assert!(snapshot.local_identities().is_empty());
    assert!(snapshot.local_workload_of("ns", "account").is_none());
}

#[test]
fn a_vip_shared_by_namespaces_belongs_to_each_for_its_own_clients() {
    let mut builder = Builder::default();
    let vip = "/10.1.0.1";
    let snapshot = builder.apply(services([
        service("ns-a/a", &[vip]),
        service("ns-b/b", &[vip]),
    ]));
    assert_eq!(vip_namespace(&snapshot, vip, Some("ns-a")).unwrap(), "ns-a");
    assert_eq!(vip_namespace(&snapshot, vip, Some("ns-b")).unwrap(), "ns-b");
    assert_eq!(vip_namespace(&snapshot, vip, Some("ns-c")).unwrap(), "ns-a");
    let snapshot = builder.apply(removed(&["ns-a/a"]));
    for client in [Some("ns-a"), Some("ns-b"), None] {
        assert_eq!(vip_namespace(&snapshot, vip, client).unwrap(), "ns-b");
    }
}

#[test]
fn of_one_namespace_the_last_service_holds_a_vip_and_the_other_gets_it_back() {
    let vip = "/10.1.0.1";
    let mut builder = Builder::default();
    let records = [
        service("ns-a/one", &[vip]),
        service("ns-b/b", &[vip]),
        service("ns-a/two", &[vip]),
    ];
    let host = |snapshot: &Snapshot, client| {
        let found = snapshot.service_by_vip(&address(vip), client).unwrap();
        found.hostname.to_string()
    };
    let snapshot = builder.apply(services(records));
    assert_eq!(host(&snapshot, Some("ns-a")), "two");
    assert_eq!(host(&snapshot, Some("ns-b")), "b");
    assert_eq!(host(&snapshot, None), "two");
    let snapshot = builder.apply(removed(&["ns-a/two"]));
    assert_eq!(host(&snapshot, Some("ns-a")), "one");
}

#[test]
fn visibility_filters_vips_ranges_and_hostnames() {
    let mut builder = Builder::default();
    let mut record = private(cidr_service("ns-a/host", &[("", "10.2.0.0/16")]));
    record.vips = vec![address("/10.1.0.1")];
    let snapshot = builder.apply(services([record]));
    for (client, seen) in [(Some("ns-b"), false), (Some("ns-a"), true), (None, true)] {
        for vip in ["/10.1.0.1", "/10.2.0.1"] {
            let found = snapshot.service_by_vip(&address(vip), client);
            assert_eq!(found.is_some(), seen, "{vip} seen by {client:?}");
        }
        assert_eq!(snapshot.service_by_host("host", client).is_some(), seen);
        assert!(snapshot.service(&key("ns-a/host")).is_some());
    }
}

#[test]
fn public_services_are_seen_from_other_namespaces() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(services([service("ns-a/host", &["/10.1.0.1"])]));
    assert_eq!(
        vip_namespace(&snapshot, "/10.1.0.1", Some("ns-b")).unwrap(),
        "ns-a"
    );
}

#[test]
fn a_range_answers_when_the_exact_vip_is_filtered_out() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(services([
        private(service("ns-a/exact", &["/10.1.0.1"])),
        cidr_service("ns-c/range", &[("", "10.1.0.0/16")]),
    ]));
    assert_eq!(
        vip_namespace(&snapshot, "/10.1.0.1", Some("ns-b")).unwrap(),
        "ns-c"
    );
    assert_eq!(
        vip_namespace(&snapshot, "/10.1.0.1", Some("ns-a")).unwrap(),
        "ns-a"
    );
}

#[test]
fn a_private_service_hides_only_from_other_namespaces_in_hostname_look_ups() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(services([
        private(service("ns-a/host", &[])),
        service("ns-b/host", &[]),
    ]));
    assert_eq!(
        host_namespace(&snapshot, "host", Some("ns-c")).unwrap(),
        "ns-b"
    );
    assert_eq!(
        host_namespace(&snapshot, "host", Some("ns-a")).unwrap(),
        "ns-a"
    );
}

#[test]
fn ranking_is_own_namespace_then_canonical_then_preferred_then_first() {
    let canonical = |mut s: Service| {
        s.canonical = true;
        s
    };
    let mut builder = Builder::default();
    let snapshot = builder.apply(services([service("a/host", &[]), service("b/host", &[])]));
    let preferring = |snapshot: &Snapshot, preferred: &str| {
        let found =
            snapshot.service_by_host_preferring("host", Some("z"), Some(preferred), &|_| true);
        found.unwrap().namespace.to_string()
    };
    assert_eq!(host_namespace(&snapshot, "host", Some("z")).unwrap(), "a");
    assert_eq!(preferring(&snapshot, "b"), "b");
    assert_eq!(preferring(&snapshot, "y"), "a");
    let snapshot = builder.apply(services([
        canonical(service("c/host", &[])),
        canonical(service("d/host", &[])),
    ]));
    assert_eq!(preferring(&snapshot, "b"), "d");
    assert_eq!(host_namespace(&snapshot, "host", None).unwrap(), "d");
    assert_eq!(host_namespace(&snapshot, "host", Some("b")).unwrap(), "b");
}

#[test]
fn ranges_match_inside_their_bounds_and_never_another_family_or_network() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(services([
        cidr_service("v4/host", &[("", "10.1.2.99/24")]),
        cidr_service("v6/host", &[("", "fd00::1:0/112")]),
        cidr_service("net-a/host", &[("net-a", "10.9.0.0/16")]),
        cidr_service("all/host", &[("any", "0.0.0.0/0")]),
    ]));
    for (vip, expected) in [
        ("/10.1.2.0", Some("v4")),
        ("/10.1.2.255", Some("v4")),
        ("/10.1.1.255", None),
        ("/10.1.3.0", None),
        ("/fd00::1:0", Some("v6")),
        ("/fd00::1:ffff", Some("v6")),
        ("/fd00::2:0", None),
        ("/fd00::ffff", None),
        ("net-a/10.9.0.1", Some("net-a")),
        ("net-b/10.9.0.1", None),
        ("/10.9.0.1", None),
        ("any/203.0.113.7", Some("all")),
        ("any/fd00::1", None),
    ] {
        let found = vip_namespace(&snapshot, vip, None);
        assert_eq!(found.as_deref(), expected, "{vip}");
    }
}

#[test]
fn the_longest_range_wins_unless_a_shorter_one_is_the_clients_own() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(services([
        cidr_service("wide/host", &[("", "10.1.0.0/16")]),
        cidr_service("narrow/host", &[("", "10.1.2.0/24")]),
        service("exact/host", &["/10.1.2.3"]),
    ]));
    for (vip, client, expected) in [
        ("/10.1.2.4", "other", "narrow"),
        ("/10.1.2.4", "wide", "wide"),
        ("/10.1.9.9", "narrow", "wide"),
        ("/10.1.2.3", "other", "exact"),
        ("/10.1.2.3", "narrow", "exact"),
    ] {
        let found = vip_namespace(&snapshot, vip, Some(client));
        assert_eq!(found.as_deref(), Some(expected), "{vip} from {client}");
    }
    let snapshot = builder.apply(removed(&["narrow/host"]));
    assert_eq!(vip_namespace(&snapshot, "/10.1.2.4", None).unwrap(), "wide");
}

#[test]
fn endpoint_changes_leave_one_entry_for_each_range() {
    let mut builder = Builder::default();
    builder.apply(services([cidr_service(
        "ns/host",
        &[("", "10.1.0.0/16"), ("", "10.1.9.9/16")],
    )]));
    for port in 81..90 {
        let snapshot = builder.apply(workloads([workload("w", "10.0.0.1", &[("ns/host", port)])]));
        let found = snapshot
            .service_by_vip(&address("/10.1.0.1"), None)
            .unwrap();
        assert_eq!(found.endpoints["w"].ports[&80], port);
    }
    let snapshot = builder.apply(removed(&["ns/host"]));
    assert!(
        snapshot
            .service_by_vip(&address("/10.1.0.1"), None)
            .is_none()
    );
}

#[test]
fn find_address_prefers_the_workload_and_find_hostname_the_service() {
    let mut named = workload("w", "10.0.0.1", &[]);
    named.hostname = "host".into();
    let mut other = workload("v", "10.0.0.2", &[]);
    other.hostname = "own.host".into();
    let mut change = workloads([named, other]);
    change
        .services
        .push(service("ns/host", &["/10.0.0.1", "/10.0.0.9"]));
    let snapshot = Builder::default().apply(change);
    let is_workload = |found: Option<Address>| match found {
        Some(Address::Workload(_)) => Some(true),
        Some(Address::Service(_)) => Some(false),
        None => None,
    };
    for (text, expected) in [
        ("/10.0.0.1", Some(true)),
        ("/10.0.0.9", Some(false)),
        ("/1.1.1.1", None),
    ] {
        let found = snapshot.find_address(&address(text), None);
        assert_eq!(is_workload(found), expected, "{text}");
    }
    for (text, expected) in [
        ("ns/host", Some(false)),
        ("ns/own.host", Some(true)),
        ("other/own.host", None),
        ("ns/", None),
    ] {
        let found = snapshot.find_hostname(&key(text));
        assert_eq!(is_workload(found), expected, "{text}");
    }
}

#[test]
fn policies_are_found_by_scope_and_leave_it_when_it_changes() {
    let mut builder = Builder::default();
    let snapshot = builder.apply(policies([
        policy("root/g", PolicyScope::Global),
        policy("ns/n", PolicyScope::Namespace),
        policy("ns/s", PolicyScope::WorkloadSelector),
        policy("other/n", PolicyScope::Namespace),
    ]));
    let names =
        |found: &mut dyn Iterator<Item = &Arc<Policy>>| found.map(|p| p.key()).collect::<Vec<_>>();
    assert_eq!(names(&mut snapshot.global_policies()), ["root/g"]);
    assert_eq!(names(&mut snapshot.namespace_policies("ns")), ["ns/n"]);
    assert_eq!(
        names(&mut snapshot.namespace_policies("empty")),
        Vec::<String>::new()
    );
    assert!(snapshot.policy("ns/s").is_some());
    let moved = policy("ns/n", PolicyScope::WorkloadSelector);
    let snapshot = builder.apply(policies([moved]));
    assert_eq!(snapshot.namespace_policies("ns").count(), 0);
    assert!(snapshot.policy("ns/n").is_some());
    let snapshot = builder.apply(Change {
        removed_policies: vec!["root/g".into(), "ns/n".into()],
        ..Change::default()
    });
    assert_eq!(snapshot.global_policies().count(), 0);
    assert!(snapshot.policy("ns/n").is_none());
}

#[test]
fn the_policy_generation_grows_only_with_what_can_alter_a_verdict() {
    type Edit = fn(&mut Workload);
    let base = workload("w", "10.0.0.1", &[]);
    let rule = policy("ns/p", PolicyScope::Namespace);
    let setup = Change {
        workloads: vec![base.clone()],
        services: vec![service("ns/host", &[])],
        policies: vec![rule.clone()],
        ..Change::default()
    };
    let edits: [(&str, Edit, bool); 8] = [
        ("nothing", |_| {}, false),
        ("address", |w| w.addresses.clear(), false),
        ("status", |w| w.status = HealthStatus::Unhealthy, false),
        (
            "services",
            |w| w.services = [(key("ns/host"), PortMap::new())].into(),
            false,
        ),
        (
            "policies",
            |w| w.authorization_policies = vec!["ns/p".into()],
            true,
        ),
        ("namespace", |w| w.namespace = "ns2".into(), true),
        ("account", |w| w.service_account = "b".into(), true),
        ("trust domain", |w| w.trust_domain = "td2".into(), true),
    ];
    for (what, edit, grows) in edits {
        let mut builder = Builder::default();
        let before = builder.apply(setup.clone()).policy_generation();
        let mut next = base.clone();
        edit(&mut next);
        let after = builder.apply(workloads([next])).policy_generation();
        assert_eq!(after > before, grows, "{what}");
    }
    let mut builder = Builder::new("elsewhere".into());
    builder.apply(setup.clone());
    let mut listed = base;
    listed.authorization_policies = vec!["ns/p".into()];
    let snapshot = builder.apply(workloads([listed]));
    assert_eq!(
        snapshot.policy_generation(),
        1,
        "no connection ends at a remote workload here"
    );

    let mut builder = Builder::default();
    let generation = |builder: &mut Builder, change| builder.apply(change).policy_generation();
    let b = &mut builder;
    assert_eq!(generation(b, setup), 1);
    assert_eq!(
        generation(b, policies([rule.clone()])),
        1,
        "the same policy again"
    );
    assert_eq!(generation(b, removed(&["w"])), 1);
    assert_eq!(generation(b, services([service("ns/other", &[])])), 1);
    let mut replaced = rule;
    replaced.1.dry_run = true;
    assert_eq!(generation(b, policies([replaced])), 5);
    let gone = Change {
        removed_policies: vec!["ns/p".into()],
        ..Change::default()
    };
    assert_eq!(generation(b, gone.clone()), 6);
    assert_eq!(generation(b, gone), 6, "it was gone already");
}

#[test]
fn counts_follow_what_is_stored() {
    let mut builder = Builder::default();
    let mut change = workloads([
        workload("a", "10.0.0.1", &[("ns/host", 81), ("ns/unknown", 81)]),
        workload("b", "10.0.0.2", &[("ns/host", 81)]),
    ]);
    change.services.push(service("ns/host", &[]));
    change.policies.push(policy("ns/p", PolicyScope::Global));
    let counts = builder.apply(change).counts();
    let expected = Counts {
        workloads: 2,
        services: 1,
        endpoints: 2,
        policies: 1,
    };
    assert_eq!(counts, expected);
    assert_eq!(builder.apply(removed(&["a"])).counts().endpoints, 1);
    assert_eq!(builder.apply(removed(&["ns/host"])).counts().endpoints, 0);
}

#[test]
fn lists_for_dumps_are_sorted() {
    let mut builder = Builder::default();
    let mut change = workloads(["c", "a", "b"].map(|uid| workload(uid, "10.0.0.1", &[])));
    change.services = ["z/a", "a/b", "b/a"].map(|name| service(name, &[])).into();
    change.policies = ["n/b", "n/a"]
        .map(|name| policy(name, PolicyScope::Global))
        .into();
    let snapshot = builder.apply(change);
    let uids: Vec<_> = snapshot
        .workloads()
        .iter()
        .map(|w| w.uid.to_string())
        .collect();
    assert_eq!(uids, ["a", "b", "c"]);
    let keys: Vec<_> = snapshot
        .services()
        .iter()
        .map(|s| s.key().to_string())
        .collect();
    assert_eq!(keys, ["b/a", "z/a", "a/b"]);
    let names: Vec<_> = snapshot.policies().iter().map(|p| p.key()).collect();
    assert_eq!(names, ["n/a", "n/b"]);
}
