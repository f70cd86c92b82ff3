//! Resources as a control plane sends them.

use std::net::IpAddr;

use corelane::proto::discovery::{Any, Resource};
use corelane::proto::security as sec;
use corelane::proto::workload as raw;
use prost::Message as _;

/// An envelope.
pub(crate) fn resource(name: &str, content: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: "v1".to_owned(),
        resource: Some(Any {
            value: content.into(),
            ..Any::default()
        }),
        ..Resource::default()
    }
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A workload of namespace `default` that speaks HBONE; its name is its uid and account.
pub(crate) fn a_workload(name: &str, ip: IpAddr, node: &str) -> raw::Workload {
    raw::Workload {
        uid: name.to_owned(),
        name: name.to_owned(),
        namespace: "default".into(),
        service_account: name.to_owned(),
        addresses: vec![bytes(ip)],
        node: node.to_owned(),
        tunnel_protocol: raw::TunnelProtocol::Hbone.into(),
        ..raw::Workload::default()
    }
}

/// In its envelope.
pub(crate) fn workload(message: raw::Workload) -> Resource {
    let name = message.uid.clone();
    let r#type = Some(raw::address::Type::Workload(message));
    resource(&name, raw::Address { r#type }.encode_to_vec())
}

/// A service `NAME.default` with one address and one port.
pub(crate) fn service(name: &str, vip: IpAddr, port: (u32, u32)) -> Resource {
    service_behind(name, vip, port, None)
}

/// The same with the service `WAYPOINT.default` as waypoint.
pub(crate) fn service_behind(
    name: &str,
    vip: IpAddr,
    port: (u32, u32),
    waypoint: Option<&str>,
) -> Resource {
    let waypoint = waypoint.map(|name| raw::GatewayAddress {
        hbone_mtls_port: 15_008,
        destination: Some(raw::gateway_address::Destination::Hostname(
            raw::NamespacedHostname {
                namespace: "default".into(),
                hostname: format!("{name}.default"),
            },
        )),
    });
    let hostname = format!("{name}.default");
    let message = raw::Service {
        name: name.to_owned(),
        namespace: "default".into(),
        hostname: hostname.clone(),
        addresses: vec![raw::NetworkAddress {
            address: bytes(vip),
            ..raw::NetworkAddress::default()
        }],
        ports: vec![raw::Port {
            service_port: port.0,
            target_port: port.1,
            ..raw::Port::default()
        }],
        waypoint,
        ..raw::Service::default()
    };
    let r#type = Some(raw::address::Type::Service(message));
    let name = format!("default/{hostname}");
    resource(&name, raw::Address { r#type }.encode_to_vec())
}

/// `default/NAME`: denies everybody this port in the namespace.
pub(crate) fn deny_port(name: &str, port: u16) -> Resource {
    let rule = sec::Rule {
        clauses: vec![sec::Clause {
            matches: vec![sec::Match {
                destination_ports: vec![u32::from(port)],
                ..sec::Match::default()
            }],
        }],
    };
    let message = sec::Authorization {
        name: name.to_owned(),
        namespace: "default".into(),
        scope: sec::Scope::Namespace.into(),
        action: sec::Action::Deny.into(),
        rules: vec![rule],
        ..sec::Authorization::default()
    };
    resource(&format!("default/{name}"), message.encode_to_vec())
}
