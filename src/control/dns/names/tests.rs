//! The tables of the contract (spec: dns-socks.md A3 and A7) on one mesh.

use super::*;
use crate::model::service::{IpFamilies, Service, Visibility};
use crate::snapshot::builder::{Builder, Change};

const DOMAIN: &str = "cluster.local";

fn workload(namespace: &str, name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: format!("{namespace}/{name}").into(),
        name: name.into(),
        namespace: namespace.into(),
        network: "nw1".into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Workload::default()
    }
}

/// `vips` are addresses on network nw1, or `NETWORK/ADDRESS`.
fn service(namespace: &str, hostname: &str, vips: &[&str]) -> Service {
    let vip = |text: &&str| {
        let text = if text.contains('/') {
            (*text).to_owned()
        } else {
            format!("nw1/{text}")
        };
        text.parse().unwrap()
    };
    Service {
        name: hostname.split('.').next().unwrap().into(),
        namespace: namespace.into(),
        hostname: hostname.into(),
        vips: vips.iter().map(vip).collect(),
        ..Service::default()
    }
}

/// A service in the cluster's own domain.
fn own(namespace: &str, name: &str, vips: &[&str]) -> Service {
    service(namespace, &format!("{name}.{namespace}.svc.{DOMAIN}"), vips)
}

fn backed(service: &Service, mut workload: Workload) -> Workload {
    workload.services.insert(service.key(), [(80, 80)].into());
    workload
}

/// Everything the table asks for.
fn mesh() -> Arc<Snapshot> {
    let (mut services, workloads) = headless();
    services.extend(with_addresses());
    services.extend(rivals());
    Builder::new("".into()).apply(Change {
        workloads,
        services,
        ..Change::default()
    })
}

/// Services without virtual addresses, and workloads.
fn headless() -> (Vec<Service>, Vec<Workload>) {
    let headless = own("ns1", "headless", &[]);
    let headless_ipv6 = Service {
        ip_families: Some(IpFamilies::Ipv6),
        ..own("ns1", "headless-ipv6", &[])
    };
    let external = service("ns1", "headless.example.com", &[]);
    let external_backed = service("ns1", "headless-backed.example.com", &[]);
    let range = Service {
        cidr_vips: vec![crate::model::addr::NetworkCidr {
            network: "nw1".into(),
            cidr: "10.9.0.0/16".parse().unwrap(),
        }],
        ..service("ns1", "range.example.com", &[])
    };
    let pods = [
        ("pod0", "10.0.1.1", "2001:db8::1"),
        ("pod1", "10.0.1.2", "2001:db8::2"),
    ];
    let mut workloads: Vec<_> = pods
        .into_iter()
        .map(|(name, v4, v6)| backed(&headless, workload("ns1", name, &[v4, v6])))
        .collect();
    workloads.push(backed(
        &headless_ipv6,
        workload("ns1", "pod2", &["10.0.1.3", "2001:db8::3"]),
    ));
    workloads.push(backed(
        &external_backed,
        workload("ns1", "pod3", &["10.0.1.4"]),
    ));
    let mut named = workload("ns1", "pod4", &["10.0.1.5"]);
    named.hostname = "headless.pod0.ns1.svc.cluster.local".into();
    workloads.push(named);
    workloads.push(workload("ns1", "client", &["10.0.0.1"]));
    let services = vec![
        headless,
        headless_ipv6,
        external,
        external_backed,
        range,
        own("ns1", "empty", &[]),
    ];
    (services, workloads)
}

fn with_addresses() -> Vec<Service> {
    let hidden = |namespace, name, vip| Service {
        visibility: Visibility::Namespace,
        ..own(namespace, name, &[vip])
    };
    let remote = &["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"];
    vec![
        service("ns1", "www.google.com", &["1.1.1.1"]),
        own("ns1", "productpage", &["9.9.9.9"]),
        own("ns2", "example", &["10.10.10.10"]),
        hidden("ns2", "nslocal", "10.10.10.11"),
        hidden("ns1", "nslocalsame", "10.10.10.12"),
        service("ns2", "details.ns2.svc.cluster.remote", remote),
        service("ns1", "dual.localhost", &["1.2.3.4", "2001:db8::4"]),
        Service {
            ip_families: Some(IpFamilies::Ipv6),
            ..service("ns1", "ipv6.localhost", &["1.2.3.5", "2001:db8::5"])
        },
        Service {
            ip_families: Some(IpFamilies::Ipv4),
            ..service("ns1", "ipv4.localhost", &["1.2.3.6", "2001:db8::6"])
        },
        service("ns1", "*.wildcard", &["10.2.0.1"]),
        service("ns1", "*.b.wildcard", &["10.2.0.2"]),
        service("ns1", "*.svc.mesh.company.net", &["10.1.2.3"]),
        own("ns1", "nw2-only", &["nw2/10.3.0.1"]),
        own("ns1", "both-networks", &["10.3.0.2", "nw2/10.3.0.3"]),
    ]
}

