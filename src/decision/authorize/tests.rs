//! Vectors of authorization.md 8.1 to 8.4 by their number, and the conversions of section 7.

use super::matching::{check, string_matches};
use super::*;
use crate::decision::fixture::{Mesh, exact, policy, workload};
use crate::model::policy::{PolicyMatch, PolicyRule, ServiceAccountMatch, StringMatch};

mod index;

const ALLOWED: Result<(), Denied> = Ok(());

fn facts(identity: Option<&str>, source: &str, destination: &str) -> ConnectionFacts {
    let (ip, port) = destination.rsplit_once(':').unwrap();
    ConnectionFacts {
        identity: identity.map(|text| Arc::new(text.parse().unwrap())),
        source_ip: source.parse().unwrap(),
        destination_ip: ip.parse().unwrap(),
        destination_port: port.parse().unwrap(),
        destination: Arc::new(workload("ns1", "server", &[ip])),
    }
}

/// Connection P of the vectors.
fn plain() -> ConnectionFacts {
    facts(None, "127.0.0.1", "127.0.0.2:8080")
}

/// Connection T.
fn mesh_peer() -> ConnectionFacts {
    let identity = "spiffe://td/ns/namespace/sa/account";
    facts(Some(identity), "127.0.0.1", "127.0.0.2:8080")
}

/// Connection A.
fn other_peer() -> ConnectionFacts {
    let identity = "spiffe://td-alt/ns/ns-alt/sa/sa=alt";
    facts(Some(identity), "127.0.0.3", "127.0.0.4:9090")
}

fn on_port(mut facts: ConnectionFacts, port: u16) -> ConnectionFacts {
    facts.destination_port = port;
    facts
}

fn account(name: &str) -> ConnectionFacts {
    let identity = format!("spiffe://cluster.local/ns/default/sa/{name}");
    facts(Some(&identity), "127.0.0.1", "127.0.0.2:8080")
}

