//! Workloads by uid, address, hostname and, on this node, by name and account.

use std::sync::Arc;

use super::{Map, OrderedMap};
use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::identity::Identity;
use crate::model::workload::{NetworkMode, Workload, WorkloadInfo, WorkloadProtocol};

/// Workloads that share a key, by uid: many may, so a list would be copied too often.
type ByUid = OrderedMap<Arc<str>, Arc<Workload>>;

#[derive(Clone, Default)]
pub(in crate::snapshot) struct WorkloadIndex {
    /// Empty: every workload is local.
    local_node: Arc<str>,
    by_uid: Map<Arc<str>, Arc<Workload>>,
    /// The preferred one last. Addresses are shared by few, so a list is the smallest.
    by_address: Map<NetworkAddress, Arc<[Arc<Workload>]>>,
    by_hostname: Map<NamespacedHostname, ByUid>,
    local_by_info: Map<WorkloadInfo, ByUid>,
    /// Namespace, then service account: found without building a key.
    local_by_account: Map<Arc<str>, Map<Arc<str>, ByUid>>,
    /// How many local workloads have the identity.
    local_identities: Map<Identity, usize>,
    /// How many of them take tunnels.
    tunnelled_identities: Map<Identity, usize>,
}

impl WorkloadIndex {
    pub(in crate::snapshot) fn new(local_node: Arc<str>) -> Self {
        Self {
            local_node,
            ..Self::default()
        }
    }

    pub(in crate::snapshot) fn len(&self) -> usize {
        self.by_uid.size()
    }

    /// In no particular order.
    pub(in crate::snapshot) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_uid.values()
    }

    pub(in crate::snapshot) fn by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid)
    }

    pub(in crate::snapshot) fn by_address(
        &self,
        address: &NetworkAddress,
    ) -> Option<&Arc<Workload>> {
        self.by_address.get(address)?.last()
    }

    pub(in crate::snapshot) fn by_hostname(
        &self,
        key: &NamespacedHostname,
    ) -> Option<&Arc<Workload>> {
        lowest(self.by_hostname.get(key)?)
    }

    pub(in crate::snapshot) fn local_by_info(&self, info: &WorkloadInfo) -> Option<&Arc<Workload>> {
        lowest(self.local_by_info.get(info)?)
    }

    pub(in crate::snapshot) fn local_by_account(
        &self,
        namespace: &str,
        account: &str,
    ) -> Option<&Arc<Workload>> {
        lowest(self.local_by_account.get(namespace)?.get(account)?)
    }

    /// In no particular order.
    pub(in crate::snapshot) fn local_identities(&self) -> impl Iterator<Item = &Identity> {
        self.local_identities.keys()
    }

    /// Of those that take tunnels; in no particular order.
    pub(in crate::snapshot) fn tunnelled_identities(&self) -> impl Iterator<Item = &Identity> {
        self.tunnelled_identities.keys()
    }

    pub(in crate::snapshot) fn has_local_identity(&self, identity: &Identity) -> bool {
        self.local_identities.contains_key(identity)
    }

    pub(in crate::snapshot) fn is_local(&self, workload: &Workload) -> bool {
        self.local_node.is_empty() || workload.node == self.local_node
    }

    /// Replaces whatever has this uid; the new record counts as the last inserted.
    pub(in crate::snapshot) fn put(&mut self, workload: Arc<Workload>) {
        self.remove(&workload.uid);
        for address in addresses(&workload) {
            let mut shared: Vec<_> = self.by_address.get(&address).map_or_else(Vec::new, |list| {
                let others = list.iter().filter(|other| other.uid != workload.uid);
                others.cloned().collect()
            });
            let position = shared.partition_point(|other| rank(other) <= rank(&workload));
            shared.insert(position, Arc::clone(&workload));
            self.by_address.insert_mut(address, shared.into());
        }
        if let Some(key) = hostname(&workload) {
            add(&mut self.by_hostname, key, &workload);
        }
        if self.is_local(&workload) {
            self.put_local(&workload);
        }
        self.by_uid.insert_mut(Arc::clone(&workload.uid), workload);
    }

    pub(in crate::snapshot) fn remove(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let old = self.by_uid.get(uid).cloned()?;
        self.by_uid.remove_mut(uid);
        for address in addresses(&old) {
            let Some(list) = self.by_address.get(&address) else {
                continue; // listed twice by the workload and already taken out
            };
            let left: Arc<[_]> = list.iter().filter(|w| *w.uid != *uid).cloned().collect();
            if left.is_empty() {
                self.by_address.remove_mut(&address);
            } else {
                self.by_address.insert_mut(address, left);
            }
        }
        if let Some(key) = hostname(&old) {
            take(&mut self.by_hostname, &key, uid);
        }
        if self.is_local(&old) {
            self.remove_local(&old);
        }
        Some(old)
    }

    fn put_local(&mut self, workload: &Arc<Workload>) {
        add(&mut self.local_by_info, info(workload), workload);
        let namespace = Arc::clone(&workload.namespace);
        let mut accounts = self
            .local_by_account
            .get(&namespace)
            .cloned()
            .unwrap_or_default();
        let account = Arc::clone(&workload.service_account);
        add(&mut accounts, account, workload);
        self.local_by_account.insert_mut(namespace, accounts);
        let identity = workload.identity();
        if takes_tunnels(workload) {
            raise(&mut self.tunnelled_identities, identity.clone());
        }
        raise(&mut self.local_identities, identity);
    }

    fn remove_local(&mut self, old: &Workload) {
        take(&mut self.local_by_info, &info(old), &old.uid);
        if let Some(accounts) = self.local_by_account.get_mut(&old.namespace) {
            take(accounts, &old.service_account, &old.uid);
            if accounts.is_empty() {
                self.local_by_account.remove_mut(&old.namespace);
            }
        }
        let identity = old.identity();
        if takes_tunnels(old) {
            lower(&mut self.tunnelled_identities, &identity);
        }
        lower(&mut self.local_identities, &identity);
    }
}

