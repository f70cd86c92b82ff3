//! Whole shards under test: real sockets on loopback, both drivers, no tunnel.

mod tunnel;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use super::rt;
use super::shard::{self, ListenerRole, Message, Plan, PlannedListener, ShardMailbox};
use crate::config::limits::{LISTEN_BACKLOG, Limits};
use crate::config::{
    Config, DriverChoice, ForwardTarget, Http2, Listeners, LogConfig, LogFormat, NodeMode, Pool,
    ServiceAccountRef, Shards, SocketOptions, Timeouts, TlsConfig,
};
use crate::model::workload::Workload;
use crate::snapshot::Snapshot;
use crate::snapshot::builder::{Builder, Change};
use crate::snapshot::exchange::Publisher;
use crate::sys::socket::{ListenOptions, listen, local_addr};
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::log_writer::WriterOptions;
use crate::telemetry::{Hub, HubOptions, LogWriter, ShardCounters};
use crate::tls::credentials::CredentialStore;

const DRIVERS: [DriverChoice; 2] = [DriverChoice::IoUring, DriverChoice::Epoll];

fn config() -> Config {
    Config {
        mode: NodeMode::Node,
        network: "".into(),
        node_name: None,
        cluster_id: "Kubernetes".into(),
        trust_domain: "cluster.local".into(),
        cluster_domain: "cluster.local".into(),
        enable_proxy: true,
        ipv6_enabled: true,
        shards: Shards {
            count: 1,
            cpus: vec![0],
            pin: false,
        },
        driver: DriverChoice::Auto,
        ring_entries: 256,
        listeners: Listeners::default(),
        illegal_ports: vec![15_001, 15_006, 15_008],
        local_state: None,
        identity_dir: None,
        tls: TlsConfig::default(),
        http2: Http2::default(),
        pool: Pool::default(),
        socket: SocketOptions::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        localhost_app_tunnel: true,
        response_baggage: true,
        authz_info_logging: false,
        log: LogConfig {
            filter: "info".into(),
            format: LogFormat::Plain,
        },
        istio_version: "unknown".into(),
    }
}

/// A shard to be started: one forward, or one HBONE listener.
struct Node {
    config: Config,
    change: Change,
    credentials: CredentialStore,
    listen: SocketAddr,
    role: ListenerRole,
}

impl Node {
    /// A node of the workload `default/client` that forwards to `to`.
    fn forwarding(to: SocketAddr) -> Self {
        let account = ServiceAccountRef {
            namespace: "default".into(),
            service_account: "client".into(),
        };
        Self {
            config: config(),
            change: Change {
                workloads: vec![workload("client", None)],
                ..Change::default()
            },
            credentials: CredentialStore::default(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            role: ListenerRole::Forward(ForwardTarget::Address(to), Some(account)),
        }
    }

    fn start(self, driver: DriverChoice) -> Running {
        let mut config = self.config;
        config.driver = driver;
        let mut builder = Builder::new("".into());
        let mut state = Publisher::new(Arc::new(Snapshot::default()));
        state.publish(builder.apply(self.change));
        let credentials = Publisher::new(Arc::new(self.credentials));
        let log = LogWriter::start(WriterOptions {
            out: Box::new(std::io::sink()),
            format: LineFormat::Plain,
            access_level: Level::Info,
        })
        .unwrap();
        let hub = Hub::new(HubOptions::default(), log.sink());
        let options = ListenOptions {
            backlog: LISTEN_BACKLOG,
            ..ListenOptions::default()
        };
        let (fd, transparent) = listen(self.listen, &options).unwrap();
        let addr = local_addr(fd.as_fd()).unwrap();
        let role = self.role;
        let (mailbox, inbox) = rt::mailbox().unwrap();
        let telemetry = hub.shard(0);
        let counters = telemetry.shared_counters();
        let plan = Plan {
            index: 0,
            config: Arc::new(config),
            state: state.subscribe(),
            credentials: credentials.subscribe(),
            telemetry,
            listeners: vec![PlannedListener {
                fd,
                addr,
                role,
                transparent,
            }],
            inbox,
            heartbeat: Arc::new(AtomicU64::new(0)),
            descriptors: 20_000,
        };
        let thread = std::thread::spawn(move || shard::run(plan, |_| {}));
        Running {
            addr,
            mailbox,
            state,
            builder,
            counters,
            thread: Some(thread),
            _log: log,
        }
    }
}

/// A workload whose name is its service account, in namespace `default`.
fn workload(name: &str, address: Option<SocketAddr>) -> Workload {
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
struct Running {
    addr: SocketAddr,
    mailbox: ShardMailbox,
    state: Publisher<Snapshot>,
    builder: Builder,
    counters: Arc<ShardCounters>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    _log: LogWriter,
}

impl Running {
    fn start(driver: DriverChoice, to: SocketAddr, tune: impl FnOnce(&mut Config)) -> Self {
        let mut node = Node::forwarding(to);
        tune(&mut node.config);
        node.start(driver)
    }

    fn change(&mut self, change: Change) {
        self.state.publish(self.builder.apply(change));
        self.mailbox.send(Message::Changed).unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    fn stop(mut self, message: Message) {
        self.mailbox.send(message).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

#[test]
fn bytes_pass_both_ways_and_each_half_close_passes_alone() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |_| {});
        let (up, down) = (pattern(3_000_000, 1), pattern(5_000_000, 2));
        let server = {
            let down = down.clone();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                // Ends only by the client's half close.
                stream.read_to_end(&mut received).unwrap();
                stream.write_all(&down).unwrap();
                received
            })
        };
        let mut client = shard.connect();
        client.write_all(&up).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == down, "{driver:?}: server to client");
        assert!(server.join().unwrap() == up, "{driver:?}: client to server");
        shard.stop(Message::Drain);
    }
}

