//! What a shard is built from and what it is told.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::super::balance::{Handed, Neighbour};
use super::super::demand::Asker;
use super::super::hostnames::{Answer, Questions};
use super::super::local::Processes;
use super::super::rt::{Inbox, Mailbox};
use super::PlaceId;
use crate::config::{Config, ForwardTarget};
use crate::model::identity::Identity;
use crate::model::workload::WorkloadInfo;
use crate::snapshot::Snapshot;
use crate::snapshot::exchange::Subscription;
use crate::sys::netns::Namespace;
use crate::telemetry::ShardTelemetry;
use crate::telemetry::open::OpenConnections;
use crate::tls::credentials::CredentialStore;

/// What the control thread tells a shard.
#[derive(Debug)]
pub enum Message {
    /// A snapshot or credentials were published.
    Changed,
    /// Stop accepting; let connections end.
    Drain,
    /// End every connection now.
    Force,
    /// Accept from now on: the mesh state is complete.
    Open,
    /// The control plane has answered a look-up, or (`false`) did not.
    Told(Arc<str>, bool),
    /// Answer by storing this number in the heartbeat.
    Ping(u64),
    /// The answer to the question with this ticket.
    Resolved(u64, Answer),
    /// Serve a connection that another shard accepted.
    Adopt(Handed),
    /// Tell an operator which connections are open.
    ListOpen(OpenReport),
    /// Take the listeners of a workload. They accept once every shard has its own, so that a
    /// connection can be handed over from the first on.
    AddWorkload(Box<PlannedWorkload>),
    /// Accept for that workload.
    ServeWorkload(PlaceId),
    /// A workload has gone: end everything of it now.
    RemoveWorkload(PlaceId),
}

/// Takes a shard's open connections, once.
pub struct OpenReport {
    /// How many at most.
    max: usize,
    tell: Box<dyn FnOnce(OpenConnections) + Send>,
}

impl OpenReport {
    /// Hands up to `max` of them to `tell`, which must not wait.
    #[must_use]
    pub fn new(max: usize, tell: impl FnOnce(OpenConnections) + Send + 'static) -> Self {
        let tell = Box::new(tell);
        Self { max, tell }
    }

    pub(super) fn answer(self, telemetry: &ShardTelemetry) {
        (self.tell)(telemetry.open_connections(self.max));
    }
}

impl fmt::Debug for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenReport({})", self.max)
    }
}

/// What a shard needs to serve a workload in its own network namespace.
#[derive(Debug)]
pub struct PlannedWorkload {
    /// The same on all shards.
    pub id: PlaceId,
    /// Who it is.
    pub info: Arc<WorkloadInfo>,
    /// Where it lives.
    pub namespace: Arc<Namespace>,
    /// The shard's listeners there.
    pub listeners: Vec<PlannedListener>,
    /// Dropped when nothing of the workload is left on the shard.
    pub presence: Presence,
}

/// Its owner learns when all copies have been dropped.
#[derive(Clone)]
pub struct Presence(
    #[expect(dead_code, reason = "only its drop matters")] Arc<dyn Any + Send + Sync>,
);

impl Presence {
    /// Copies drop `told` with the last of them.
    #[must_use]
    pub fn new(told: impl Any + Send + Sync) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presence")
    }
}

/// Tells the control thread that a connection waits for the certificate of a local identity. False: it
/// takes no more now.
#[derive(Clone)]
pub struct CertificateAsker(Arc<dyn Fn(&Identity) -> bool + Send + Sync>);

impl CertificateAsker {
    /// By this function.
    #[must_use]
    pub fn new(ask: impl Fn(&Identity) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Asks; whether that was taken.
    #[must_use]
    pub fn asks(&self, identity: &Identity) -> bool {
        (self.0)(identity)
    }
}

impl fmt::Debug for CertificateAsker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAsker")
    }
}

/// A bound listening socket and what it is for.
#[derive(Debug)]
pub struct PlannedListener {
    /// The socket, non-blocking.
    pub fd: OwnedFd,
    /// Its bound address.
    pub addr: SocketAddr,
    /// What it is for.
    pub role: ListenerRole,
    /// Whether IP_TRANSPARENT is set on it: applications may be dialled from the client's address.
    pub transparent: bool,
}

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum ListenerRole {
    /// Captured outbound connections.
    Outbound,
    /// Captured inbound plain text.
    InboundPlaintext,
    /// HBONE.
    Inbound,
    /// HBONE for the node itself, which is never dialled from somebody else's address.
    OwnInbound,
    /// SOCKS5.
    Socks5,
    /// A forward: where to, and as which workload.
    Forward(ForwardTarget, Option<crate::config::ServiceAccountRef>),
}

/// Everything a shard is built from; moved to its thread.
#[derive(Debug)]
pub struct Plan {
    /// Number of the shard.
    pub index: usize,
    /// Configuration of the node.
    pub config: Arc<Config>,
    /// Mesh state.
    pub state: Subscription<Snapshot>,
    /// Certificates.
    pub credentials: Subscription<CredentialStore>,
    /// Where it counts and reports.
    pub telemetry: ShardTelemetry,
    /// Its listeners.
    pub listeners: Vec<PlannedListener>,
    /// All shards of the node in order, if they hand connections to each other; else none.
    pub shards: Vec<Neighbour>,
    /// Its messages.
    pub inbox: Inbox<Message>,
    /// Where it asks for hostnames.
    pub questions: Questions,
    /// Stores the newest ping's number.
    pub heartbeat: Arc<AtomicU64>,
    /// Whether it accepts at once, or waits for [`Message::Open`].
    pub open: bool,
    /// Asks for addresses that are not known, where they come on demand.
    pub asker: Option<Asker>,
    /// Asks for certificates, where they can be had at any time.
    pub certificates: Option<CertificateAsker>,
    /// Looks up the processes of clients, where these tell workloads apart.
    pub processes: Option<Processes>,
    /// Descriptor limit of the process.
    pub descriptors: u64,
}

/// Sends messages to a shard.
pub type ShardMailbox = Mailbox<Message>;
