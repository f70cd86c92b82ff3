//! A proxy on loopback, in front of a scripted name server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_resolver::config::ResolverOpts;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::timeout;

use super::*;
use crate::config::limits::{
    DNS_PENDING_MAX, DNS_TCP_CONNECTIONS_MAX, DNS_TCP_PIPELINE_MAX, DNS_UDP_QUERY_BYTES_MAX,
};
use crate::model::local::{LocalWorkload, LocalWorkloads};
use crate::model::service::{Service, Visibility};
use crate::model::workload::WorkloadInfo;
use crate::snapshot::builder::{Builder, Change};
use crate::snapshot::exchange::Publisher;

/// Longest wait for anything; only a defect reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on one thread with a recorder of its own.
pub(super) fn run<F: Future>(test: impl FnOnce(PrometheusHandle) -> F) -> F::Output {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(LocalSet::new().run_until(test(handle)))
    })
}

/// The value of the one sample that begins with `start` and holds all `labels`.
pub(super) fn sample(metrics: &PrometheusHandle, start: &str, labels: &[&str]) -> u64 {
    let page = metrics.render();
    let lines = page.lines().filter(|line| line.starts_with(start));
    let found = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    found
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

// ---- A scripted name server ----------------------------------------------------------------------

type Script = Rc<dyn Fn(Message, Transport) -> Option<Message>>;

/// A name server that answers by its script and remembers what it was asked.
pub(super) struct NameServer {
    address: SocketAddr,
    asked: Rc<RefCell<Vec<String>>>,
    /// How long who asks waits for an answer before it asks again.
    timeout: Duration,
    _tasks: [Abort; 2],
}

/// Ends a task with its owner.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl NameServer {
    pub(super) fn start(script: impl Fn(Message, Transport) -> Option<Message> + 'static) -> Self {
        let (udp, tcp) = bind(any(), BindOptions::default()).unwrap();
        let address = tcp.local_addr().unwrap();
        let asked: Rc<RefCell<Vec<String>>> = Rc::default();
        let script: Script = {
            let asked = Rc::clone(&asked);
            Rc::new(move |message, transport| {
                let query = &message.queries[0];
                let text = format!(
                    "{} {} {}",
                    transport.as_str(),
                    query.query_type(),
                    query.name()
                );
                asked.borrow_mut().push(text);
                script(message, transport)
            })
        };
        let by_udp = tokio::task::spawn_local(answer_udp(udp, Rc::clone(&script)));
        let by_tcp = tokio::task::spawn_local(answer_tcp(tcp, script));
        Self {
            address,
            asked,
            timeout: PATIENCE,
            _tasks: [Abort(by_udp), Abort(by_tcp)],
        }
    }

    /// The same, for tests in which it does not answer.
    pub(super) fn hasty(mut self) -> Self {
        self.timeout = Duration::from_millis(100);
        self
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    pub(super) fn servers(&self) -> NameServers {
        let mut options = ResolverOpts::default();
        options.timeout = self.timeout;
        options.attempts = 1;
        options.edns0 = false;
        NameServers::at(self.address, options)
    }
}

async fn answer_udp(socket: UdpSocket, script: Script) {
    let mut buffer = [0; 4_096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let message = Message::from_vec(&buffer[..length]).unwrap();
        if let Some(reply) = script(message, Transport::Udp) {
            let bytes = reply.to_vec().unwrap();
            socket.send_to(&bytes, from).await.unwrap();
        }
    }
}

async fn answer_tcp(listener: TcpListener, script: Script) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let script = Rc::clone(&script);
        tokio::task::spawn_local(async move {
            while let Some(message) = receive(&mut stream).await {
                if let Some(reply) = script(message, Transport::Tcp) {
                    write(&mut stream, &reply.to_vec().unwrap()).await;
                }
            }
        });
    }
}

