//! Tables: what becomes of each field, what is refused and why, and that no bytes can panic.

use std::collections::HashMap;
use std::net::IpAddr;

use super::*;
use crate::model::gateway::GatewayDestination;
use crate::model::policy::{PolicyAction, PolicyClause, PolicyRule, PolicyScope, StringMatch};
use crate::model::service::{BalanceMode, HealthPolicy, IpFamilies, Scope, Visibility};
use crate::model::workload::{AppTunnelProtocol, HealthStatus, NetworkMode, WorkloadProtocol};
use crate::proto::security as sec;
use crate::proto::workload as raw;

fn wrap(kind: raw::address::Type) -> Vec<u8> {
    let r#type = Some(kind);
    raw::Address { r#type }.encode_to_vec()
}

fn workload(message: raw::Workload) -> Result<Workload, Rejected> {
    let bytes = wrap(raw::address::Type::Workload(message));
    match address(&bytes, &mut Interner::default())? {
        AddressResource::Workload(workload) => Ok(*workload),
        AddressResource::Service(_) => panic!("a service"),
    }
}

fn service(message: raw::Service) -> Result<Service, Rejected> {
    let bytes = wrap(raw::address::Type::Service(message));
    match address(&bytes, &mut Interner::default())? {
        AddressResource::Service(service) => Ok(*service),
        AddressResource::Workload(_) => panic!("a workload"),
    }
}

fn policy(message: &sec::Authorization) -> Result<Policy, Rejected> {
    authorization(&message.encode_to_vec())
}

fn a_workload() -> raw::Workload {
    raw::Workload {
        uid: "Kubernetes//Pod/ns/a".into(),
        ..raw::Workload::default()
    }
}

fn a_service() -> raw::Service {
    raw::Service {
        namespace: "ns".into(),
        hostname: "a.ns.svc".into(),
        ..raw::Service::default()
    }
}

fn a_gateway() -> raw::GatewayAddress {
    let name = raw::NamespacedHostname {
        namespace: "gw".into(),
        hostname: "gw.example".into(),
    };
    raw::GatewayAddress {
        destination: Some(raw::gateway_address::Destination::Hostname(name)),
        hbone_mtls_port: 15008,
    }
}

fn port(service_port: u32, target_port: u32) -> raw::Port {
    raw::Port {
        service_port,
        target_port,
        app_protocol: 99,
    }
}

#[test]
fn empty_fields_of_a_workload_get_their_defaults() {
    let workload = workload(a_workload()).unwrap();
    assert_eq!(&*workload.trust_domain, "cluster.local");
    assert_eq!(&*workload.service_account, "default");
    assert_eq!(&*workload.cluster_id, "Kubernetes");
    assert_eq!(&*workload.workload_type, "deployment");
    assert_eq!(workload.capacity, 1);
    assert_eq!(workload.protocol, WorkloadProtocol::Tcp);
    assert_eq!(workload.status, HealthStatus::Healthy);
    assert_eq!(workload.network_mode, NetworkMode::Standard);
    assert_eq!(workload.application_tunnel, None);
}

#[test]
fn fields_of_a_workload_are_taken_over() {
    let ports = vec![port(80, 8080), port(81, 0)];
    let services = [("ns/a.ns.svc".to_owned(), raw::PortList { ports })];
    let workload = workload(raw::Workload {
        addresses: vec![
            vec![10, 0, 0, 1],
            IpAddr::V6("fd00::1".parse().unwrap()).octets(),
        ],
        tunnel_protocol: raw::TunnelProtocol::Hbone.into(),
        trust_domain: "td".into(),
        workload_type: raw::WorkloadType::Cronjob.into(),
        waypoint: Some(a_gateway()),
        services: HashMap::from(services),
        authorization_policies: vec!["ns/p".into()],
        status: raw::WorkloadStatus::Unhealthy.into(),
        network_mode: raw::NetworkMode::HostNetwork.into(),
        capacity: Some(0),
        application_tunnel: Some(raw::ApplicationTunnel {
            protocol: raw::application_tunnel::Protocol::Proxy.into(),
            port: 15088,
        }),
        ..a_workload()
    })
    .unwrap();
    let addresses = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(workload.addresses, addresses);
    assert_eq!(workload.protocol, WorkloadProtocol::Hbone);
    assert_eq!(
        workload.identity().to_string(),
        "spiffe://td/ns//sa/default"
    );
    assert_eq!(&*workload.workload_type, "cronjob");
    let waypoint = workload.waypoint.unwrap();
    assert!(matches!(
        waypoint.destination,
        GatewayDestination::Hostname(_)
    ));
    assert_eq!(waypoint.hbone_mtls_port, 15008);
    let (key, ports) = workload.services.first_key_value().unwrap();
    assert_eq!(key.to_string(), "ns/a.ns.svc");
    assert_eq!((ports[&80], ports[&81]), (8080, 0));
    assert_eq!(workload.status, HealthStatus::Unhealthy);
    assert_eq!(workload.network_mode, NetworkMode::HostNetwork);
    assert_eq!(workload.capacity, 0);
    let tunnel = workload.application_tunnel.unwrap();
    assert_eq!(
        (tunnel.protocol, tunnel.port),
        (AppTunnelProtocol::Proxy, Some(15088))
    );
}

#[test]
fn names_and_places_of_a_workload_are_taken_over() {
    let place = raw::Locality {
        region: "r".into(),
        zone: "z".into(),
        subzone: "s".into(),
    };
    let workload = workload(raw::Workload {
        name: "pod-1".into(),
        namespace: "shop".into(),
        service_account: "front".into(),
        hostname: "host.example".into(),
        network: "n1".into(),
        cluster_id: "c1".into(),
        node: "node-1".into(),
        network_gateway: Some(a_gateway()),
        locality: Some(place),
        canonical_name: "web".into(),
        canonical_revision: "v2".into(),
        workload_name: "web-owner".into(),
        native_tunnel: true,
        authorization_policies: vec!["shop/p".into(), "shop/q".into()],
        ..a_workload()
    })
    .unwrap();
    let texts = [
        (&workload.name, "pod-1"),
        (&workload.namespace, "shop"),
        (&workload.service_account, "front"),
        (&workload.hostname, "host.example"),
        (&workload.network, "n1"),
        (&workload.cluster_id, "c1"),
        (&workload.node, "node-1"),
        (&workload.locality.region, "r"),
        (&workload.locality.zone, "z"),
        (&workload.locality.subzone, "s"),
        (&workload.canonical_name, "web"),
        (&workload.canonical_revision, "v2"),
        (&workload.workload_name, "web-owner"),
        (&workload.authorization_policies[0], "shop/p"),
        (&workload.authorization_policies[1], "shop/q"),
    ];
    for (found, expected) in texts {
        assert_eq!(&**found, expected);
    }
    assert!(workload.native_tunnel);
    let gateway = workload.network_gateway.unwrap();
    assert_eq!(gateway.hbone_mtls_port, 15008);
}

trait Octets {
    fn octets(self) -> Vec<u8>;
}

impl Octets for IpAddr {
    fn octets(self) -> Vec<u8> {
        match self {
            Self::V4(v4) => v4.octets().into(),
            Self::V6(v6) => v6.octets().into(),
        }
    }
}

#[test]
fn mapped_addresses_are_those_of_ipv4() {
    let mapped = IpAddr::V6("::ffff:10.0.0.1".parse().unwrap()).octets();
    let with = raw::Workload {
        addresses: vec![mapped.clone()],
        ..a_workload()
    };
    assert_eq!(
        workload(with).unwrap().addresses,
        ["10.0.0.1".parse::<IpAddr>().unwrap()]
    );
    let range = |length| scalar::range("x", &mapped, length).unwrap().to_string();
    assert_eq!(range(128), "10.0.0.1/32");
    assert_eq!(range(104), "10.0.0.1/8");
    assert_eq!(range(64), "::ffff:10.0.0.1/64");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn workloads_that_cannot_be_read_are_refused() {
    let bad_key = "no-slash".to_owned();
    let list = raw::PortList::default;
    let base = a_workload;
    let nowhere = || Some(raw::GatewayAddress::default());
    for (message, reason) in [
        (
            raw::Workload {
                uid: String::new(),
                ..base()
            },
            "`` is no workload uid",
        ),
        (
            raw::Workload {
                addresses: vec![vec![]],
                ..base()
            },
            "addresses: an address of 0 bytes",
        ),
        (
            raw::Workload {
                addresses: vec![vec![0; 9]],
                ..base()
            },
            "an address of 9 bytes",
        ),
        (
            raw::Workload {
                tunnel_protocol: 2,
                ..base()
            },
            "LEGACY_ISTIO_MTLS is not supported",
        ),
        (
            raw::Workload {
                tunnel_protocol: 3,
                ..base()
            },
            "tunnel_protocol: unknown value 3",
        ),
        (
            raw::Workload {
                status: 2,
                ..base()
            },
            "status: unknown value 2",
        ),
        (
            raw::Workload {
                network_mode: -1,
                ..base()
            },
            "network_mode: unknown value -1",
        ),
        (
            raw::Workload {
                waypoint: nowhere(),
                ..base()
            },
            "waypoint: no destination",
        ),
        (
            raw::Workload {
                network_gateway: nowhere(),
                ..base()
            },
            "network_gateway: no dest",
        ),
        (
            raw::Workload {
                services: HashMap::from([(bad_key, list())]),
                ..base()
            },
            "`no-slash` is no service key",
        ),
        (
            raw::Workload {
                application_tunnel: Some(raw::ApplicationTunnel {
                    protocol: 7,
                    port: 1,
                }),
                ..base()
            },
            "application_tunnel.protocol: unknown value 7",
        ),
    ] {
        let error = workload(message).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
    let unknown_type = raw::Workload {
        workload_type: 77,
        ..base()
    };
    assert_eq!(
        &*workload(unknown_type).unwrap().workload_type,
        "deployment"
    );
}

#[test]
fn addresses_that_are_neither_workload_nor_service_are_refused() {
    let empty = raw::Address::default().encode_to_vec();
    let of = |bytes: &[u8]| address(bytes, &mut Interner::default());
    assert_eq!(of(&empty).unwrap_err(), Rejected::NoAddressType);
    assert!(matches!(
        of(&[0xff, 0xff]).unwrap_err(),
        Rejected::Malformed(_)
    ));
}

fn vip(address: &[u8], length: Option<u32>) -> raw::NetworkAddress {
    raw::NetworkAddress {
        network: "n".into(),
        address: address.to_vec(),
        length,
    }
}

#[test]
fn addresses_of_a_service_are_hosts_or_ranges_by_their_length() {
    let v4 = [10, 0, 0, 5];
    let service = service(raw::Service {
        addresses: vec![
            vip(&v4, None),
            vip(&v4, Some(32)),
            vip(&[0xfd; 16], Some(128)),
            vip(&v4, Some(24)),
            vip(&v4, Some(0)),
        ],
        ..a_service()
    })
    .unwrap();
    assert_eq!(service.vips.len(), 3);
    let ranges: Vec<_> = service
        .cidr_vips
        .iter()
        .map(|range| range.cidr.to_string())
        .collect();
    assert_eq!(ranges, ["10.0.0.5/24", "10.0.0.5/0"]);
    assert_eq!(&*service.vips[0].network, "n");
}

#[test]
fn fields_of_a_service_are_taken_over() {
    let weighted = raw::WeightedWaypoint {
        destination: Some(a_gateway()),
        weight: 3,
    };
    let service = service(raw::Service {
        ports: vec![port(80, 8080), port(65536 + 443, 0)],
        subject_alt_names: vec!["spiffe://td/ns/n/sa/a".into()],
        load_balancing: Some(raw::LoadBalancing {
            routing_preference: vec![6, 1, 2, 3, 4, 5],
            mode: 2,
            health_policy: 1,
        }),
        ip_families: 2,
        canonical: true,
        weighted_waypoints: vec![weighted],
        visibility: 1,
        name: "front".into(),
        ..a_service()
    })
    .unwrap();
    assert_eq!(&*service.name, "front");
    let names: Vec<_> = service.subject_alt_names.iter().map(|n| &**n).collect();
    assert_eq!(names, ["spiffe://td/ns/n/sa/a"]);
    assert_eq!((service.ports[&80], service.ports[&443]), (8080, 0));
    let balancer = service.load_balancer.unwrap();
    let scopes = [
        Scope::Network,
        Scope::Region,
        Scope::Zone,
        Scope::Subzone,
        Scope::Node,
        Scope::Cluster,
    ];
    assert_eq!(balancer.routing_preferences, scopes);
    assert_eq!(balancer.mode, BalanceMode::Failover);
    assert_eq!(balancer.health_policy, HealthPolicy::AllowAll);
    assert_eq!(service.ip_families, Some(IpFamilies::Ipv6));
    assert!(service.canonical);
    assert_eq!(service.weighted_waypoints[0].weight, 3);
    assert_eq!(service.visibility, Visibility::Namespace);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn services_that_cannot_be_read_are_refused() {
    let base = a_service;
    let balancing = |scope, mode, health_policy| {
        Some(raw::LoadBalancing {
            routing_preference: vec![scope],
            mode,
            health_policy,
        })
    };
    let nowhere = vec![raw::WeightedWaypoint::default()];
    for (message, reason) in [
        (
            raw::Service {
                hostname: String::new(),
                ..base()
            },
            "`ns/` is no service key",
        ),
        (
            raw::Service {
                hostname: "a/b".into(),
                ..base()
            },
            "is no service key",
        ),
        (
            raw::Service {
                addresses: vec![vip(&[1; 4], Some(33))],
                ..base()
            },
            "prefix length 33",
        ),
        (
            raw::Service {
                addresses: vec![vip(&[1; 16], Some(129))],
                ..base()
            },
            "length 129",
        ),
        (
            raw::Service {
                addresses: vec![vip(&[1; 5], None)],
                ..base()
            },
            "of 5 bytes",
        ),
        (
            raw::Service {
                load_balancing: balancing(0, 0, 0),
                ..base()
            },
            "UNSPECIFIED_SCOPE",
        ),
        (
            raw::Service {
                load_balancing: balancing(7, 0, 0),
                ..base()
            },
            "unknown value 7",
        ),
        (
            raw::Service {
                load_balancing: balancing(1, 4, 0),
                ..base()
            },
            "mode: unknown value 4",
        ),
        (
            raw::Service {
                load_balancing: balancing(1, 0, 2),
                ..base()
            },
            "health_policy: unknown",
        ),
        (
            raw::Service {
                ip_families: 4,
                ..base()
            },
            "ip_families: unknown value 4",
        ),
        (
            raw::Service {
                weighted_waypoints: nowhere,
                ..base()
            },
            "weighted_waypoints: no dest",
        ),
    ] {
        let error = service(message).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
    let unknown = raw::Service {
        visibility: 9,
        ..base()
    };
    assert_eq!(service(unknown).unwrap().visibility, Visibility::Public);
    assert_eq!(service(base()).unwrap().load_balancer, None);
}

#[test]
fn services_are_told_from_workloads_before_they_are_decoded() {
    let of = |kind| looks_like_service(&wrap(kind));
    assert!(of(raw::address::Type::Service(a_service())));
    assert!(!of(raw::address::Type::Workload(a_workload())));
    assert!(!looks_like_service(&[]));
    assert!(!looks_like_service(&[0xff; 3]));
}

fn one_match(one: sec::Match) -> sec::Authorization {
    let clause = sec::Clause { matches: vec![one] };
    sec::Authorization {
        name: "p".into(),
        namespace: "ns".into(),
        rules: vec![sec::Rule {
            clauses: vec![clause],
        }],
        ..sec::Authorization::default()
    }
}

fn string(kind: sec::string_match::MatchType) -> sec::StringMatch {
    sec::StringMatch {
        match_type: Some(kind),
    }
}

#[test]
fn policies_are_taken_over_with_their_shape() {
    use sec::string_match::MatchType;
    let cidr = |length| sec::Address {
        address: vec![127, 0, 0, 1],
        length,
    };
    let message = sec::Authorization {
        scope: 2,
        action: 1,
        dry_run: true,
        ..one_match(sec::Match {
            namespaces: vec![
                string(MatchType::Exact("a".into())),
                string(MatchType::Prefix("b".into())),
                string(MatchType::Suffix("c".into())),
                string(MatchType::Presence(())),
            ],
            source_ips: vec![cidr(32), cidr(24)],
            not_destination_ports: vec![80, 65535],
            service_accounts: vec![sec::ServiceAccountMatch {
                namespace: "n".into(),
                service_account: "a".into(),
            }],
            ..sec::Match::default()
        })
    };
    let policy = policy(&message).unwrap();
    assert_eq!(policy.key(), "ns/p");
    assert_eq!(policy.scope, PolicyScope::WorkloadSelector);
    assert_eq!(policy.action, PolicyAction::Deny);
    assert!(policy.dry_run);
    let one = &policy.rules[0][0][0];
    let strings = [
        StringMatch::Exact("a".into()),
        StringMatch::Prefix("b".into()),
        StringMatch::Suffix("c".into()),
        StringMatch::Presence,
    ];
    assert_eq!(one.namespaces, strings);
    let ranges: Vec<_> = one.source_ips.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["127.0.0.1/32", "127.0.0.1/24"]);
    assert_eq!(one.not_destination_ports, [80, 65535]);
    assert_eq!(&*one.service_accounts[0].service_account, "a");
}

#[test]
fn shapes_without_content_are_kept_as_they_are() {
    let rules = |rules| {
        policy(&sec::Authorization {
            rules,
            ..one_match(sec::Match::default())
        })
    };
    assert_eq!(rules(vec![]).unwrap().rules.len(), 0);
    let no_clauses = sec::Rule::default();
    assert_eq!(rules(vec![no_clauses]).unwrap().rules, [PolicyRule::new()]);
    let no_matches = sec::Rule {
        clauses: vec![sec::Clause::default()],
    };
    assert_eq!(
        rules(vec![no_matches]).unwrap().rules,
        [vec![PolicyClause::new()]]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_policy_with_one_unreadable_element_is_refused_whole() {
    let address = |bytes: &[u8], length| sec::Address {
        address: bytes.to_vec(),
        length,
    };
    let nothing = vec![sec::StringMatch::default()];
    let base = sec::Match::default;
    for (one, reason) in [
        (
            sec::Match {
                principals: nothing.clone(),
                ..base()
            },
            "principals: a string match",
        ),
        (
            sec::Match {
                not_namespaces: nothing,
                ..base()
            },
            "not_namespaces: a string match",
        ),
        (
            sec::Match {
                source_ips: vec![address(&[1; 3], 8)],
                ..base()
            },
            "of 3 bytes",
        ),
        (
            sec::Match {
                not_source_ips: vec![address(&[], 0)],
                ..base()
            },
            "of 0 bytes",
        ),
        (
            sec::Match {
                destination_ips: vec![address(&[1; 4], 33)],
                ..base()
            },
            "length 33",
        ),
        (
            sec::Match {
                destination_ips: vec![address(&[1; 4], 256)],
                ..base()
            },
            "length 256",
        ),
        (
            sec::Match {
                destination_ports: vec![65536 + 80],
                ..base()
            },
            "65616 is no port",
        ),
        (
            sec::Match {
                not_destination_ports: vec![u32::MAX],
                ..base()
            },
            "is no port",
        ),
    ] {
        let error = policy(&one_match(one)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
    let unknown = |scope, action| sec::Authorization {
        scope,
        action,
        ..one_match(base())
    };
    assert!(policy(&unknown(3, 0)).is_err());
    assert!(policy(&unknown(0, 2)).is_err());
    assert!(policy(&unknown(0, 1)).is_ok());
}

#[test]
fn equal_texts_of_a_response_share_their_memory() {
    let mut texts = Interner::default();
    let one = texts.share("kube-system");
    assert!(std::ptr::eq(
        &raw const *one,
        &raw const *texts.share("kube-system")
    ));
    assert_eq!(&*texts.share_or("", "default"), "default");
}

#[test]
fn mutated_resources_never_panic() {
    let seeds = [
        wrap(raw::address::Type::Workload(raw::Workload {
            addresses: vec![vec![10, 0, 0, 1]],
            waypoint: Some(a_gateway()),
            services: HashMap::from([("ns/a".to_owned(), raw::PortList::default())]),
            ..a_workload()
        })),
        wrap(raw::address::Type::Service(raw::Service {
            addresses: vec![vip(&[10, 0, 0, 5], Some(24))],
            ports: vec![port(80, 8080)],
            ..a_service()
        })),
        one_match(sec::Match {
            source_ips: vec![sec::Address {
                address: vec![1; 16],
                length: 96,
            }],
            namespaces: vec![string(sec::string_match::MatchType::Prefix("x".into()))],
            ..sec::Match::default()
        })
        .encode_to_vec(),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..3_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] ^= 1 << random.u8(..8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let _ = looks_like_service(&bytes);
        let results = [
            address(&bytes, &mut Interner::default()).map(|_| ()),
            authorization(&bytes).map(|_| ()),
        ];
        for result in results {
            match result {
                Ok(()) => taken += 1,
                Err(why) => {
                    assert!(!why.to_string().is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(
        taken > 100 && refused > 100,
        "{taken} taken, {refused} refused"
    );
}
