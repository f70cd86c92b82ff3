//! Turns the document as written into model values and checks what its types cannot.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use super::error::{LocalStateError, Place};
use super::raw::{
    Document, RawEndpoint, RawGateway, RawMatch, RawPolicy, RawService, RawServiceAccount,
    RawWeightedWaypoint, RawWorkload,
};
use super::scalar::{Int, List, Matcher, Table, Text, Word};
use super::{LocalState, LocalStateWarning};
use crate::model::addr::NetworkCidr;
use crate::model::gateway::GatewayAddress;
use crate::model::identity::Identity;
use crate::model::policy::{Policy, PolicyMatch, ServiceAccountMatch, StringMatch};
use crate::model::service::{Endpoint, LoadBalancer, Service, WeightedWaypoint};
use crate::model::workload::{ApplicationTunnel, Locality, Workload};

/// A reference to a resource that may be missing, looked up once all are known.
struct Reference {
    location: Location,
    key: String,
}

/// State of one conversion.
pub(super) struct Check {
    origin: Arc<str>,
    state: LocalState,
    uids: BTreeMap<Arc<str>, Place>,
    service_keys: BTreeMap<String, Place>,
    policy_keys: BTreeMap<Arc<str>, Place>,
    policies_listed: Vec<Reference>,
    services_listed: Vec<Reference>,
    workloads_listed: Vec<Reference>,
}

impl Check {
    pub(super) fn new(origin: Arc<str>) -> Self {
        Self {
            origin,
            state: LocalState::default(),
            uids: BTreeMap::new(),
            service_keys: BTreeMap::new(),
            policy_keys: BTreeMap::new(),
            policies_listed: Vec::new(),
            services_listed: Vec::new(),
            workloads_listed: Vec::new(),
        }
    }

    pub(super) fn run(mut self, document: Document) -> Result<LocalState, LocalStateError> {
        let only = document.workloads.0.len() == 1;
        for raw in document.workloads.0 {
            self.workload(raw, only)?;
        }
        for raw in document.policies.0 {
            self.policy(raw)?;
        }
        for raw in document.services.0 {
            self.service(raw)?;
        }
        self.check_references();
        Ok(self.state)
    }

    fn place(&self, location: Location) -> Place {
        Place::new(&self.origin, location)
    }

    fn warn(&mut self, location: Location, text: String) {
        let place = self.place(location);
        self.state.warnings.push(LocalStateWarning { place, text });
    }

    fn workload(
        &mut self,
        Spanned {
            value: raw,
            referenced,
            ..
        }: Spanned<RawWorkload>,
        only: bool,
    ) -> Result<(), LocalStateError> {
        let uid = self.uid(raw.uid, referenced, only)?;
        for policy in &raw.authorization_policies.0 {
            self.policies_listed.push(Reference {
                location: policy.referenced,
                key: policy.value.to_string(),
            });
        }
        let mut services = BTreeMap::new();
        for (
            Spanned {
                value, referenced, ..
            },
            ports,
        ) in raw.services.0
        {
            let Text(key) = value;
            self.services_listed.push(Reference {
                location: referenced,
                key: key.to_string(),
            });
            services.insert(key, ports.into_map());
        }
        let policies = raw.authorization_policies.0.into_iter();
        let tunnel = raw.application_tunnel;
        self.state.workloads.push(Workload {
            uid,
            name: raw.name,
            namespace: raw.namespace,
            addresses: texts(raw.workload_ips),
            hostname: raw.hostname,
            network: raw.network,
            protocol: word(raw.protocol).unwrap_or_default(),
            network_mode: word(raw.network_mode).unwrap_or_default(),
            trust_domain: raw.trust_domain,
            service_account: raw.service_account,
            cluster_id: raw.cluster_id,
            node: raw.node,
            locality: raw.locality.map_or_else(Locality::default, |raw| Locality {
                region: raw.region,
                zone: raw.zone,
                subzone: raw.subzone,
            }),
            waypoint: raw.waypoint.map(gateway),
            network_gateway: raw.network_gateway.map(gateway),
            application_tunnel: tunnel.map(|raw| ApplicationTunnel {
                protocol: raw.protocol.0,
                // As on the wire, 0 is no port.
                port: raw.port.map(|Int(port)| port).filter(|port| *port != 0),
            }),
            services,
            status: word(raw.status).unwrap_or_default(),
            capacity: raw.capacity.map_or(1, |Int(capacity)| capacity),
            authorization_policies: policies.map(|key| key.value).collect(),
            native_tunnel: raw.native_tunnel.0,
            workload_name: raw.workload_name,
            workload_type: raw.workload_type,
            canonical_name: raw.canonical_name,
            canonical_revision: raw.canonical_revision,
        });
        Ok(())
    }