async fn receive(stream: &mut TcpStream) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(Message::from_vec(&bytes).unwrap())
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_u16(length).await.unwrap();
    stream.write_all(bytes).await.unwrap();
}

/// The server's answer to `message`.
pub(super) fn answering(message: &Message, answers: Vec<Record>) -> Message {
    let mut reply = Message::response(message.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.add_queries(message.queries.iter().cloned());
    reply.add_answers(answers);
    reply
}

pub(super) fn failing(message: &Message, code: ResponseCode) -> Message {
    let mut reply = answering(message, Vec::new());
    reply.metadata.response_code = code;
    reply
}

pub(super) fn a(name: &str, ip: [u8; 4]) -> Record {
    let data = RData::A(A(ip.into()));
    Record::from_rdata(Name::from_ascii(name).unwrap(), 60, data)
}

pub(super) fn aaaa(name: &str, ip: &str) -> Record {
    let data = RData::AAAA(AAAA(ip.parse().unwrap()));
    Record::from_rdata(Name::from_ascii(name).unwrap(), 60, data)
}

// ---- The proxy -----------------------------------------------------------------------------------

fn any() -> SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, 0).into()
}

/// A running proxy.
struct World {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    name_server: NameServer,
    builder: Builder,
    publisher: Publisher<Snapshot>,
    published: watch::Sender<Generation>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

fn settings() -> Settings {
    Settings {
        client: Client::Workload(WorkloadInfo {
            name: "client".into(),
            namespace: "ns1".into(),
            service_account: "default".into(),
        }),
        search: Search::Listed([Arc::from("ns1.svc.cluster.local")].into()),
        cluster_domain: "cluster.local".into(),
        preferred_namespace: None,
        of_node: Places::default(),
        network: "".into(),
        ipv6: true,
        workload_wait: PATIENCE,
        packet_mark: None,
        namespace: None,
    }
}

fn client() -> Workload {
    Workload {
        uid: "client".into(),
        name: "client".into(),
        namespace: "ns1".into(),
        service_account: "default".into(),
        canonical_name: "shop".into(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..Workload::default()
    }
}

fn services() -> Vec<Service> {
    let service = |hostname: &str, vip: &str| Service {
        hostname: hostname.into(),
        namespace: "ns1".into(),
        vips: vec![NetworkAddress {
            network: "".into(),
            ip: vip.parse().unwrap(),
        }],
        ..Service::default()
    };
    vec![
        service("web.ns1.svc.cluster.local", "10.0.0.1"),
        service("www.example.com", "1.1.1.1"),
    ]
}

impl World {
    fn new(name_server: NameServer, settings: Settings, workloads: Vec<Workload>) -> Self {
        let mut builder = Builder::new("".into());
        let first = builder.apply(Change {
            workloads,
            services: services(),
            ..Change::default()
        });
        let publisher = Publisher::new(first);
        let (published, changes) = watch::channel(1);
        let state = publisher.subscribe();
        let proxy = Proxy::new(settings, state, changes, &name_server.servers()).unwrap();
        let proxy = Arc::new(proxy);
        let (stop, stopped) = watch::channel(false);
        let (udp, tcp) = bind(any(), BindOptions::default()).unwrap();
        let address = tcp.local_addr().unwrap();
        let tasks = vec![
            tokio::spawn(serve_udp(udp, Arc::clone(&proxy), stopped.clone())),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&proxy), stopped)),
        ];
        Self {
            address,
            proxy,
            name_server,
            builder,
            publisher,
            published,
            stop,
            tasks,
        }
    }

    /// In front of a server that answers by `script`.
    fn with(script: impl Fn(Message, Transport) -> Option<Message> + 'static) -> Self {
        Self::new(NameServer::start(script), settings(), vec![client()])
    }

    async fn udp(&self, query: &Message) -> Message {
        let bytes = self.udp_bytes(&query.to_vec().unwrap()).await;
        Message::from_vec(&bytes).unwrap()
    }

    async fn udp_bytes(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind(any()).await.unwrap();
        socket.send_to(query, self.address).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let (length, from) = within(socket.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from, self.address);
        buffer.truncate(length);
        buffer
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn tcp(&self, query: &Message) -> Message {
        let mut stream = self.connect().await;
        write(&mut stream, &query.to_vec().unwrap()).await;
        within(receive(&mut stream)).await.unwrap()
    }

    /// The same reply by both transports.
    async fn both(&self, query: &Message) -> Message {
        let (udp, tcp) = (self.udp(query).await, self.tcp(query).await);
        assert_eq!(udp.metadata, tcp.metadata);
        assert_eq!(
            (&udp.answers, &udp.additionals),
            (&tcp.answers, &tcp.additionals)
        );
        udp
    }
}

