//! Authorization against 10, 1,000 and 10,000 global DENY policies, none of which matches: through the
//! index of policies, and by a walk over all of them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use corelane::decision::authorize::{ConnectionFacts, authorize, authorize_by_walk};
use corelane::model::identity::Identity;
use corelane::model::policy::{
    Policy, PolicyAction, PolicyMatch, PolicyRule, PolicyScope, StringMatch,
};
use corelane::model::workload::Workload;
use corelane::snapshot::Snapshot;
use corelane::snapshot::builder::{Builder, Change};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Ten rules of three namespaces, three principals, two ranges and a port each.
fn rules(policy: usize) -> Vec<PolicyRule> {
    let rule = |number: usize| {
        let text = |kind: &str, index: usize| -> Arc<str> {
            format!("{kind}-{policy}-{number}-{index}").into()
        };
        vec![vec![PolicyMatch {
            namespaces: (0..3).map(|n| StringMatch::Exact(text("ns", n))).collect(),
            principals: (0..3).map(|n| StringMatch::Prefix(text("td", n))).collect(),
            source_ips: ["192.0.2.0/24", "198.51.100.0/24"]
                .iter()
                .filter_map(|range| range.parse().ok())
                .collect(),
            destination_ports: vec![9_999],
            ..PolicyMatch::default()
        }]]
    };
    (0..10).map(rule).collect()
}

fn mesh(policies: usize) -> Arc<Snapshot> {
    let policy = |number: usize| Policy {
        name: format!("policy-{number}").into(),
        namespace: "istio-system".into(),
        scope: PolicyScope::Global,
        action: PolicyAction::Deny,
        rules: rules(number),
        dry_run: false,
    };
    Builder::new("".into()).apply(Change {
        policies: (0..policies)
            .map(policy)
            .map(|policy| (policy.key().into(), policy))
            .collect(),
        ..Change::default()
    })
}

fn authorization(criterion: &mut Criterion) {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let facts = ConnectionFacts {
        identity: Some(Arc::new(Identity::new(
            "cluster.local",
            "default",
            "client",
        ))),
        source_ip: loopback,
        destination_ip: loopback,
        destination_port: 8_080,
        destination: Arc::new(Workload::default()),
    };
    let mut group = criterion.benchmark_group("no global deny matches");
    for policies in [10, 1_000, 10_000] {
        let snapshot = mesh(policies);
        group.bench_function(BenchmarkId::new("indexed", policies), |bencher| {
            bencher.iter(|| black_box(authorize(&facts, &snapshot).verdict.is_ok()));
        });
        group.bench_function(BenchmarkId::new("linear walk", policies), |bencher| {
            bencher.iter(|| black_box(authorize_by_walk(&facts, &snapshot).verdict.is_ok()));
        });
    }
    group.finish();
}

criterion_group!(benches, authorization);
criterion_main!(benches);
