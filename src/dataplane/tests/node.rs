//! Nodes of one shard for tests, and what stands around them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use socket2::SockRef;
use tokio::sync::mpsc;

use crate::config::limits::{LISTEN_BACKLOG, Limits};
use crate::config::{
    Config, DriverChoice, ForwardTarget, Http2, Listeners, LogConfig, LogFormat, NodeMode, Pool,
    ServiceAccountRef, Shards, SocketOptions, Timeouts, TlsConfig,
};
use crate::dataplane::demand::Asker;
use crate::dataplane::hostnames::Question;
use crate::dataplane::local::Processes;
use crate::dataplane::rt;
use crate::dataplane::shard::{
    self, CertificateAsker, ListenerRole, Message, Plan, PlannedListener, ShardMailbox,
};
use crate::model::identity::Identity;
use crate::model::workload::{Workload, WorkloadProtocol};
use crate::snapshot::Snapshot;
use crate::snapshot::builder::{Builder, Change};
use crate::snapshot::exchange::Publisher;
use crate::sys::heap::Held;
use crate::sys::socket::{ListenOptions, listen, local_addr};
use crate::telemetry::counters::{Limit, Role};
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::log_writer::WriterOptions;
use crate::telemetry::page::Page;
use crate::telemetry::{Hub, HubOptions, LogWriter, ShardCounters};
use crate::tls::TlsOptions;
use crate::tls::credentials::{CredentialState, CredentialStore};
use crate::tls::dev_pki::Authority as Pki;

pub(super) const DRIVERS: [DriverChoice; 2] = [DriverChoice::IoUring, DriverChoice::Epoll];

/// Longest wait for anything; only a defect reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn config() -> Config {
    Config {
        mode: NodeMode::Node(crate::config::Node::default()),
        network: "".into(),
        node_name: None,
        cluster_id: "Kubernetes".into(),
        trust_domain: "cluster.local".into(),
        cluster_domain: "cluster.local".into(),
        enable_proxy: true,
        ipv6_enabled: true,
        shards: Shards {
            balance: true,
            count: 1,
            cpus: vec![0],
            pin: false,
        },
        driver: DriverChoice::Auto,
        ring_entries: 256,
        listeners: Listeners::default(),
        illegal_ports: vec![15_001, 15_006, 15_008],
        local_state: None,
        discovery: None,
        auth_token: crate::config::server::TokenSource::Default,
        identity_dir: None,
        authority: None,
        crl_path: None,
        tls: TlsConfig::default(),
        http2: Http2::default(),
        pool: Pool::default(),
        socket: SocketOptions::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        tuning: crate::config::tuning::Tuning::default(),
        dns: crate::config::Dns {
            resolv_conf: "/etc/resolv.conf".into(),
            preferred_service_namespace: None,
        },
        localhost_app_tunnel: true,
        response_baggage: true,
        authz_info_logging: false,
        spans: None,
        log: LogConfig {
            filter: "info".into(),
            format: LogFormat::Plain,
        },
        istio_version: "unknown".into(),
    }
}

/// A shard to be started.
pub(super) struct Node {
    pub(super) config: Config,
    pub(super) change: Change,
    pub(super) credentials: CredentialStore,
    /// Address and role of each listener.
    pub(super) listen: Vec<(SocketAddr, ListenerRole)>,
    /// Whether listeners ask for IP_TRANSPARENT.
    pub(super) transparent: bool,
    /// Whether it accepts at once.
    pub(super) open: bool,
    /// How it asks for addresses.
    pub(super) asker: Option<Asker>,
    /// How it asks for certificates.
    pub(super) certificates: Option<CertificateAsker>,
}

/// Any port of the usual loopback address.
pub(super) fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(super) fn account(name: &str) -> ServiceAccountRef {
    ServiceAccountRef {
        namespace: "default".into(),
        service_account: name.into(),
    }
}

/// A forward to `to` in the name of `default/NAME`.
pub(super) fn forward(to: SocketAddr, name: &str) -> (SocketAddr, ListenerRole) {
    let role = ListenerRole::Forward(ForwardTarget::Address(to), Some(account(name)));
    (any(), role)
}

impl Node {
    /// A node of the workload `default/client` with one listener.
    pub(super) fn new(listen: (SocketAddr, ListenerRole)) -> Self {
        Self {
            config: config(),
            change: Change {
                workloads: vec![workload("client", None)],
                ..Change::default()
            },
            credentials: CredentialStore::default(),
            listen: vec![listen],
            transparent: false,
            open: true,
            asker: None,
            certificates: None,
        }
    }