#[test]
fn a_reset_of_either_side_resets_the_other() {
    for driver in DRIVERS {
        for client_resets in [true, false] {
            let (listener, addr) = server();
            let shard = Running::start(driver, addr, |_| {});
            let mut client = shard.connect();
            let (mut server, _) = listener.accept().unwrap();
            server
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            client.write_all(b"up").unwrap();
            server.read_exact(&mut [0; 2]).unwrap();
            server.write_all(b"down").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
            let (gone, mut left) = if client_resets {
                (client, server)
            } else {
                (server, client)
            };
            crate::sys::socket::reset_on_close(gone.as_fd());
            drop(gone);
            let error = left.read(&mut [0; 1]).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{driver:?}"
            );
            shard.stop(Message::Drain);
        }
    }
}

#[test]
fn a_refused_dial_resets_the_client() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        drop(listener);
        let shard = Running::start(driver, addr, |_| {});
        let error = shard.connect().read(&mut [0; 1]).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{driver:?}"
        );
        shard.stop(Message::Drain);
    }
}

#[test]
fn draining_waits_for_open_connections_and_force_ends_them() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |_| {});
        let mut client = shard.connect();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"a").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
        shard.mailbox.send(Message::Drain).unwrap();
        // Draining closes the listener: new connections are refused while the old one works.
        while TcpStream::connect(shard.addr).is_ok() {
            std::thread::yield_now();
        }
        server.write_all(b"still here").unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
        shard.stop(Message::Force);
        assert!(
            client.read(&mut [0; 1]).is_err(),
            "{driver:?}: forced connections are reset"
        );
    }
}

#[test]
fn a_stopped_reader_does_not_stop_its_neighbours() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |_| {});
        let mut stalled = shard.connect();
        let (_never_read, _) = listener.accept().unwrap();
        stalled.set_nonblocking(true).unwrap();
        let block = pattern(256 * 1024, 3);
        let mut full = 0;
        while full < 100 {
            if stalled.write(&block).is_ok_and(|written| written > 0) {
                full = 0;
            } else {
                full += 1;
                std::thread::yield_now();
            }
        }
        let mut client = shard.connect();
        let (mut server, _) = listener.accept().unwrap();
        for round in 0..100_u8 {
            client.write_all(&[round]).unwrap();
            let mut seen = [0];
            server.read_exact(&mut seen).unwrap();
            server.write_all(&seen).unwrap();
            client.read_exact(&mut seen).unwrap();
            assert_eq!(seen, [round]);
        }
        shard.stop(Message::Force);
    }
}

#[test]
fn connections_above_the_limit_are_reset_and_room_is_reused() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let shard = Running::start(driver, addr, |config| config.limits.connections = Some(1));
        let mut first = shard.connect();
        let (mut server, _) = listener.accept().unwrap();
        first.write_all(b"x").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
        assert!(shard.connect().read(&mut [0; 1]).is_err());
        drop((first, server));
        // The slot is free once both ends are gone: a connection is served again.
        let served = (0..1_000).any(|_| {
            let mut next = shard.connect();
            next.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let kind = next.read(&mut [0; 1]).map_err(|error| error.kind());
            kind == Err(std::io::ErrorKind::WouldBlock)
        });
        assert!(served, "{driver:?}");
        shard.stop(Message::Force);
    }
}
