//! Random changes against a naive model: plain lists, scanned from end to end.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::model::addr::{NetworkAddress, NetworkCidr};
use crate::model::identity::Identity;
use crate::model::policy::{PolicyAction, PolicyScope};
use crate::model::service::{BalanceMode, HealthPolicy, LoadBalancer, Visibility};
use crate::model::workload::{HealthStatus, NetworkMode, WorkloadInfo, WorkloadProtocol};
use crate::snapshot::Address;

const NODE: &str = "node-a";
const UIDS: [&str; 5] = ["c//Pod/a", "c//Pod/b", "we/one", "we/h1", "two"];
const NAMESPACES: [&str; 3] = ["ns1", "ns2", "we"];
const HOSTS: [&str; 2] = ["h1", "h2"];
const NETWORKS: [&str; 2] = ["", "far"];
const IPS: [&str; 5] = ["10.0.0.1", "10.0.1.1", "10.1.0.1", "fd00::1", "fd00:1::1"];
const CIDRS: [&str; 7] = [
    "10.0.0.0/8",
    "10.0.0.7/16",
    "10.0.0.0/24",
    "10.0.0.1/32",
    "0.0.0.0/0",
    "fd00::/16",
    "fd00::/112",
];
const POLICIES: [&str; 3] = ["ns1/a", "ns1/b", "ns2/a"];

type Staged = BTreeMap<NamespacedHostname, BTreeMap<Arc<str>, Endpoint>>;

/// The state as plain lists. `seats` says since when a service, or a namespace, holds a slot.
#[derive(Default)]
struct Model {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    staged: Staged,
    policies: BTreeMap<Arc<str>, Policy>,
    seats: BTreeMap<(String, String), usize>,
    clock: usize,
    verdicts: bool,
}

fn slots(service: &Service) -> Vec<String> {
    let mut slots = vec![format!("host {}", service.hostname)];
    slots.extend(service.vips.iter().map(|vip| format!("vip {vip}")));
    let ranges = service.cidr_vips.iter();
    slots.extend(ranges.map(|c| format!("range {} {}", c.network, c.cidr.trunc())));
    slots
}

impl Model {
    fn is_local(workload: &Workload) -> bool {
        &*workload.node == NODE
    }

    fn workload(&self, uid: &str) -> Option<&Workload> {
        self.workloads.iter().find(|w| &*w.uid == uid)
    }

    fn service(&self, key: &NamespacedHostname) -> Option<&Service> {
        self.services.iter().find(|s| s.key() == *key)
    }

    /// Gives every held slot a seat and drops the seats of slots no longer held.
    fn reseat(&mut self) {
        let mut held = Vec::new();
        for service in &self.services {
            for slot in slots(service) {
                held.push((slot.clone(), format!("ns {}", service.namespace)));
                held.push((slot, service.key().to_string()));
            }
        }
        self.seats.retain(|seat, _| held.contains(seat));
        for seat in held {
            self.clock += 1;
            self.seats.entry(seat).or_insert(self.clock);
        }
    }

    fn set_service(&mut self, service: Service) {
        let key = service.key();
        self.services.retain(|s| s.key() != key);
        self.services.push(service);
        self.reseat();
    }

    fn apply(&mut self, change: &Change) {
        self.verdicts = false;
        for (key, policy) in &change.policies {
            let old = self.policies.insert(Arc::clone(key), policy.clone());
            self.verdicts |= old.as_ref() != Some(policy);
        }
        for key in &change.removed_policies {
            self.verdicts |= self.policies.remove(key).is_some();
        }
        let mut removals: Vec<(NamespacedHostname, Arc<str>)> = Vec::new();
        let mut additions: Vec<(NamespacedHostname, Arc<str>, Endpoint)> = Vec::new();
        for next in &change.workloads {
            let old = self.workload(&next.uid).cloned();
            additions.retain(|(_, uid, _)| *uid != next.uid);
            for key in old.iter().flat_map(|old| old.services.keys()) {
                removals.push((key.clone(), Arc::clone(&next.uid)));
            }
            for (key, ports) in &next.services {
                let endpoint = Endpoint {
                    workload_uid: Arc::clone(&next.uid),
                    ports: ports.clone(),
                    status: next.status,
                };
                additions.push((key.clone(), Arc::clone(&next.uid), endpoint));
            }
            let facts = |w: &Workload| {
                let w = w.clone();
                (w.identity(), w.authorization_policies)
            };
            self.verdicts |= match &old {
                None => Self::is_local(next),
                Some(old) => {
                    (Self::is_local(old) || Self::is_local(next)) && facts(old) != facts(next)
                }
            };
            if old.as_ref() != Some(next) {
                self.workloads.retain(|w| w.uid != next.uid);
                self.workloads.push(next.clone());
            }
        }
        let mut gone = Vec::new();
        for name in &change.removed_addresses {
            if let Some(old) = self.workload(name).cloned() {
                self.workloads.retain(|w| w.uid != *name);
                additions.retain(|(_, uid, _)| uid != name);
                let keys = old.services.into_keys();
                removals.extend(keys.map(|key| (key, Arc::clone(name))));
            } else if name.matches('/').count() == 1 {
                gone.push(name.parse::<NamespacedHostname>().unwrap());
            }
        }
        // Of several records of one service in a push only the last counts, in the first's place.
        for (position, first) in change.services.iter().enumerate() {
            let of_same = |other: &&Service| other.key() == first.key();
            let repeated = change.services[..position].iter().any(|s| of_same(&s));
            let last = change.services.iter().rfind(of_same);
            if !repeated && !gone.contains(&first.key()) {
                self.upsert(last.unwrap(), &removals, &additions);
            }
        }
        for key in &gone {
            self.services.retain(|s| s.key() != *key);
            self.staged.remove(key);
        }
        self.reseat();
        self.move_endpoints(&removals, &additions);
    }