/// Several services of one name.
fn rivals() -> Vec<Service> {
    let canonical = |service| Service {
        canonical: true,
        ..service
    };
    vec![
        service("ns2", "preferred.io", &["10.4.0.1"]),
        service("preferred-ns", "preferred.io", &["10.4.0.2"]),
        service("ns2", "everywhere.io", &["10.4.1.2"]),
        service("ns1", "everywhere.io", &["10.4.1.1"]),
        service("preferred-ns", "everywhere.io", &["10.4.1.3"]),
        service("ns2", "canonical.svc", &["10.4.2.2"]),
        canonical(service("ns3", "canonical.svc", &["10.4.2.3"])),
        service("ns1", "canonical.with.local", &["10.4.3.1"]),
        canonical(service("ns2", "canonical.with.local", &["10.4.3.2"])),
        // Without addresses of its own the client's service does not stand in the way of another.
        service("ns1", "shadow.io", &[]),
        service("ns2", "shadow.io", &["10.4.4.2"]),
        Service {
            visibility: Visibility::Namespace,
            ..service("ns2", "*.hidden.io", &["10.4.5.1"])
        },
        service("ns1", "*.io", &["10.4.6.1"]),
    ]
}

fn seeded(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    move |bound| random.u64(0..bound)
}

fn listed() -> Vec<Arc<str>> {
    [
        "ns1.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
    ]
    .map(Arc::from)
    .to_vec()
}

fn asker<'a>(client: &'a Workload, search: &'a [Arc<str>]) -> Asker<'a> {
    Asker {
        workload: client,
        cluster_domain: DOMAIN,
        search: SearchDomains::Listed(search),
        preferred_namespace: Some("preferred-ns"),
        ipv6: true,
    }
}

/// Sorted addresses and alias; `None` is forwarded.
fn asked(name: &str, family: Family) -> Option<(Option<String>, Vec<String>)> {
    let client = workload("ns1", "client", &["10.0.0.1"]);
    let search = listed();
    let known = look_up(
        name,
        family,
        &asker(&client, &search),
        &mesh(),
        &mut seeded(7),
    )?;
    let mut addresses: Vec<_> = known.addresses.iter().map(ToString::to_string).collect();
    addresses.sort();
    Some((known.alias_of, addresses))
}

