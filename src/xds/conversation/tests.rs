//! The conversation against a server of our own in the same thread.

use std::cell::RefCell;
use std::rc::Rc;

use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::proto::discovery::{Any, Node, Resource};
use crate::proto::workload as raw;
use crate::snapshot::Snapshot;
use crate::snapshot::builder::Builder;
use crate::xds::client::Mode;
use crate::xds::resource::ResourceType;

type Answer = Result<DeltaDiscoveryResponse, Status>;

/// The server's end of one stream.
struct Peer {
    headers: MetadataMap,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Answer>,
}

impl Peer {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests.message().await.unwrap().unwrap()
    }

    async fn send(&self, kind: ResourceType, resources: Vec<Resource>, removed: &[&str]) {
        let response = DeltaDiscoveryResponse {
            type_url: kind.url().to_owned(),
            nonce: "n".into(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// Hands each stream to the test.
struct Fake(mpsc::UnboundedSender<Peer>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Fake {
    type DeltaAggregatedResourcesStream = Queue<Answer>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Queue<Answer>>, Status> {
        let (responses, queue) = mpsc::channel(8);
        let headers = request.metadata().clone();
        let requests = request.into_inner();
        let peer = Peer {
            headers,
            requests,
            responses,
        };
        self.0
            .send(peer)
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Queue(queue)))
    }
}

/// Connects to the fake, after failing as often as wanted.
struct ToFake {
    peers: mpsc::UnboundedSender<Peer>,
    failures: usize,
}

impl Connect for ToFake {
    type Answer = Body;
    type Service = AggregatedDiscoveryServiceServer<Fake>;
    type Error = &'static str;

    async fn connect(&mut self) -> Result<Opened<Self::Service>, &'static str> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err("nobody listens");
        }
        let mut headers = MetadataMap::new();
        headers.insert("clusterid", "Kubernetes".parse().unwrap());
        let service = AggregatedDiscoveryServiceServer::new(Fake(self.peers.clone()));
        Ok(Opened { service, headers })
    }
}

#[derive(Default)]
struct Published {
    snapshot: Option<Arc<Snapshot>>,
    publications: usize,
    synced: bool,
}

struct Shown {
    builder: Builder,
    shown: Rc<RefCell<Published>>,
}

impl MeshState for Shown {
    fn apply(&mut self, change: Change) {
        self.builder.fold(change);
    }

    fn publish(&mut self) {
        let mut shown = self.shown.borrow_mut();
        shown.snapshot = Some(self.builder.seal());
        shown.publications += 1;
    }

    fn synced(&mut self) {
        self.shown.borrow_mut().synced = true;
    }

    fn connected(&mut self, _: bool) {}

    fn received(&mut self, _: Received) {}
}

struct World {
    peers: mpsc::UnboundedReceiver<Peer>,
    look_ups: mpsc::Sender<LookUp>,
    shown: Rc<RefCell<Published>>,
}

impl World {
    /// The next stream, its two first requests read.
    async fn stream(&mut self) -> (Peer, [DeltaDiscoveryRequest; 2]) {
        let mut peer = self.peers.recv().await.unwrap();
        let first = [peer.request().await, peer.request().await];
        (peer, first)
    }

    fn has(&self, uid: &str) -> bool {
        let shown = self.shown.borrow();
        shown
            .snapshot
            .as_ref()
            .is_some_and(|s| s.workload_by_uid(uid).is_some())
    }

    async fn look_up(&self, key: &str) -> oneshot::Receiver<()> {
        let (waiter, answer) = oneshot::channel();
        self.look_ups
            .send(LookUp {
                key: key.into(),
                waiter,
            })
            .await
            .unwrap();
        answer
    }
}

