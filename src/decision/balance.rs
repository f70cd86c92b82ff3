//! Picks one endpoint of a service (spec: routing.md 4).
//!
//! A fresh choice each time: no connection counts, no memory of failures, no stickiness. Health is
//! not looked at here; unhealthy endpoints were refused when they were admitted to the service.

use std::sync::Arc;

use super::Random;
use crate::model::service::{BalanceMode, Endpoint, LoadBalancer, Scope, Service};
use crate::model::workload::Workload;
use crate::snapshot::Snapshot;

/// What the endpoint is wanted for; decides which ports make one eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// As a destination, or as a network gateway: the service must have the port.
    Standard,
    /// As a waypoint: an application tunnel stands in for the port.
    Waypoint,
}

/// A picked endpoint and its workload.
#[derive(Clone, Debug)]
pub struct Picked<'a> {
    /// The endpoint's entry in the service.
    pub endpoint: &'a Endpoint,
    /// Its workload.
    pub workload: &'a Arc<Workload>,
}

/// How near an endpoint is to the source.
#[derive(Clone, Copy)]
struct Nearness {
    /// Preferences that match, for strict mode.
    matches: usize,
    /// Order between endpoints; higher is nearer.
    rank: usize,
}

/// Picks an endpoint of `service` for its port `port`, as seen from `source`; `None` when no
/// endpoint is usable.
#[must_use]
pub fn pick<'a>(
    source: &Workload,
    service: &'a Service,
    (port, purpose): (u16, Purpose),
    snapshot: &'a Snapshot,
    random: Random<'_>,
) -> Option<Picked<'a>> {
    let service_target = service.ports.get(&port).copied();
    if purpose == Purpose::Standard && service_target.is_none() {
        return None;
    }
    let mut candidates = Vec::with_capacity(service.endpoints.len());
    let mut best = 0;
    for endpoint in service.endpoints.values() {
        let Some(workload) = snapshot.workload_by_uid(&endpoint.workload_uid) else {
            continue;
        };
        if !reachable(source, workload)
            || !serves(endpoint, workload, (port, purpose), service_target)
        {
            continue;
        }
        let Some(rank) = rank(source, service.load_balancer.as_ref(), workload) else {
            continue;
        };
        if rank > best {
            candidates.clear();
            best = rank;
        }
        if rank == best {
            candidates.push(Picked { endpoint, workload });
        }
    }
    let at = weighted(
        candidates.iter().map(|picked| picked.workload.capacity),
        random,
    )?;
    Some(candidates.swap_remove(at))
}

/// Has an address or a name, or stands behind the gateway of another network.
fn reachable(source: &Workload, workload: &Workload) -> bool {
    !workload.addresses.is_empty()
        || !workload.hostname.is_empty()
        || (workload.network != source.network && workload.network_gateway.is_some())
}

/// Whether a port of the endpoint can be found for this purpose.
fn serves(
    endpoint: &Endpoint,
    workload: &Workload,
    (port, purpose): (u16, Purpose),
    service_target: Option<u16>,
) -> bool {
    match purpose {
        Purpose::Standard => service_target != Some(0) || endpoint.ports.contains_key(&port),
        Purpose::Waypoint => service_target.is_some() || workload.application_tunnel.is_some(),
    }
}

/// Rank of an endpoint; `None` when the mode rules it out.
fn rank(source: &Workload, balancer: Option<&LoadBalancer>, workload: &Workload) -> Option<usize> {
    let Some(balancer) = balancer else {
        return Some(0);
    };
    match balancer.mode {
        BalanceMode::Standard => Some(0),
        BalanceMode::Strict => {
            let near = nearness(source, &balancer.routing_preferences, workload);
            (near.matches == balancer.routing_preferences.len()).then_some(near.rank)
        }
        // A passthrough service comes here only when it is named as waypoint or gateway.
        BalanceMode::Failover | BalanceMode::Passthrough => {
            Some(nearness(source, &balancer.routing_preferences, workload).rank)
        }
    }
}

/// Walks the preferences up to the first mismatch. When the network comes first, being elsewhere
/// does not end the walk, and being on it outranks everything the rest can add.
fn nearness(source: &Workload, preferences: &[Scope], workload: &Workload) -> Nearness {
    let mut near = Nearness {
        matches: 0,
        rank: 0,
    };
    for (position, scope) in preferences.iter().enumerate() {
        let network_first = position == 0 && *scope == Scope::Network;
        if same(*scope, source, workload) {
            near.matches += 1;
            near.rank += 1;
            if network_first {
                near.rank += preferences.len() - 1;
            }
        } else if !network_first {
            break;
        }
    }
    near
}

/// Plain equality: two unset values are the same.
fn same(scope: Scope, a: &Workload, b: &Workload) -> bool {
    match scope {
        Scope::Region => a.locality.region == b.locality.region,
        Scope::Zone => a.locality.zone == b.locality.zone,
        Scope::Subzone => a.locality.subzone == b.locality.subzone,
        Scope::Node => a.node == b.node,
        Scope::Cluster => a.cluster_id == b.cluster_id,
        Scope::Network => a.network == b.network,
    }
}

/// Position drawn with probability weight / sum; `None` when all weights are 0.
///
/// 2^32 weights of 32 bits fit the 64-bit sum.
pub(super) fn weighted(
    weights: impl Iterator<Item = u32> + Clone,
    random: Random<'_>,
) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        return None;
    }
    let mut left = random(total);
    for (position, weight) in weights.enumerate() {
        let weight = u64::from(weight);
        if left < weight {
            return Some(position);
        }
        left -= weight;
    }
    None
}

#[cfg(test)]
mod tests;
