//! Documents that are accepted, documents that are refused and where, and reloads.

use std::io::Write;

use super::*;
use crate::model::addr::NetworkAddress;
use crate::model::gateway::GatewayDestination;
use crate::model::policy::{PolicyAction, PolicyScope, StringMatch};
use crate::model::service::{BalanceMode, HealthPolicy, IpFamilies, Scope, Visibility};
use crate::model::workload::{
    AppTunnelProtocol, HealthStatus, NetworkMode, PortMap, WorkloadProtocol,
};
use crate::snapshot::Snapshot;
use crate::snapshot::builder::{Builder, Change};

const EXAMPLE: &str = r#"
workloads:
- uid: cluster1//v1/Pod/default/web
  name: web
  namespace: default
  serviceAccount: web
  trustDomain: cluster.local
  workloadIps: ["10.0.0.2"]
  protocol: HBONE
  node: node-a
  services: {"default/web.default.svc.cluster.local": {80: 8080}}
services:
- name: web
  namespace: default
  hostname: web.default.svc.cluster.local
  vips: ["/10.96.0.10"]
  ports: {80: 8080}
  canonical: true
policies:
- name: only-front
  namespace: default
  scope: Namespace
  action: Allow
  dryRun: false
  rules: [[[{principals: [!Exact cluster.local/ns/default/sa/front]}]]]
"#;

const EVERY_KEY: &str = r#"
workloads:
- uid: u
  name: n
  namespace: ns
  workloadIps: [10.0.0.1, "fd00::1"]
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
  applicationTunnel: {protocol: PROXY, port: 15088}
  waypoint: {destination: net/10.0.0.9, hboneMtlsPort: 15008}
  networkGateway: {destination: ns/gateway.example, hboneMtlsPort: 15009}
  authorizationPolicies: [ns/p]
  locality: {region: r, zone: z, subzone: s, ignored: true}
  capacity: 7
  services:
    ns/a.example: {80: 8080, 443: 0}
    ns/b.example: {}
