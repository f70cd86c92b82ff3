//! PROXY protocol version 2 header with the peer's identity (spec: hbone.md 9).

use std::net::{IpAddr, SocketAddr};

use crate::model::identity::Identity;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
/// TLV type that carries the peer's SPIFFE ID.
const TLV_IDENTITY: u8 = 0xd0;

/// The header: `client` is the tunnel's peer, `target` the address the client asked for. Different
/// families give an address block of unspecified family.
pub(crate) fn header(
    client: SocketAddr,
    target: SocketAddr,
    identity: Option<&Identity>,
) -> Vec<u8> {
    let (family, mut rest) = match (client.ip(), target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
        (IpAddr::V6(from), IpAddr::V6(to)) => (0x21, [from.octets(), to.octets()].concat()),
        _ => (0x01, Vec::new()),
    };
    if !rest.is_empty() {
        rest.extend(client.port().to_be_bytes());
        rest.extend(target.port().to_be_bytes());
    }
    if let Some(identity) = identity {
        let text = identity.to_string();
        if let Ok(length) = u16::try_from(text.len()) {
            rest.push(TLV_IDENTITY);
            rest.extend(length.to_be_bytes());
            rest.extend(text.as_bytes());
        }
    }
    let mut header = Vec::with_capacity(16 + rest.len());
    header.extend(SIGNATURE);
    header.extend([VERSION_COMMAND, family]);
    // An identity comes from a certificate we verified, far below the 64 KiB the length can say.
    let length = u16::try_from(rest.len()).unwrap_or(u16::MAX);
    header.extend(length.to_be_bytes());
    header.extend(rest);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_carries_addresses_ports_and_identity() {
        let identity = Identity::new("td", "ns", "sa");
        let bytes = header(
            "10.0.0.1:1000".parse().unwrap(),
            "10.0.0.2:80".parse().unwrap(),
            Some(&identity),
        );
        let uri = b"spiffe://td/ns/ns/sa/sa";
        assert_eq!(
            bytes[..12],
            [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
        );
        assert_eq!(bytes[12..14], [0x21, 0x11]);
        assert_eq!(
            usize::from(u16::from_be_bytes([bytes[14], bytes[15]])),
            bytes.len() - 16
        );
        assert_eq!(bytes[16..28], [10, 0, 0, 1, 10, 0, 0, 2, 0x03, 0xe8, 0, 80]);
        assert_eq!(bytes[28..31], [0xd0, 0, 23]);
        assert_eq!(&bytes[31..], uri);
    }

    #[test]
    fn mixed_families_carry_no_address_and_no_identity_no_tlv() {
        let bytes = header(
            "10.0.0.1:1000".parse().unwrap(),
            "[fd00::2]:80".parse().unwrap(),
            None,
        );
        assert_eq!(bytes[12..], [0x21, 0x01, 0, 0]);
    }

    #[test]
    fn an_ipv6_header_is_36_bytes_of_addresses() {
        let bytes = header(
            "[fd00::1]:1000".parse().unwrap(),
            "[fd00::2]:80".parse().unwrap(),
            None,
        );
        assert_eq!(bytes[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(bytes.len(), 16 + 36);
    }
}
