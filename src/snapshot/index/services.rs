//! Services by key, hostname, virtual address and address range, with the choice among several.

use std::sync::Arc;

use super::Map;
use super::cidr::CidrIndex;
use crate::model::addr::{NamespacedHostname, NetworkAddress};
use crate::model::service::Service;

/// Services that share a hostname, a virtual address or a range, in the order they were stored.
#[derive(Clone, Default)]
pub(super) struct Candidates(Arc<[Arc<Service>]>);

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service in the place it holds already, else last.
    pub(super) fn with_last(&self, service: &Arc<Service>) -> Self {
        self.with(service, |services| services.len())
    }

    /// The service in the place it holds already, else right after those of its namespace, of
    /// which the last hides the others, else last.
    fn with_grouped(&self, service: &Arc<Service>) -> Self {
        self.with(service, |services| {
            let mate = services
                .iter()
                .rposition(|s| s.namespace == service.namespace);
            mate.map_or(services.len(), |position| position + 1)
        })
    }

    fn with(&self, service: &Arc<Service>, place: impl Fn(&[Arc<Service>]) -> usize) -> Self {
        let mut services = self.0.to_vec();
        match services.iter_mut().find(|held| same_key(held, service)) {
            Some(held) => *held = Arc::clone(service),
            None => services.insert(place(&services), Arc::clone(service)),
        }
        Self(services.into())
    }

    pub(super) fn without(&self, service: &Service) -> Self {
        let others = self.0.iter().filter(|held| !same_key(held, service));
        Self(others.cloned().collect())
    }

    /// Service ranking (routing 1.6): the client's namespace, then canonical (the last stored),
    /// then `preferred_namespace`, then the first stored.
    fn best(
        &self,
        client_namespace: Option<&str>,
        preferred_namespace: Option<&str>,
        usable: &dyn Fn(&Service) -> bool,
    ) -> Option<&Arc<Service>> {
        let (mut canonical, mut preferred, mut first) = (None, None, None);
        for (position, service) in self.0.iter().enumerate() {
            let hidden = self
                .0
                .get(position + 1)
                .is_some_and(|next| next.namespace == service.namespace);
            let visible = client_namespace.is_none_or(|client| service.visible_to(client));
            if hidden || !visible || !usable(service) {
                continue;
            }
            if client_namespace == Some(&*service.namespace) {
                return Some(service);
            }
            if service.canonical {
                canonical = Some(service);
            }
            if preferred_namespace == Some(&*service.namespace) {
                preferred = Some(service);
            }
            first.get_or_insert(service);
        }
        canonical.or(preferred).or(first)
    }

    /// Ranking within one range: the client's namespace, then canonical, then the first stored.
    pub(super) fn best_of_range(&self, client_namespace: Option<&str>) -> Option<&Arc<Service>> {
        let mut best: Option<((bool, bool), &Arc<Service>)> = None;
        for service in &*self.0 {
            if client_namespace.is_some_and(|client| !service.visible_to(client)) {
                continue;
            }
            let own = client_namespace == Some(&*service.namespace);
            let rank = (own, service.canonical);
            if best.is_none_or(|(held, _)| rank > held) {
                best = Some((rank, service));
            }
        }
        best.map(|(_, service)| service)
    }
}

fn same_key(a: &Service, b: &Service) -> bool {
    a.namespace == b.namespace && a.hostname == b.hostname
}

#[derive(Clone, Default)]
pub(in crate::snapshot) struct ServiceIndex {
    by_key: Map<NamespacedHostname, Arc<Service>>,
    by_host: Map<Arc<str>, Candidates>,
    by_vip: Map<NetworkAddress, Candidates>,
    by_range: CidrIndex,
    endpoints: usize,
}

impl ServiceIndex {
    pub(in crate::snapshot) fn len(&self) -> usize {
        self.by_key.size()
    }

    /// Endpoints of all services together.
    pub(in crate::snapshot) const fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// In no particular order.
    pub(in crate::snapshot) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_key.values()
    }

    pub(in crate::snapshot) fn get(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        self.by_key.get(key)
    }

    pub(in crate::snapshot) fn by_host(
        &self,
        hostname: &str,
        client_namespace: Option<&str>,
        preferred_namespace: Option<&str>,
        usable: &dyn Fn(&Service) -> bool,
    ) -> Option<&Arc<Service>> {
        self.by_host
            .get(hostname)?
            .best(client_namespace, preferred_namespace, usable)
    }

    pub(in crate::snapshot) fn by_vip(
        &self,
        address: &NetworkAddress,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        self.by_vip
            .get(address)
            .and_then(|candidates| candidates.best(client_namespace, None, &|_| true))
            .or_else(|| self.by_range.best(address, client_namespace))
    }

    /// Inserts or replaces. Where a service stays listed it keeps its place among its rivals, so
    /// that sending a service again changes no choice.
    pub(in crate::snapshot) fn put(&mut self, service: Arc<Service>) {
        let key = service.key();
        let old = self.by_key.get(&key).cloned();
        if let Some(old) = &old {
            self.endpoints -= old.endpoints.len();
            if old.vips != service.vips {
                let gone = old.vips.iter().filter(|vip| !service.vips.contains(vip));
                gone.for_each(|vip| self.remove_vip(vip, old));
            }
            if old.cidr_vips != service.cidr_vips {
                let kept: Vec<_> = service.cidr_vips.iter().map(trunc).collect();
                let gone = old.cidr_vips.iter().filter(|c| !kept.contains(&trunc(c)));
                gone.for_each(|cidr| self.by_range.remove(cidr, old));
            }
        }
        self.endpoints += service.endpoints.len();
        for vip in &service.vips {
            let held = self.by_vip.get(vip).cloned().unwrap_or_default();
            let next = held.with_grouped(&service);
            self.by_vip.insert_mut(vip.clone(), next);
        }
        for cidr in &service.cidr_vips {
            self.by_range.put(cidr, &service);
        }
        let held = self.by_host.get(&service.hostname).cloned();
        let next = held.unwrap_or_default().with_grouped(&service);
        self.by_host.insert_mut(Arc::clone(&service.hostname), next);
        self.by_key.insert_mut(key, service);
    }

    pub(in crate::snapshot) fn remove(&mut self, key: &NamespacedHostname) {
        let Some(old) = self.by_key.get(key).cloned() else {
            return;
        };
        self.by_key.remove_mut(key);
        self.endpoints -= old.endpoints.len();
        for vip in &old.vips {
            self.remove_vip(vip, &old);
        }
        for cidr in &old.cidr_vips {
            self.by_range.remove(cidr, &old);
        }
        let held = self.by_host.get(&old.hostname).cloned();
        let left = held.unwrap_or_default().without(&old);
        if left.is_empty() {
            self.by_host.remove_mut(&old.hostname);
        } else {
            self.by_host.insert_mut(Arc::clone(&old.hostname), left);
        }
    }

    fn remove_vip(&mut self, vip: &NetworkAddress, service: &Service) {
        let Some(held) = self.by_vip.get(vip) else {
            return; // listed twice by the service and already taken out
        };
        let left = held.without(service);
        if left.is_empty() {
            self.by_vip.remove_mut(vip);
        } else {
            self.by_vip.insert_mut(vip.clone(), left);
        }
    }
}

fn trunc(cidr: &crate::model::addr::NetworkCidr) -> (&str, ipnet::IpNet) {
    (&cidr.network, cidr.cidr.trunc())
}