/// Whether its node needs its certificate before anybody asks (spec ca.md 3.3).
fn takes_tunnels(workload: &Workload) -> bool {
    workload.protocol == WorkloadProtocol::Hbone || workload.native_tunnel
}

fn raise(holders: &mut Map<Identity, usize>, identity: Identity) {
    let count = holders.get(&identity).map_or(1, |n| n + 1);
    holders.insert_mut(identity, count);
}

fn lower(holders: &mut Map<Identity, usize>, identity: &Identity) {
    match holders.get(identity).copied() {
        Some(count) if count > 1 => {
            holders.insert_mut(identity.clone(), count - 1);
        }
        _ => {
            holders.remove_mut(identity);
        }
    }
}

/// Preference among workloads of one address (routing 1.6): a pod beats a workload entry.
fn rank(workload: &Workload) -> u8 {
    let pod = u8::from(workload.uid.contains("//Pod/"));
    let hbone = u8::from(workload.protocol == WorkloadProtocol::Hbone);
    2 * pod + hbone
}

/// Addresses it is found by: none on the host network, where the address is the node's.
fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> + use<'_> {
    let own = workload.network_mode == NetworkMode::Standard;
    let ips = if own { &*workload.addresses } else { &[] };
    ips.iter().map(|ip| NetworkAddress {
        network: Arc::clone(&workload.network),
        ip: *ip,
    })
}

fn hostname(workload: &Workload) -> Option<NamespacedHostname> {
    (!workload.hostname.is_empty()).then(|| NamespacedHostname {
        namespace: Arc::clone(&workload.namespace),
        hostname: Arc::clone(&workload.hostname),
    })
}

fn info(workload: &Workload) -> WorkloadInfo {
    WorkloadInfo {
        name: Arc::clone(&workload.name),
        namespace: Arc::clone(&workload.namespace),
        service_account: Arc::clone(&workload.service_account),
    }
}

fn lowest(group: &ByUid) -> Option<&Arc<Workload>> {
    group.first().map(|(_, workload)| workload)
}

fn add<K>(map: &mut Map<K, ByUid>, key: K, workload: &Arc<Workload>)
where
    K: Clone + Eq + std::hash::Hash,
{
    let mut group = map.get(&key).cloned().unwrap_or_default();
    group.insert_mut(Arc::clone(&workload.uid), Arc::clone(workload));
    map.insert_mut(key, group);
}

fn take<K>(map: &mut Map<K, ByUid>, key: &K, uid: &str)
where
    K: Clone + Eq + std::hash::Hash,
{
    let Some(group) = map.get_mut(key) else {
        return;
    };
    group.remove_mut(uid);
    if group.is_empty() {
        map.remove_mut(key);
    }
}
