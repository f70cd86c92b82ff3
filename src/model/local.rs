//! The workloads of one host, and what tells them apart.
//!
//! What is known of a process counts more than an address, which any process of the host may use: a
//! workload told by cgroup or user is never found by the address of a client.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::workload::WorkloadInfo;

/// A workload of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalWorkload {
    /// Who it is.
    pub info: Arc<WorkloadInfo>,
    /// Control groups (v2) of its processes, those below them included; paths from the root, `/a/b`.
    pub cgroups: Vec<Arc<str>>,
    /// Users its processes run as.
    pub uids: Vec<u32>,
    /// Addresses it listens on; without processes to tell it by, also those it connects from.
    pub addresses: Vec<IpAddr>,
    /// Ports it listens on, where it shares an address.
    pub ports: Vec<u16>,
    /// Whether it has the ports of its addresses that nobody lists, and shakes hands for all of them.
    pub is_default: bool,
}

impl LocalWorkload {
    /// Whether its connections are told by the process they come from.
    #[must_use]
    pub fn is_told_by_process(&self) -> bool {
        !self.cgroups.is_empty() || !self.uids.is_empty()
    }
}

/// Why some workloads cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// Listed twice.
    #[error("{0} is listed twice")]
    Twice(Arc<WorkloadInfo>),
    /// Has neither cgroup, user nor address.
    #[error("{0} has neither `cgroups`, `uids` nor `addresses`")]
    Nothing(Arc<WorkloadInfo>),
    /// Two have one cgroup, user, or port of an address.
    #[error("{what} belongs to both {first} and {second}")]
    Shared {
        /// What they share.
        what: String,
        /// One of them.
        first: Arc<WorkloadInfo>,
        /// The other one.
        second: Arc<WorkloadInfo>,
    },
    /// Several share an address and not exactly one is the default.
    #[error("address {0} is shared: exactly one of its workloads needs `default: true`")]
    NoDefault(IpAddr),
}

/// What the address of a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByAddress<'a> {
    /// It is this workload's.
    Workload(&'a Arc<WorkloadInfo>),
    /// It belongs to workloads that only their processes can tell.
    ProcessesOnly,
    /// Nothing: no workload lists it.
    Unlisted,
}

/// All listed workloads of a host; no two of them can be mistaken for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalWorkloads {
    all: Vec<LocalWorkload>,
    by_cgroup: BTreeMap<Arc<str>, usize>,
    by_uid: BTreeMap<u32, usize>,
    by_address: BTreeMap<IpAddr, Vec<usize>>,
}

impl LocalWorkloads {
    /// Indexes them.
    ///
    /// # Errors
    /// Every [`Ambiguity`].
    pub fn new(all: Vec<LocalWorkload>) -> Result<Self, Vec<Ambiguity>> {
        let mut local = Self {
            all,
            ..Self::default()
        };
        let mut found = Vec::new();
        for index in 0..local.all.len() {
            local.add(index, &mut found);
        }
        local.check_addresses(&mut found);
        if found.is_empty() {
            Ok(local)
        } else {
            Err(found)
        }
    }

    fn add(&mut self, index: usize, found: &mut Vec<Ambiguity>) {
        let Self {
            all,
            by_cgroup,
            by_uid,
            by_address,
        } = self;
        let added = &all[index];
        let info = &added.info;
        if all[..index].iter().any(|other| other.info == *info) {
            found.push(Ambiguity::Twice(Arc::clone(info)));
        }
        if added.addresses.is_empty() && !added.is_told_by_process() {
            found.push(Ambiguity::Nothing(Arc::clone(info)));
        }
        let mut shared = |what, first: usize| {
            if first != index {
                found.push(Ambiguity::Shared {
                    what,
                    first: Arc::clone(&all[first].info),
                    second: Arc::clone(info),
                });
            }
        };
        for path in &added.cgroups {
            let first = *by_cgroup.entry(Arc::clone(path)).or_insert(index);
            shared(format!("cgroup {path}"), first);
        }
        for uid in &added.uids {
            shared(format!("uid {uid}"), *by_uid.entry(*uid).or_insert(index));
        }
        for address in &added.addresses {
            let owners = by_address.entry(*address).or_default();
            if owners.last() == Some(&index) {
                continue;
            }
            for port in &added.ports {
                let owner = owners.iter().find(|o| all[**o].ports.contains(port));
                if let Some(owner) = owner {
                    shared(format!("port {port} of {address}"), *owner);
                }
            }
            owners.push(index);
        }
    }

    fn check_addresses(&self, found: &mut Vec<Ambiguity>) {
        for (address, owners) in &self.by_address {
            let defaults = owners.iter().filter(|o| self.all[**o].is_default).count();
            if owners.len() > 1 && defaults != 1 {
                found.push(Ambiguity::NoDefault(*address));
            }
        }
    }

    /// All of them, as listed.
    #[must_use]
    pub fn all(&self) -> &[LocalWorkload] {
        &self.all
    }

    /// Whether a client's process can decide.
    #[must_use]
    pub fn any_told_by_process(&self) -> bool {
        !self.by_cgroup.is_empty() || !self.by_uid.is_empty()
    }

    /// Whether its cgroup can.
    #[must_use]
    pub fn any_told_by_cgroup(&self) -> bool {
        !self.by_cgroup.is_empty()
    }

    /// Whether this workload is listed and told by its processes.
    #[must_use]
    pub fn is_told_by_process(&self, info: &WorkloadInfo) -> bool {
        let listed = self.all.iter().find(|workload| *workload.info == *info);
        listed.is_some_and(LocalWorkload::is_told_by_process)
    }

    /// The workload a process belongs to: the innermost of its cgroups that is listed decides, else its
    /// user.
    #[must_use]
    pub fn of_process(&self, uid: u32, cgroup: Option<&str>) -> Option<&Arc<WorkloadInfo>> {
        let by_cgroup = cgroup.and_then(|path| {
            std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0))
                .find_map(|path| self.by_cgroup.get(path))
        });
        let index = by_cgroup.or_else(|| self.by_uid.get(&uid))?;
        Some(&self.all[*index].info)
    }

    /// The workload whose address a client has, among those that are told by nothing else.
    #[must_use]
    pub fn of_client(&self, address: IpAddr) -> ByAddress<'_> {
        let Some(owners) = self.by_address.get(&address) else {
            return ByAddress::Unlisted;
        };
        let owners = owners.iter().map(|owner| &self.all[*owner]);
        let by_address: Vec<_> = owners.filter(|o| !o.is_told_by_process()).collect();
        let found = match by_address.as_slice() {
            [only] => Some(*only),
            several => several.iter().find(|owner| owner.is_default).copied(),
        };
        found.map_or(ByAddress::ProcessesOnly, |owner| {
            ByAddress::Workload(&owner.info)
        })
    }

    /// The workload that listens on `to`: the one that lists the port, else the default of the address.
    #[must_use]
    pub fn at(&self, to: SocketAddr) -> Option<&Arc<WorkloadInfo>> {
        let owners = self.by_address.get(&to.ip())?;
        if let [only] = owners.as_slice() {
            return Some(&self.all[*only].info);
        }
        let owners = || owners.iter().map(|owner| &self.all[*owner]);
        let by_port = owners().find(|owner| owner.ports.contains(&to.port()));
        let found = by_port.or_else(|| owners().find(|owner| owner.is_default))?;
        Some(&found.info)
    }
}

#[cfg(test)]
mod tests;
