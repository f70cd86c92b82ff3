//! Shapes of admin.md 3.2 to 3.4 and its corner cases in 6.

use serde_json::json;

use super::*;
use crate::control::local_state::{LocalState, change_from, parse};
use crate::snapshot::builder::Builder;

fn state(text: &str) -> LocalState {
    parse(text, "f").unwrap()
}

#[test]
fn a_workload_of_defaults_shows_only_what_is_always_shown() {
    let shown = workload(
        &state("workloads: [{workloadIps: [], namespace: ns, services: {}}]").workloads[0],
    );
    let expected = json!({
        "workloadIps": [],
        "protocol": "TCP",
        "networkMode": "Standard",
        "name": "",
        "namespace": "ns",
        "status": "Healthy",
        "clusterId": "",
        "capacity": 1,
    });
    assert_eq!(shown, expected);
}

#[test]
fn a_workload_shows_every_field_that_is_set() {
    let text = "
workloads:
- uid: u
  name: n
  namespace: ns
  workloadIps: [10.0.0.1, 'fd00::1']
  protocol: HBONE
  networkMode: HostNetwork
  trustDomain: td
  serviceAccount: sa
  network: net
  node: node
  hostname: host
  workloadName: wn
  canonicalName: cn
  canonicalRevision: cr
  workloadType: job
  clusterId: c
  status: Unhealthy
  nativeTunnel: true
  applicationTunnel: {protocol: PROXY}
  waypoint: {destination: net/10.0.0.9, hboneMtlsPort: 15008}
  networkGateway: {destination: ns/gateway.example, hboneMtlsPort: 15009}
  authorizationPolicies: [ns/p]
  locality: {region: r, zone: '', subzone: ''}
  capacity: 0
  services: {ns/b: {80: 80}, ns/a: {}}
";
    let expected = json!({
        "uid": "u",
        "name": "n",
        "namespace": "ns",
        "workloadIps": ["10.0.0.1", "fd00::1"],
        "protocol": "HBONE",
        "networkMode": "HostNetwork",
        "trustDomain": "td",
        "serviceAccount": "sa",
        "network": "net",
        "node": "node",
        "hostname": "host",
        "workloadName": "wn",
        "canonicalName": "cn",
        "canonicalRevision": "cr",
        "workloadType": "job",
        "clusterId": "c",
        "status": "Unhealthy",
        "nativeTunnel": true,
        "applicationTunnel": {"protocol": "PROXY", "port": null},
        "waypoint": {"destination": "net/10.0.0.9", "hboneMtlsPort": 15008},
        "networkGateway": {"destination": "ns/gateway.example", "hboneMtlsPort": 15009},
        "authorizationPolicies": ["ns/p"],
        "locality": {"region": "r", "zone": "", "subzone": ""},
        "capacity": 0,
        "services": ["ns/a", "ns/b"],
    });
    assert_eq!(workload(&state(text).workloads[0]), expected);
}

#[test]
fn a_service_of_defaults_shows_only_what_is_always_shown() {
    let text = "services: [{name: n, namespace: ns, hostname: h, vips: [], ports: {}}]";
    let expected = json!({
        "name": "n",
        "namespace": "ns",
        "hostname": "h",
        "vips": [],
        "ports": {},
        "endpoints": {},
        "subjectAltNames": [],
        "canonical": false,
        "visibility": "Public",
    });
    assert_eq!(service(&state(text).services[0]), expected);
}