services:
- name: a
  namespace: ns
  hostname: a.example
  vips: [/10.1.0.1, net/fd00::9]
  ports: {80: 8080, 443: 0}
  cidrVips: [{network: net, cidr: 10.2.0.0/16, ignored: 1}]
  endpoints: {u: {workloadUid: u, port: {80: 81}, status: Unhealthy}}
  subjectAltNames: [spiffe://td/ns/ns/sa/extra]
  waypoint: {destination: ns/waypoint.example, hboneMtlsPort: 15008}
  weightedWaypoints:
  - destination: {destination: /10.0.0.8, hboneMtlsPort: 15008}
    weight: 75
  loadBalancer:
    routingPreferences: [Network, Region, Zone, Subzone, Node, Cluster]
    mode: Failover
    healthPolicy: AllowAll
  ipFamilies: IPv6
  canonical: true
  visibility: Namespace
- {name: b, namespace: ns, hostname: b.example, vips: [], ports: {}}
policies:
- name: p
  namespace: ns
  scope: WorkloadSelector
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [!Exact a, !Prefix b, !Suffix c, !Presence []]
        notNamespaces: [!Exact ""]
        principals: [!Presence []]
        notPrincipals: [!Exact d]
        serviceAccounts: [{namespace: e, serviceAccount: f, ignored: 1}]
        notServiceAccounts: [{namespace: g, serviceAccount: h}]
        sourceIps: [1.2.3.4/24]
        notSourceIps: ["fd00::/8"]
        destinationIps: [0.0.0.0/0]
        notDestinationIps: [10.0.0.1/32]
        destinationPorts: [80, 443]
        notDestinationPorts: [15008]
      - {}
    - []
  - []
"#;

fn applied(builder: &mut Builder, previous: &LocalState, next: &LocalState) -> Arc<Snapshot> {
    builder.apply(change_from(previous, next))
}

fn fresh(state: &LocalState) -> Arc<Snapshot> {
    applied(&mut Builder::default(), &LocalState::default(), state)
}

#[test]
fn the_example_of_the_specification_is_read_without_a_warning() {
    let state = parse(EXAMPLE, "state.yaml").unwrap();
    assert_eq!(state.warnings, []);
    let [workload] = &*state.workloads else {
        panic!("{:?}", state.workloads)
    };
    assert_eq!(&*workload.uid, "cluster1//v1/Pod/default/web");
    assert_eq!(
        workload.identity().to_string(),
        "spiffe://cluster.local/ns/default/sa/web"
    );
    assert_eq!(
        workload.services.len(),
        1,
        "the workload's own list is kept"
    );
    let snapshot = fresh(&state);
    let vip: NetworkAddress = "/10.96.0.10".parse().unwrap();
    let service = snapshot.service_by_vip(&vip, Some("default")).unwrap();
    assert_eq!(service.endpoints.len(), 1);
    assert_eq!(snapshot.namespace_policies("default").count(), 1);
}

#[test]
fn every_key_of_a_workload_reaches_the_model() {
    let state = parse(EVERY_KEY, "state.yaml").unwrap();
    assert_eq!(state.warnings, []);
    let w = &state.workloads[0];
    assert_eq!(w.addresses.len(), 2);
    assert_eq!(w.protocol, WorkloadProtocol::Hbone);
    assert_eq!(w.network_mode, NetworkMode::HostNetwork);
    assert_eq!(w.status, HealthStatus::Unhealthy);
    assert!(w.native_tunnel);
    assert_eq!(w.capacity, 7);
    let texts = [
        &w.uid,
        &w.name,
        &w.namespace,
        &w.trust_domain,
        &w.service_account,
        &w.network,
        &w.node,
        &w.hostname,
        &w.workload_name,
        &w.canonical_name,
        &w.canonical_revision,
        &w.workload_type,
        &w.cluster_id,
        &w.locality.region,
        &w.locality.zone,
        &w.locality.subzone,
    ];
    let expected = [
        "u", "n", "ns", "td", "sa", "net", "node", "host", "wn", "cn", "cr", "job", "c", "r", "z",
        "s",
    ];
    assert_eq!(texts.map(|text| &**text), expected);
    let tunnel = w.application_tunnel.unwrap();
    assert_eq!(
        (tunnel.protocol, tunnel.port),
        (AppTunnelProtocol::Proxy, Some(15088))
    );
    let waypoint = w.waypoint.as_ref().unwrap();
    assert!(
        matches!(&waypoint.destination, GatewayDestination::Address(a) if a.to_string() == "net/10.0.0.9")
    );
    let gateway = w.network_gateway.as_ref().unwrap();
    assert!(
        matches!(&gateway.destination, GatewayDestination::Hostname(h) if h.to_string() == "ns/gateway.example")
    );
    assert_eq!(gateway.hbone_mtls_port, 15009);
    assert_eq!(
        w.services[&"ns/a.example".parse().unwrap()],
        PortMap::from([(80, 8080), (443, 0)])
    );
    assert_eq!(*w.authorization_policies[0], *"ns/p");
}

#[test]
fn every_key_of_a_service_reaches_the_model() {
    let state = parse(EVERY_KEY, "state.yaml").unwrap();
    let s = &state.services[0];
    assert_eq!(s.key().to_string(), "ns/a.example");
    assert_eq!(
        s.vips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["/10.1.0.1", "net/fd00::9"]
    );
    assert_eq!(s.cidr_vips[0].cidr.to_string(), "10.2.0.0/16");
    assert_eq!(s.endpoints["u"].status, HealthStatus::Unhealthy);
    assert_eq!(s.endpoints["u"].ports, PortMap::from([(80, 81)]));
    assert_eq!(&*s.subject_alt_names[0], "spiffe://td/ns/ns/sa/extra");
    assert_eq!(s.weighted_waypoints[0].weight, 75);
    let balancer = s.load_balancer.as_ref().unwrap();
    assert_eq!(
        (balancer.mode, balancer.health_policy),
        (BalanceMode::Failover, HealthPolicy::AllowAll)
    );
    assert_eq!(
        balancer.routing_preferences[..2],
        [Scope::Network, Scope::Region]
    );
    assert_eq!(s.ip_families, Some(IpFamilies::Ipv6));
    assert_eq!((s.canonical, s.visibility), (true, Visibility::Namespace));
}

#[test]
fn every_key_of_a_policy_reaches_the_model() {
    let state = parse(EVERY_KEY, "state.yaml").unwrap();
    let (key, p) = &state.policies[0];
    assert_eq!(&**key, "ns/p");
    assert_eq!(
        (p.scope, p.action, p.dry_run),
        (PolicyScope::WorkloadSelector, PolicyAction::Deny, true)
    );
    assert_eq!(p.rules.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0]);
    let m = &p.rules[0][0][0];
    assert_eq!(m.namespaces.len(), 4);
    assert_eq!(m.namespaces[3], StringMatch::Presence);
    assert_eq!(m.not_namespaces, [StringMatch::Exact("".into())]);
    assert_eq!(m.source_ips[0].to_string(), "1.2.3.4/24");
    assert_eq!(m.destination_ports, [80, 443]);
    let lists = [
        m.not_principals.len(),
        m.service_accounts.len(),
        m.not_service_accounts.len(),
        m.not_source_ips.len(),
        m.destination_ips.len(),
        m.not_destination_ips.len(),
        m.not_destination_ports.len(),
    ];
    assert_eq!(lists, [1; 7]);
    assert_eq!(
        p.rules[0][0][1],
        crate::model::policy::PolicyMatch::default()
    );
}

