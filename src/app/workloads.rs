//! The workloads of a shared node: their listeners are bound in their namespaces, one for each shard,
//! and handed to the shards. And what a node needs for its mode.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::bind::bind_workload;
use super::dns::pods::{self, Answering, PodNames};
use super::lifecycle::StartError;
use super::shards::broadcast;
use crate::config::Config;
use crate::control::zds::session::{Host, Uid};
use crate::dataplane::local::Processes;
use crate::dataplane::shard::{Message, PlaceId, PlannedWorkload, Presence, ShardMailbox};
use crate::model::workload::WorkloadInfo;
use crate::sys::cgroups::Cgroups;
use crate::sys::netns::{Home, Namespace};
use crate::sys::socket::check_mark;

/// Serves what the node's agent names.
#[derive(Debug)]
pub(super) struct Workloads {
    config: Arc<Config>,
    shards: Vec<ShardMailbox>,
    /// Answers names for them, if anybody does.
    names: Option<PodNames>,
    newest: PlaceId,
    places: BTreeMap<Uid, Served>,
    /// Stopped, and perhaps not gone yet.
    leaving: Vec<Gone>,
}

/// A workload that is served.
#[derive(Debug)]
struct Served {
    id: PlaceId,
    gone: Gone,
    _names: Option<Answering>,
}

/// Closed when nothing is left of a workload, on any shard and of its names.
type Gone = mpsc::Receiver<()>;

impl Workloads {
    pub(super) const fn new(
        config: Arc<Config>,
        shards: Vec<ShardMailbox>,
        names: Option<PodNames>,
    ) -> Self {
        Self {
            config,
            shards,
            names,
            newest: PlaceId::OWN,
            places: BTreeMap::new(),
            leaving: Vec::new(),
        }
    }
}

impl Host for Workloads {
    type Namespace = Namespace;

    fn start(
        &mut self,
        uid: &Uid,
        info: &Arc<WorkloadInfo>,
        namespace: &Arc<Namespace>,
    ) -> Result<(), String> {
        let port_reuse = self.config.mode.shared().is_some_and(|s| s.port_reuse);
        // Names first (spec: zds.md 4.1).
        let bind = || {
            let names = self.names.as_ref();
            let names = names
                .map(|names| pods::bind_all(&self.config, port_reuse).map(|bound| (names, bound)))
                .transpose()?;
            let listeners = bind_workload(&self.config, port_reuse);
            Ok::<_, String>((names, listeners.map_err(|error| error.to_string())?))
        };
        let bound = namespace
            .within(bind)
            .map_err(|error| format!("cannot enter its network namespace: {error}"))?;
        let (names, bound) = bound?;
        let (presence, gone) = mpsc::channel::<()>(1);
        let presence = Presence::new(presence);
        let names = names.map(|(names, bound)| names.serve(info, namespace, bound, &presence));
        let names = names.transpose()?;
        self.newest = self.newest.next();
        let id = self.newest;
        for (shard, listeners) in self.shards.iter().zip(bound) {
            let planned = PlannedWorkload {
                id,
                info: Arc::clone(info),
                namespace: Arc::clone(namespace),
                listeners,
                presence: presence.clone(),
            };
            let _ended = shard.send(Message::AddWorkload(Box::new(planned)));
        }
        broadcast(&self.shards, || Message::ServeWorkload(id));
        let served = Served {
            id,
            gone,
            _names: names,
        };
        self.places.insert(Arc::clone(uid), served);
        tracing::info!(target: "corelane::zds", %uid, workload = %info, "workload served");
        Ok(())
    }

    fn stop(&mut self, uid: &Uid) {
        if let Some(Served { id, gone, .. }) = self.places.remove(uid) {
            self.leaving.push(gone);
            broadcast(&self.shards, || Message::RemoveWorkload(id));
            tracing::info!(target: "corelane::zds", %uid, "workload no longer served");
        }
    }

    async fn settled(&mut self) {
        while let Some(gone) = self.leaving.last_mut() {
            // Nothing is ever sent: it ends with the last sender.
            gone.recv().await;
            self.leaving.pop();
        }
    }
}

/// Proves that this process may do what a shared node has to, and keeps the way back from its
/// workloads' namespaces. Nothing for other nodes.
pub(super) fn prove_abilities(config: &Config) -> Result<Option<Home>, StartError> {
    if config.mode.shared().is_none() {
        return Ok(None);
    }
    let unable = |what, needs| {
        move |source| StartError::Unable {
            mode: "shared",
            what,
            needs,
            source,
        }
    };
    let home = Home::of_this_thread().and_then(|home| home.check().map(|()| home));
    let home = home.map_err(unable("enter network namespaces", "CAP_SYS_ADMIN"))?;
    if let Some(mark) = config.socket.packet_mark {
        check_mark(mark).map_err(unable("mark packets", "CAP_NET_ADMIN or CAP_NET_RAW"))?;
    }
    Ok(Some(home))
}

/// Looks up the processes of clients for one shard, where these tell workloads apart. Proves that this
/// kernel and this process can.
pub(super) fn processes(config: &Config) -> Result<Option<Processes>, StartError> {
    let node = config.mode.node();
    let Some(node) = node.filter(|node| node.workloads.any_told_by_process()) else {
        return Ok(None);
    };
    let open = || {
        let root = match (&node.cgroup_root, node.workloads.any_told_by_cgroup()) {
            (_, false) => None,
            (Some(root), true) => Some(root.clone()),
            (None, true) => Some(Cgroups::mounted_at()?),
        };
        let processes = Processes::open(root.as_deref())?;
        processes.check().map(|()| processes)
    };
    open().map(Some).map_err(|source| StartError::Unable {
        mode: "node",
        what: "tell workloads by their processes",
        needs: "a kernel with tcp_diag, and for `cgroups` Linux 5.7, cgroup v2 mounted and \
                CAP_DAC_READ_SEARCH",
        source,
    })
}