#[test]
fn a_service_shows_every_field_that_is_set() {
    let text = "
services:
- name: n
  namespace: ns
  hostname: h
  vips: [/10.1.0.1, 'net/fd00::1']
  ports: {80: 8080, 443: 0}
  cidrVips: [{network: net, cidr: 10.2.0.0/16}]
  endpoints: {u: {workloadUid: u, port: {80: 81}, status: Unhealthy}}
  subjectAltNames: [spiffe://td/ns/ns/sa/extra]
  waypoint: {destination: ns/waypoint.example, hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: {destination: /10.0.0.8, hboneMtlsPort: 15008}, weight: 75}]
  loadBalancer:
    routingPreferences: [Region, Zone, Subzone, Node, Cluster, Network]
    mode: Passthrough
    healthPolicy: AllowAll
  ipFamilies: IPv4
  canonical: true
  visibility: Namespace
";
    let expected = json!({
        "name": "n",
        "namespace": "ns",
        "hostname": "h",
        "vips": ["/10.1.0.1", "net/fd00::1"],
        "ports": {"80": 8080, "443": 0},
        "cidrVips": [{"network": "net", "cidr": "10.2.0.0/16"}],
        "endpoints": {"u": {"workloadUid": "u", "port": {"80": 81}, "status": "Unhealthy"}},
        "subjectAltNames": ["spiffe://td/ns/ns/sa/extra"],
        "waypoint": {"destination": "ns/waypoint.example", "hboneMtlsPort": 15008},
        "weightedWaypoints": [
            {"destination": {"destination": "/10.0.0.8", "hboneMtlsPort": 15008}, "weight": 75},
        ],
        "loadBalancer": {
            "routingPreferences": ["Region", "Zone", "Subzone", "Node", "Cluster", "Network"],
            "mode": "Passthrough",
            "healthPolicy": "AllowAll",
        },
        "ipFamilies": "IPv4",
        "canonical": true,
        "visibility": "Namespace",
    });
    assert_eq!(service(&state(text).services[0]), expected);
}

#[test]
fn a_policy_shows_every_condition_that_is_set_and_no_other() {
    let text = "
policies:
- name: p
  namespace: ns
  scope: WorkloadSelector
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [!Exact a, !Prefix b, !Suffix c, !Presence []]
        notNamespaces: [!Exact '']
        principals: [!Exact d]
        notPrincipals: [!Presence []]
        serviceAccounts: [{namespace: e, serviceAccount: f}]
        notServiceAccounts: [{namespace: g, serviceAccount: h}]
        sourceIps: [1.2.3.4/24]
        notSourceIps: ['fd00::/8']
        destinationIps: [0.0.0.0/0]
        notDestinationIps: [10.0.0.1/32]
        destinationPorts: [80, 443]
        notDestinationPorts: [15008]
      - {}
    - []
  - []
";
    let expected = json!({
        "name": "p",
        "namespace": "ns",
        "scope": "WorkloadSelector",
        "action": "Deny",
        "dryRun": true,
        "rules": [[[{
            "namespaces": [{"Exact": "a"}, {"Prefix": "b"}, {"Suffix": "c"}, {"Presence": []}],
            "notNamespaces": [{"Exact": ""}],
            "principals": [{"Exact": "d"}],
            "notPrincipals": [{"Presence": []}],
            "serviceAccounts": [{"namespace": "e", "serviceAccount": "f"}],
            "notServiceAccounts": [{"namespace": "g", "serviceAccount": "h"}],
            "sourceIps": ["1.2.3.4/24"],
            "notSourceIps": ["fd00::/8"],
            "destinationIps": ["0.0.0.0/0"],
            "notDestinationIps": ["10.0.0.1/32"],
            "destinationPorts": [80, 443],
            "notDestinationPorts": [15008],
        }, {}], []], []],
    });
    assert_eq!(policy(&state(text).policies[0].1), expected);
}

#[test]
fn endpoints_without_their_service_are_shown_as_staged() {
    let text = "
workloads:
- {uid: a, workloadIps: [10.0.0.1], namespace: ns, services: {ns/known: {}}}
- {uid: b, workloadIps: [10.0.0.2], namespace: ns, services: {ns/later: {80: 81}}}
services: [{name: n, namespace: ns, hostname: known, vips: [], ports: {}}]
";
    let change = change_from(&LocalState::default(), &state(text));
    let snapshot = Builder::default().apply(change);
    let expected = json!({
        "ns/later": {"b": {"workloadUid": "b", "port": {"80": 81}, "status": "Healthy"}},
    });
    assert_eq!(staged(&snapshot.staged()), expected);
    assert_eq!(staged(&BTreeMap::new()), json!({}));
}

#[test]
fn object_keys_come_out_sorted() {
    let text = "workloads: [{uid: u, workloadIps: [10.0.0.1], namespace: ns, services: {}}]";
    let text = serde_json::to_string(&workload(&state(text).workloads[0])).unwrap();
    let expected = r#"{"capacity":1,"clusterId":"","name":"","namespace":"ns","networkMode":"Standard","protocol":"TCP","status":"Healthy","uid":"u","workloadIps":["10.0.0.1"]}"#;
    assert_eq!(text, expected);
}