pub(super) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}

fn asking(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(ToString::to_string).collect()
}

fn silent() -> World {
    let server = NameServer::start(|_, _| None).hasty();
    World::new(server, settings(), vec![client()])
}

// ---- Tests ---------------------------------------------------------------------------------------

#[test]
fn names_of_the_mesh_are_answered_by_both_transports_without_asking_anybody() {
    run(|metrics| async move {
        let world = silent();
        let query = asking("WEB.ns1.", RecordType::A);
        let reply = world.both(&query).await;
        assert_eq!(texts(&reply), ["web.ns1. 30 IN A 10.0.0.1"]);
        let flags = reply.metadata;
        assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired);
        assert!(!flags.authentic_data && !flags.checking_disabled);
        assert_eq!(reply.metadata.id, query.metadata.id);
        let reply = world
            .both(&asking(
                "www.example.com.ns1.svc.cluster.local.",
                RecordType::A,
            ))
            .await;
        assert_eq!(
            texts(&reply),
            [
                "www.example.com.ns1.svc.cluster.local. 30 IN CNAME www.example.com.",
                "www.example.com. 30 IN A 1.1.1.1"
            ]
        );
        let reply = world.both(&asking("web.", RecordType::AAAA)).await;
        assert!(reply.metadata.authoritative && reply.answers.is_empty());
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(world.name_server.asked(), Vec::<String>::new());
        let labels = [
            "request_query_type=\"a\"",
            "source_canonical_service=\"shop\"",
        ];
        for transport in ["request_protocol=\"udp\"", "request_protocol=\"tcp\""] {
            let labels = [labels[0], labels[1], transport];
            assert_eq!(sample(&metrics, "istio_dns_requests", &labels), 2);
        }
        assert_eq!(sample(&metrics, "istio_dns_upstream", &[]), 0);
    });
}

#[test]
fn other_names_and_other_types_are_forwarded_with_what_the_server_adds() {
    run(|metrics| async move {
        let world = World::with(|message, _| {
            let name = message.queries[0].name().to_string();
            let mut reply = answering(&message, Vec::new());
            let record = |owner, data| Record::from_rdata(owner, 60, data);
            let text = |text| Name::from_ascii(text).unwrap();
            let owner = Name::from_ascii(&name).unwrap();
            if message.queries[0].query_type() == RecordType::A {
                let alias = RData::CNAME(CNAME(text("real.test.")));
                reply.add_answer(record(owner, alias));
                reply.add_answer(a("real.test.", [2, 2, 2, 2]));
                reply.add_additional(a("extra.test.", [3, 3, 3, 3]));
            } else {
                let server = RData::NS(hickory_proto::rr::rdata::NS(text("ns.test.")));
                reply.add_answer(record(owner, server));
            }
            Some(reply)
        });
        let reply = world.both(&asking("Www.Bing.com.", RecordType::A)).await;
        let flags = reply.metadata;
        assert!(!flags.authoritative && flags.recursion_available);
        assert_eq!(
            reply.answers.len(),
            2,
            "the whole chain: {:?}",
            texts(&reply)
        );
        assert_eq!(reply.additionals.len(), 1);
        // Names below .local are no business of multicast here.
        world
            .both(&asking("unknown.ns9.svc.cluster.local.", RecordType::A))
            .await;
        let reply = world.both(&asking("web.ns1.", RecordType::NS)).await;
        assert!(!reply.metadata.authoritative);
        assert_eq!(reply.answers.len(), 1);
        // The second question of each pair comes from the cache.
        assert_eq!(
            world.name_server.asked(),
            [
                "udp A www.bing.com.",
                "udp A unknown.ns9.svc.cluster.local.",
                "udp NS web.ns1."
            ]
        );
        assert_eq!(sample(&metrics, "istio_dns_upstream_requests", &[]), 6);
        assert_eq!(sample(&metrics, "istio_dns_upstream_failures", &[]), 0);
        let seconds = "istio_dns_upstream_request_duration_seconds_count";
        assert_eq!(sample(&metrics, seconds, &["request_query_type=\"ns\""]), 2);
    });
}

