//! State at 1,000, 10,000 and 100,000 workloads: look-ups a connection needs, and one-workload deltas.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use corelane::model::addr::NetworkAddress;
use corelane::model::workload::Workload;
use corelane::snapshot::Snapshot;
use corelane::snapshot::builder::{Builder, Change};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn workload(number: u32) -> Workload {
    Workload {
        uid: format!("cluster//Pod/ns-{}/pod-{number}", number % 100).into(),
        name: format!("pod-{number}").into(),
        namespace: format!("ns-{}", number % 100).into(),
        service_account: format!("account-{}", number % 1_000).into(),
        trust_domain: "cluster.local".into(),
        node: format!("node-{}", number % 500).into(),
        addresses: vec![address(number)],
        capacity: 1,
        ..Workload::default()
    }
}

fn mesh(size: u32) -> (Builder, Arc<Snapshot>) {
    let mut builder = Builder::new("node-0".into());
    let change = Change {
        workloads: (0..size).map(workload).collect(),
        ..Change::default()
    };
    let snapshot = builder.apply(change);
    (builder, snapshot)
}

fn state(criterion: &mut Criterion) {
    let mut reads = criterion.benchmark_group("workload by address");
    for size in SIZES {
        let (_, snapshot) = mesh(size);
        let keys: Vec<_> = (0..256)
            .map(|n| NetworkAddress {
                network: "".into(),
                ip: address(n * (size / 256)),
            })
            .collect();
        reads.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let mut next = 0;
            bencher.iter(|| {
                next = (next + 1) % keys.len();
                black_box(snapshot.workload_by_address(&keys[next]))
            });
        });
    }
    reads.finish();
    let mut deltas = criterion.benchmark_group("one workload replaced");
    for size in SIZES {
        let (mut builder, _) = mesh(size);
        let mut number = 0;
        deltas.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                number = (number + 7_919) % size;
                let mut replaced = workload(number);
                replaced.canonical_name = format!("revision-{number}").into();
                let change = Change {
                    workloads: vec![replaced],
                    ..Change::default()
                };
                black_box(builder.apply(change))
            });
        });
    }
    deltas.finish();
}

criterion_group!(benches, state);
criterion_main!(benches);