    fn upsert(
        &mut self,
        next: &Service,
        removals: &[(NamespacedHostname, Arc<str>)],
        additions: &[(NamespacedHostname, Arc<str>, Endpoint)],
    ) {
        let key = next.key();
        let mut found = BTreeMap::new();
        for (uid, endpoint) in self
            .service(&key)
            .map(|s| s.endpoints.clone())
            .unwrap_or_default()
        {
            if self
                .workload(&uid)
                .is_some_and(|w| w.services.contains_key(&key))
            {
                found.insert(uid, endpoint);
            }
        }
        found.extend(self.staged.remove(&key).unwrap_or_default());
        let mine = removals.iter().filter(|(service, _)| *service == key);
        mine.for_each(|(_, uid)| drop(found.remove(uid)));
        for (service, uid, endpoint) in additions {
            if *service == key {
                found.insert(Arc::clone(uid), endpoint.clone());
            }
        }
        found.retain(|_, endpoint| healthy_enough(next, endpoint));
        for (uid, endpoint) in &next.endpoints {
            if healthy_enough(next, endpoint) && !found.contains_key(uid) {
                found.insert(Arc::clone(uid), endpoint.clone());
            }
        }
        let mut stored = next.clone();
        stored.endpoints = found;
        self.set_service(stored);
    }

    fn move_endpoints(
        &mut self,
        removals: &[(NamespacedHostname, Arc<str>)],
        additions: &[(NamespacedHostname, Arc<str>, Endpoint)],
    ) {
        for (key, uid) in removals {
            if let Some(service) = self.services.iter_mut().find(|s| s.key() == *key) {
                service.endpoints.remove(uid);
            } else if let Some(endpoints) = self.staged.get_mut(key) {
                endpoints.remove(uid);
            }
        }
        for (key, uid, endpoint) in additions {
            if let Some(service) = self.services.iter_mut().find(|s| s.key() == *key) {
                if healthy_enough(service, endpoint) {
                    service.endpoints.insert(Arc::clone(uid), endpoint.clone());
                }
            } else {
                let waiting = self.staged.entry(key.clone()).or_default();
                waiting.insert(Arc::clone(uid), endpoint.clone());
            }
        }
        self.staged.retain(|_, endpoints| !endpoints.is_empty());
    }

    fn by_address(&self, at: &NetworkAddress) -> Option<&Workload> {
        let holds = |w: &&Workload| {
            w.network_mode == NetworkMode::Standard
                && w.network == at.network
                && w.addresses.contains(&at.ip)
        };
        // `max_by_key` returns the last of equals: the last inserted.
        self.workloads.iter().filter(holds).max_by_key(|w| {
            match (
                w.uid.contains("//Pod/"),
                w.protocol == WorkloadProtocol::Hbone,
            ) {
                (true, true) => 3,
                (true, false) => 2,
                (false, true) => 1,
                (false, false) => 0,
            }
        })
    }

    fn seat(&self, slot: &str, holder: &str) -> usize {
        self.seats[&(slot.to_owned(), holder.to_owned())]
    }

