//! Service message → model.

use super::address::{Vip, gateway, vip};
use super::scalar::{known, ports};
use super::{Interner, Rejected};
use crate::model::service::{
    BalanceMode, HealthPolicy, IpFamilies, LoadBalancer, Scope, Service, Visibility,
    WeightedWaypoint,
};
use crate::proto::workload as raw;

pub(super) fn service(message: raw::Service, texts: &mut Interner) -> Result<Service, Rejected> {
    check_key(&message)?;
    let (mut vips, mut cidr_vips) = (Vec::new(), Vec::new());
    for address in &message.addresses {
        match vip("addresses", address, texts)? {
            Vip::Host(host) => vips.push(host),
            Vip::Range(range) => cidr_vips.push(range),
        }
    }
    let mut weighted_waypoints = Vec::with_capacity(message.weighted_waypoints.len());
    for weighted in &message.weighted_waypoints {
        let field = "weighted_waypoints";
        let destination = gateway(field, weighted.destination.as_ref(), texts)?;
        weighted_waypoints.push(WeightedWaypoint {
            destination: destination.ok_or(Rejected::NoDestination { field })?,
            weight: weighted.weight,
        });
    }
    let sans = message.subject_alt_names.iter();
    Ok(Service {
        name: texts.share(&message.name),
        namespace: texts.share(&message.namespace),
        hostname: texts.share(&message.hostname),
        vips,
        cidr_vips,
        ports: ports(&message.ports),
        subject_alt_names: sans.map(|san| texts.share(san)).collect(),
        waypoint: gateway("waypoint", message.waypoint.as_ref(), texts)?,
        weighted_waypoints,
        load_balancer: message
            .load_balancing
            .as_ref()
            .map(load_balancer)
            .transpose()?,
        ip_families: ip_families(message.ip_families)?,
        canonical: message.canonical,
        visibility: visibility(message.visibility),
        // Workloads bring them.
        endpoints: std::collections::BTreeMap::new(),
    })
}

/// Refuses a key that a removal by name could not tell from another.
fn check_key(message: &raw::Service) -> Result<(), Rejected> {
    let (namespace, hostname) = (&message.namespace, &message.hostname);
    if hostname.is_empty() || hostname.contains('/') || namespace.contains('/') {
        return Err(Rejected::BadKey {
            field: "service key `namespace/hostname`",
            value: format!("{namespace}/{hostname}"),
        });
    }
    Ok(())
}

fn load_balancer(message: &raw::LoadBalancing) -> Result<LoadBalancer, Rejected> {
    let preferences = message.routing_preference.iter();
    let scopes: Result<Vec<Scope>, _> = preferences.map(|value| scope(*value)).collect();
    Ok(LoadBalancer {
        routing_preferences: scopes?,
        mode: match known("load_balancing.mode", message.mode)? {
            raw::load_balancing::Mode::UnspecifiedMode => BalanceMode::Standard,
            raw::load_balancing::Mode::Strict => BalanceMode::Strict,
            raw::load_balancing::Mode::Failover => BalanceMode::Failover,
            raw::load_balancing::Mode::Passthrough => BalanceMode::Passthrough,
        },
        health_policy: match known("load_balancing.health_policy", message.health_policy)? {
            raw::load_balancing::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            raw::load_balancing::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
    })
}

fn scope(value: i32) -> Result<Scope, Rejected> {
    let field = "load_balancing.routing_preference";
    Ok(match known(field, value)? {
        raw::load_balancing::Scope::UnspecifiedScope => {
            let value = "UNSPECIFIED_SCOPE";
            return Err(Rejected::Unsupported { field, value });
        }
        raw::load_balancing::Scope::Region => Scope::Region,
        raw::load_balancing::Scope::Zone => Scope::Zone,
        raw::load_balancing::Scope::Subzone => Scope::Subzone,
        raw::load_balancing::Scope::Node => Scope::Node,
        raw::load_balancing::Scope::Cluster => Scope::Cluster,
        raw::load_balancing::Scope::Network => Scope::Network,
    })
}

fn ip_families(value: i32) -> Result<Option<IpFamilies>, Rejected> {
    Ok(match known("ip_families", value)? {
        raw::IpFamilies::Automatic => None,
        raw::IpFamilies::Ipv4Only => Some(IpFamilies::Ipv4),
        raw::IpFamilies::Ipv6Only => Some(IpFamilies::Ipv6),
        raw::IpFamilies::Dual => Some(IpFamilies::Dual),
    })
}

fn visibility(value: i32) -> Visibility {
    match raw::service::Visibility::try_from(value) {
        Ok(raw::service::Visibility::Namespace) => Visibility::Namespace,
        Ok(raw::service::Visibility::Public) | Err(_) => Visibility::Public,
    }
}
