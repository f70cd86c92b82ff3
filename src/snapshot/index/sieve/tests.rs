//! What is found for each kind of demand, and that nothing is left behind.

use super::*;
use crate::model::policy::{PolicyAction, PolicyScope, ServiceAccountMatch};

fn policy(rules: Vec<PolicyRule>) -> Arc<Policy> {
    Arc::new(Policy {
        name: "p".into(),
        namespace: "ns".into(),
        scope: PolicyScope::Global,
        action: PolicyAction::Deny,
        rules,
        dry_run: false,
    })
}

fn one(fill: impl FnOnce(&mut PolicyMatch)) -> Arc<Policy> {
    let mut m = PolicyMatch::default();
    fill(&mut m);
    policy(vec![vec![vec![m]]])
}

fn traits() -> Traits<'static> {
    Traits {
        principal: Some(b"td/ns/web/sa/client"),
        namespace: b"web",
        service_account: Some(b"client"),
        source_ip: [10, 1, 2, 3].into(),
        destination_ip: [0x20, 1, 0, 0, 0, 0, 0, 9].into(),
        destination_port: 8_080,
    }
}

fn is_found(policy: &Arc<Policy>) -> bool {
    let mut sieve = Sieve::default();
    sieve.put(&"ns/p".into(), policy);
    let found = sieve.candidates(&traits()).len();
    sieve.remove("ns/p", policy);
    assert_eq!((sieve.filed.size(), sieve.classes.size()), (0, 0));
    assert!(sieve.unsifted.is_empty());
    found == 1
}

fn text(kind: fn(Arc<str>) -> StringMatch, text: &str) -> Vec<StringMatch> {
    vec![kind(text.into())]
}

#[test]
fn each_demand_finds_who_meets_it_and_passes_over_who_does_not() {
    use StringMatch::{Exact, Prefix, Suffix};
    let principals = |list: Vec<StringMatch>| one(|m| m.principals = list);
    let namespaces = |list: Vec<StringMatch>| one(|m| m.namespaces = list);
    let sources = |range: &str| one(|m| m.source_ips = vec![range.parse().unwrap()]);
    let targets = |range: &str| one(|m| m.destination_ips = vec![range.parse().unwrap()]);
    let account = |namespace: &str, name: &str| {
        one(|m| {
            m.service_accounts = vec![ServiceAccountMatch {
                namespace: namespace.into(),
                service_account: name.into(),
            }];
        })
    };
    let port = |port| one(|m| m.destination_ports = vec![port]);
    for (policy, found) in [
        (principals(text(Exact, "td/ns/web/sa/client")), true),
        (principals(text(Exact, "td/ns/web/sa/clients")), false),
        (principals(text(Prefix, "td/ns/web/")), true),
        (principals(text(Prefix, "td/ns/wub/")), false),
        (
            principals(text(Prefix, "td/ns/web/sa/client-of-many")),
            false,
        ),
        (principals(text(Suffix, "/sa/client")), true),
        (principals(text(Suffix, "/sa/server")), false),
        (namespaces(text(Exact, "web")), true),
        (namespaces(text(Exact, "")), false),
        (namespaces(text(Prefix, "w")), true),
        (namespaces(text(Prefix, "x")), false),
        (namespaces(text(Suffix, "eb")), true),
        (namespaces(text(Suffix, "web-")), false),
        (account("web", "client"), true),
        (account("we", "bclient"), false),
        (sources("10.1.2.3/32"), true),
        (sources("10.1.9.9/16"), true),
        (sources("0.0.0.0/0"), true),
        (sources("10.2.0.0/16"), false),
        (sources("::/0"), false),
        (targets("20:1::/32"), true),
        (targets("20:2::/32"), false),
        (targets("0.0.0.0/0"), false),
        (port(8_080), true),
        (port(8_081), false),
    ] {
        assert_eq!(is_found(&policy), found, "{:?}", policy.rules);
    }
}

#[test]
fn what_cannot_be_looked_up_is_always_looked_at() {
    for policy in [
        policy(vec![vec![]]),
        policy(vec![vec![vec![]]]),
        one(|_| {}),
        one(|m| m.principals = vec![StringMatch::Presence]),
        one(|m| m.namespaces = text(StringMatch::Prefix, "")),
        one(|m| m.not_destination_ports = vec![1]),
    ] {
        assert!(is_found(&policy), "{:?}", policy.rules);
    }
    assert!(!is_found(&policy(vec![])), "without rules nothing matches");
}

#[test]
fn the_most_telling_demand_is_the_one_that_is_looked_up() {
    let busy_port = |m: &mut PolicyMatch| m.destination_ports = vec![8_080];
    let elsewhere = one(|m| {
        busy_port(m);
        m.namespaces = text(StringMatch::Exact, "other");
    });
    assert!(!is_found(&elsewhere));
    let (mut port, mut other) = (PolicyMatch::default(), PolicyMatch::default());
    busy_port(&mut port);
    other.principals = text(StringMatch::Exact, "td/ns/other/sa/x");
    let two_clauses = policy(vec![vec![vec![port], vec![other]]]);
    assert!(!is_found(&two_clauses));
}

#[test]
fn policies_of_the_same_demand_come_and_go_one_by_one_in_the_order_of_their_keys() {
    let policy = one(|m| m.destination_ports = vec![8_080, 9_090]);
    let mut sieve = Sieve::default();
    let keys: Vec<Arc<str>> = ["ns/c", "ns/a", "ns/b"].map(Arc::from).into();
    for (count, key) in (1..).zip(&keys) {
        sieve.put(key, &policy);
        assert_eq!(sieve.candidates(&traits()).len(), count);
    }
    let filed = sieve.filed.values().next().unwrap();
    let Filed::Many(all) = filed else {
        panic!("three share it")
    };
    assert_eq!(
        all.keys().map(|key| &**key).collect::<Vec<_>>(),
        ["ns/a", "ns/b", "ns/c"]
    );
    for (left, key) in (0..3).rev().zip(&keys) {
        sieve.remove(key, &policy);
        assert_eq!(sieve.candidates(&traits()).len(), left);
    }
    assert_eq!((sieve.filed.size(), sieve.classes.size()), (0, 0));
}
