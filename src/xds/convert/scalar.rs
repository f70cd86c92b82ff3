//! Numbers and bytes of messages → addresses, ranges, ports, members of closed sets.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::Rejected;
use crate::model::workload::PortMap;
use crate::proto::workload::Port;

/// Bits in front of the IPv4 address of an IPv4-mapped one.
const MAPPED_BITS: u8 = 96;

/// An address of 4 or 16 bytes, in canonical form: connections are compared in that form.
pub(super) fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Rejected> {
    Ok(ip_as_sent(field, bytes)?.to_canonical())
}

fn ip_as_sent(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Rejected> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| Rejected::BadAddress {
        field,
        bytes: bytes.len(),
    })?;
    Ok(v6.into())
}

/// An address range; host bits are kept and mean nothing.
pub(super) fn range(field: &'static str, bytes: &[u8], length: u32) -> Result<IpNet, Rejected> {
    let ip = ip_as_sent(field, bytes)?;
    let bits: u8 = if ip.is_ipv4() { 32 } else { 128 };
    let bad = || Rejected::BadPrefix {
        field,
        length,
        bits,
    };
    let length = u8::try_from(length).map_err(|_| bad())?;
    let range = IpNet::new(ip, length).map_err(|_| bad())?;
    // A range of mapped addresses is one of IPv4, if it holds nothing else.
    if let (IpAddr::V6(_), IpAddr::V4(v4)) = (ip, ip.to_canonical())
        && let Some(length) = length.checked_sub(MAPPED_BITS)
        && let Ok(mapped) = Ipv4Net::new(v4, length)
    {
        return Ok(IpNet::V4(mapped));
    }
    Ok(range)
}

/// A port of a policy. One that cannot be is refused: cut to 16 bits it would be another port.
pub(super) fn policy_port(field: &'static str, value: u32) -> Result<u16, Rejected> {
    u16::try_from(value).map_err(|_| Rejected::BadPort { field, value })
}

/// The low 16 bits, as the protocol defines ports of workloads and services.
pub(super) fn port(value: u32) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Service port to target port; of several entries for a port the last one counts.
pub(super) fn ports(list: &[Port]) -> PortMap {
    let pairs = list
        .iter()
        .map(|p| (port(p.service_port), port(p.target_port)));
    pairs.collect()
}

/// A member of a closed set of messages.
pub(super) fn known<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, Rejected> {
    T::try_from(value).map_err(|_| Rejected::UnknownValue { field, value })
}
