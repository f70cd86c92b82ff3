//! Addresses in networks, names, and references to gateways and waypoints.

use super::scalar::{ip, port, range};
use super::{Interner, Rejected};
use crate::model::addr::{NamespacedHostname, NetworkAddress, NetworkCidr};
use crate::model::gateway::{GatewayAddress, GatewayDestination};
use crate::proto::workload as raw;

/// A virtual address of a service.
pub(super) enum Vip {
    Host(NetworkAddress),
    Range(NetworkCidr),
}

/// One address, or a range when its length says so.
pub(super) fn vip(
    field: &'static str,
    message: &raw::NetworkAddress,
    texts: &mut Interner,
) -> Result<Vip, Rejected> {
    let network = texts.share(&message.network);
    let host = ip(field, &message.address)?;
    let Some(length) = message.length else {
        return Ok(Vip::Host(NetworkAddress { network, ip: host }));
    };
    let cidr = range(field, &message.address, length)?;
    if cidr.prefix_len() == cidr.max_prefix_len() {
        return Ok(Vip::Host(NetworkAddress { network, ip: host }));
    }
    Ok(Vip::Range(NetworkCidr { network, cidr }))
}

/// Gateway or waypoint; absent is fine, without destination is not.
pub(super) fn gateway(
    field: &'static str,
    message: Option<&raw::GatewayAddress>,
    texts: &mut Interner,
) -> Result<Option<GatewayAddress>, Rejected> {
    let Some(message) = message else {
        return Ok(None);
    };
    let named = message.destination.as_ref();
    let destination = match named.ok_or(Rejected::NoDestination { field })? {
        raw::gateway_address::Destination::Hostname(name) => {
            GatewayDestination::Hostname(NamespacedHostname {
                namespace: texts.share(&name.namespace),
                hostname: texts.share(&name.hostname),
            })
        }
        raw::gateway_address::Destination::Address(address) => {
            GatewayDestination::Address(NetworkAddress {
                network: texts.share(&address.network),
                ip: ip(field, &address.address)?,
            })
        }
    };
    Ok(Some(GatewayAddress {
        destination,
        hbone_mtls_port: port(message.hbone_mtls_port),
    }))
}

/// Key of a service. A further `/` would make removals by name ambiguous.
pub(super) fn service_key(
    text: &str,
    texts: &mut Interner,
) -> Result<NamespacedHostname, Rejected> {
    let bad = || Rejected::BadKey {
        field: "service key `namespace/hostname`",
        value: text.to_owned(),
    };
    let (namespace, hostname) = text.split_once('/').ok_or_else(bad)?;
    Ok(NamespacedHostname {
        namespace: texts.share(namespace),
        hostname: texts.share(hostname),
    })
}
