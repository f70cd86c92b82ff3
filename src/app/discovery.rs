//! The control plane: connected to, its changes published, shards' questions passed on, its state kept
//! on disk where that is wanted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tonic::metadata::MetadataMap;

use super::credentials::Certificates;
use super::state::owner::SharedOwner;
use crate::config::limits::DEMAND_QUEUE_MAX;
use crate::config::{Config, NodeMode, server};
use crate::control::grpc::channel::Channel;
use crate::control::grpc::headers::{Headers, HeadersError, Token};
use crate::control::grpc::{ConnectError, Server};
use crate::dataplane::demand::Asker;
use crate::dataplane::shard::{Message, ShardMailbox};
use crate::snapshot::Snapshot;
use crate::snapshot::builder::Change;
use crate::snapshot::exchange::Subscription;
use crate::tls::credentials::{CredentialState, CredentialStore, Credentials, Validity};
use crate::xds::cache::{Cache, CacheError, Kept, Pending};
use crate::xds::client::{Client, Mode, Received};
use crate::xds::conversation::{Connect, Conversation, LookUp, MeshState, Opened};
use crate::xds::node;

/// Changes are gathered for this long before the cache is written again.
const KEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A quiet mesh is written again after this long, so that what is kept does not look old.
const KEEP_FRESH_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Policies of one part of a response that get a log line each.
const POLICIES_LOGGED_MAX: usize = 20;

/// A shard's question, and which shard asked.
#[derive(Debug)]
struct Question {
    shard: usize,
    key: Arc<str>,
}

/// The control plane of a node, before anybody talks to it.
#[derive(Debug)]
pub(crate) struct Discovery {
    to: ToControlPlane,
    client: Client<oneshot::Sender<()>>,
    cache: Option<Cache>,
    on_demand: bool,
    questions: (mpsc::Sender<Question>, mpsc::Receiver<Question>),
    synced: watch::Sender<bool>,
}

impl Discovery {
    /// None without a control plane.
    pub(crate) fn new(config: &Config, certificates: &Certificates) -> Option<Self> {
        let discovery = config.discovery.as_ref()?;
        let (node, left_out) = node::node(&discovery.node);
        for problem in left_out {
            tracing::warn!(target: "corelane::xds", "{problem}");
        }
        let origin = format!("{} {}", discovery.address, node.id);
        let cache = discovery.cache_dir.as_deref();
        let mode = if discovery.on_demand {
            Mode::OnDemand
        } else {
            Mode::All
        };
        Some(Self {
            to: ToControlPlane::new(config, discovery, certificates),
            client: Client::new(node, mode),
            cache: cache.map(|dir| Cache::new(dir, &origin)),
            on_demand: discovery.on_demand,
            questions: mpsc::channel(DEMAND_QUEUE_MAX),
            synced: watch::Sender::new(false),
        })
    }

    /// Turns true once the state is complete.
    pub(crate) fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// How the shard with this number asks; none where nothing comes on demand.
    pub(crate) fn asker(&self, shard: usize) -> Option<Asker> {
        let questions = self.questions.0.clone();
        let ask = move |key| questions.try_send(Question { shard, key }).is_ok();
        self.on_demand.then(|| Asker::new(ask))
    }

    /// Talks to the control plane for ever.
    pub(crate) async fn run(
        self,
        owner: SharedOwner,
        published: impl Fn(&Snapshot),
        shards: &[ShardMailbox],
    ) {
        let Self {
            to,
            client,
            mut cache,
            questions: (_, questions),
            synced,
            ..
        } = self;
        let (look_ups, queue) = mpsc::channel(DEMAND_QUEUE_MAX);
        let (received, to_keep) = mpsc::unbounded_channel();
        let is_synced = synced.subscribe();
        let (connected, is_connected) = watch::channel(false);
        let state = Published {
            owner,
            published,
            synced,
            connected,
            received,
        };
        let mut conversation = Conversation::new(client, to, state, queue);
        if let Some(cache) = &mut cache {
            if let Some(kept) = load(cache) {
                conversation.restore(kept).await;
                if !*is_synced.borrow() {
                    cache.forget();
                    tracing::warn!(
                        target: "corelane::xds",
                        "the kept state has parts that are no longer understood: waiting for the \
                         control plane"
                    );
                }
            }
            conversation.keep_received();
        }
        tokio::join!(
            conversation.run(),
            keep(cache, to_keep, is_synced, is_connected),
            answer(questions, look_ups, shards),
        );
    }
}