    /// Ranking of routing 1.6 among the holders of a slot.
    fn ranked(
        &self,
        slot: &str,
        client: Option<&str>,
        preferred: Option<&str>,
    ) -> Option<&Service> {
        let holders = || {
            let all = self.services.iter();
            all.filter(|s| slots(s).iter().any(|held| held == slot))
        };
        let since = |s: &Service| self.seat(slot, &s.key().to_string());
        // Of one namespace, only the one that came last counts.
        let mut rivals: Vec<&Service> = holders()
            .filter(|s| {
                let mates = holders().filter(|m| m.namespace == s.namespace);
                mates.map(since).max() == Some(since(s))
            })
            .filter(|s| client.is_none_or(|c| s.visible_to(c)))
            .collect();
        rivals.sort_by_key(|s| self.seat(slot, &format!("ns {}", s.namespace)));
        let own = rivals.iter().find(|s| client == Some(&*s.namespace));
        let canonical = rivals.iter().rfind(|s| s.canonical);
        let preferred = rivals.iter().rfind(|s| preferred == Some(&*s.namespace));
        own.or(canonical)
            .or(preferred)
            .or_else(|| rivals.first())
            .copied()
    }

    fn by_vip(&self, at: &NetworkAddress, client: Option<&str>) -> Option<&Service> {
        if let Some(found) = self.ranked(&format!("vip {at}"), client, None) {
            return Some(found);
        }
        let mut best = None;
        for service in &self.services {
            for cidr in &service.cidr_vips {
                let seen = client.is_none_or(|c| service.visible_to(c));
                if !seen || cidr.network != at.network || !cidr.cidr.contains(&at.ip) {
                    continue;
                }
                let slot = format!("range {} {}", cidr.network, cidr.cidr.trunc());
                let rank = (
                    client == Some(&*service.namespace),
                    cidr.cidr.prefix_len(),
                    service.canonical,
                    std::cmp::Reverse(self.seat(&slot, &service.key().to_string())),
                );
                if best.is_none_or(|(held, _): (_, &Service)| rank > held) {
                    best = Some((rank, service));
                }
            }
        }
        best.map(|(_, service)| service)
    }
}

fn healthy_enough(service: &Service, endpoint: &Endpoint) -> bool {
    let policy = service.load_balancer.as_ref().map(|lb| lb.health_policy);
    endpoint.status == HealthStatus::Healthy || policy == Some(HealthPolicy::AllowAll)
}

fn text(from: &'static [&'static str]) -> impl Strategy<Value = Arc<str>> {
    select(from).prop_map(Arc::from)
}

fn some_of(from: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(from, 0..=from.len())
}

fn status() -> impl Strategy<Value = HealthStatus> {
    select(vec![HealthStatus::Healthy, HealthStatus::Unhealthy])
}

fn key() -> impl Strategy<Value = NamespacedHostname> {
    let parts = (text(&NAMESPACES), text(&HOSTS));
    parts.prop_map(|(namespace, hostname)| NamespacedHostname {
        namespace,
        hostname,
    })
}

fn workload() -> impl Strategy<Value = Workload> {
    let names = (
        text(&UIDS),
        text(&NAMESPACES),
        text(&HOSTS),
        text(&NETWORKS),
    );
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), status());
    let services = prop::collection::btree_map(key(), 80..83_u16, 0..4);
    let lists = (some_of(&IPS), services, some_of(&POLICIES));
    (names, kind, lists).prop_map(|(names, kind, lists)| {
        let (uid, namespace, hostname, network) = names;
        let (local, hbone, host_network, status) = kind;
        let (ips, services, policies) = lists;
        Workload {
            name: "name".into(),
            node: if local { NODE } else { "node-b" }.into(),
            service_account: uid.get(..2).unwrap().into(),
            protocol: [WorkloadProtocol::Tcp, WorkloadProtocol::Hbone][usize::from(hbone)],
            network_mode: [NetworkMode::Standard, NetworkMode::HostNetwork]
                [usize::from(host_network)],
            addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            services: services
                .into_iter()
                .map(|(key, port)| (key, PortMap::from([(80, port)])))
                .collect(),
            authorization_policies: policies.into_iter().map(Arc::from).collect(),
            uid,
            namespace,
            hostname,
            network,
            status,
            ..Workload::default()
        }
    })
}

