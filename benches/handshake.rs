//! A full mutual TLS 1.3 handshake in memory, both sides together: key exchange X25519MLKEM768,
//! certificates of P-256.

#[path = "support/memory.rs"]
mod memory;

use std::hint::black_box;

use corelane::tls::Records;
use criterion::{Criterion, criterion_group, criterion_main};
use memory::{Parties, shake_hands};

fn handshake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake, both sides");
    for (name, records) in [("in-place", Records::InPlace), ("rustls", Records::Library)] {
        let parties = Parties::new(records);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let pair = shake_hands(&parties);
                black_box((pair.sender, pair.receiver, pair.lane))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, handshake);
criterion_main!(benches);