/// Runs a test beside a conversation; time passes as fast as both allow.
fn with<F: Future<Output = ()>>(mode: Mode, failures: usize, test: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (sender, peers) = mpsc::unbounded_channel();
        let (look_ups, queue) = mpsc::channel(8);
        let shown = Rc::default();
        let state = Shown {
            builder: Builder::new("".into()),
            shown: Rc::clone(&shown),
        };
        let connect = ToFake {
            peers: sender,
            failures,
        };
        let client = Client::new(Node::default(), mode);
        let run = Conversation::new(client, connect, state, queue).run();
        let world = World {
            peers,
            look_ups,
            shown,
        };
        tokio::select! {
            never = run => match never {},
            () = test(world) => {}
        }
    });
}

fn workload(uid: &str) -> Resource {
    let message = raw::Workload {
        uid: uid.to_owned(),
        ..raw::Workload::default()
    };
    let r#type = Some(raw::address::Type::Workload(message));
    Resource {
        name: uid.to_owned(),
        version: "v1".into(),
        resource: Some(Any {
            type_url: String::new(),
            value: raw::Address { r#type }.encode_to_vec().into(),
        }),
        aliases: Vec::new(),
    }
}

#[test]
fn response_is_published_once_then_acknowledged() {
    with(Mode::All, 0, async |mut world| {
        let (mut peer, [addresses, policies]) = world.stream().await;
        assert_eq!(addresses.type_url, ResourceType::Address.url());
        assert_eq!(policies.type_url, ResourceType::Authorization.url());
        assert_eq!(peer.headers.get("clusterid").unwrap(), "Kubernetes");
        let many: Vec<_> = (0..2_000).map(|n| workload(&format!("w{n}"))).collect();
        peer.send(ResourceType::Address, many, &[]).await;
        let reply = peer.request().await;
        assert_eq!(
            (reply.response_nonce.as_str(), reply.error_detail),
            ("n", None)
        );
        assert!(world.has("w0") && world.has("w1999"));
        assert_eq!(world.shown.borrow().publications, 1);
        assert!(!world.shown.borrow().synced);
        peer.send(ResourceType::Authorization, vec![], &[]).await;
        peer.request().await;
        assert!(world.shown.borrow().synced);
    });
}

#[test]
fn state_survives_an_aborted_stream_until_the_removal() {
    with(Mode::All, 2, async |mut world| {
        let (mut peer, _) = world.stream().await;
        peer.send(ResourceType::Address, vec![workload("a")], &[])
            .await;
        peer.request().await;
        peer.responses
            .send(Err(Status::aborted("restart")))
            .await
            .unwrap();
        drop(peer);
        let (mut peer, [addresses, _]) = world.stream().await;
        assert!(world.has("a"));
        assert_eq!(addresses.initial_resource_versions["a"], "v1");
        peer.send(ResourceType::Address, vec![], &["a"]).await;
        peer.request().await;
        assert!(!world.has("a"));
    });
}

#[test]
fn bad_resource_is_refused_by_name_and_nothing_else_is_lost() {
    with(Mode::All, 0, async |mut world| {
        let (mut peer, _) = world.stream().await;
        let mut bad = workload("bad");
        bad.resource = None;
        peer.send(ResourceType::Address, vec![bad, workload("good")], &[])
            .await;
        let detail = peer.request().await.error_detail.unwrap();
        assert_eq!(detail.message, "bad: resource without content");
        assert!(world.has("good") && !world.has("bad"));
    });
}

#[test]
fn look_up_is_answered_when_its_resource_is_there() {
    with(Mode::OnDemand, 0, async |mut world| {
        let (mut peer, _) = world.stream().await;
        let answer = world.look_up("a").await;
        assert_eq!(peer.request().await.resource_names_subscribe, ["a"]);
        peer.send(ResourceType::Address, vec![workload("a")], &[])
            .await;
        assert!(answer.await.is_ok());
        assert!(world.has("a"));
        let refused = world.look_up("*").await;
        assert!(refused.await.is_err(), "no resource can have this name");
    });
}
