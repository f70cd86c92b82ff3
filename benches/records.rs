//! TLS records sealed and opened through a session in memory: our record layer against the TLS
//! library's own.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to say"
)]

#[path = "support/memory.rs"]
mod memory;

use std::hint::black_box;
use std::io::IoSlice;
use std::task::Poll;

use corelane::tls::{Records, TlsStream};
use corelane::transport::Transport;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memory::{Memory, Parties, Shared, context, shake_hands};

const SIZES_KIB: [usize; 4] = [1, 16, 64, 256];
const WAYS: [(&str, Records); 2] = [("in-place", Records::InPlace), ("rustls", Records::Library)];

/// Seals `data` into the lane.
fn seal(sender: &mut TlsStream<Memory>, data: &[u8]) {
    let mut sent = 0;
    while sent < data.len() {
        let rest = [IoSlice::new(&data[sent..])];
        if let Poll::Ready(taken) = sender.poll_send(&mut context(), &rest) {
            sent += taken.expect("taken");
        }
    }
    assert!(sender.poll_flush(&mut context()).is_ready());
}

/// Opens what lies in the lane until `buffer` is full.
fn open(receiver: &mut TlsStream<Memory>, buffer: &mut [u8]) {
    let mut got = 0;
    while got < buffer.len() {
        if let Poll::Ready(count) = receiver.poll_recv(&mut context(), &mut buffer[got..]) {
            got += count.expect("opened");
        }
    }
}

fn sealing(c: &mut Criterion) {
    let mut group = c.benchmark_group("seal");
    for size in SIZES_KIB {
        let data = vec![7; size * 1024];
        group.throughput(Throughput::Bytes(data.len() as u64));
        for (name, records) in WAYS {
            let mut pair = shake_hands(&Parties::new(records));
            group.bench_function(BenchmarkId::new(format!("{size}KiB"), name), |b| {
                b.iter(|| {
                    seal(&mut pair.sender, black_box(&data));
                    pair.lane.borrow_mut().bytes.clear();
                });
            });
        }
    }
    group.finish();
}

fn opening(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    for size in SIZES_KIB {
        let data = vec![7; size * 1024];
        group.throughput(Throughput::Bytes(data.len() as u64));
        for (name, records) in WAYS {
            let mut pair = shake_hands(&Parties::new(records));
            let mut buffer = vec![0; data.len()];
            let sealed = |sender: &mut TlsStream<Memory>, lane: &Shared| {
                seal(sender, &data);
                std::mem::take(&mut lane.borrow_mut().bytes)
            };
            group.bench_function(BenchmarkId::new(format!("{size}KiB"), name), |b| {
                b.iter_batched(
                    || sealed(&mut pair.sender, &pair.lane),
                    |bytes| {
                        pair.lane.borrow_mut().bytes = bytes;
                        open(&mut pair.receiver, black_box(&mut buffer));
                    },
                    BatchSize::NumIterations(8),
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sealing, opening);
criterion_main!(benches);