/// Name, family, alias and addresses; `fwd` instead of addresses is forwarded.
const TABLE: &[(&str, Family, &str, &str)] = &[
    ("www.google.com", Family::V4, "", "1.1.1.1"),
    (
        "www.google.com.ns1.svc.cluster.local",
        Family::V4,
        "www.google.com",
        "1.1.1.1",
    ),
    (
        "www.google.com.svc.cluster.local",
        Family::V4,
        "www.google.com",
        "1.1.1.1",
    ),
    ("www.bing.com", Family::V4, "", "fwd"),
    (
        "productpage.ns1.svc.cluster.local",
        Family::V4,
        "",
        "9.9.9.9",
    ),
    ("productpage.ns1.svc", Family::V4, "", "9.9.9.9"),
    ("productpage.ns1", Family::V4, "", "9.9.9.9"),
    ("productpage", Family::V4, "", "9.9.9.9"),
    (
        "productpage.ns1.ns1.svc.cluster.local",
        Family::V4,
        "productpage.ns1",
        "9.9.9.9",
    ),
    ("productpage.ns1.ns1.svc.cluster.local", Family::V6, "", ""),
    ("example.ns2", Family::V4, "", "10.10.10.10"),
    ("example.ns2.svc", Family::V4, "", "10.10.10.10"),
    (
        "example.ns2.svc.cluster.local",
        Family::V4,
        "",
        "10.10.10.10",
    ),
    ("example", Family::V4, "", "fwd"),
    ("nslocal.ns2.svc.cluster.local", Family::V4, "", "fwd"),
    (
        "nslocalsame.ns1.svc.cluster.local",
        Family::V4,
        "",
        "10.10.10.12",
    ),
    (
        "details.ns2.svc.cluster.remote",
        Family::V4,
        "",
        "10.1.0.1 10.1.0.2 10.1.0.3 10.1.0.4",
    ),
    ("details.ns2", Family::V4, "", "fwd"),
    ("dual.localhost", Family::V4, "", "1.2.3.4"),
    ("dual.localhost", Family::V6, "", "2001:db8::4"),
    ("ipv6.localhost", Family::V4, "", ""),
    ("ipv6.localhost", Family::V6, "", "2001:db8::5"),
    ("ipv4.localhost", Family::V6, "", ""),
    ("ipv4.localhost", Family::V4, "", "1.2.3.6"),
    ("foo.wildcard", Family::V4, "", "10.2.0.1"),
    ("a.b.wildcard", Family::V4, "", "10.2.0.2"),
    ("a.c.wildcard", Family::V4, "", "10.2.0.1"),
    ("wildcard", Family::V4, "", "fwd"),
    ("foo.svc.mesh.company.net", Family::V4, "", "10.1.2.3"),
    ("foo.foons.svc.mesh.company.net", Family::V4, "", "10.1.2.3"),
    (
        "foo.svc.mesh.company.net.ns1.svc.cluster.local",
        Family::V4,
        "",
        "10.1.2.3",
    ),
    ("nw2-only.ns1.svc.cluster.local", Family::V4, "", ""),
    (
        "both-networks.ns1.svc.cluster.local",
        Family::V4,
        "",
        "10.3.0.2",
    ),
    (
        "headless.ns1.svc.cluster.local",
        Family::V4,
        "",
        "10.0.1.1 10.0.1.2",
    ),
    (
        "headless.ns1.svc.cluster.local",
        Family::V6,
        "",
        "2001:db8::1 2001:db8::2",
    ),
    ("headless-ipv6.ns1.svc.cluster.local", Family::V4, "", ""),
    (
        "headless-ipv6.ns1.svc.cluster.local",
        Family::V6,
        "",
        "2001:db8::3",
    ),
    ("headless.example.com", Family::V4, "", "fwd"),
    ("headless-backed.example.com", Family::V4, "", "fwd"),
    ("range.example.com", Family::V4, "", "fwd"),
    ("empty.ns1.svc.cluster.local", Family::V4, "", ""),
    ("headless.pod0.ns1.svc.cluster.local", Family::V4, "", "fwd"),
    ("preferred.io", Family::V4, "", "10.4.0.2"),
    ("everywhere.io", Family::V4, "", "10.4.1.1"),
    ("canonical.svc", Family::V4, "", "10.4.2.3"),
    ("canonical.with.local", Family::V4, "", "10.4.3.1"),
    ("shadow.io", Family::V4, "", "10.4.4.2"),
    // A wildcard of another namespace is no reason to stop at, and the next one still covers.
    ("x.hidden.io", Family::V4, "", "10.4.6.1"),
    ("unknown.example.com", Family::V4, "", "fwd"),
];

#[test]
fn each_name_of_the_contract_is_answered_as_it_says() {
    for &(name, family, alias, addresses) in TABLE {
        let expected = (addresses != "fwd").then(|| {
            let addresses: Vec<_> = addresses.split_whitespace().map(str::to_owned).collect();
            ((!alias.is_empty()).then(|| alias.to_owned()), addresses)
        });
        assert_eq!(asked(name, family), expected, "{name} {family:?}");
    }
}

#[test]
fn a_wildcard_of_an_earlier_alias_beats_an_exact_name_of_a_later_one() {
    let snapshot = Builder::new("".into()).apply(Change {
        services: vec![
            service("ns1", "*.ns1", &["10.0.0.1"]),
            own("ns1", "web", &["10.0.0.2"]),
        ],
        ..Change::default()
    });
    let client = workload("ns1", "client", &[]);
    let known = look_up(
        "web.ns1",
        Family::V4,
        &asker(&client, &[]),
        &snapshot,
        &mut seeded(1),
    );
    assert_eq!(known.unwrap().addresses[0].to_string(), "10.0.0.1");
}