fn with_subject<T>(facts: &ConnectionFacts, look: impl FnOnce(&Subject<'_>) -> T) -> T {
    let principal = PrincipalText::new(facts.identity.as_deref());
    look(&Subject::new(facts, &principal))
}

fn policy_matches(policy: &Policy, facts: &ConnectionFacts) -> bool {
    with_subject(facts, |subject| matching::policy_matches(policy, subject))
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn service_account(namespace: &str, name: &str) -> ServiceAccountMatch {
    ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: name.into(),
    }
}

fn declare(fill: impl FnOnce(&mut PolicyMatch)) -> PolicyMatch {
    let mut m = PolicyMatch::default();
    fill(&mut m);
    m
}

/// One rule, one clause, one match.
fn only(m: PolicyMatch) -> Vec<PolicyRule> {
    vec![vec![vec![m]]]
}

/// `[[]]`: one rule without clauses.
fn everything() -> Vec<PolicyRule> {
    vec![vec![]]
}

fn allow(key: &str, rules: Vec<PolicyRule>) -> Policy {
    Policy {
        rules,
        ..policy(key)
    }
}

fn deny(key: &str, rules: Vec<PolicyRule>) -> Policy {
    Policy {
        action: PolicyAction::Deny,
        ..allow(key, rules)
    }
}

fn dry_run(policy: Policy) -> Policy {
    Policy {
        dry_run: true,
        ..policy
    }
}

fn of_scope(scope: PolicyScope, policy: Policy) -> Policy {
    Policy { scope, ..policy }
}

fn mesh(policies: impl IntoIterator<Item = Policy>) -> Arc<Snapshot> {
    policies
        .into_iter()
        .fold(Mesh::default(), Mesh::policy)
        .snapshot()
}

fn attached(mut facts: ConnectionFacts, keys: &[&str]) -> ConnectionFacts {
    let mut workload = (*facts.destination).clone();
    workload.authorization_policies = keys.iter().map(|key| (*key).into()).collect();
    facts.destination = Arc::new(workload);
    facts
}

fn verdict(facts: &ConnectionFacts, snapshot: &Snapshot) -> Result<(), Denied> {
    authorize(facts, snapshot).verdict.map(drop)
}

fn explicitly(policy: &str) -> Result<(), Denied> {
    Err(Denied::Explicit {
        policy: policy.into(),
    })
}

/// Notes as `TEXT` or `TEXT NAMESPACE/NAME`.
fn notes(facts: &ConnectionFacts, snapshot: &Snapshot) -> Vec<String> {
    let show = |note: &Note| match &note.policy {
        Some(policy) => format!("{} {}", note.text, policy.key()),
        None => note.text.to_owned(),
    };
    authorize(facts, snapshot).notes.iter().map(show).collect()
}

/// Rows: number, content of the match, and whether it matches P, T and A.
#[expect(clippy::too_many_lines, reason = "one table")]
fn match_vectors() -> Vec<(u32, PolicyMatch, [u8; 3])> {
    let ns = || exact("namespace");
    let principal = || exact("td/ns/namespace/sa/account");
    let with_scheme = || exact("spiffe://td/ns/namespace/sa/account");
    let net = |text: &str| text.parse().unwrap();
    vec![
        (1, declare(|m| m.namespaces = vec![ns()]), [0, 1, 0]),
        (2, declare(|m| m.not_namespaces = vec![ns()]), [1, 0, 1]),
        (
            3,
            declare(|m| m.service_accounts = vec![service_account("namespace", "account")]),
            [0, 1, 0],
        ),
        (
            4,
            declare(|m| m.not_service_accounts = vec![service_account("namespace", "account")]),
            [1, 0, 1],
        ),
        (5, declare(|m| m.principals = vec![principal()]), [0, 1, 0]),
        (
            6,
            declare(|m| m.not_principals = vec![principal()]),
            [1, 0, 1],
        ),
        (
            7,
            declare(|m| m.source_ips = vec![net("127.0.0.1/32")]),
            [1, 1, 0],
        ),
        (
            8,
            declare(|m| m.not_source_ips = vec![net("127.0.0.1/32")]),
            [0, 0, 1],
        ),
        (
            9,
            declare(|m| m.destination_ips = vec![net("127.0.0.2/32")]),
            [1, 1, 0],
        ),
        (
            10,
            declare(|m| m.not_destination_ips = vec![net("127.0.0.2/32")]),
            [0, 0, 1],
        ),
        (
            11,
            declare(|m| m.destination_ips = vec![net("127.0.0.1/24")]),
            [1, 1, 1],
        ),
        (12, declare(|m| m.destination_ports = vec![8080]), [1, 1, 0]),
        (
            13,
            declare(|m| m.not_destination_ports = vec![8080]),
            [0, 0, 1],
        ),
        (
            14,
            declare(|m| m.principals = vec![StringMatch::Presence]),
            [0, 1, 1],
        ),
        (
            15,
            declare(|m| m.not_principals = vec![StringMatch::Presence]),
            [1, 0, 0],
        ),
        (
            16,
            declare(|m| m.namespaces = vec![StringMatch::Presence]),
            [0, 1, 1],
        ),
        (
            17,
            declare(|m| m.not_namespaces = vec![StringMatch::Presence]),
            [1, 0, 0],
        ),
        (18, declare(|m| m.namespaces = vec![exact("")]), [1, 0, 0]),
        (19, declare(|m| m.namespaces = vec![prefix("")]), [1, 1, 1]),
        (20, declare(|m| m.principals = vec![prefix("")]), [0, 1, 1]),
        (
            21,
            declare(|m| m.principals = vec![with_scheme()]),
            [0, 0, 0],
        ),
        (
            22,
            declare(|m| m.not_principals = vec![with_scheme()]),
            [1, 1, 1],
        ),
        (
            23,
            declare(|m| m.principals = vec![prefix("td/")]),
            [0, 1, 0],
        ),
        (
            24,
            declare(|m| m.principals = vec![prefix("td")]),
            [0, 1, 1],
        ),
        (
            25,
            declare(|m| m.principals = vec![suffix("/sa/account")]),
            [0, 1, 0],
        ),
        (
            26,
            declare(|m| m.service_accounts = vec![service_account("", "account")]),
            [0, 0, 0],
        ),
        (
            27,
            declare(|m| m.destination_ips = vec![net("::/0")]),
            [0, 0, 0],
        ),
        (
            28,
            declare(|m| m.not_destination_ips = vec![net("::/0")]),
            [1, 1, 1],
        ),
        (
            29,
            declare(|m| m.source_ips = vec![net("0.0.0.0/0")]),
            [1, 1, 1],
        ),
        (
            30,
            declare(|m| m.destination_ports = vec![15008]),
            [0, 0, 0],
        ),
        (
            31,
            declare(|m| m.namespaces = vec![exact("x"), prefix("name"), suffix("alt")]),
            [0, 1, 1],
        ),
        (
            32,
            declare(|m| {
                m.namespaces = vec![ns()];
                m.destination_ports = vec![8080];
            }),
            [0, 1, 0],
        ),
        (
            33,
            declare(|m| {
                m.namespaces = vec![ns()];
                m.not_destination_ports = vec![8080];
            }),
            [0, 0, 0],
        ),
    ]
}

#[test]
fn every_field_matches_as_vectors_1_to_33_say() {
    let connections = [plain(), mesh_peer(), other_peer()];
    let vectors = match_vectors();
    assert_eq!(vectors.len(), 33);
    for (number, content, expected) in vectors {
        let policy = allow("ns1/p", only(content));
        let seen = connections
            .each_ref()
            .map(|facts| u8::from(policy_matches(&policy, facts)));
        assert_eq!(seen, expected, "vector {number} on P, T, A");
    }
}

#[test]
fn emptiness_and_nesting_are_as_vectors_34_to_46_say() {
    let ns = |name: &str| declare(|m| m.namespaces = vec![exact(name)]);
    let port = |port| declare(|m| m.destination_ports = vec![port]);
    let from = |namespace: &str, port| {
        let identity = format!("spiffe://td/ns/{namespace}/sa/account");
        facts(Some(&identity), "127.0.0.1", &format!("127.0.0.2:{port}"))
    };
    let on_remote = |mut facts: ConnectionFacts| {
        let mut workload = (*facts.destination).clone();
        workload.network = "remote".into();
        facts.destination = Arc::new(workload);
        facts
    };
    let two_clauses = || vec![vec![vec![ns("a"), ns("b")], vec![port(80)]]];
    let two_rules = || vec![vec![vec![ns("a")]], vec![vec![ns("b")]]];
    let empty_beside_port = vec![vec![vec![PolicyMatch::default()], vec![port(8080)]]];
    let rows = [
        (34, vec![], plain(), false),
        (35, everything(), plain(), true),
        (36, vec![vec![vec![]]], plain(), true),
        (37, only(PolicyMatch::default()), plain(), false),
        (38, two_clauses(), from("a", 80), true),
        (39, two_clauses(), from("b", 80), true),
        (40, two_clauses(), on_remote(from("b", 80)), true),
        (41, two_clauses(), from("bad", 80), false),
        (42, two_clauses(), from("b", 12345), false),
        (43, two_rules(), from("a", 80), true),
        (44, two_rules(), from("b", 80), true),
        (45, two_rules(), from("bad", 80), false),
        (46, empty_beside_port, mesh_peer(), false),
    ];
    for (number, rules, facts, expected) in rows {
        let policy = allow("ns1/p", rules);
        assert_eq!(policy_matches(&policy, &facts), expected, "vector {number}");
    }
}

#[test]
fn strings_match_as_vectors_47_to_57_say() {
    let rows = [
        (47, exact("foo"), "foo", true),
        (48, exact("foo"), "not", false),
        (49, exact("foo"), "", false),
        (50, prefix("foo"), "foobar", true),
        (51, prefix("foo"), "notfoo", false),
        (52, prefix("foo"), "", false),
        (53, suffix("foo"), "barfoo", true),
        (54, suffix("foo"), "foonot", false),
        (55, suffix("foo"), "", false),
        (56, StringMatch::Presence, "foo", true),
        (57, StringMatch::Presence, "", false),
    ];
    for (number, pattern, value, expected) in rows {
        let seen = string_matches(&pattern, value.as_bytes());
        assert_eq!(seen, expected, "vector {number}");
    }
    assert!(!string_matches(&exact("foo"), b"Foo"), "case counts");
}

fn principal_is(name: &str) -> PolicyMatch {
    declare(|m| m.principals = vec![exact(&format!("cluster.local/ns/default/sa/{name}"))])
}

/// Set X of the vectors.
fn set_x() -> [Policy; 4] {
    [
        allow("ns1/foo", only(principal_is("defaultacct"))),
        deny("ns1/deny", only(principal_is("denyacct"))),
        dry_run(allow("ns1/dry-allow", everything())),
        dry_run(deny("ns1/dry-deny", everything())),
    ]
}

#[test]
fn allow_and_deny_policies_decide_as_vectors_58_to_62_say() {
    let x = mesh(set_x());
    let mut elsewhere = account("denyacct");
    elsewhere.destination = Arc::new(workload("ns2", "server", &["127.0.0.2"]));
    assert_eq!(verdict(&elsewhere, &x), ALLOWED, "vector 58");
    assert_eq!(verdict(&account("defaultacct"), &x), ALLOWED, "vector 59");
    let stranger = verdict(&account("not-defaultacct"), &x);
    assert_eq!(stranger, Err(Denied::NoneAllowed), "vector 60");
    let denied = verdict(&account("denyacct"), &x);
    assert_eq!(denied, explicitly("ns1/deny"), "vector 61");
    for facts in [plain(), mesh_peer(), account("denyacct")] {
        assert_eq!(verdict(&facts, &mesh([])), ALLOWED, "vector 62");
    }
}

#[test]
fn dry_run_policies_are_noted_and_never_enforced() {
    let either = vec![vec![vec![
        principal_is("defaultacct"),
        principal_is("denyacct"),
    ]]];
    let snapshot = mesh([
        deny("ns1/deny", only(principal_is("denyacct"))),
        dry_run(deny("ns1/dry-run-deny", either)),
        allow("ns1/allow", only(principal_is("defaultacct"))),
        dry_run(allow(
            "ns1/dry-run-allow",
            only(principal_is("defaultacct")),
        )),
    ]);
    let allowed = account("defaultacct");
    assert_eq!(verdict(&allowed, &snapshot), ALLOWED, "vector 63");
    assert_eq!(
        notes(&allowed, &snapshot),
        [
            "dry-run: deny policy match ns1/dry-run-deny",
            "dry-run: allow policy match ns1/dry-run-allow",
            "allow policy match ns1/allow",
        ],
        "vector 63"
    );
    let denied = account("denyacct");
    assert_eq!(verdict(&denied, &snapshot), explicitly("ns1/deny"));
    assert_eq!(
        notes(&denied, &snapshot),
        [
            "dry-run: deny policy match ns1/dry-run-deny",
            "deny policy match ns1/deny",
        ]
    );

    let dry_allow = dry_run(allow("ns1/dry", only(principal_is("somebody-else"))));
    let snapshot = mesh([dry_allow]);
    assert_eq!(verdict(&allowed, &snapshot), ALLOWED, "vector 69");
    assert_eq!(
        notes(&allowed, &snapshot),
        [
            "dry-run: no allow policies match",
            "no allow policies, allow"
        ],
        "vector 69"
    );
    let snapshot = mesh([dry_run(deny("ns1/dry", everything()))]);
    assert_eq!(verdict(&allowed, &snapshot), ALLOWED, "vector 70");
}

#[test]
fn a_dry_run_allow_beside_enforced_ones_is_not_reported_as_a_refusal() {
    let snapshot = mesh([
        allow("ns1/foo", only(principal_is("defaultacct"))),
        dry_run(allow("ns1/dry", only(principal_is("somebody-else")))),
    ]);
    let lines = notes(&account("stranger"), &snapshot);
    assert_eq!(lines, ["no allow policies matched"]);
}

#[test]
fn empty_rules_decide_as_vectors_64_to_68_say() {
    let empty_match = || only(PolicyMatch::default());
    let none_allowed = || Err(Denied::NoneAllowed);
    let rows = [
        (64, allow("ns1/p", vec![]), none_allowed()),
        (65, deny("ns1/p", vec![]), ALLOWED),
        (66, allow("ns1/p", everything()), ALLOWED),
        (67, deny("ns1/p", everything()), explicitly("ns1/p")),
        (68, allow("ns1/p", empty_match()), none_allowed()),
    ];
    for (number, policy, expected) in rows {
        let snapshot = mesh([policy]);
        for facts in [plain(), mesh_peer()] {
            assert_eq!(verdict(&facts, &snapshot), expected, "vector {number}");
        }
    }
}

const STRICT: &str = "istio-system/istio_converted_static_strict";

fn no_principal() -> PolicyMatch {
    declare(|m| m.not_principals = vec![StringMatch::Presence])
}

/// What the control plane sends for effective mutual TLS strictness.
fn static_strict() -> Policy {
    of_scope(
        PolicyScope::WorkloadSelector,
        deny(STRICT, only(no_principal())),
    )
}

#[test]
fn strict_mutual_tls_holds_where_it_is_attached() {
    let strict = mesh([static_strict()]);
    let refused = verdict(&attached(plain(), &[STRICT]), &strict);
    assert_eq!(refused, explicitly(STRICT), "vector 71, P");
    let accepted = verdict(&attached(mesh_peer(), &[STRICT]), &strict);
    assert_eq!(accepted, ALLOWED, "vector 71, T");
    let foreign = verdict(&attached(other_peer(), &[STRICT]), &strict);
    assert_eq!(foreign, ALLOWED, "any accepted trust domain satisfies it");
    let not_listed = verdict(&plain(), &strict);
    assert_eq!(not_listed, ALLOWED, "vector 73");
    let overridden = mesh([static_strict(), allow("ns1/all", everything())]);
    let refused = verdict(&attached(plain(), &[STRICT]), &overridden);
    assert_eq!(refused, explicitly(STRICT), "vector 72");
}

#[test]
fn strictness_with_exempt_or_additional_ports_is_per_port() {
    let clause = |m| vec![m];
    let exempt = declare(|m| m.not_destination_ports = vec![8080]);
    let strict_but_8080 = of_scope(
        PolicyScope::WorkloadSelector,
        deny("ns1/c", vec![vec![clause(no_principal()), clause(exempt)]]),
    );
    let only_9090 = of_scope(
        PolicyScope::WorkloadSelector,
        deny(
            "ns1/c",
            only(declare(|m| {
                m.not_principals = vec![StringMatch::Presence];
                m.destination_ports = vec![9090];
            })),
        ),
    );
    for (number, policy) in [(75, strict_but_8080), (76, only_9090)] {
        let snapshot = mesh([policy]);
        let rows = [
            (plain(), 8080, ALLOWED),
            (plain(), 9090, explicitly("ns1/c")),
            (mesh_peer(), 9090, ALLOWED),
        ];
        for (facts, port, expected) in rows {
            let facts = attached(on_port(facts, port), &["ns1/c"]);
            let seen = verdict(&facts, &snapshot);
            assert_eq!(seen, expected, "vector {number}, port {port}");
        }
    }
}

#[test]
fn an_attached_policy_that_is_not_known_refuses_and_is_named() {
    let unknown = || {
        Err(Denied::PolicyUnknown {
            policy: "ns1/absent".into(),
        })
    };
    let listing = |facts| attached(facts, &["ns1/absent"]);
    assert_eq!(
        verdict(&listing(plain()), &mesh([])),
        unknown(),
        "vector 74"
    );
    let allowing = mesh([allow("ns1/all", everything())]);
    assert_eq!(verdict(&listing(plain()), &allowing), unknown());
    let allowing_others = mesh([allow("ns1/none", vec![])]);
    assert_eq!(verdict(&listing(plain()), &allowing_others), unknown());
    let denying = mesh([deny("ns1/all", everything())]);
    assert_eq!(verdict(&listing(plain()), &denying), explicitly("ns1/all"));
    let text = unknown().unwrap_err().to_string();
    assert!(text.contains("ns1/absent"), "{text}");
    // Its deny: once it is known and does not match, nothing stands in the way.
    let known = of_scope(PolicyScope::WorkloadSelector, deny("ns1/absent", vec![]));
    assert_eq!(verdict(&listing(plain()), &mesh([known])), ALLOWED);
}

#[test]
fn scope_decides_whom_a_policy_protects() {
    let global = of_scope(PolicyScope::Global, deny("istio-system/all", everything()));
    let refused = verdict(&plain(), &mesh([global]));
    assert_eq!(refused, explicitly("istio-system/all"), "vector 77");
    let foreign = mesh([deny("ns2/all", everything())]);
    assert_eq!(verdict(&plain(), &foreign), ALLOWED, "vector 78");
    // Scope is not looked at again when a workload lists the policy itself.
    let listed = attached(plain(), &["ns2/all"]);
    assert_eq!(verdict(&listed, &foreign), explicitly("ns2/all"));
    let selector = of_scope(
        PolicyScope::WorkloadSelector,
        deny("ns1/selected", everything()),
    );
    assert_eq!(verdict(&plain(), &mesh([selector])), ALLOWED);
}

#[test]
fn a_principal_with_a_scheme_allows_nobody() {
    let waypoint = "spiffe://cluster.local/ns/default/sa/waypoint";
    let snapshot = mesh([allow(
        "ns1/waypoint-only",
        only(declare(|m| m.principals = vec![exact(waypoint)])),
    )]);
    for facts in [account("client"), account("waypoint")] {
        let denied = verdict(&facts, &snapshot).unwrap_err();
        assert_eq!(
            CloseReason::from(denied).to_string(),
            "connection closed due to policy rejection: \
             allow policies exist, but none allowed",
            "vector 79"
        );
    }
    let text = explicitly("ns1/deny").unwrap_err().to_string();
    assert_eq!(text, "explicitly denied by: ns1/deny");
}

#[test]
fn waypoint_only_access_lets_the_waypoint_in_and_nobody_else() {
    let snapshot = mesh([allow(
        "ns1/istio_allow_waypoint_ns1_wp",
        only(principal_is("waypoint")),
    )]);
    assert_eq!(verdict(&account("waypoint"), &snapshot), ALLOWED);
    for facts in [account("client"), plain()] {
        assert_eq!(verdict(&facts, &snapshot), Err(Denied::NoneAllowed));
    }
}

/// `from`, `to` and `when` of one rule become one clause each; entries of `from` and `to` one
/// match each (authorization 7).
#[test]
fn a_converted_rule_needs_its_source_its_port_and_its_conditions() {
    let from = vec![
        declare(|m| m.service_accounts = vec![service_account("namespace", "account")]),
        declare(|m| m.principals = vec![suffix("/sa=alt")]),
    ];
    let to = vec![
        declare(|m| m.destination_ports = vec![8080]),
        declare(|m| m.destination_ports = vec![9090]),
    ];
    let when = vec![declare(|m| {
        m.source_ips = vec!["127.0.0.1/32".parse().unwrap()];
    })];
    let snapshot = mesh([allow("ns1/converted", vec![vec![from, to, when]])]);
    assert_eq!(verdict(&mesh_peer(), &snapshot), ALLOWED);
    assert_eq!(verdict(&on_port(mesh_peer(), 9090), &snapshot), ALLOWED);
    let wrong_source_ip = other_peer();
    let wrong_port = on_port(mesh_peer(), 80);
    for facts in [plain(), wrong_port, wrong_source_ip] {
        assert_eq!(verdict(&facts, &snapshot), Err(Denied::NoneAllowed));
    }
}

#[test]
fn a_policy_that_applies_twice_is_evaluated_once() {
    let snapshot = mesh([
        dry_run(deny("ns1/dry", everything())),
        of_scope(PolicyScope::Global, dry_run(deny("root/dry", everything()))),
    ]);
    let listed = attached(plain(), &["ns1/dry", "root/dry"]);
    assert_eq!(
        notes(&listed, &snapshot),
        [
            "dry-run: deny policy match ns1/dry",
            "dry-run: deny policy match root/dry",
            "no allow policies, allow",
        ]
    );
}

#[test]
fn mapped_addresses_are_compared_in_their_ipv4_form() {
    let local = declare(|m| m.source_ips = vec!["127.0.0.0/8".parse().unwrap()]);
    let snapshot = mesh([deny("ns1/local", only(local))]);
    let mapped = facts(None, "::ffff:127.0.0.1", "127.0.0.2:8080");
    assert_eq!(verdict(&mapped, &snapshot), explicitly("ns1/local"));
    let real = facts(None, "::1", "127.0.0.2:8080");
    assert_eq!(verdict(&real, &snapshot), ALLOWED);
}

#[test]
fn a_principal_longer_than_the_stack_buffer_is_compared_whole() {
    let long = "a".repeat(1000);
    let peer = account(&long);
    let whole = declare(|m| {
        m.principals = vec![exact(&format!("cluster.local/ns/default/sa/{long}"))];
    });
    let cut = declare(|m| {
        m.principals = vec![exact(&format!(
            "cluster.local/ns/default/sa/{}",
            &long[1..]
        ))];
    });
    assert!(with_subject(&peer, |subject| check(&whole, subject).is_ok()));
    assert!(with_subject(&peer, |subject| check(&cut, subject).is_err()));
}