/// Opens connections by the configuration.
#[derive(Debug)]
struct ToControlPlane {
    server: Server,
    headers: Headers,
    /// Shown as well where the token is given once: later it has expired.
    own: Option<Subscription<CredentialStore>>,
}

/// No connection, or nothing to show the control plane.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Headers(#[from] HeadersError),
}

impl ToControlPlane {
    fn new(config: &Config, discovery: &server::Discovery, certificates: &Certificates) -> Self {
        let authority = config.authority.as_ref();
        // Nodes for many workloads have no certificate of their own.
        let shows_own = matches!(config.mode, NodeMode::Dedicated { .. })
            && authority.is_some_and(|authority| authority.renew_with_certificate);
        Self {
            own: shows_own.then(|| certificates.subscribe()),
            server: Server {
                address: discovery.address.clone(),
                roots: discovery.roots.clone(),
                alt_hostname: discovery.alt_hostname.clone(),
                packet_mark: config.socket.packet_mark,
                tls: super::credentials::tls_options(config),
            },
            headers: Headers {
                token: Token::find(&config.auth_token),
                cluster_id: Arc::clone(&config.cluster_id),
                extra: discovery.headers.clone(),
            },
        }
    }
}

impl Connect for ToControlPlane {
    type Answer = tonic::body::Body;
    type Service = Channel;
    type Error = OpenError;

    async fn connect(&mut self) -> Result<Opened<Channel>, OpenError> {
        let own = self.own.as_ref().map(Subscription::load);
        let own = own.and_then(|store| in_force(&store, SystemTime::now()));
        let headers = headers(&self.headers, own.is_some()).await?;
        let service = Box::pin(self.server.connect(own.as_deref())).await?;
        Ok(Opened { service, headers })
    }
}

/// The certificate of the one workload, if it is valid.
fn in_force(store: &CredentialStore, now: SystemTime) -> Option<Arc<Credentials>> {
    store.entries().find_map(|(_, state)| match state {
        CredentialState::Available(held) if held.validity(now) == Validity::Current => {
            Some(Arc::clone(held))
        }
        CredentialState::Available(_)
        | CredentialState::Initializing
        | CredentialState::Unavailable(_) => None,
    })
}

/// The headers of a stream. The token goes with them as long as it can be read; whoever shows a
/// certificate may do without.
async fn headers(headers: &Headers, has_certificate: bool) -> Result<MetadataMap, HeadersError> {
    match headers.read().await {
        Err(error) if has_certificate => {
            tracing::debug!(target: "corelane::xds", "only the certificate is shown: {error}");
            headers.without_token()
        }
        read => read,
    }
}

/// Where the conversation's changes go.
#[derive(Debug)]
struct Published<F> {
    owner: SharedOwner,
    published: F,
    synced: watch::Sender<bool>,
    connected: watch::Sender<bool>,
    received: mpsc::UnboundedSender<Received>,
}

impl<F: Fn(&Snapshot)> MeshState for Published<F> {
    fn apply(&mut self, change: Change) {
        for (key, policy) in change.policies.iter().take(POLICIES_LOGGED_MAX) {
            let (scope, action) = (policy.scope, policy.action);
            tracing::info!(target: "corelane::xds", ?scope, ?action, "policy {key} received");
        }
        self.owner.borrow_mut().remote(change);
    }

    fn publish(&mut self) {
        let snapshot = self.owner.borrow_mut().publish();
        tracing::debug!(
            target: "corelane::xds",
            generation = snapshot.generation(),
            "state of the control plane published"
        );
        (self.published)(&snapshot);
    }

    fn synced(&mut self) {
        tracing::info!(target: "corelane::xds", "state is complete");
        self.synced.send_replace(true);
    }

    fn connected(&mut self, yes: bool) {
        self.connected.send_replace(yes);
    }

    fn received(&mut self, received: Received) {
        // Nobody keeps it: there is no cache.
        let _ = self.received.send(received);
    }
}

/// What was kept, if it can be used.
fn load(cache: &mut Cache) -> Option<Kept> {
    match cache.load(SystemTime::now()) {
        Ok(Some(kept)) => {
            tracing::warn!(
                target: "corelane::xds",
                resources = kept.resources(),
                "starting from the kept state until the control plane answers"
            );
            Some(kept)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(target: "corelane::xds", "the kept state is not used: {error}");
            None
        }
    }
}