    /// The key: absent only when there is nothing to tell apart.
    fn uid(
        &mut self,
        raw: Option<Spanned<Arc<str>>>,
        workload: Location,
        only: bool,
    ) -> Result<Arc<str>, LocalStateError> {
        let location = raw.as_ref().map_or(workload, |uid| uid.referenced);
        let uid: Arc<str> = raw.map_or_else(|| Arc::from(""), |uid| uid.value);
        let place = self.place(location);
        if uid.is_empty() && !only {
            return Err(LocalStateError::BadValue {
                place,
                found: "a workload without uid".to_owned(),
                expected: "a `uid` for each of several workloads".to_owned(),
            });
        }
        if let Some(first) = self.uids.insert(Arc::clone(&uid), place.clone()) {
            let key = uid.to_string();
            return Err(duplicate("workload uid", key, place, first));
        }
        Ok(uid)
    }

    fn policy(
        &mut self,
        Spanned { value: raw, .. }: Spanned<RawPolicy>,
    ) -> Result<(), LocalStateError> {
        let place = self.place(raw.name.referenced);
        let clauses = |rule: List<List<RawMatch>>| map(rule, |clause| map(clause, policy_match));
        let policy = Policy {
            name: raw.name.value,
            namespace: raw.namespace,
            scope: raw.scope.0,
            action: raw.action.0,
            rules: map(raw.rules, clauses),
            dry_run: raw.dry_run.0,
        };
        let key: Arc<str> = policy.key().into();
        if let Some(first) = self.policy_keys.insert(Arc::clone(&key), place.clone()) {
            return Err(duplicate("policy", key.to_string(), place, first));
        }
        self.state.policies.push((key, policy));
        Ok(())
    }

    fn service(
        &mut self,
        Spanned { value: raw, .. }: Spanned<RawService>,
    ) -> Result<(), LocalStateError> {
        self.service_key(&raw)?;
        for san in &raw.subject_alt_names.0 {
            if let Err(error) = san.value.parse::<Identity>() {
                self.warn(san.referenced, format!("{error}; it accepts nobody"));
            }
        }
        if let Some(waypoints) = &raw.weighted_waypoints {
            self.check_weights(waypoints);
        }
        let endpoints = self.endpoints(raw.endpoints)?;
        let waypoints = raw.weighted_waypoints.map(|list| list.value);
        let sans = raw.subject_alt_names.0.into_iter();
        self.state.services.push(Service {
            name: raw.name,
            namespace: raw.namespace,
            hostname: raw.hostname.value,
            vips: texts(raw.vips),
            cidr_vips: map(raw.cidr_vips, |raw| NetworkCidr {
                network: raw.network,
                cidr: raw.cidr.0,
            }),
            ports: raw.ports.into_map(),
            subject_alt_names: sans.map(|san| san.value).collect(),
            waypoint: raw.waypoint.map(gateway),
            weighted_waypoints: map(waypoints.unwrap_or_default(), |raw| WeightedWaypoint {
                destination: gateway(raw.destination),
                weight: raw.weight.0,
            }),
            load_balancer: raw.load_balancer.map(|raw| LoadBalancer {
                routing_preferences: map(raw.routing_preferences, |Word(scope)| scope),
                mode: raw.mode.0,
                health_policy: raw.health_policy.0,
            }),
            ip_families: word(raw.ip_families),
            canonical: raw.canonical.0,
            visibility: word(raw.visibility).unwrap_or_default(),
            endpoints,
        });
        Ok(())
    }

    /// Refuses a key that is taken, or that a removal by name could not tell from another.
    fn service_key(&mut self, raw: &RawService) -> Result<(), LocalStateError> {
        let place = self.place(raw.hostname.referenced);
        if raw.hostname.value.is_empty()
            || raw.hostname.value.contains('/')
            || raw.namespace.contains('/')
        {
            return Err(LocalStateError::BadValue {
                place,
                found: format!("`{}/{}`", raw.namespace, raw.hostname.value),
                expected: "a namespace and a hostname without `/`".to_owned(),
            });
        }
        let key = format!("{}/{}", raw.namespace, raw.hostname.value);
        if let Some(first) = self.uids.get(&*key).cloned() {
            return Err(duplicate("the uid of a workload", key, place, first));
        }
        if let Some(first) = self.service_keys.insert(key.clone(), place.clone()) {
            return Err(duplicate("service", key, place, first));
        }
        Ok(())
    }