#[test]
fn absent_keys_have_the_defaults_of_a_file() {
    let text = "workloads: [{workloadIps: [], namespace: ns, services: {}}]";
    let state = parse(text, "f").unwrap();
    let expected = Workload {
        namespace: "ns".into(),
        capacity: 1,
        ..Workload::default()
    };
    assert_eq!(state.workloads, [expected]);
    assert_eq!(parse("{}", "f").unwrap(), LocalState::default());
    let tunnel = "workloads: [{workloadIps: [], namespace: ns, services: {}, \
                  applicationTunnel: {protocol: NONE, port: 0}}]";
    let state = parse(tunnel, "f").unwrap();
    assert_eq!(state.workloads[0].application_tunnel.unwrap().port, None);
}

/// Document, position, and parts of the message.
type Broken = (&'static str, (u64, u64), &'static [&'static str]);

fn assert_refused(cases: &[Broken]) {
    let mut wrong = Vec::new();
    for (text, (line, column), parts) in cases {
        let message = match parse(text, "dir/state.yaml") {
            Ok(state) => format!("accepted as {state:?}"),
            Err(error) => error.to_string(),
        };
        let start = format!("dir/state.yaml:{line}:{column}: ");
        if !message.starts_with(&start) || !parts.iter().all(|part| message.contains(part)) {
            wrong.push(format!("{text}\ngave {message}\nnot {start}{parts:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const W: &str = "workloads: [{workloadIps: [], namespace: n, services: {}}]";

#[test]
fn documents_that_are_no_mapping_of_lists_are_refused() {
    assert!(parse(W, "f").is_ok());
    assert_refused(&[
        ("", (1, 1), &["empty", "expected a mapping"]),
        ("# all gone\n---\n", (1, 1), &["empty"]),
        ("- a", (1, 1), &["expected a mapping"]),
        ("text", (1, 1), &["expected a mapping"]),
        ("workloads:\n", (1, 1), &["found nothing, expected a list"]),
        (
            "services: []\npolicies: ~\n",
            (2, 1),
            &["found nothing, expected a list"],
        ),
        (
            "workloads: 5",
            (1, 1),
            &["found integer `5`, expected a list"],
        ),
        (
            "workload: []",
            (1, 1),
            &[
                "unknown key `workload`",
                "did you mean `workloads`?",
                "policies, services",
            ],
        ),
        (
            "workloads: []\nworkloads: []",
            (2, 1),
            &["key `workloads` comes twice"],
        ),
        (
            "workloads: []\n---\nservices: []",
            (3, 1),
            &["second document", "expected one document"],
        ),
        ("workloads: [", (1, 12), &[]),
        ("workloads: []\n  services: []", (2, 3), &[]),
        ("workloads: *unknown", (1, 12), &["unknown anchor"]),
    ]);
}

#[test]
fn broken_workloads_are_refused() {
    assert_refused(&[
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n",
            (3, 3),
            &["missing key `services`"],
        ),
        (
            "workloads:\n- namespace: n\n  services: {}\n",
            (3, 3),
            &["missing key `workloadIps`"],
        ),
        (
            "workloads:\n- workloadIps: []\n  services: {}\n",
            (3, 3),
            &["missing key `namespace`"],
        ),
        (
            "workloads:\n- workload_ips: []\n  namespace: n\n",
            (2, 3),
            &["unknown key `workload_ips`", "did you mean `workloadIps`?"],
        ),
        (
            "workloads:\n- {workloadIps: [], namespace: n, services: {}, colour: red}\n",
            (2, 49),
            &["unknown key `colour`, expected one of workloadIps, "],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  protocol: hbone\n",
            (5, 3),
            &["unknown value `hbone`, did you mean `HBONE`?, expected one of TCP, HBONE"],
        ),
        (
            "workloads:\n- workloadIps: [10.0.0]\n  namespace: n\n  services: {}\n",
            (2, 17),
            &["found string \"10.0.0\", expected an IP address"],
        ),
        (
            "workloads:\n- workloadIps: 10.0.0.1\n  namespace: n\n  services: {}\n",
            (2, 3),
            &["expected a list"],
        ),
    ]);
}

#[test]
fn broken_values_of_workloads_are_refused() {
    assert_refused(&[
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services:\n    web: {80: 80}\n",
            (5, 5),
            &["found string \"web\", expected <namespace>/<hostname>"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services:\n    n/web: {\"80\": 80}\n",
            (5, 13),
            &["found string \"80\", expected an unquoted port"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services:\n    n/web: {80: \"80\"}\n",
            (5, 13),
            &["found string \"80\", expected an unquoted integer"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services:\n    n/web: {0: 80}\n",
            (5, 13),
            &["found integer `0`, expected an unquoted port from 1 to 65535"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services:\n    n/web: {80: 65536}\n",
            (5, 13),
            &["found integer `65536`, expected an unquoted integer from 0 to 65535"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services:\n    n/web: {80: 81, 80: 82}\n",
            (5, 21),
            &["key `80` comes twice"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace:\n  services: {}\n",
            (3, 12),
            &["found nothing, expected a string"],
        ),
        (
            "workloads:\n- {workloadIps: [], namespace: n, services: {}, capacity: -1}\n",
            (2, 49),
            &["found integer `-1`, expected an unquoted integer from 0 to 4294967295"],
        ),
        (
            "workloads:\n- {workloadIps: [], namespace: n, services: {}, nativeTunnel: yes}\n",
            (2, 49),
            &["expected true or false"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  locality: {region: r, zone: z}\n",
            (5, 25),
            &["missing key `subzone`"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  applicationTunnel: {protocol: PROXY, prot: 1}\n",
            (5, 40),
            &["unknown key `prot`, did you mean `port`?"],
        ),
    ]);
}

#[test]
fn broken_gateway_addresses_are_refused() {
    assert_refused(&[
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  waypoint: {destination: /10.0.0.1, hboneMtlsPort: 0}\n",
            (5, 38),
            &["found integer `0`, expected an unquoted port from 1 to 65535"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  waypoint: {destination: gateway, hboneMtlsPort: 15008}\n",
            (5, 14),
            &["found string \"gateway\", expected <network>/<ip> or <namespace>/<hostname>"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  networkGateway: {destination: /10.0.0.1}\n",
            (5, 20),
            &["missing key `hboneMtlsPort`"],
        ),
        (
            "workloads:\n- workloadIps: []\n  namespace: n\n  services: {}\n  waypoint: ns/host\n",
            (5, 13),
            &["expected a mapping"],
        ),
    ]);
}

#[test]
fn uids_that_are_missing_or_taken_are_refused() {
    assert_refused(&[
        (
            "workloads:\n- {uid: a, workloadIps: [], namespace: n, services: {}}\n- {uid: a, workloadIps: [], namespace: n, services: {}}\n",
            (3, 9),
            &["workload uid `a` is defined already at dir/state.yaml:2:9"],
        ),
        (
            "workloads:\n- {uid: a, workloadIps: [], namespace: n, services: {}}\n- {workloadIps: [], namespace: n, services: {}}\n",
            (3, 3),
            &[
                "found a workload without uid",
                "for each of several workloads",
            ],
        ),
    ]);
}

#[test]
fn broken_services_are_refused() {
    const S: &str = "services:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}}\n";
    assert!(parse(S, "f").is_ok());
    assert_refused(&[
        (
            "services:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}}\n- {name: t, namespace: n, hostname: h, vips: [], ports: {}}\n",
            (3, 37),
            &["service `n/h` is defined already at dir/state.yaml:2:37"],
        ),
        (
            "workloads: [{uid: n/h, workloadIps: [], namespace: n, services: {}}]\nservices:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}}\n",
            (3, 37),
            &["the uid of a workload `n/h` is defined already at dir/state.yaml:1:19"],
        ),
        (
            "services:\n- {name: s, namespace: n, hostname: a/b, vips: [], ports: {}}\n",
            (2, 37),
            &["found `n/a/b`", "without `/`"],
        ),
        (
            "services:\n- {name: s, namespace: n, hostname: h, vips: [10.0.0.1], ports: {}}\n",
            (2, 47),
            &["found string \"10.0.0.1\", expected <network>/<ip>"],
        ),
        (
            "services:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}, cidrVips: [{network: a, cidr: 10.0.0.0}]}\n",
            (2, 85),
            &["found string \"10.0.0.0\", expected an address range with prefix length"],
        ),
        (
            "services:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}, loadBalancer: {mode: Strict, healthPolicy: AllowAll}}\n",
            (2, 90),
            &["missing key `routingPreferences`"],
        ),
        (
            "services:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}, ipFamilies: IPV4}\n",
            (2, 61),
            &["unknown value `IPV4`, did you mean `IPv4`?"],
        ),
        (
            "services:\n- {name: s, namespace: n, hostname: h, vips: [], ports: {}, endpoints: {u: {workloadUid: v, port: {}}}}\n",
            (2, 90),
            &["found workloadUid `v`, expected the key of the endpoint, `u`"],
        ),
    ]);
}

fn policy_with(rules: &str) -> String {
    format!(
        "policies:\n- name: p\n  namespace: n\n  scope: Global\n  action: Allow\n  dryRun: false\n  rules:\n  - - - {rules}\n"
    )
}

#[test]
fn an_unreadable_element_of_a_policy_refuses_the_file() {
    let tag = "expected !Exact, !Prefix or !Suffix with a string, or !Presence []";
    for (rules, column, parts) in [
        (
            "principals: [{Exact: foo}]",
            22,
            &["found a mapping", tag][..],
        ),
        ("principals: [foo]", 22, &["found a value without tag", tag]),
        ("principals: [!exact foo]", 29, &["found !exact", tag]),
        ("principals: [!Exact 12]", 29, &["found integer `12`", tag]),
        ("principals: [!Exact []]", 29, &["found !Exact", tag]),
        ("principals: [!Presence foo]", 32, &["found !Presence", tag]),
        ("principals: [!Presence [a]]", 32, &["found a list", tag]),
        ("principals:", 9, &["found nothing, expected a list"]),
        (
            "notPrincipls: [!Exact a]",
            9,
            &["unknown key `notPrincipls`, did you mean `notPrincipals`?"],
        ),
        (
            "sourceIps: [1.2.3.4]",
            21,
            &["found string \"1.2.3.4\"", "prefix length"],
        ),
        ("sourceIps: [1.2.3.4/33]", 21, &["prefix length"]),
        ("destinationPorts: [70000]", 28, &["from 0 to 65535"]),
        ("destinationPorts: [\"80\"]", 28, &["found string \"80\""]),
        (
            "serviceAccounts: [{namespace: a}]",
            28,
            &["missing key `serviceAccount`"],
        ),
    ] {
        let text = policy_with(rules);
        let error = parse(&text, "f").unwrap_err();
        let place = error.place().unwrap();
        assert_eq!((place.line, place.column), (8, column), "{rules}: {error}");
        for part in parts {
            assert!(error.to_string().contains(part), "no {part:?} in {error}");
        }
    }
    for rules in [
        "principals: [!Exact foo]",
        "principals: [!Presence []]",
        "sourceIps: [1.2.3.4/24]",
        "{}",
    ] {
        assert!(parse(&policy_with(rules), "f").is_ok(), "{rules}");
    }
}

#[test]
fn broken_policies_are_refused() {
    const P: &str = "policies:\n- {name: p, namespace: n, scope: Global, action: Allow, dryRun: false, rules: []}\n";
    assert!(parse(P, "f").is_ok());
    assert_refused(&[
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Allow, dryRun: false, rules: []}\n- {name: p, namespace: n, scope: Global, action: Deny, dryRun: false, rules: []}\n",
            (3, 10),
            &["policy `n/p` is defined already at dir/state.yaml:2:10"],
        ),
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Allow, rules: []}\n",
            (2, 57),
            &["missing key `dryRun`"],
        ),
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Custom, dryRun: false, rules: []}\n",
            (2, 42),
            &["unknown value `Custom`, expected one of Allow, Deny"],
        ),
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Allow, dryRun: false, rules: [[{}]]}\n",
            (2, 81),
            &["found a mapping, expected a list"],
        ),
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Allow, dryRun: \"false\", rules: [], }\n",
            (2, 57),
            &["expected true or false"],
        ),
    ]);
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    let text = "
workloads:
- {uid: u, workloadIps: [], namespace: n, services: {n/none: {}}, authorizationPolicies: [n/none]}
services:
- {name: s, namespace: n, hostname: h, vips: [], ports: {}, endpoints: {x: {workloadUid: x, port: {}}},
   subjectAltNames: [spiffe://td],
   weightedWaypoints: [{destination: {destination: /10.0.0.1, hboneMtlsPort: 1}, weight: 0}]}
- {name: s, namespace: n, hostname: big, vips: [], ports: {},
   weightedWaypoints: [{destination: {destination: /10.0.0.1, hboneMtlsPort: 1}, weight: 4294967295},
                       {destination: {destination: /10.0.0.1, hboneMtlsPort: 1}, weight: 1}]}
";
    let warnings = parse(text, "f").unwrap().warnings;
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for expected in [
        "f:3:91: policy `n/none` is not in this file",
        "f:3:54: service `n/none` is not in this file",
        "f:5:73: endpoint of workload `x`",
        "f:6:22: invalid spiffe identity: spiffe://td",
        "f:7:23: all weights are 0",
        "f:9:23: the weights add up",
    ] {
        assert!(
            texts.iter().any(|text| text.starts_with(expected)),
            "no {expected:?} in {texts:#?}"
        );
    }
    assert_eq!(texts.len(), 6);
}

#[test]
fn endpoints_reach_services_on_several_networks() {
    let text = "
workloads:
- {uid: w, name: local, namespace: default, serviceAccount: default, workloadIps: [127.0.0.1],
   services: {default/example.com: {80: 8080}, default/example2.com: {80: 8080}}}
services:
- {name: one, namespace: default, hostname: example.com, vips: [/127.10.0.1], ports: {80: 8080},
   subjectAltNames: [spiffe://cluster.local/ns/default/sa/local]}
- {name: two, namespace: default, hostname: example2.com, vips: [remote/127.10.0.2], ports: {80: 8080}}
";
    let snapshot = fresh(&parse(text, "f").unwrap());
    let at = |text: &str| text.parse::<NetworkAddress>().unwrap();
    assert_eq!(
        &*snapshot
            .workload_by_address(&at("/127.0.0.1"))
            .unwrap()
            .service_account,
        "default"
    );
    let one = snapshot.service_by_vip(&at("/127.10.0.1"), None).unwrap();
    assert_eq!(one.endpoints["w"].ports[&80], 8080);
    assert_eq!(
        &*one.subject_alt_names[0],
        "spiffe://cluster.local/ns/default/sa/local"
    );
    assert!(snapshot.service_by_vip(&at("/127.10.0.2"), None).is_none());
    let two = snapshot
        .service_by_vip(&at("remote/127.10.0.2"), None)
        .unwrap();
    assert_eq!(two.endpoints["w"].ports[&80], 8080);
}

#[test]
fn a_reload_without_an_edit_changes_nothing() {
    let state = parse(EVERY_KEY, "f").unwrap();
    assert_eq!(change_from(&state, &state), Change::default());
}

#[test]
fn a_reload_sends_only_what_was_edited_or_removed() {
    let before = parse(EVERY_KEY, "f").unwrap();
    let text = EVERY_KEY.replace("capacity: 7", "capacity: 8").replace(
        "- {name: b, namespace: ns, hostname: b.example, vips: [], ports: {}}",
        "",
    );
    let change = change_from(&before, &parse(&text, "f").unwrap());
    assert_eq!(change.workloads.len(), 1);
    assert_eq!(change.services, []);
    assert_eq!(change.policies, []);
    assert_eq!(change.removed_addresses, [Arc::from("ns/b.example")]);
    let change = change_from(&before, &LocalState::default());
    assert_eq!(change.removed_addresses.len(), 3);
    assert_eq!(change.removed_policies, [Arc::from("ns/p")]);
    assert!(change.workloads.is_empty() && change.services.is_empty());
}

/// All reloads between documents that add, drop and edit the same resources.
#[test]
fn a_reload_gives_the_same_state_as_a_fresh_start() {
    let workload =
        |rest: &str| format!("- {{uid: w, workloadIps: [10.0.0.1], namespace: n, {rest}}}\n");
    let service =
        |rest: &str| format!("- {{name: s, namespace: n, hostname: h, ports: {{}}, {rest}}}\n");
    let lb = |health: &str| {
        format!(
            "vips: [], loadBalancer: {{routingPreferences: [], mode: Standard, healthPolicy: {health}}}"
        )
    };
    let workloads = [
        String::new(),
        workload("services: {n/h: {80: 81}}"),
        workload("services: {n/h: {80: 82}, n/other: {}}"),
        workload("services: {n/h: {80: 81}}, status: Unhealthy"),
    ];
    let services = [
        String::new(),
        service("vips: [/10.1.0.1]"),
        service("vips: [/10.1.0.2], endpoints: {v: {workloadUid: v, port: {80: 90}}}"),
        service(&lb("AllowAll")),
        service(&lb("OnlyHealthy")),
    ];
    let policy =
        "- {name: p, namespace: n, scope: Namespace, action: Deny, dryRun: true, rules: []}\n";
    let mut states = Vec::new();
    for workload in &workloads {
        for service in &services {
            for policy in ["", policy] {
                let mut text = "{} # empty".to_owned();
                for (key, list) in [
                    ("workloads", workload.as_str()),
                    ("services", service),
                    ("policies", policy),
                ] {
                    if !list.is_empty() {
                        text = text.replace("{} # empty", "");
                        text.push_str(&format!("{key}:\n{list}"));
                    }
                }
                states.push(parse(&text, "f").unwrap());
            }
        }
    }
    let content = |snapshot: &Snapshot| {
        (
            snapshot.workloads(),
            snapshot.services(),
            snapshot.policies(),
            snapshot.staged(),
        )
    };
    for first in &states {
        for second in &states {
            let mut builder = Builder::default();
            applied(&mut builder, &LocalState::default(), first);
            let reloaded = applied(&mut builder, first, second);
            assert_eq!(
                content(&reloaded),
                content(&fresh(second)),
                "from {first:?} to {second:?}"
            );
        }
    }
}

#[test]
fn a_source_is_loaded_from_a_file_or_from_text() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(EXAMPLE.as_bytes()).unwrap();
    let from_file = LocalSource::Path(file.path().to_owned()).load().unwrap();
    let from_text = LocalSource::Inline(EXAMPLE.to_owned()).load().unwrap();
    assert_eq!(from_file, from_text);
    let error = LocalSource::Inline("x: 1".to_owned()).load().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("LOCAL_XDS:1:1: unknown key `x`"),
        "{error}"
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.yaml");
    let error = LocalSource::Path(missing.clone()).load().unwrap_err();
    assert!(
        matches!(error, LocalStateError::Unreadable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(missing.to_str().unwrap()));
    let error = LocalSource::Path(folder.path().to_owned())
        .load()
        .unwrap_err();
    assert!(matches!(error, LocalStateError::NotAFile { .. }), "{error}");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    let error = LocalSource::Path(binary).load().unwrap_err();
    assert!(
        matches!(error, LocalStateError::Unreadable { .. }),
        "{error}"
    );
}