    pub(super) fn start(self, driver: DriverChoice) -> Running {
        let mut config = self.config;
        config.driver = driver;
        let mut builder = Builder::new("".into());
        let mut state = Publisher::new(Arc::new(Snapshot::default()));
        state.publish(builder.apply(self.change));
        let credentials = Publisher::new(Arc::new(self.credentials));
        let (out, log) = channel();
        let writer = LogWriter::start(WriterOptions {
            out: Box::new(LogOut(out)),
            format: LineFormat::Plain,
            access_level: Level::Info,
        })
        .unwrap();
        let hub = Hub::new(HubOptions::default(), writer.sink());
        let listeners: Vec<_> = self
            .listen
            .into_iter()
            .map(|listen| planned(listen, self.transparent))
            .collect();
        let addrs = listeners.iter().map(|planned| planned.addr).collect();
        let (mailbox, inbox) = rt::mailbox().unwrap();
        let telemetry = hub.shard(0);
        let (questions, asked) = mpsc::channel(16);
        let counters = telemetry.shared_counters();
        let by_process = config
            .mode
            .node()
            .is_some_and(|node| node.workloads.any_told_by_process());
        let plan = Plan {
            index: 0,
            config: Arc::new(config),
            state: state.subscribe(),
            credentials: credentials.subscribe(),
            telemetry,
            listeners,
            shards: Vec::new(),
            inbox,
            questions,
            heartbeat: Arc::new(AtomicU64::new(0)),
            open: self.open,
            asker: self.asker,
            certificates: self.certificates,
            processes: by_process.then(|| Processes::open(None).unwrap()),
            descriptors: 20_000,
        };
        let (tell, held) = channel();
        let thread = std::thread::spawn(move || {
            // Nobody asks a test that has ended.
            let _ = tell.send(Held::by_this_thread());
            shard::run(plan, |_| {})
        });
        Running {
            addrs,
            mailbox,
            state,
            credentials,
            builder,
            counters,
            memory: held.recv().unwrap(),
            asked,
            thread: Some(thread),
            log,
            hub,
            _writer: writer,
        }
    }
}

fn planned((addr, role): (SocketAddr, ListenerRole), transparent: bool) -> PlannedListener {
    let options = ListenOptions {
        backlog: LISTEN_BACKLOG,
        // A second node may take over an address while the first drains.
        reuse_port: addr.port() != 0,
        transparent,
        mark: None,
    };
    let (fd, transparent) = listen(addr, &options).unwrap();
    let addr = local_addr(fd.as_fd()).unwrap();
    PlannedListener {
        fd,
        addr,
        role,
        transparent,
    }
}

/// Hands the log's bytes to the test.
struct LogOut(Sender<Vec<u8>>);

impl Write for LogOut {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A test that has ended reads no log.
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A workload whose name is its service account, in namespace `default`.
pub(super) fn workload(name: &str, address: Option<SocketAddr>) -> Workload {
    Workload {
        uid: name.into(),
        name: name.into(),
        namespace: "default".into(),
        service_account: name.into(),
        trust_domain: "cluster.local".into(),
        addresses: address.iter().map(SocketAddr::ip).collect(),
        capacity: 1,
        ..Workload::default()
    }
}

/// One running shard.
pub(super) struct Running {
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) mailbox: ShardMailbox,
    state: Publisher<Snapshot>,
    credentials: Publisher<CredentialStore>,
    builder: Builder,
    pub(super) counters: Arc<ShardCounters>,
    /// What the shard's thread holds.
    pub(super) memory: &'static Held,
    /// What the shard wants to know of hostnames.
    pub(super) asked: mpsc::Receiver<Question>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    log: Receiver<Vec<u8>>,
    hub: Hub,
    _writer: LogWriter,
}

