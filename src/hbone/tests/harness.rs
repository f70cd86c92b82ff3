//! In-memory tunnels for tests: a transport over a pipe, a clock that only tests move, counted events.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, spawn_local};

use super::frames::{PREFACE, Peer};
use crate::hbone::HboneError;
use crate::hbone::client::{self, Driver, Opener};
use crate::hbone::connect::{ConnectRequest, Forwarded, Refusal};
use crate::hbone::server::{self, DrainHandle, Server};
use crate::hbone::settings::{Engine, Event, LimitKind, Settings, Sleep};
use crate::hbone::stream::{RecvHalf, SendHalf, Stream, StreamError};
use crate::model::addr::Authority;
use crate::model::baggage::Baggage;
use crate::model::trace::TraceParent;
use crate::transport::Transport;

/// One end of an in-memory pipe.
pub(crate) struct Pipe(pub(crate) DuplexStream);

impl Transport for Pipe {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A clock that moves when told to, and its timers.
pub(crate) struct Clock {
    base: Instant,
    passed: Cell<Duration>,
    waiting: RefCell<Vec<Waker>>,
}

impl Clock {
    pub(crate) fn new() -> Rc<Self> {
        #[expect(clippy::disallowed_methods, reason = "the only way to make an Instant")]
        let base = Instant::now();
        Rc::new(Self {
            base,
            passed: Cell::default(),
            waiting: RefCell::default(),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.base + self.passed.get()
    }

    /// Moves time and lets every task run until nothing moves any more.
    pub(crate) async fn pass(&self, time: Duration) {
        self.passed.set(self.passed.get() + time);
        for waker in self.waiting.take() {
            waker.wake();
        }
        settle().await;
    }

    fn sleep(self: Rc<Self>, time: Duration) -> Sleep {
        let until = self.passed.get() + time;
        Box::pin(Timer { clock: self, until })
    }
}

struct Timer {
    clock: Rc<Clock>,
    until: Duration,
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.passed.get() >= self.until {
            return Poll::Ready(());
        }
        self.clock.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }
}

/// Lets other tasks run, many times over.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Settings on a clock, and the events they saw.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Rc<Clock>,
    pub(crate) settings: Settings,
    pub(crate) events: Rc<RefCell<Vec<Event>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Clock::new();
        let events: Rc<RefCell<Vec<Event>>> = Rc::default();
        let (timers, reader, log) = (Rc::clone(&clock), Rc::clone(&clock), Rc::clone(&events));
        let mut settings = Settings::new(
            Rc::new(move |time| Rc::clone(&timers).sleep(time)),
            Rc::new(|| Box::pin(tokio::task::yield_now())),
            Rc::new(move || reader.now()),
            Rc::new(move |event| log.borrow_mut().push(event)),
        );
        settings.engine = engine();
        Self {
            clock,
            settings,
            events,
        }
    }

    pub(crate) fn hit(&self, limit: LimitKind) -> bool {
        self.events.borrow().contains(&Event::LimitHit(limit))
    }
}

thread_local! {
    /// The engines of the worlds that are made: for clients and for servers.
    static ENGINES: Cell<[Engine; 2]> = const { Cell::new([Engine::Own; 2]) };
}

/// The engine under test, where both ends have the same.
pub(crate) fn engine() -> Engine {
    ENGINES.get()[0]
}

/// Runs a test on one thread with each engine; one that hangs fails.
pub(crate) fn run(test: impl AsyncFn()) {
    for engine in [Engine::Own, Engine::H2] {
        run_between([engine; 2], &test);
    }
}

/// Runs a test with this engine for clients and that one for servers.
pub(crate) fn run_between(engines: [Engine; 2], test: impl AsyncFn()) {
    ENGINES.set(engines);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let bounded = async {
        tokio::time::timeout(Duration::from_secs(40), test())
            .await
            .unwrap_or_else(|_| panic!("the test hangs with {engines:?}"));
    };
    tokio::task::LocalSet::new().block_on(&runtime, bounded);
}

/// Sends all, as credit comes.
pub(crate) async fn send_all(send: &mut SendHalf, mut data: Bytes) -> Result<(), StreamError> {
    while !data.is_empty() {
        let granted = poll_fn(|cx| send.poll_capacity(cx, data.len())).await?;
        send.send(data.split_to(granted))?;
    }
    send.release();
    Ok(())
}

