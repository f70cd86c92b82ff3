//! Which local workload a connection belongs to, waiting a moment for one that is not known yet.

use std::net::IpAddr;
use std::sync::Arc;

use super::demand;
use super::rt;
use super::shard::Shard;
use crate::config::{NodeMode, ServiceAccountRef};
use crate::decision::missing::address_key;
use crate::model::addr::NetworkAddress;
use crate::model::workload::{Workload, WorkloadInfo};
use crate::snapshot::Snapshot;
use crate::telemetry::counters::Limit;

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

impl std::fmt::Display for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
            NodeMode::Node => Self::Address(ip),
            NodeMode::Shared(shared) => match &shared.own {
                Some(own) => Self::Named(Arc::new(own.clone()), ip),
                None => Self::Address(ip),
            },
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

/// The text for a workload that did not become known in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to fetch information about local workload: {0}")]
pub(crate) struct WorkloadUnknown(String);

/// Looks the workload up, waiting up to `workload_wait` for it to appear.
pub(crate) async fn workload(
    shard: &Shard,
    key: &LocalKey,
) -> Result<Arc<Workload>, WorkloadUnknown> {
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
            Err(WorkloadUnknown(key.to_string()))
        }
    }
}