#[test]
fn each_outcome_of_a_name_server_has_its_code() {
    run(|metrics| async move {
        let codes: BTreeMap<&str, ResponseCode> = [
            ("nothing.test.", ResponseCode::NXDomain),
            ("empty.test.", ResponseCode::NoError),
            ("broken.test.", ResponseCode::ServFail),
            ("refused.test.", ResponseCode::Refused),
        ]
        .into();
        let scripted = codes.clone();
        let world = World::with(move |message, _| {
            let code = scripted[message.queries[0].name().to_string().as_str()];
            Some(failing(&message, code))
        });
        for (name, code) in &codes {
            let reply = world.udp(&asking(name, RecordType::A)).await;
            assert_eq!(reply.metadata.response_code, *code, "{name}");
            assert!(reply.answers.is_empty() && reply.authorities.is_empty());
            let searched = *code != ResponseCode::ServFail;
            assert_eq!(reply.metadata.recursion_available, searched);
        }
        assert_eq!(sample(&metrics, "istio_dns_upstream_failures", &[]), 4);
    });
}

#[test]
fn a_silent_name_server_means_a_failure_after_its_timeout() {
    run(|metrics| async move {
        let world = silent();
        let reply = world.both(&asking("slow.test.", RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(!world.name_server.asked().is_empty());
        assert_eq!(sample(&metrics, "istio_dns_upstream_failures", &[]), 2);
    });
}

#[test]
fn a_cut_reply_is_fetched_by_tcp_and_cut_again_for_a_small_client() {
    run(|_| async move {
        let world = World::with(|message, transport| {
            let mut reply = answering(&message, Vec::new());
            match transport {
                Transport::Udp => reply.metadata.truncation = true,
                Transport::Tcp => {
                    let records = (0..=255).map(|n| a("large.com.", [10, 0, 0, n]));
                    reply.add_answers(records.collect::<Vec<_>>());
                }
            }
            Some(reply)
        });
        let mut query = asking("large.com.", RecordType::A);
        query.set_edns({
            let mut edns = Edns::new();
            edns.set_max_payload(1_232);
            edns
        });
        let reply = world.udp(&query).await;
        assert!(reply.metadata.truncation);
        assert_eq!(reply.answers.len(), 74);
        assert_eq!(reply.edns.unwrap().max_payload(), 1_232);
        let reply = world.tcp(&query).await;
        assert!(!reply.metadata.truncation);
        assert_eq!(reply.answers.len(), 256);
        let asked = world.name_server.asked();
        assert_eq!(asked.last().unwrap(), "tcp A large.com.");
    });
}

#[test]
fn a_query_too_many_fails_at_once_and_is_counted() {
    run(|metrics| async move {
        let world = silent();
        let all = u32::try_from(DNS_PENDING_MAX).unwrap();
        let places = Arc::clone(&world.proxy.own.pending).try_acquire_many_owned(all);
        let reply = world.udp(&asking("other.test.", RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        let limit = "corelane_dns_limits_hit";
        assert_eq!(sample(&metrics, limit, &["limit=\"pending\""]), 1);
        assert_eq!(world.name_server.asked(), Vec::<String>::new());
        // What the mesh knows needs no place.
        let reply = world.udp(&asking("web.", RecordType::A)).await;
        assert_eq!(reply.answers.len(), 1);
        drop(places);
    });
}

#[test]
fn a_connection_too_many_is_closed_and_counted() {
    run(|metrics| async move {
        let world = silent();
        let all = u32::try_from(DNS_TCP_CONNECTIONS_MAX).unwrap();
        let places = Arc::clone(&world.proxy.own.connections).try_acquire_many_owned(all);
        let mut stream = world.connect().await;
        let end = within(stream.read(&mut [0])).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        let limit = "corelane_dns_limits_hit";
        assert_eq!(sample(&metrics, limit, &["limit=\"tcp_connections\""]), 1);
        drop(places);
        assert_eq!(
            world
                .tcp(&asking("web.", RecordType::A))
                .await
                .answers
                .len(),
            1
        );
    });
}

#[test]
fn an_idle_connection_is_closed_and_counted() {
    run(|metrics| async move {
        let world = silent();
        let mut stream = world.connect().await;
        // Half a message is no request.
        stream.write_all(&[0, 20, 1]).await.unwrap();
        assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
        let limit = "corelane_dns_limits_hit";
        assert_eq!(sample(&metrics, limit, &["limit=\"tcp_idle\""]), 1);
    });
}

#[test]
fn a_connection_takes_many_queries_at_once_and_in_pieces() {
    run(|_| async move {
        let world = World::with(|message, _| {
            let name = message.queries[0].name().to_string();
            Some(answering(&message, vec![a(&name, [4, 4, 4, 4])]))
        });
        let mut stream = world.connect().await;
        let mut bytes = Vec::new();
        let mut ids = Vec::new();
        for n in 0..3 * DNS_TCP_PIPELINE_MAX {
            let known = n % 2 == 0;
            let name = if known {
                "web.".into()
            } else {
                format!("n{n}.test.")
            };
            let mut query = asking(&name, RecordType::A);
            query.metadata.id = u16::try_from(n).unwrap();
            ids.push(query.metadata.id);
            let query = query.to_vec().unwrap();
            bytes.extend_from_slice(&u16::try_from(query.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&query);
        }
        let (mut reader, mut writer) = stream.split();
        let write = async {
            for piece in bytes.chunks(7) {
                writer.write_all(piece).await.unwrap();
            }
        };
        let read = async {
            let mut answered = Vec::new();
            while answered.len() < ids.len() {
                let length = reader.read_u16().await.unwrap();
                let mut bytes = vec![0; usize::from(length)];
                reader.read_exact(&mut bytes).await.unwrap();
                let reply = Message::from_vec(&bytes).unwrap();
                assert_eq!(reply.answers.len(), 1, "{:?}", texts(&reply));
                answered.push(reply.metadata.id);
            }
            answered.sort_unstable();
            assert_eq!(answered, ids);
        };
        within(async { tokio::join!(write, read) }).await;
    });
}

#[test]
fn without_the_workloads_record_queries_fail_after_the_wait() {
    run(|metrics| async move {
        let settings = Settings {
            workload_wait: Duration::from_millis(20),
            ..settings()
        };
        let world = World::new(NameServer::start(|_, _| None), settings, Vec::new());
        let reply = world.both(&asking("web.", RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        let unknown = ["source_canonical_service=\"unknown\""];
        assert_eq!(sample(&metrics, "istio_dns_requests", &unknown), 2);
    });
}

#[test]
fn a_query_waits_for_the_workloads_record() {
    run(|_| async move {
        let mut world = World::new(NameServer::start(|_, _| None), settings(), Vec::new());
        let socket = UdpSocket::bind(any()).await.unwrap();
        let query = asking("web.", RecordType::A).to_vec().unwrap();
        socket.send_to(&query, world.address).await.unwrap();
        within(async {
            while world.proxy.own.pending.available_permits() == DNS_PENDING_MAX {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let next = world.builder.apply(Change {
            workloads: vec![client()],
            ..Change::default()
        });
        world.publisher.publish(next);
        world.published.send_replace(2);
        let mut buffer = [0; 512];
        let length = within(socket.recv(&mut buffer)).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(texts(&reply), ["web. 30 IN A 10.0.0.1"]);
    });
}

#[test]
fn on_a_host_of_many_workloads_the_source_address_says_who_asks() {
    run(|_| async move {
        let settings = Settings {
            client: Client::BySource(LocalWorkloads::default()),
            ..settings()
        };
        let world = World::new(NameServer::start(|_, _| None), settings, vec![client()]);
        let query = asking("web.", RecordType::A);
        assert_eq!(world.both(&query).await.answers.len(), 1);
        let stranger = UdpSocket::bind("127.0.0.9:0").await.unwrap();
        let bytes = query.to_vec().unwrap();
        stranger.send_to(&bytes, world.address).await.unwrap();
        let mut buffer = [0; 512];
        let length = within(stranger.recv(&mut buffer)).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        let mapped = "[::ffff:127.0.0.1]:4000".parse().unwrap();
        let step = world.proxy.take(&bytes, mapped, Transport::Udp);
        assert!(matches!(step, Step::Done(Some(_))));
    });
}

#[test]
fn a_long_datagram_is_a_format_error_and_is_counted() {
    run(|metrics| async move {
        let world = silent();
        let mut bytes = asking("web.", RecordType::A).to_vec().unwrap();
        bytes.resize(DNS_UDP_QUERY_BYTES_MAX + 1, 0);
        let reply = Message::from_vec(&world.udp_bytes(&bytes).await).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        let limit = "corelane_dns_limits_hit";
        assert_eq!(sample(&metrics, limit, &["limit=\"query_bytes\""]), 1);
    });
}

#[test]
fn broken_messages_do_not_keep_good_ones_from_being_answered() {
    run(|_| async move {
        let world = World::with(|message, _| Some(failing(&message, ResponseCode::NXDomain)));
        let socket = UdpSocket::bind(any()).await.unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        let genuine = asking("web.ns1.svc.cluster.local.", RecordType::A);
        let genuine = genuine.to_vec().unwrap();
        for _ in 0..2_000 {
            let mut bytes = genuine.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(1..=bytes.len()));
            socket.send_to(&bytes, world.address).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut stream = world.connect().await;
        stream.write_all(&[0, 1, 7, 0, 13]).await.unwrap();
        stream.write_all(&genuine[..13]).await.unwrap();
        let reply = within(receive(&mut stream)).await.unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        let reply = world.both(&asking("web.", RecordType::A)).await;
        assert_eq!(reply.answers.len(), 1);
    });
}

#[test]
fn a_query_under_way_is_answered_before_the_proxy_ends() {
    run(|_| async move {
        // The server answers the second question only, which is asked once the proxy stops.
        let asked = Rc::new(std::cell::Cell::new(0));
        let counted = Rc::clone(&asked);
        let server = NameServer::start(move |message, _| {
            counted.set(counted.get() + 1);
            let name = message.queries[0].name().to_string();
            (counted.get() > 1).then(|| answering(&message, vec![a(&name, [5, 5, 5, 5])]))
        })
        .hasty();
        let world = World::new(server, settings(), vec![client()]);
        let socket = UdpSocket::bind(any()).await.unwrap();
        let query = asking("late.test.", RecordType::A).to_vec().unwrap();
        socket.send_to(&query, world.address).await.unwrap();
        within(async {
            while asked.get() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        world.stop.send_replace(true);
        let mut buffer = [0; 512];
        let length = within(socket.recv(&mut buffer)).await.unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.answers.len(), 1, "{:?}", reply.metadata);
        for task in world.tasks {
            within(task).await.unwrap();
        }
        assert!(TcpStream::connect(world.address).await.is_err());
    });
}

#[test]
fn both_families_of_loopback_can_have_one_port_for_both_transports() {
    run(|_| async move {
        let (_udp, tcp) = bind(any(), BindOptions::default()).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let taken = bind(
            (std::net::Ipv4Addr::LOCALHOST, port).into(),
            BindOptions::default(),
        );
        assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        if !crate::sys::socket::ipv6_available() {
            return;
        }
        let (udp, tcp) = bind(
            (std::net::Ipv6Addr::LOCALHOST, port).into(),
            BindOptions::default(),
        )
        .unwrap();
        assert_eq!(udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    });
}

#[test]
fn a_destination_is_what_the_mesh_calls_so_in_the_namespace_of_its_user() {
    let mut builder = Builder::new("".into());
    let mut known = services();
    known[0].vips.push(NetworkAddress {
        network: "".into(),
        ip: "fd00::1".parse().unwrap(),
    });
    known.push(Service {
        visibility: Visibility::Namespace,
        namespace: "ns2".into(),
        hostname: "secret.ns2.svc.cluster.local".into(),
        ..services()[0].clone()
    });
    let snapshot = builder.apply(Change {
        services: known,
        ..Change::default()
    });
    let both: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let of = |name: &str, namespace: &str| {
        let workload = Workload {
            namespace: namespace.into(),
            ..client()
        };
        settings().in_mesh(name, &workload, &snapshot)
    };
    for name in ["web", "web.ns1", "web.ns1.svc.cluster.local"] {
        assert_eq!(of(name, "ns1").as_deref(), Some(&both[..]), "{name}");
    }
    assert!(of("www.example.com", "ns2").is_some());
    assert!(of("secret", "ns2").is_some());
    for (name, namespace) in [
        ("web", "ns2"),
        ("secret.ns2", "ns1"),
        ("secret.ns2.svc.cluster.local", "ns1"),
        ("example.com", "ns1"),
        ("", "ns1"),
    ] {
        assert_eq!(of(name, namespace), None, "{name} in {namespace}");
    }
}

#[test]
fn a_listed_address_says_who_asks_before_any_record_does() {
    run(|_| async {
        let listed = |address: &str| {
            let info = WorkloadInfo {
                name: "client".into(),
                namespace: "ns1".into(),
                service_account: "default".into(),
            };
            let all = vec![LocalWorkload {
                info: info.into(),
                cgroups: Vec::new(),
                uids: vec![1],
                addresses: vec![address.parse().unwrap()],
                ports: vec![80],
                is_default: false,
            }];
            Settings {
                client: Client::BySource(LocalWorkloads::new(all).unwrap()),
                ..settings()
            }
        };
        let elsewhere = Workload {
            addresses: Vec::new(),
            ..client()
        };
        let stranger = Workload {
            uid: "stranger".into(),
            name: "stranger".into(),
            namespace: "ns2".into(),
            ..client()
        };
        let query = asking("web.", RecordType::A);
        // The short name means something in the namespace of `client` only.
        for (address, code) in [
            ("127.0.0.1", ResponseCode::NoError),
            ("127.0.0.9", ResponseCode::NXDomain),
        ] {
            let server = NameServer::start(|message, _| {
                let mut reply = message;
                reply.metadata.message_type = MessageType::Response;
                reply.metadata.response_code = ResponseCode::NXDomain;
                Some(reply)
            });
            let records = vec![elsewhere.clone(), stranger.clone()];
            let world = World::new(server, listed(address), records);
            let reply = world.both(&query).await;
            assert_eq!(reply.metadata.response_code, code, "{address}");
        }
    });
}