fn service() -> impl Strategy<Value = Service> {
    let bits = (any::<bool>(), any::<bool>(), any::<Option<bool>>());
    // Endpoints the record names, of workloads that are not sent.
    let named = prop::collection::btree_map(text(&["x", "y"]), status(), 0..2);
    let lists = (some_of(&IPS), some_of(&CIDRS), named);
    (key(), text(&NETWORKS), bits, lists).prop_map(|(key, network, bits, lists)| {
        let (canonical, private, allow_all) = bits;
        let (vips, cidrs, named) = lists;
        Service {
            vips: vips
                .iter()
                .map(|ip| NetworkAddress {
                    network: Arc::clone(&network),
                    ip: ip.parse::<IpAddr>().unwrap(),
                })
                .collect(),
            cidr_vips: cidrs
                .iter()
                .map(|cidr| NetworkCidr {
                    network: Arc::clone(&network),
                    cidr: cidr.parse::<IpNet>().unwrap(),
                })
                .collect(),
            canonical,
            visibility: [Visibility::Public, Visibility::Namespace][usize::from(private)],
            load_balancer: allow_all.map(|all| LoadBalancer {
                routing_preferences: Vec::new(),
                mode: BalanceMode::Standard,
                health_policy: [HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]
                    [usize::from(all)],
            }),
            endpoints: named
                .into_iter()
                .map(|(uid, status)| {
                    let workload_uid = Arc::clone(&uid);
                    let ports = PortMap::from([(1, 1)]);
                    let endpoint = Endpoint {
                        workload_uid,
                        ports,
                        status,
                    };
                    (uid, endpoint)
                })
                .collect(),
            namespace: key.namespace,
            hostname: key.hostname,
            ..Service::default()
        }
    })
}

fn policy() -> impl Strategy<Value = (Arc<str>, Policy)> {
    let scopes = vec![
        PolicyScope::Global,
        PolicyScope::Namespace,
        PolicyScope::WorkloadSelector,
    ];
    (select(&POLICIES[..]), select(scopes), any::<bool>()).prop_map(|(key, scope, dry_run)| {
        let (namespace, name) = key.split_once('/').unwrap();
        let policy = Policy {
            name: name.into(),
            namespace: namespace.into(),
            scope,
            action: PolicyAction::Allow,
            rules: Vec::new(),
            dry_run,
        };
        (key.into(), policy)
    })
}

fn change() -> impl Strategy<Value = Change> {
    let names = UIDS.into_iter().map(str::to_owned);
    let keys = NAMESPACES
        .into_iter()
        .flat_map(|n| HOSTS.map(|h| format!("{n}/{h}")));
    let removable: Vec<Arc<str>> = names.chain(keys).map(Arc::from).collect();
    (
        prop::collection::vec(workload(), 0..4),
        prop::collection::vec(service(), 0..3),
        prop::collection::vec(policy(), 0..2),
        prop::collection::vec(select(removable), 0..3),
        prop::collection::vec(text(&POLICIES), 0..2),
    )
        .prop_map(|parts| Change {
            workloads: parts.0,
            services: parts.1,
            policies: parts.2,
            removed_addresses: parts.3,
            removed_policies: parts.4,
        })
}

fn check(model: &Model, snapshot: &Snapshot) {
    let clients = || {
        [None, Some("elsewhere")]
            .into_iter()
            .chain(NAMESPACES.map(Some))
    };
    for uid in UIDS {
        let found = snapshot.workload_by_uid(uid).map(|w| &**w);
        assert_eq!(found, model.workload(uid), "uid {uid}");
    }
    for (network, ip) in NETWORKS.into_iter().flat_map(|n| IPS.map(|ip| (n, ip))) {
        let at: NetworkAddress = format!("{network}/{ip}").parse().unwrap();
        let by_address = model.by_address(&at);
        let found = snapshot.workload_by_address(&at).map(|w| &**w);
        assert_eq!(found, by_address, "workload at {at}");
        for client in clients() {
            let by_vip = model.by_vip(&at, client);
            let found = snapshot.service_by_vip(&at, client).map(|s| &**s);
            assert_eq!(found, by_vip, "service at {at} for {client:?}");
            match snapshot.find_address(&at, client) {
                Some(Address::Workload(w)) => assert_eq!(Some(&*w), by_address),
                Some(Address::Service(s)) => {
                    assert_eq!((Some(&*s), by_address), (by_vip, None));
                }
                None => assert_eq!((by_address, by_vip), (None, None)),
            }
        }
    }
    for host in HOSTS {
        let slot = format!("host {host}");
        for client in clients() {
            let found = snapshot.service_by_host(host, client).map(|s| &**s);
            assert_eq!(
                found,
                model.ranked(&slot, client, None),
                "{host} for {client:?}"
            );
            let found = snapshot.service_by_host_preferring(host, client, Some("ns2"), &|_| true);
            let expected = model.ranked(&slot, client, Some("ns2"));
            assert_eq!(
                found.map(|s| &**s),
                expected,
                "{host} for {client:?}, ns2 preferred"
            );
        }
        for namespace in NAMESPACES {
            check_hostname(model, snapshot, &format!("{namespace}/{host}"));
        }
    }
    check_local(model, snapshot);
    check_policies(model, snapshot);
    assert_eq!(snapshot.staged(), model.staged);
    let counts = snapshot.counts();
    let endpoints = model.services.iter().map(|s| s.endpoints.len()).sum();
    assert_eq!(
        (
            counts.workloads,
            counts.services,
            counts.endpoints,
            counts.policies
        ),
        (
            model.workloads.len(),
            model.services.len(),
            endpoints,
            model.policies.len()
        )
    );
}

