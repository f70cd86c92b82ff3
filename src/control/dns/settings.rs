//! What a DNS proxy goes by, and what names mean to a workload under it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::names::{Asker, Family, SearchDomains, look_up};
use super::places::Places;
use crate::model::local::LocalWorkloads;
use crate::model::workload::{Workload, WorkloadInfo};
use crate::snapshot::Snapshot;
use crate::sys::netns::Namespace;

/// Whose names are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// One workload, whoever asks.
    Workload(WorkloadInfo),
    /// The local workload that owns the address a query comes from: the one listed here, the default one
    /// of several, else the one whose record has it.
    BySource(LocalWorkloads),
}

/// Domains that clients may have appended to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// Those of the client's namespace in its cluster.
    OfNamespace,
    /// Those of the host's resolv.conf.
    Listed(Arc<[Arc<str>]>),
}

/// What a proxy goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose names are answered.
    pub client: Client,
    /// What clients append to names.
    pub search: Search,
    /// Domain of the cluster.
    pub cluster_domain: Arc<str>,
    /// Namespace that wins where nothing else decides.
    pub preferred_namespace: Option<Arc<str>>,
    /// Network of the node, for addresses queries come from.
    pub network: Arc<str>,
    /// Whether AAAA is answered with addresses.
    pub ipv6: bool,
    /// How long a query waits for the record of [`Client::Workload`].
    pub workload_wait: Duration,
    /// SO_MARK of sockets to name servers.
    pub packet_mark: Option<u32>,
    /// Where those sockets are made; `None`: in this process's own network namespace.
    pub namespace: Option<Arc<Namespace>>,
    /// What all proxies of the node may hold together.
    pub of_node: Places,
}

impl Settings {
    /// What names mean to a workload.
    pub(super) fn asker<'a>(&'a self, workload: &'a Workload) -> Asker<'a> {
        Asker {
            workload,
            cluster_domain: &self.cluster_domain,
            search: match &self.search {
                Search::OfNamespace => SearchDomains::OfNamespace,
                Search::Listed(domains) => SearchDomains::Listed(domains),
            },
            preferred_namespace: self.preferred_namespace.as_deref(),
            ipv6: self.ipv6,
        }
    }

    /// Addresses of both families that the mesh gives a name, for a workload that uses it. `None`: the
    /// mesh does not know it, name servers may.
    #[must_use]
    pub fn in_mesh(
        &self,
        name: &str,
        workload: &Workload,
        snapshot: &Snapshot,
    ) -> Option<Vec<IpAddr>> {
        let asker = self.asker(workload);
        let mut random = |bound: u64| fastrand::u64(0..bound.max(1));
        let [v4, v6] = [Family::V4, Family::V6]
            .map(|family| look_up(name, family, &asker, snapshot, &mut random));
        let known = v4.is_some() || v6.is_some();
        let found = v4.into_iter().chain(v6).flat_map(|known| known.addresses);
        known.then(|| found.collect())
    }
}
