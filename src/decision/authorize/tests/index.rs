//! The index never changes a decision: it is compared with a walk over all policies.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::policy::{PolicyAction, PolicyScope};
use crate::snapshot::builder::{Builder, Change};

fn pattern() -> impl Strategy<Value = StringMatch> {
    let text = prop_oneof![
        Just(""),
        Just("ns1"),
        Just("ns2"),
        Just("ns"),
        Just("1"),
        Just("td/ns/ns1/sa/a"),
        Just("td/ns/ns1/"),
        Just("/sa/a"),
        Just("b"),
    ];
    (text, 0..4).prop_map(|(text, kind)| match kind {
        0 => StringMatch::Exact(text.into()),
        1 => StringMatch::Prefix(text.into()),
        2 => StringMatch::Suffix(text.into()),
        _ => StringMatch::Presence,
    })
}

fn range() -> impl Strategy<Value = ipnet::IpNet> {
    prop_oneof![
        Just("10.0.0.1/32"),
        Just("10.0.0.9/24"),
        Just("10.0.0.0/8"),
        Just("0.0.0.0/0"),
        Just("fd00::1/128"),
        Just("fd00::/64"),
        Just("::/0"),
    ]
    .prop_map(|text| text.parse().unwrap())
}

fn account_of() -> impl Strategy<Value = ServiceAccountMatch> {
    (1..3, prop_oneof![Just("a"), Just("b")])
        .prop_map(|(namespace, name)| service_account(&format!("ns{namespace}"), name))
}

prop_compose! {
    fn some_match()(
        (namespaces, not_namespaces) in (vec(pattern(), 0..2), vec(pattern(), 0..2)),
        (principals, not_principals) in (vec(pattern(), 0..3), vec(pattern(), 0..2)),
        service_accounts in vec(account_of(), 0..2),
        (source_ips, destination_ips) in (vec(range(), 0..2), vec(range(), 0..2)),
        (destination_ports, not_destination_ports) in (vec(1_u16..4, 0..2), vec(1_u16..4, 0..2)),
    ) -> PolicyMatch {
        PolicyMatch {
            namespaces,
            not_namespaces,
            service_accounts,
            principals,
            not_principals,
            source_ips,
            destination_ips,
            destination_ports,
            not_destination_ports,
            ..PolicyMatch::default()
        }
    }
}

prop_compose! {
    fn some_policy()(
        rules in vec(vec(vec(some_match(), 0..3), 0..3), 0..3),
        name in 0..8,
        (scope, deny, dry_run) in (0..3, any::<bool>(), any::<bool>()),
    ) -> Policy {
        Policy {
            name: format!("p{name}").into(),
            namespace: "ns1".into(),
            scope: match scope {
                0 => PolicyScope::Global,
                1 => PolicyScope::Namespace,
                _ => PolicyScope::WorkloadSelector,
            },
            action: if deny { PolicyAction::Deny } else { PolicyAction::Allow },
            rules,
            dry_run,
        }
    }
}

/// Every party that some of the patterns above tell apart.
fn parties() -> Vec<ConnectionFacts> {
    let identities = [
        None,
        Some("spiffe://td/ns/ns1/sa/a"),
        Some("spiffe://td/ns/ns2/sa/b"),
    ];
    let addresses = [
        ("10.0.0.1", "10.0.0.9"),
        ("10.9.0.1", "10.0.0.1"),
        ("fd00::1", "fd00::2"),
    ];
    let mut all = Vec::new();
    for identity in identities {
        for (source, destination) in addresses {
            for port in 1..4 {
                let mut facts = plain();
                facts.identity = identity.map(|text| Arc::new(text.parse().unwrap()));
                facts.source_ip = source.parse().unwrap();
                facts.destination_ip = destination.parse().unwrap();
                facts.destination_port = port;
                let workload = Arc::make_mut(&mut facts.destination);
                workload.authorization_policies = vec!["ns1/p0".into(), "ns1/p1".into()];
                all.push(facts);
            }
        }
    }
    all
}

proptest! {
    /// Policies come, are replaced and go; after each change both ways decide alike for everybody.
    #[test]
    fn the_index_decides_as_a_walk_over_all_policies_does(
        changes in vec((some_policy(), any::<bool>()), 1..14),
    ) {
        let mut builder = Builder::new("".into());
        for (policy, remove) in changes {
            let key: Arc<str> = policy.key().into();
            let snapshot = builder.apply(if remove {
                Change { removed_policies: vec![key], ..Change::default() }
            } else {
                Change { policies: vec![(key, policy)], ..Change::default() }
            });
            for facts in parties() {
                let (indexed, walked) = (authorize(&facts, &snapshot), authorize_by_walk(&facts, &snapshot));
                prop_assert_eq!(indexed.verdict.map(drop), walked.verdict.map(drop));
                prop_assert_eq!(indexed.notes, walked.notes);
            }
        }
    }
}
