//! TLS records sealed and opened through a session in memory: our record layer against the TLS
//! library's own.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to say"
)]

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use corelane::model::identity::Identity;
use corelane::tls::dev_pki::Authority;
use corelane::tls::handshake::{accept, connect};
use corelane::tls::{Records, TlsOptions, TlsStream};
use corelane::transport::Transport;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES_KIB: [usize; 4] = [1, 16, 64, 256];
const WAYS: [(&str, Records); 2] = [("in-place", Records::InPlace), ("rustls", Records::Library)];

/// Bytes under way in one direction.
#[derive(Default)]
struct Lane {
    bytes: Vec<u8>,
    taken: usize,
}

type Shared = Rc<RefCell<Lane>>;

/// One end of a connection in memory, as cheap as can be.
struct Memory {
    incoming: Shared,
    outgoing: Shared,
}

impl Transport for Memory {
    fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.incoming.borrow_mut();
        let rest = &lane.bytes[lane.taken..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        lane.taken += count;
        if lane.taken == lane.bytes.len() {
            lane.bytes.clear();
            lane.taken = 0;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.outgoing.borrow_mut();
        for slice in slices {
            lane.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Both ends of a session and the lane from the first to the second.
struct Pair {
    sender: TlsStream<Memory>,
    receiver: TlsStream<Memory>,
    lane: Shared,
}

fn pair(records: Records) -> Pair {
    let now = SystemTime::now();
    let identity = |name: &str| Identity::new("cluster.local", "default", name);
    let options = TlsOptions {
        records,
        ..TlsOptions::default()
    };
    let authority = Authority::new("bench", now).expect("a key pair");
    let credentials = |name: &str| authority.credentials(&identity(name), options, now);
    let client = credentials("client").expect("a certificate");
    let server = credentials("server").expect("a certificate");
    let (lane, back) = (Shared::default(), Shared::default());
    let near = Memory {
        incoming: Rc::clone(&back),
        outgoing: Rc::clone(&lane),
    };
    let far = Memory {
        incoming: Rc::clone(&lane),
        outgoing: back,
    };
    let expected: Arc<[Identity]> = [identity("server")].into();
    let mut connecting = pin!(connect(near, &client, &expected));
    let mut accepting = pin!(accept(far, &server));
    let (mut sender, mut receiver) = (None, None);
    let mut cx = context();
    while sender.is_none() || receiver.is_none() {
        if sender.is_none()
            && let Poll::Ready(done) = connecting.as_mut().poll(&mut cx)
        {
            sender = Some(done.expect("a client").0);
        }
        if receiver.is_none()
            && let Poll::Ready(done) = accepting.as_mut().poll(&mut cx)
        {
            receiver = Some(done.expect("a server").0);
        }
    }
    Pair {
        sender: sender.expect("connected"),
        receiver: receiver.expect("accepted"),
        lane,
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

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
            let mut pair = pair(records);
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
            let mut pair = pair(records);
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