#[test]
fn without_ipv6_a_known_name_has_no_aaaa_and_says_why() {
    let client = workload("ns1", "client", &[]);
    let search = listed();
    let asker = Asker {
        ipv6: false,
        ..asker(&client, &search)
    };
    let ask = |name, family| look_up(name, family, &asker, &mesh(), &mut seeded(1));
    let known = ask("dual.localhost", Family::V6).unwrap();
    assert_eq!((known.addresses, known.family_suits), (Vec::new(), false));
    assert!(ask("dual.localhost", Family::V4).unwrap().family_suits);
    assert_eq!(ask("www.bing.com", Family::V6), None);
}

#[test]
fn expanding_follows_the_number_of_labels() {
    let client = workload("ns1", "client", &[]);
    let asker = asker(&client, &[]);
    for (name, expected) in [
        ("name", "name.ns1.svc.cluster.local"),
        (
            "name.ns2",
            "name.ns2.svc.cluster.local name.ns2.ns1.svc.cluster.local",
        ),
        (
            "name.ns2.svc",
            "name.ns2.svc.cluster.local name.ns2.svc.svc.cluster.local",
        ),
        ("name.ns2.not-svc", "name.ns2.not-svc.svc.cluster.local"),
        ("pod.sub.ns.svc", "pod.sub.ns.svc.cluster.local"),
        ("pod.sub.ns.not-svc", ""),
        ("name.ns2.svc.cluster", ""),
        ("name.ns2.svc.cluster.local", ""),
        ("www.google.com", "www.google.com.svc.cluster.local"),
    ] {
        let expected: Vec<_> = expected.split_whitespace().collect();
        assert_eq!(expand(name, &asker), expected, "{name}");
    }
}

#[test]
fn wildcards_go_from_the_most_specific_to_the_last_label() {
    let of = |name| with_wildcards(name).collect::<Vec<_>>();
    assert_eq!(of("svc1"), ["svc1"]);
    assert_eq!(
        of("svc1.ns1.svc.cluster.local"),
        [
            "svc1.ns1.svc.cluster.local",
            "*.ns1.svc.cluster.local",
            "*.svc.cluster.local",
            "*.cluster.local",
            "*.local",
        ]
    );
}

#[test]
fn a_search_domain_is_taken_off_whole_labels_and_never_everything() {
    for (name, domain, rest) in [
        ("a.svc.cluster.local", "svc.cluster.local", Some("a")),
        ("svc.cluster.local", "svc.cluster.local", None),
        ("xsvc.cluster.local", "svc.cluster.local", None),
        ("a.b", "", None),
        ("a.b.c", "c", Some("a.b")),
    ] {
        assert_eq!(without_domain(name, domain), rest, "{name} - {domain}");
    }
}

#[test]
fn aliases_come_in_order_and_none_twice() {
    let client = workload("ns1", "client", &[]);
    let search = listed();
    let names: Vec<_> = aliases("a.ns1.svc.cluster.local", &asker(&client, &search))
        .into_iter()
        .map(|alias| (alias.name, alias.stripped))
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        names,
        [
            ("a.ns1.svc.cluster.local".to_owned(), None),
            ("a".to_owned(), some("a")),
            ("a.ns1".to_owned(), some("a.ns1")),
            ("a.ns1.ns1.svc.cluster.local".to_owned(), some("a.ns1")),
            ("a.ns1.svc".to_owned(), some("a.ns1.svc")),
            ("a.ns1.svc.svc.cluster.local".to_owned(), some("a.ns1.svc")),
        ]
    );
}

#[test]
fn pods_have_the_search_domains_of_their_namespace() {
    let client = workload("default-ns", "client", &[]);
    let asker = Asker {
        search: SearchDomains::OfNamespace,
        ..asker(&client, &[])
    };
    let domains = search_domains(&asker);
    let domains: Vec<_> = domains.iter().map(|domain| &**domain).collect();
    assert_eq!(
        domains,
        [
            "default-ns.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local"
        ]
    );
}

#[test]
fn every_address_comes_first_about_as_often_as_the_others() {
    let client = workload("ns1", "client", &[]);
    let search = listed();
    let (mesh, mut random) = (mesh(), seeded(42));
    let mut first = std::collections::BTreeMap::new();
    for _ in 0..4_000 {
        let known = look_up(
            "details.ns2.svc.cluster.remote",
            Family::V4,
            &asker(&client, &search),
            &mesh,
            &mut random,
        );
        *first.entry(known.unwrap().addresses[0]).or_insert(0) += 1;
    }
    assert_eq!(first.len(), 4);
    assert!(
        first.values().all(|count| (900..1_100).contains(count)),
        "{first:?}"
    );
}