/// Writes changes to the cache, once the state is complete.
async fn keep(
    cache: Option<Cache>,
    mut received: mpsc::UnboundedReceiver<Received>,
    mut synced: watch::Receiver<bool>,
    connected: watch::Receiver<bool>,
) {
    let Some(mut cache) = cache else {
        return;
    };
    let mut pending = Pending::default();
    // Gathered by name meanwhile: what is sent again and again must not pile up.
    loop {
        tokio::select! {
            _ = synced.wait_for(|synced| *synced) => break,
            Some(early) = received.recv() => pending.add(early),
        }
    }
    loop {
        if pending.is_empty() {
            tokio::select! {
                Some(first) = received.recv() => pending.add(first),
                () = tokio::time::sleep(KEEP_FRESH_INTERVAL) => {
                    // Without the control plane it is not known to be fresh.
                    if !*connected.borrow() {
                        continue;
                    }
                }
            }
        }
        while let Ok(more) = received.try_recv() {
            pending.add(more);
        }
        let write = move || {
            let stored = cache.store(&pending, SystemTime::now());
            (cache, pending, stored)
        };
        let Ok(written) = tokio::task::spawn_blocking(write).await else {
            return;
        };
        let stored: Result<(), CacheError>;
        (cache, pending, stored) = written;
        match stored {
            Ok(()) => pending = Pending::default(),
            Err(error) => {
                metrics::counter!("corelane_xds_cache_failures").increment(1);
                tracing::warn!(target: "corelane::xds", "the state cannot be kept: {error}");
                if matches!(error, CacheError::Gone { .. }) {
                    return;
                }
            }
        }
        tokio::time::sleep(KEEP_INTERVAL).await;
    }
}

/// Passes questions on and tells each shard its answers.
async fn answer(
    mut questions: mpsc::Receiver<Question>,
    look_ups: mpsc::Sender<LookUp>,
    shards: &[ShardMailbox],
) {
    let shards: Rc<[ShardMailbox]> = shards.into();
    while let Some(Question { shard, key }) = questions.recv().await {
        let (waiter, told) = oneshot::channel();
        let look_up = LookUp {
            key: Arc::clone(&key),
            waiter,
        };
        if look_ups.send(look_up).await.is_err() {
            return;
        }
        tokio::task::spawn_local(tell(Rc::clone(&shards), shard, key, told));
    }
}

async fn tell(
    shards: Rc<[ShardMailbox]>,
    shard: usize,
    key: Arc<str>,
    told: oneshot::Receiver<()>,
) {
    let answered = told.await.is_ok();
    if let Some(mailbox) = shards.get(shard) {
        // A shard that has ended asks no more.
        let _ = mailbox.send(Message::Told(key, answered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::grpc::headers::Token;
    use crate::model::identity::Identity;
    use crate::tls::TlsOptions;
    use crate::tls::dev_pki::Authority;

    #[test]
    fn a_certificate_is_shown_while_it_is_valid() {
        let now = SystemTime::now();
        let identity: Identity = "spiffe://cluster.local/ns/vms/sa/billing".parse().unwrap();
        let authority = Authority::new("a", now).unwrap();
        let held = authority.credentials(&identity, TlsOptions::default(), now);
        let held = Arc::new(held.unwrap());
        let after = held.not_after() + Duration::from_secs(1);
        let store = |state| CredentialStore::new([(identity.clone(), state)]);
        let available = store(CredentialState::Available(held));
        assert!(in_force(&available, now).is_some());
        assert!(in_force(&available, after).is_none());
        assert!(in_force(&store(CredentialState::Initializing), now).is_none());
        assert!(in_force(&CredentialStore::default(), now).is_none());
    }

    #[tokio::test]
    async fn a_token_that_is_gone_stops_only_those_without_a_certificate() {
        let gone = Headers {
            token: Token::File("/nonexistent/token".into()),
            cluster_id: "c1".into(),
            extra: Vec::new(),
        };
        assert!(headers(&gone, false).await.is_err());
        let shown = headers(&gone, true).await.unwrap();
        assert!(shown.get("authorization").is_none());
        assert_eq!(shown.get("clusterid").unwrap(), "c1");
    }
}
