//! One tunnel in memory, both ends on one thread: our frame engine against the `h2` crate.

#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up has nothing to say"
)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn, ready};
use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use corelane::hbone::blocks::Block;
use corelane::hbone::client::Opener;
use corelane::hbone::connect::{ConnectRequest, Forwarded};
use corelane::hbone::stream::{RecvHalf, SendHalf};
use corelane::hbone::{Engine, Settings, client, server};
use corelane::model::addr::Authority;
use corelane::model::baggage::Baggage;
use corelane::transport::Transport;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const ENGINES: [(&str, Engine); 2] = [("own", Engine::Own), ("h2", Engine::H2)];
/// What a socket and the record layer hold.
const LANE_BYTES: usize = 256 * 1024;
const BULK_BYTES: usize = 64 << 20;
const MESSAGES: usize = 1_000;
const STREAMS: usize = 32;

type Lane = Rc<RefCell<VecDeque<u8>>>;

/// One end of a connection in memory.
struct Memory {
    incoming: Lane,
    outgoing: Lane,
}

impl Transport for Memory {
    fn poll_recv(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut lane = self.incoming.borrow_mut();
        if lane.is_empty() {
            return Poll::Pending;
        }
        io::Read::read(&mut *lane, buffer).map_or(Poll::Pending, |count| Poll::Ready(Ok(count)))
    }

    fn poll_send(
        &mut self,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut lane = self.outgoing.borrow_mut();
        let mut taken = 0;
        for slice in slices {
            let room = LANE_BYTES - lane.len();
            let part = &slice[..slice.len().min(room)];
            lane.extend(part);
            taken += part.len();
        }
        if taken == 0 {
            return Poll::Pending;
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls everything in turn until `goal` is reached.
fn drive<G: Future>(machines: &mut [Pin<Box<dyn Future<Output = ()>>>], goal: G) -> G::Output {
    let mut cx = Context::from_waker(Waker::noop());
    let mut goal = pin!(goal);
    loop {
        if let Poll::Ready(done) = goal.as_mut().poll(&mut cx) {
            return done;
        }
        for machine in &mut *machines {
            let _ = machine.as_mut().poll(&mut cx);
        }
    }
}

fn settings(engine: Engine) -> Settings {
    #[expect(clippy::disallowed_methods, reason = "the only way to make an Instant")]
    let now = Instant::now();
    let mut settings = Settings::new(
        Rc::new(|_| Box::pin(pending())),
        Rc::new(|| Box::pin(ready(()))),
        Rc::new(move || now),
        Rc::new(|_| {}),
    );
    settings.engine = engine;
    settings
}

/// A tunnel with streams open in it, and what has to be polled to keep it going.
struct Tunnel {
    machines: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    opener: Opener,
    near: Vec<(RecvHalf, SendHalf)>,
    far: Far,
}

/// Streams that the server accepted and nobody has taken yet.
type Far = Rc<RefCell<Vec<(RecvHalf, SendHalf)>>>;

fn tunnel(engine: Engine, streams: usize) -> Tunnel {
    let lanes = [Lane::default(), Lane::default()];
    let [near, far] = [0, 1].map(|end| Memory {
        incoming: Rc::clone(&lanes[end]),
        outgoing: Rc::clone(&lanes[1 - end]),
    });
    let settings = settings(engine);
    let mut accepting = Box::pin(server::handshake(far, &settings));
    let (opener, driver) = drive(&mut [], client::handshake(near, &settings)).expect("a client");
    let (mut server, _) = drive(&mut [], &mut accepting).expect("a server");
    let accepted = Far::default();
    let log = Rc::clone(&accepted);
    let serve = async move {
        while let Some(Ok(incoming)) = server.next().await {
            let stream = incoming.respond.accept(None).expect("a stream");
            log.borrow_mut().push(stream.split());
        }
    };
    let run = async move {
        let _ = driver.await;
    };
    let mut machines: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![Box::pin(run), Box::pin(serve)];
    let near = (0..streams)
        .map(|_| {
            let opened = drive(&mut machines, opener.open(&request()));
            opened.expect("a stream").1.split()
        })
        .collect();
    Tunnel {
        machines,
        opener,
        near,
        far: accepted,
    }
}

/// With everything in it that a node sends.
fn request() -> ConnectRequest {
    ConnectRequest {
        authority: Authority::Address("10.244.1.7:8080".parse().expect("an address")),
        baggage: Baggage {
            cluster: Some("Kubernetes".into()),
            namespace: Some("default".into()),
            workload_name: Some("frontend".into()),
            service_name: Some("frontend".into()),
            service_revision: Some("v1".into()),
            region: Some("eu-north".into()),
            zone: Some("eu-north-2".into()),
            workload_type: None,
        },
        forwarded: Forwarded {
            client: Some("10.244.0.9:41234".parse().expect("an address")),
            host: Some("backend.default.svc.cluster.local".into()),
        },
        traceparent: None,
        forwarded_network: None,
    }
}

/// Sends as a relay does: bytes that were received into a block.
async fn send(send: &mut SendHalf, mut left: usize) {
    while left > 0 {
        let granted = poll_fn(|cx| send.poll_capacity(cx, left.min(64 * 1024)))
            .await
            .expect("room");
        let data = if granted >= 32 * 1024 {
            Block::take().fill(granted)
        } else {
            Bytes::from(vec![0; granted])
        };
        send.send(data).expect("an open stream");
        left -= granted;
    }
    send.release();
}

async fn receive(recv: &mut RecvHalf, mut left: usize) {
    while left > 0 {
        let data = poll_fn(|cx| recv.poll_data(cx)).await;
        let data = data.expect("an open stream").expect("more bytes");
        recv.forwarded(data.len());
        left -= black_box(data).len();
    }
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hbone bulk");
    group
        .sample_size(10)
        .throughput(Throughput::Bytes(BULK_BYTES as u64));
    for (name, engine) in ENGINES {
        let mut tunnel = tunnel(engine, 1);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let sender = &mut tunnel.near[0].1;
                let mut far = tunnel.far.borrow_mut();
                let receiver = &mut far[0].0;
                let mut sending = pin!(send(sender, BULK_BYTES));
                let mut receiving = pin!(receive(receiver, BULK_BYTES));
                let (mut sent, mut received) = (false, false);
                let both = poll_fn(|cx| {
                    sent = sent || sending.as_mut().poll(cx).is_ready();
                    received = received || receiving.as_mut().poll(cx).is_ready();
                    if sent && received {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                });
                drive(&mut tunnel.machines, both);
            });
        });
    }
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hbone 64 B there and back");
    for streams in [1, STREAMS] {
        group.throughput(Throughput::Elements((MESSAGES * streams) as u64));
        for (name, engine) in ENGINES {
            let mut tunnel = tunnel(engine, streams);
            group.bench_function(BenchmarkId::new(name, streams), |bencher| {
                bencher.iter(|| {
                    for _ in 0..MESSAGES {
                        round(&mut tunnel);
                    }
                });
            });
        }
    }
    group.finish();
}