    fn endpoints(
        &mut self,
        raw: Table<Spanned<Arc<str>>, RawEndpoint>,
    ) -> Result<BTreeMap<Arc<str>, Endpoint>, LocalStateError> {
        let mut endpoints = BTreeMap::new();
        for (uid, endpoint) in raw.0 {
            let listed = endpoint.workload_uid;
            if listed.value != uid.value {
                return Err(LocalStateError::BadValue {
                    place: self.place(listed.referenced),
                    found: format!("workloadUid `{}`", listed.value),
                    expected: format!("the key of the endpoint, `{}`", uid.value),
                });
            }
            self.workloads_listed.push(Reference {
                location: uid.referenced,
                key: uid.value.to_string(),
            });
            let endpoint = Endpoint {
                workload_uid: listed.value,
                ports: endpoint.port.into_map(),
                status: word(endpoint.status).unwrap_or_default(),
            };
            endpoints.insert(uid.value, endpoint);
        }
        Ok(endpoints)
    }

    /// Routing ignores a set without usable weights, so say it here.
    fn check_weights(&mut self, waypoints: &Spanned<List<RawWeightedWaypoint>>) {
        let weights = waypoints.value.0.iter().map(|w| u64::from(w.weight.0));
        let count = waypoints.value.0.len();
        let sum: u64 = weights.sum();
        if count > 0 && sum == 0 {
            let text = "all weights are 0, so `waypoint` is used instead".to_owned();
            self.warn(waypoints.referenced, text);
        } else if sum > u64::from(u32::MAX) {
            let text = format!(
                "the weights add up to more than {}, so `waypoint` is used instead",
                u32::MAX
            );
            self.warn(waypoints.referenced, text);
        }
    }

    fn check_references(&mut self) {
        for reference in std::mem::take(&mut self.policies_listed) {
            if !self.policy_keys.contains_key(&*reference.key) {
                let text = format!(
                    "policy `{}` is not in this file; while it is unknown, connections to this \
                     workload are refused",
                    reference.key
                );
                self.warn(reference.location, text);
            }
        }
        for reference in std::mem::take(&mut self.services_listed) {
            if !self.service_keys.contains_key(&reference.key) {
                let text = format!("service `{}` is not in this file", reference.key);
                self.warn(reference.location, text);
            }
        }
        for reference in std::mem::take(&mut self.workloads_listed) {
            if !self.uids.contains_key(&*reference.key) {
                let text = format!(
                    "endpoint of workload `{}`, which is not in this file",
                    reference.key
                );
                self.warn(reference.location, text);
            }
        }
    }
}

fn duplicate(what: &'static str, key: String, place: Place, first: Place) -> LocalStateError {
    LocalStateError::Duplicate {
        place,
        first,
        what,
        key,
    }
}

fn gateway(raw: RawGateway) -> GatewayAddress {
    GatewayAddress {
        destination: raw.destination.0,
        hbone_mtls_port: raw.hbone_mtls_port.0.get(),
    }
}

fn policy_match(raw: RawMatch) -> PolicyMatch {
    let strings = |list: List<Matcher>| -> Vec<StringMatch> { map(list, |Matcher(kind)| kind) };
    let accounts = |list: List<_>| {
        map(list, |raw: RawServiceAccount| ServiceAccountMatch {
            namespace: raw.namespace,
            service_account: raw.service_account,
        })
    };
    let ports = |list: List<Int<u16>>| map(list, |Int(port)| port);
    PolicyMatch {
        namespaces: strings(raw.namespaces),
        not_namespaces: strings(raw.not_namespaces),
        service_accounts: accounts(raw.service_accounts),
        not_service_accounts: accounts(raw.not_service_accounts),
        principals: strings(raw.principals),
        not_principals: strings(raw.not_principals),
        source_ips: texts(raw.source_ips),
        not_source_ips: texts(raw.not_source_ips),
        destination_ips: texts(raw.destination_ips),
        not_destination_ips: texts(raw.not_destination_ips),
        destination_ports: ports(raw.destination_ports),
        not_destination_ports: ports(raw.not_destination_ports),
    }
}

fn word<T>(raw: Option<Word<T>>) -> Option<T> {
    raw.map(|Word(value)| value)
}

fn texts<T>(raw: List<Text<T>>) -> Vec<T> {
    map(raw, |Text(value)| value)
}

fn map<T, U>(list: List<T>, convert: impl Fn(T) -> U) -> Vec<U> {
    list.0.into_iter().map(convert).collect()
}