impl Running {
    /// A node that forwards to `to`.
    pub(super) fn start(
        driver: DriverChoice,
        to: SocketAddr,
        tune: impl FnOnce(&mut Config),
    ) -> Self {
        let mut node = Node::new(forward(to, "client"));
        tune(&mut node.config);
        node.start(driver)
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    pub(super) fn change(&mut self, change: Change) {
        self.state.publish(self.builder.apply(change));
        self.mailbox.send(Message::Changed).unwrap();
    }

    pub(super) fn present(&mut self, credentials: CredentialStore) {
        self.credentials.publish(Arc::new(credentials));
        self.mailbox.send(Message::Changed).unwrap();
    }

    pub(super) fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.addr()).unwrap())
    }

    pub(super) fn limit(&self, limit: Limit) -> u64 {
        self.counters.limit(limit).get()
    }

    /// Waits until the limit was reached `times` times.
    pub(super) fn reached(&self, limit: Limit, times: u64) {
        until(limit.as_str(), || self.limit(limit) >= times);
        assert_eq!(self.limit(limit), times, "{limit:?}");
    }

    /// Waits until that many handshakes failed.
    pub(super) fn handshakes_failed(&self, role: Role, times: u64) {
        let failed = self.counters.handshakes_failed(role);
        until("handshakes to fail", || failed.get() >= times);
        assert_eq!(failed.get(), times, "{role:?}");
    }

    /// Waits for a log line that contains `text`.
    pub(super) fn logged(&self, text: &str) {
        drop(self.line_with(text));
    }

    /// The next log line that contains `text`.
    pub(super) fn line_with(&self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            if let Some(line) = seen.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let more = self.log.recv_timeout(PATIENCE);
            let more = more.unwrap_or_else(|_| panic!("{text:?} is not in the log:\n{seen}"));
            seen.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// The metrics page.
    pub(super) fn metrics(&self) -> String {
        let mut page = Page::default();
        self.hub.render(&mut page, rt::now());
        page.finish()
    }

    /// Sends `message` and waits for the shard to end in order.
    pub(super) fn stop(mut self, message: Message) {
        self.mailbox.send(message).unwrap();
        self.ended().unwrap();
    }

    /// Waits until nobody listens any more.
    pub(super) fn wait_closed(&self) {
        until("the listener to close", || {
            let stream = TcpStream::connect(self.addr());
            // One that waited when the drain began is served.
            let taken =
                stream.map(|stream| SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
            taken.is_err()
        });
    }

    /// Waits for the shard to end.
    pub(super) fn ended(&mut self) -> std::io::Result<()> {
        let thread = self.thread.take().unwrap();
        until("the shard to end", || thread.is_finished());
        thread.join().unwrap()
    }
}

/// Waits for what other threads are about to do.
pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = rt::now() + PATIENCE;
    while !done() {
        assert!(rt::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A stream whose calls fail rather than hang.
pub(super) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the peer has reset the connection: an end in order is none, nor is silence.
pub(super) fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends a byte each way, so that both ends know the relay runs.
pub(super) fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"u").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"d").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

pub(super) fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A listener that answers no more SYNs: its queue is full.
pub(super) struct Mute {
    listener: OwnedFd,
    pub(super) addr: SocketAddr,
    _queued: Vec<TcpStream>,
}

impl Mute {
    pub(super) fn new() -> Self {
        let options = ListenOptions {
            backlog: 0,
            ..ListenOptions::default()
        };
        let (listener, _) = listen(any(), &options).unwrap();
        let addr = local_addr(listener.as_fd()).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            queued.push(stream);
        }
        Self {
            listener,
            addr,
            _queued: queued,
        }
    }

    /// Takes the queue's connections, and those that come: the address answers again.
    pub(super) fn listen(self) -> TcpListener {
        let listener = TcpListener::from(self.listener);
        listener.set_nonblocking(false).unwrap();
        for _ in &self._queued {
            drop(listener.accept().unwrap());
        }
        listener
    }
}

pub(super) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

pub(super) fn pki() -> Pki {
    Pki::new("test", SystemTime::now()).unwrap()
}

/// A store with a certificate for each of `identities`.
pub(super) fn store(pki: &Pki, identities: &[Identity]) -> CredentialStore {
    CredentialStore::new(identities.iter().map(|identity| {
        let credentials = pki
            .credentials(identity, TlsOptions::default(), SystemTime::now())
            .unwrap();
        let state = CredentialState::Available(Arc::new(credentials));
        (identity.clone(), state)
    }))
}

/// A client node, a server node, and an application behind it.
pub(super) struct Pair {
    pub(super) client: Running,
    pub(super) server: Running,
    pub(super) application: TcpListener,
    pub(super) pki: Pki,
}

/// The parts of a [`Pair`] before they run.
pub(super) struct Plans {
    pub(super) client: Node,
    pub(super) server: Node,
    pub(super) backend: Workload,
    pub(super) application: TcpListener,
    pub(super) pki: Pki,
}

impl Plans {
    pub(super) fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST)
    }

    /// With the backend, its node and its application at `ip`.
    pub(super) fn at(ip: Ipv4Addr) -> Self {
        let pki = pki();
        let application = TcpListener::bind((ip, 0)).unwrap();
        let to = application.local_addr().unwrap();
        let mut backend = workload("server", Some(to));
        backend.protocol = WorkloadProtocol::Hbone;
        let change = || Change {
            workloads: vec![workload("client", None), backend.clone()],
            ..Change::default()
        };
        let mut server = Node::new(((ip, 0).into(), ListenerRole::Inbound));
        server.change = change();
        server.credentials = store(&pki, &[backend.identity()]);
        let mut client = Node::new(forward(to, "client"));
        client.change = change();
        client.credentials = store(&pki, &[workload("client", None).identity()]);
        Self {
            client,
            server,
            backend,
            application,
            pki,
        }
    }

    pub(super) fn start(mut self, driver: DriverChoice) -> Pair {
        let server = self.server.start(driver);
        self.client.config.listeners.inbound = Some(server.addr());
        Pair {
            client: self.client.start(driver),
            server,
            application: self.application,
            pki: self.pki,
        }
    }
}

impl Pair {
    pub(super) fn new(driver: DriverChoice, tune: impl Fn(&mut Config)) -> Self {
        let mut plans = Plans::new();
        tune(&mut plans.client.config);
        tune(&mut plans.server.config);
        plans.start(driver)
    }

    pub(super) fn open(&self) -> (TcpStream, TcpStream) {
        let client = self.client.connect();
        let (server, _) = self.application.accept().unwrap();
        (client, patient(server))
    }

    pub(super) fn stop(self, message: fn() -> Message) {
        self.client.stop(message());
        self.server.stop(message());
    }
}
