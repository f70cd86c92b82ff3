//! The client of the library over real connections, with a state that tests can look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use corelane::config::server::{RootSource, ServerAddress};
use corelane::control::grpc::channel::Channel;
use corelane::control::grpc::headers::{Headers, Token};
use corelane::control::grpc::{ConnectError, Server};
use corelane::proto::discovery::Node;
use corelane::snapshot::Snapshot;
use corelane::snapshot::builder::{Builder, Change};
use corelane::snapshot::exchange::{Publisher, Subscription};
use corelane::tls::TlsOptions;
use corelane::xds::client::{Client, Mode, Received};
use corelane::xds::conversation::{Connect, Conversation, LookUp, MeshState, Opened};
use corelane_harness::clock;
use tokio::sync::{mpsc, oneshot};

use crate::plane::{ADDRESS, AUTHORIZATION, PATIENCE, Plane};
use crate::resources::{deny_port, workload};
use crate::serving::Serving;

/// A client on a thread of its own. Dropped, it is gone.
pub(crate) struct Real {
    state: Subscription<Snapshot>,
    synced: Arc<AtomicBool>,
    look_ups: mpsc::Sender<LookUp>,
    serving: Serving,
}

struct To {
    server: Server,
    headers: Headers,
}

impl Connect for To {
    type Answer = tonic::body::Body;
    type Service = Channel;
    type Error = ConnectError;

    async fn connect(&mut self) -> Result<Opened<Channel>, ConnectError> {
        let service = Box::pin(self.server.connect(None)).await?;
        let headers = self.headers.read().await.expect("headers");
        Ok(Opened { service, headers })
    }
}

struct State {
    builder: Builder,
    publisher: Publisher<Snapshot>,
    synced: Arc<AtomicBool>,
}

impl MeshState for State {
    fn apply(&mut self, change: Change) {
        self.builder.fold(change);
    }

    fn publish(&mut self) {
        let next = self.builder.seal();
        self.publisher.publish(next);
    }

    fn synced(&mut self) {
        self.synced.store(true, Ordering::Release);
    }

    fn connected(&mut self, _: bool) {}

    fn received(&mut self, _: Received) {}
}

impl Real {
    /// Connects to `port` of this host for ever.
    pub(crate) fn start(port: u16, mode: Mode) -> Self {
        let mut builder = Builder::new("".into());
        let publisher = Publisher::new(builder.seal());
        let state = publisher.subscribe();
        let synced = Arc::<AtomicBool>::default();
        let (look_ups, queue) = mpsc::channel(64);
        let fed = State {
            builder,
            publisher,
            synced: Arc::clone(&synced),
        };
        let to = To {
            server: Server {
                address: ServerAddress::Plain {
                    host: "127.0.0.1".into(),
                    port,
                },
                roots: RootSource::System,
                alt_hostname: None,
                packet_mark: None,
                tls: TlsOptions::default(),
            },
            headers: Headers {
                token: Token::None,
                cluster_id: "Kubernetes".into(),
                extra: Vec::new(),
            },
        };
        let serving = Serving::start(move || {
            let client = Client::new(Node::default(), mode);
            Conversation::new(client, to, fed, queue).run()
        });
        Self {
            state,
            synced,
            look_ups,
            serving,
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.state.load()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Names of all workloads, sorted.
    pub(crate) fn workloads(&self) -> Vec<String> {
        let all = self.snapshot().workloads();
        all.iter()
            .map(|workload| workload.uid.to_string())
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) {
        clock::wait_for(what, PATIENCE, || {
            self.assert_alive();
            holds(&self.snapshot()).then_some(())
        });
    }

    /// Asks, as a connection that misses does.
    pub(crate) fn look_up(&self, key: &str) -> oneshot::Receiver<()> {
        let (waiter, told) = oneshot::channel();
        let key = key.into();
        self.look_ups
            .blocking_send(LookUp { key, waiter })
            .expect("the client runs");
        told
    }

    #[track_caller]
    pub(crate) fn assert_alive(&self) {
        self.serving.assert_alive();
    }
}

fn named(name: &str) -> corelane::proto::discovery::Resource {
    let ip = std::net::Ipv4Addr::new(10, 0, 0, 1).into();
    workload(crate::resources::a_workload(name, ip, ""))
}

#[test]
fn the_state_is_complete_once_both_types_were_acknowledged() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::All);
    let (mut stream, first) = plane.stream_begun();
    assert!(
        first
            .iter()
            .all(|request| request.initial_resource_versions.is_empty())
    );
    let bad = crate::resources::resource("default/no", vec![0xff]);
    let refused = stream.answer(AUTHORIZATION, vec![bad], &[]);
    assert!(refused.error_detail.is_some());
    stream.push(ADDRESS, vec![named("a")], &[]);
    assert!(!real.is_synced(), "a refused answer does not count");
    stream.push(AUTHORIZATION, vec![deny_port("no", 80)], &[]);
    real.wait("the gate", |_| real.is_synced());
    assert_eq!(real.workloads(), ["a"]);
}

#[test]
fn a_reconnect_says_what_is_held_and_nothing_of_what_was_refused() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::All);
    let (mut stream, _) = plane.stream_begun();
    let bad = crate::resources::resource("bad", vec![0xff]);
    let refused = stream.answer(ADDRESS, vec![bad, named("good")], &[]);
    assert!(refused.error_detail.unwrap().message.starts_with("bad: "));
    assert_eq!(real.workloads(), ["good"]);
    stream.fail(tonic::Status::aborted("restart"));
    let (mut stream, [addresses, policies]) = plane.stream_begun();
    let versions: Vec<_> = addresses.initial_resource_versions.into_iter().collect();
    assert_eq!(versions, [("good".to_owned(), "v1".to_owned())]);
    assert!(policies.initial_resource_versions.is_empty());
    assert_eq!(real.workloads(), ["good"], "held while the server was away");
    stream.push(ADDRESS, vec![], &["good", "/invalid", "unknown"]);
    assert!(real.workloads().is_empty());
}

#[test]
fn a_look_up_is_answered_when_ten_thousand_addresses_are_there() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::OnDemand);
    let (mut stream, _) = plane.stream_begun();
    let told = real.look_up("foo0");
    assert_eq!(stream.request().resource_names_subscribe, ["foo0"]);
    let all = (0..10_000).map(|n| named(&format!("foo{n}"))).collect();
    stream.send(ADDRESS, all, &[]);
    told.blocking_recv().expect("an answer");
    assert_eq!(real.snapshot().counts().workloads, 10_000);
}

#[test]
fn look_ups_without_a_server_are_asked_for_once_it_is_there() {
    let plane = Plane::start();
    let at = plane.address();
    drop(plane);
    let real = Real::start(at.port(), Mode::OnDemand);
    let told = real.look_up("a");
    let plane = Plane::again(at);
    let (mut stream, _) = plane.stream_begun();
    assert_eq!(stream.request().resource_names_subscribe, ["a"]);
    stream.push(ADDRESS, vec![], &["a"]);
    told.blocking_recv()
        .expect("told that there is no such thing");
}
