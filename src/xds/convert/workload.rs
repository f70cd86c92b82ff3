//! Workload message → model.

use std::net::IpAddr;
use std::sync::Arc;

use super::address::{gateway, service_key};
use super::scalar::{ip, known, port, ports};
use super::{Interner, Rejected};
use crate::model::addr::NamespacedHostname;
use crate::model::workload::{
    AppTunnelProtocol, ApplicationTunnel, HealthStatus, Locality, NetworkMode, PortMap, Workload,
    WorkloadProtocol,
};
use crate::proto::workload as raw;

const TRUST_DOMAIN_DEFAULT: &str = "cluster.local";
const SERVICE_ACCOUNT_DEFAULT: &str = "default";
const CLUSTER_DEFAULT: &str = "Kubernetes";

pub(super) fn workload(message: raw::Workload, texts: &mut Interner) -> Result<Workload, Rejected> {
    if message.uid.is_empty() {
        return Err(Rejected::BadKey {
            field: "workload uid",
            value: message.uid,
        });
    }
    let addresses: Result<Vec<IpAddr>, _> = message
        .addresses
        .iter()
        .map(|bytes| ip("addresses", bytes))
        .collect();
    let locality = message.locality.unwrap_or_default();
    let policies = message.authorization_policies.iter();
    Ok(Workload {
        uid: message.uid.into(),
        name: message.name.into(),
        addresses: addresses?,
        hostname: texts.share(&message.hostname),
        network: texts.share(&message.network),
        protocol: protocol(message.tunnel_protocol)?,
        network_mode: network_mode(message.network_mode)?,
        trust_domain: texts.share_or(&message.trust_domain, TRUST_DOMAIN_DEFAULT),
        service_account: texts.share_or(&message.service_account, SERVICE_ACCOUNT_DEFAULT),
        cluster_id: texts.share_or(&message.cluster_id, CLUSTER_DEFAULT),
        node: texts.share(&message.node),
        locality: Locality {
            region: texts.share(&locality.region),
            zone: texts.share(&locality.zone),
            subzone: texts.share(&locality.subzone),
        },
        waypoint: gateway("waypoint", message.waypoint.as_ref(), texts)?,
        network_gateway: gateway("network_gateway", message.network_gateway.as_ref(), texts)?,
        application_tunnel: message
            .application_tunnel
            .map(application_tunnel)
            .transpose()?,
        services: services(&message.services, texts)?,
        status: status(message.status)?,
        capacity: message.capacity.unwrap_or(1),
        authorization_policies: policies.map(|name| texts.share(name)).collect(),
        native_tunnel: message.native_tunnel,
        workload_name: texts.share(&message.workload_name),
        workload_type: workload_type(message.workload_type, texts),
        canonical_name: texts.share(&message.canonical_name),
        canonical_revision: texts.share(&message.canonical_revision),
        namespace: texts.share(&message.namespace),
    })
}

fn services(
    named: &std::collections::HashMap<String, raw::PortList>,
    texts: &mut Interner,
) -> Result<std::collections::BTreeMap<NamespacedHostname, PortMap>, Rejected> {
    let mut pair =
        |(key, list): (&String, &raw::PortList)| Ok((service_key(key, texts)?, ports(&list.ports)));
    named.iter().map(&mut pair).collect()
}

fn protocol(value: i32) -> Result<WorkloadProtocol, Rejected> {
    let field = "tunnel_protocol";
    match known(field, value)? {
        raw::TunnelProtocol::None => Ok(WorkloadProtocol::Tcp),
        raw::TunnelProtocol::Hbone => Ok(WorkloadProtocol::Hbone),
        raw::TunnelProtocol::LegacyIstioMtls => Err(Rejected::Unsupported {
            field,
            value: "LEGACY_ISTIO_MTLS",
        }),
    }
}

fn network_mode(value: i32) -> Result<NetworkMode, Rejected> {
    Ok(match known("network_mode", value)? {
        raw::NetworkMode::Standard => NetworkMode::Standard,
        raw::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
    })
}

fn status(value: i32) -> Result<HealthStatus, Rejected> {
    Ok(match known("status", value)? {
        raw::WorkloadStatus::Healthy => HealthStatus::Healthy,
        raw::WorkloadStatus::Unhealthy => HealthStatus::Unhealthy,
    })
}

/// Telemetry only, so a kind that is not known yet harms nobody.
fn workload_type(value: i32, texts: &mut Interner) -> Arc<str> {
    texts.share(match raw::WorkloadType::try_from(value) {
        Ok(raw::WorkloadType::Cronjob) => "cronjob",
        Ok(raw::WorkloadType::Pod) => "pod",
        Ok(raw::WorkloadType::Job) => "job",
        Ok(raw::WorkloadType::Deployment) | Err(_) => "deployment",
    })
}

fn application_tunnel(message: raw::ApplicationTunnel) -> Result<ApplicationTunnel, Rejected> {
    let protocol = match known("application_tunnel.protocol", message.protocol)? {
        raw::application_tunnel::Protocol::None => AppTunnelProtocol::None,
        raw::application_tunnel::Protocol::Proxy => AppTunnelProtocol::Proxy,
    };
    let port = port(message.port);
    Ok(ApplicationTunnel {
        protocol,
        port: (port != 0).then_some(port),
    })
}