pub(crate) async fn receive(recv: &mut RecvHalf) -> Result<Option<Bytes>, StreamError> {
    let data = poll_fn(|cx| recv.poll_data(cx)).await?;
    recv.forwarded(data.as_ref().map_or(0, Bytes::len));
    Ok(data)
}

/// Receives to the end of the stream.
pub(crate) async fn receive_all(recv: &mut RecvHalf) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(data) = receive(recv).await? {
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Sends back what comes, until the end.
pub(crate) async fn echo(stream: Stream) {
    let (mut recv, mut send) = stream.split();
    while let Ok(Some(data)) = receive(&mut recv).await {
        if send_all(&mut send, data).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}

/// A server that echoes, or refuses what must be refused.
pub(crate) struct Echo {
    pub(crate) requests: Rc<RefCell<Vec<Result<ConnectRequest, Refusal>>>>,
    pub(crate) ended: JoinHandle<Option<HboneError>>,
}

pub(crate) fn serve_echo(mut server: Server<Pipe>) -> Echo {
    let requests: Rc<RefCell<Vec<_>>> = Rc::default();
    let log = Rc::clone(&requests);
    let ended = spawn_local(async move {
        while let Some(incoming) = server.next().await {
            let incoming = match incoming {
                Ok(incoming) => incoming,
                Err(error) => {
                    assert!(server.next().await.is_none());
                    return Some(error);
                }
            };
            log.borrow_mut().push(incoming.request.clone());
            match incoming.request {
                Ok(_) => {
                    if let Ok(stream) = incoming.respond.accept(None) {
                        spawn_local(echo(stream));
                    }
                }
                Err(refusal) => incoming.respond.refuse(refusal.status),
            }
        }
        None
    });
    Echo { requests, ended }
}

/// An echo server that a hand-made client has greeted.
pub(crate) async fn raw_client(world: &World) -> (Peer, Echo, DrainHandle) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut peer = Peer(near);
    peer.greet().await;
    let (server, drain) = server::handshake(Pipe(far), &world.settings).await.unwrap();
    (peer, serve_echo(server), drain)
}

/// A client tunnel to a hand-made server, which has sent nothing yet.
pub(crate) async fn raw_server(
    world: &World,
) -> (Peer, Opener, JoinHandle<Result<(), HboneError>>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (opener, driver) = client::handshake(Pipe(near), &world.settings)
        .await
        .unwrap();
    let mut peer = Peer(far);
    let mut preface = [0; PREFACE.len()];
    peer.0.read_exact(&mut preface).await.unwrap();
    assert_eq!(preface, PREFACE);
    (peer, opener, spawn_local(driver))
}

/// A client and a server joined by a pipe of `bytes`.
pub(crate) async fn tunnel(
    world: &World,
    bytes: usize,
) -> (Opener, Driver<Pipe>, Server<Pipe>, DrainHandle) {
    let (near, far) = tokio::io::duplex(bytes);
    let mut of_server = world.settings.clone();
    of_server.engine = ENGINES.get()[1];
    let (client, server) = tokio::join!(
        client::handshake(Pipe(near), &world.settings),
        server::handshake(Pipe(far), &of_server),
    );
    let ((opener, driver), (server, drain)) = (client.unwrap(), server.unwrap());
    (opener, driver, server, drain)
}

/// Bytes that differ by place and by seed.
pub(crate) fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length)
        .map(|at| u8::try_from((at * 31 + seed * 7 + at / 251) % 256).unwrap())
        .collect()
}

/// A request like a node sends it.
pub(crate) fn request(authority: Authority) -> ConnectRequest {
    ConnectRequest {
        authority,
        baggage: Baggage {
            cluster: Some("Kubernetes".into()),
            namespace: Some("default".into()),
            workload_name: Some("client".into()),
            workload_type: Some("deployment".into()),
            ..Baggage::default()
        },
        forwarded: Forwarded {
            client: Some("127.0.0.1:80".parse().unwrap()),
            host: Some("example.com".into()),
        },
        traceparent: Some(TraceParent::random(&mut || 0x0123_4567_89ab_cdef)),
        forwarded_network: None,
    }
}

pub(crate) fn to(address: &str) -> ConnectRequest {
    request(Authority::Address(address.parse().unwrap()))
}
