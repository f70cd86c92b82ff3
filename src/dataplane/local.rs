//! Which local workload a connection belongs to, waiting a moment for one that is not known yet.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::demand;
use super::rt::{self, Socket};
use super::shard::Shard;
use crate::config::{NodeMode, ServiceAccountRef};
use crate::decision::missing::address_key;
use crate::model::addr::NetworkAddress;
use crate::model::local::ByAddress;
use crate::model::workload::{Workload, WorkloadInfo};
use crate::snapshot::Snapshot;
use crate::sys::socket::{is_local, original_dst, peer_addr};
use crate::telemetry::counters::Limit;

pub use processes::Processes;

use processes::Process;

mod processes;

/// How a listener knows the workload it speaks for.
#[derive(Clone, Debug)]
pub(crate) enum LocalKey {
    /// The one workload of a dedicated node.
    Dedicated(WorkloadInfo),
    /// A forward's service account.
    Account(ServiceAccountRef),
    /// The workload that owns this address of the host.
    Address(IpAddr),
    /// The workload the node's agent named, in whose namespace the listener is, at this address.
    Named(Arc<WorkloadInfo>, IpAddr),
}

impl fmt::Display for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dedicated(info) => info.fmt(f),
            Self::Named(info, _) => info.fmt(f),
            Self::Account(account) => {
                write!(f, "{}.{}", account.service_account, account.namespace)
            }
            Self::Address(ip) => write!(f, "address {ip}"),
        }
    }
}

impl LocalKey {
    /// The workload that listens on `ip`, or the node's only one.
    pub(crate) fn of_listener(mode: &NodeMode, ip: IpAddr) -> Self {
        match mode {
            NodeMode::Dedicated { workload } => Self::Dedicated(workload.clone()),
            NodeMode::Node(_) => Self::Address(ip),
            NodeMode::Shared(shared) => match &shared.own {
                Some(own) => Self::Named(Arc::new(own.clone()), ip),
                None => Self::Address(ip),
            },
        }
    }

    /// The workload connections to `to` are for.
    pub(crate) fn of_destination(mode: &NodeMode, to: SocketAddr) -> Self {
        let listed = mode.node().and_then(|node| node.workloads.at(to));
        match listed {
            Some(info) => Self::Named(Arc::clone(info), to.ip()),
            None => Self::of_listener(mode, to.ip()),
        }
    }

    /// On a listener that takes any address, the workload is the one that owns the client's.
    pub(crate) fn or_of_client(self, client: IpAddr) -> Self {
        match self {
            Self::Address(ip) if ip.is_unspecified() => Self::Address(client),
            Self::Named(info, ip) if ip.is_unspecified() => Self::Named(info, client),
            Self::Address(_) | Self::Named(..) | Self::Dedicated(_) | Self::Account(_) => self,
        }
    }

    /// What to ask the control plane for when the workload is not known: its address.
    fn asked(&self, shard: &Shard) -> Option<Arc<str>> {
        let discovery = shard.config.discovery.as_ref()?;
        let ip = match self {
            Self::Dedicated(_) => discovery.node.instance_ip.as_ref()?.parse().ok()?,
            Self::Address(ip) | Self::Named(_, ip) => *ip,
            Self::Account(_) => return None,
        };
        let on_demand = discovery.on_demand;
        on_demand.then(|| address_key(&shard.config.network, ip))
    }

    fn find(&self, snapshot: &Snapshot, network: &Arc<str>) -> Option<Arc<Workload>> {
        match self {
            Self::Dedicated(info) => snapshot.local_workload(info).cloned(),
            Self::Named(info, _) => snapshot.local_workload(info).cloned(),
            Self::Account(account) => snapshot
                .local_workload_of(&account.namespace, &account.service_account)
                .cloned(),
            Self::Address(ip) => {
                let address = NetworkAddress {
                    network: Arc::clone(network),
                    ip: *ip,
                };
                let workload = snapshot.workload_by_address(&address)?;
                snapshot.is_local(workload).then(|| Arc::clone(workload))
            }
        }
    }
}

/// Why no local workload could be found for a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// It did not become known in time.
    #[error("failed to fetch information about local workload: {0}")]
    Unknown(String),
    /// Nobody told us whose such processes are.
    #[error(
        "no workload of `node.workloads` has {0}: name its cgroup or uid there, or the address of a \
         workload that is told by neither"
    )]
    Untold(Stranger),
    /// The process cannot be asked for any more.
    #[error("cannot tell whose connection this is: the process at {0} has closed its socket")]
    Closed(SocketAddr),
    /// The kernel does not tell the process.
    #[error("cannot tell which process connects: {0}")]
    Process(#[source] io::Error),
}