/// A message on each stream, and its echo.
fn round(tunnel: &mut Tunnel) {
    let Tunnel {
        machines,
        near,
        far,
        ..
    } = tunnel;
    let mut far = far.borrow_mut();
    drive(machines, async {
        for (_, sender) in near.iter_mut() {
            send(sender, 64).await;
        }
        for (receiver, sender) in far.iter_mut() {
            receive(receiver, 64).await;
            send(sender, 64).await;
        }
        for (receiver, _) in near.iter_mut() {
            receive(receiver, 64).await;
        }
    });
}

/// A stream from CONNECT to its end: the request written and read, the answer written and read, both
/// directions closed.
fn connect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hbone CONNECT");
    let request = request();
    for (name, engine) in ENGINES {
        let mut tunnel = tunnel(engine, 0);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let Tunnel {
                    machines,
                    opener,
                    far,
                    ..
                } = &mut tunnel;
                let opened = drive(machines, opener.open(&request));
                let (_, stream) = opened.expect("a stream");
                let (mut near_recv, mut near_send) = stream.split();
                let (mut far_recv, mut far_send) = far.borrow_mut().pop().expect("its other end");
                near_send.finish().expect("an open stream");
                far_send.finish().expect("an open stream");
                let ends = async {
                    for recv in [&mut far_recv, &mut near_recv] {
                        let end = poll_fn(|cx| recv.poll_data(cx)).await;
                        assert!(matches!(end, Ok(None)), "{end:?}");
                    }
                };
                drive(machines, ends);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bulk, messages, connect);
criterion_main!(benches);
