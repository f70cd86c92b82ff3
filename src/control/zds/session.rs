//! Which workloads there are: what each request does, before and after the agent's snapshot.
//!
//! No I/O and no clock; starting and stopping is [`Host`]'s, so that tests are tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::view::{Served, Workloads};
use crate::model::workload::WorkloadInfo;
use crate::sys::netns::{Namespace, NamespaceId};

/// A workload's key in the conversation with the agent.
pub type Uid = Arc<str>;

/// What the agent asks. `N` is the workload's network namespace.
#[derive(Debug)]
pub enum Request<N> {
    /// A workload is there.
    Add {
        /// Its key.
        uid: Uid,
        /// Who it is; the protocol demands it.
        info: Option<Arc<WorkloadInfo>>,
        /// Where it lives.
        namespace: N,
    },
    /// A workload that an earlier connection added is still there.
    Keep(Uid),
    /// A workload has gone.
    Delete(Uid),
    /// Everything there was when the connection began has been said.
    SnapshotSent,
}

impl<N> Request<N> {
    /// The same request with its namespace changed.
    pub(super) fn try_map<M, E>(
        self,
        map: impl FnOnce(N) -> Result<M, E>,
    ) -> Result<Request<M>, E> {
        Ok(match self {
            Self::Add {
                uid,
                info,
                namespace,
            } => Request::Add {
                uid,
                info,
                namespace: map(namespace)?,
            },
            Self::Keep(uid) => Request::Keep(uid),
            Self::Delete(uid) => Request::Delete(uid),
            Self::SnapshotSent => Request::SnapshotSent,
        })
    }
}

/// Tells namespaces apart.
pub trait Identified {
    /// Equal for the same namespace only, while both are held.
    fn id(&self) -> NamespaceId;
}

impl Identified for Namespace {
    fn id(&self) -> NamespaceId {
        Self::id(self)
    }
}

/// Who serves workloads.
pub trait Host {
    /// A workload's network namespace.
    type Namespace: Identified;

    /// Starts to serve a workload, in whole or not at all.
    ///
    /// # Errors
    /// Why not, for the agent and for the log.
    fn start(
        &mut self,
        uid: &Uid,
        info: &Arc<WorkloadInfo>,
        namespace: &Arc<Self::Namespace>,
    ) -> Result<(), String>;

    /// Stops to serve it: listeners closed and connections ended, without grace.
    fn stop(&mut self, uid: &Uid);

    /// Completes when nothing is left of what was stopped.
    fn settled(&mut self) -> impl Future<Output = ()>;
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The workload could not be started. It is pending.
    Start(String),
    /// The request must not come now.
    Protocol(&'static str),
}

/// How many there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Served.
    pub active: usize,
    /// Failed to start.
    pub pending: usize,
    /// Starts that worked, ever.
    pub started: u64,
    /// Stops, ever.
    pub stopped: u64,
}

#[derive(Debug)]
struct Known<N> {
    info: Arc<WorkloadInfo>,
    namespace: Arc<N>,
}

/// All workloads of the node. Outlives connections: what is served stays served meanwhile.
#[derive(Debug)]
pub struct Session<H: Host> {
    host: H,
    running: BTreeMap<Uid, Known<H::Namespace>>,
    pending: BTreeMap<Uid, Known<H::Namespace>>,
    /// Uids said since the connection began; none once the snapshot is complete.
    snapshot: Option<BTreeSet<Uid>>,
    started: u64,
    stopped: u64,
}

impl<H: Host> Session<H> {
    /// No workload yet.
    pub fn new(host: H) -> Self {
        Self {
            host,
            running: BTreeMap::new(),
            pending: BTreeMap::new(),
            snapshot: Some(BTreeSet::new()),
            started: 0,
            stopped: 0,
        }
    }

    /// A new connection begins: the agent will say everything anew.
    pub fn connected(&mut self) {
        self.pending.clear();
        self.snapshot = Some(BTreeSet::new());
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// [`Failure::Start`] leaves the session as it is, [`Failure::Protocol`] ends it.
    pub fn handle(&mut self, request: Request<H::Namespace>) -> Result<(), Failure> {
        match request {
            Request::Add {
                uid,
                info,
                namespace,
            } => {
                let missing = Failure::Protocol("a workload was added without saying who it is");
                let info = info.ok_or(missing)?;
                if let Some(said) = &mut self.snapshot {
                    said.insert(Arc::clone(&uid));
                }
                let namespace = Arc::new(namespace);
                self.add(uid, Known { info, namespace })
            }
            Request::Keep(uid) => {
                let late = Failure::Protocol("a workload was kept after the snapshot");
                self.snapshot.as_mut().ok_or(late)?.insert(uid);
                Ok(())
            }
            Request::Delete(uid) => {
                self.pending.remove(&uid);
                match &mut self.snapshot {
                    // What runs is stopped with the snapshot.
                    Some(said) => {
                        said.remove(&uid);
                    }
                    None => self.stop(&uid),
                }
                Ok(())
            }
            Request::SnapshotSent => {
                let twice = Failure::Protocol("the snapshot was sent twice");
                let said = self.snapshot.take().ok_or(twice)?;
                let gone = self.running.keys().filter(|uid| !said.contains(*uid));
                for uid in gone.cloned().collect::<Vec<_>>() {
                    self.stop(&uid);
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, uid: Uid, known: Known<H::Namespace>) -> Result<(), Failure> {
        if let Some(running) = self.running.get(&uid) {
            if running.namespace.id() == known.namespace.id() {
                self.pending.remove(&uid);
                return Ok(());
            }
            self.stop(&uid);
        }
        match self.host.start(&uid, &known.info, &known.namespace) {
            Ok(()) => {
                self.started += 1;
                // An older failed start must not be tried again in its namespace.
                self.pending.remove(&uid);
                self.running.insert(uid, known);
                Ok(())
            }
            Err(error) => {
                self.pending.insert(uid, known);
                Err(Failure::Start(error))
            }
        }
    }

    fn stop(&mut self, uid: &Uid) {
        if self.running.remove(uid).is_some() {
            self.stopped += 1;
            self.host.stop(uid);
        }
    }

    /// Completes when nothing is left of what was stopped.
    pub async fn settled(&mut self) {
        self.host.settled().await;
    }

    /// Tries once more to start everything that failed to.
    pub fn retry(&mut self) {
        for (uid, known) in std::mem::take(&mut self.pending) {
            let shown = Arc::clone(&uid);
            match self.add(uid, known) {
                Ok(()) => {
                    tracing::info!(target: "corelane::zds", uid = %shown, "workload started after all");
                }
                Err(Failure::Start(error)) => {
                    tracing::debug!(target: "corelane::zds", uid = %shown, %error, "still failing to start");
                }
                Err(Failure::Protocol(_)) => {}
            }
        }
    }

    /// Whether something failed to start.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether this node serves everything the agent knows.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.snapshot.is_none() && self.pending.is_empty()
    }

    /// How many there are and were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.running.len(),
            pending: self.pending.len(),
            started: self.started,
            stopped: self.stopped,
        }
    }

    /// For operators.
    #[must_use]
    pub fn shown(&self) -> Workloads {
        let with = |served| {
            move |(uid, known): (&Uid, &Known<H::Namespace>)| {
                (Arc::clone(uid), (served, Arc::clone(&known.info)))
            }
        };
        let pending = self.pending.iter().map(with(Served::Pending));
        pending
            .chain(self.running.iter().map(with(Served::Up)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