fn check_hostname(model: &Model, snapshot: &Snapshot, text: &str) {
    let key: NamespacedHostname = text.parse().unwrap();
    let service = model.service(&key);
    assert_eq!(snapshot.service(&key).map(|s| &**s), service, "{key}");
    let named = model.workloads.iter();
    let named = named.filter(|w| w.namespace == key.namespace && w.hostname == key.hostname);
    let lowest = named.min_by_key(|w| &w.uid);
    match snapshot.find_hostname(&key) {
        Some(Address::Service(found)) => assert_eq!(Some(&*found), service),
        Some(Address::Workload(found)) => {
            assert_eq!((Some(&*found), service), (lowest, None));
        }
        None => assert_eq!((service, lowest), (None, None)),
    }
}

fn check_local(model: &Model, snapshot: &Snapshot) {
    let local = || model.workloads.iter().filter(|w| Model::is_local(w));
    for (namespace, account) in NAMESPACES
        .into_iter()
        .flat_map(|n| ["c/", "we", "tw"].map(|a| (n, a)))
    {
        let mates =
            local().filter(|w| &*w.namespace == namespace && &*w.service_account == account);
        let lowest = mates.min_by_key(|w| &w.uid);
        let found = snapshot.local_workload_of(namespace, account);
        assert_eq!(found.map(|w| &**w), lowest, "{account} of {namespace}");
        let info = WorkloadInfo {
            name: "name".into(),
            namespace: namespace.into(),
            service_account: account.into(),
        };
        assert_eq!(
            snapshot.local_workload(&info).map(|w| &**w),
            lowest,
            "{info}"
        );
    }
    let mut identities: Vec<Identity> = local().map(Workload::identity).collect();
    identities.sort();
    identities.dedup();
    assert_eq!(snapshot.local_identities(), identities);
    let tunnelled = local().filter(|w| w.protocol == WorkloadProtocol::Hbone || w.native_tunnel);
    let mut identities: Vec<Identity> = tunnelled.map(Workload::identity).collect();
    identities.sort();
    identities.dedup();
    assert_eq!(snapshot.tunnelled_identities(), identities);
}

fn check_policies(model: &Model, snapshot: &Snapshot) {
    let of = |wanted: &dyn Fn(&Policy) -> bool| -> Vec<&Policy> {
        model.policies.values().filter(|p| wanted(p)).collect()
    };
    let found: Vec<&Policy> = snapshot.global_policies().map(|p| &**p).collect();
    assert_eq!(found, of(&|p| p.scope == PolicyScope::Global));
    for namespace in NAMESPACES {
        let found: Vec<&Policy> = snapshot
            .namespace_policies(namespace)
            .map(|p| &**p)
            .collect();
        let own = |p: &Policy| p.scope == PolicyScope::Namespace && &*p.namespace == namespace;
        assert_eq!(found, of(&own), "policies of {namespace}");
    }
    for key in POLICIES {
        let found = snapshot.policy(key).map(|p| &**p);
        assert_eq!(found, model.policies.get(key), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_give_the_look_ups_of_plain_lists(
        changes in prop::collection::vec(change(), 1..12)
    ) {
        let mut builder = Builder::new(NODE.into());
        let mut model = Model::default();
        let mut policy_generation = 0;
        let first = builder.apply(Change::default());
        for change in changes {
            model.apply(&change);
            let snapshot = builder.apply(change.clone());
            check(&model, &snapshot);
            if model.verdicts {
                policy_generation = snapshot.generation();
            }
            prop_assert_eq!(snapshot.policy_generation(), policy_generation);
            // The same content again changes no look-up and, if it had no contradiction, no verdict.
            let mut uids: Vec<_> = change.workloads.iter().map(|w| &w.uid).collect();
            uids.extend(change.policies.iter().map(|(key, _)| key));
            uids.extend(&change.removed_addresses);
            uids.extend(&change.removed_policies);
            uids.sort();
            let resources = uids.len();
            uids.dedup();
            if uids.len() == resources {
                model.apply(&change);
                let again = builder.apply(change);
                check(&model, &again);
                prop_assert_eq!(again.policy_generation(), policy_generation);
            }
        }
        check(&Model::default(), &first);
    }
}