/// A client that is no workload.
#[derive(Debug)]
pub(crate) struct Stranger {
    process: Option<Process>,
    address: IpAddr,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Process { uid, cgroup }) = &self.process {
            if let Some(path) = cgroup {
                write!(f, "cgroup {path}, ")?;
            }
            write!(f, "uid {uid}, ")?;
        }
        write!(f, "address {}", self.address)
    }
}

/// The workload a connection comes from; `key` is its listener's. On a node of many workloads the
/// process counts first: its innermost listed cgroup, then its user, then the address it uses.
pub(crate) async fn source(
    shard: &Shard,
    key: &LocalKey,
    socket: &Socket,
    client: SocketAddr,
) -> Result<Arc<Workload>, LocalError> {
    let (listed, ip) = match (shard.config.mode.node(), key) {
        (Some(node), LocalKey::Address(ip)) if !node.workloads.all().is_empty() => {
            (&node.workloads, *ip)
        }
        _ => return workload(shard, key).await,
    };
    let process = match &shard.processes {
        Some(processes) => process(processes, socket, client)?,
        None => None,
    };
    let by_process = process
        .as_ref()
        .and_then(|process| listed.of_process(process.uid, process.cgroup.as_deref()));
    let by_address = listed.of_client(ip);
    let found = match (by_process, by_address) {
        (Some(info), _) | (None, ByAddress::Workload(info)) => {
            return workload(shard, &LocalKey::Named(Arc::clone(info), ip)).await;
        }
        (None, ByAddress::ProcessesOnly) => None,
        // Nothing else tells it, so that it is not merely late.
        (None, ByAddress::Unlisted) => workload(shard, key).await.ok(),
    };
    // The record of a workload that its processes tell says nothing about who uses its address.
    found
        .filter(|found| !listed.is_told_by_process(&info(found)))
        .ok_or(LocalError::Untold(Stranger {
            process,
            address: ip,
        }))
}

fn info(workload: &Workload) -> WorkloadInfo {
    WorkloadInfo {
        name: Arc::clone(&workload.name),
        namespace: Arc::clone(&workload.namespace),
        service_account: Arc::clone(&workload.service_account),
    }
}

/// The local process at the other end. `None`: the client is not of this host, as behind a bridge.
fn process(
    processes: &Processes,
    socket: &Socket,
    client: SocketAddr,
) -> Result<Option<Process>, LocalError> {
    // The client's socket knows the other end by the address it was told.
    let server = original_dst(socket.fd()).map_err(LocalError::Process)?;
    match processes.of(client, server).map_err(LocalError::Process)? {
        // Reset meanwhile, its ports may be somebody else's by now; while it stands nobody else has them.
        Some(_) if peer_addr(socket.fd()).is_err() => Err(LocalError::Closed(client)),
        Some(process) => Ok(Some(process)),
        // By its address alone it could pass for a workload that it is not.
        None if is_local(client.ip()) => Err(LocalError::Closed(client)),
        None => Ok(None),
    }
}

/// The workload behind a stream to `to` in a tunnel to `owner`, which shook hands for all that share
/// its address.
pub(crate) async fn behind(
    shard: &Shard,
    owner: Arc<Workload>,
    to: SocketAddr,
) -> Result<Arc<Workload>, LocalError> {
    let listed = shard
        .config
        .mode
        .node()
        .and_then(|node| node.workloads.at(to));
    match listed {
        Some(listed) if **listed != info(&owner) => {
            let key = LocalKey::Named(Arc::clone(listed), to.ip());
            workload(shard, &key).await
        }
        _ => Ok(owner),
    }
}

/// Looks the workload up, waiting up to `workload_wait` for it to appear.
pub(crate) async fn workload(shard: &Shard, key: &LocalKey) -> Result<Arc<Workload>, LocalError> {
    let wait = shard.config.timeouts.workload_wait;
    let find = || key.find(&shard.snapshot(), &shard.config.network);
    if let Some(found) = find() {
        return Ok(found);
    }
    let search = Box::pin(async {
        if let Some(asked) = key.asked(shard) {
            // Without an answer somebody else's may still bring it.
            let _ = demand::look_up(shard, &asked).await;
        }
        loop {
            let changed = shard.changed.next();
            if let Some(found) = find() {
                return found;
            }
            changed.await;
        }
    });
    match rt::within(wait, search).await {
        Some(found) => Ok(found),
        None => {
            shard.telemetry.counters().limit(Limit::WorkloadWait).add(1);
            Err(LocalError::Unknown(key.to_string()))
        }
    }
}
