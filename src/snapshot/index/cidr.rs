//! Services by address range. A look-up probes the prefix lengths in use, longest first.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Map;
use super::services::Candidates;
use crate::model::addr::{NetworkAddress, NetworkCidr};
use crate::model::service::Service;

#[derive(Clone, PartialEq, Eq, Hash)]
struct RangeKey {
    network: Arc<str>,
    /// Without host bits.
    range: IpNet,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct FamilyKey {
    network: Arc<str>,
    ipv6: bool,
}

/// A prefix length and how many ranges have it.
#[derive(Clone, Copy)]
struct Length {
    bits: u8,
    ranges: usize,
}

#[derive(Clone, Default)]
pub(super) struct CidrIndex {
    ranges: Map<RangeKey, Candidates>,
    /// Longest first; at most 33 (IPv4) or 129 (IPv6) of them.
    lengths: Map<FamilyKey, Arc<[Length]>>,
}

impl CidrIndex {
    /// The service whose range holds the address: of the client's namespace, then the longest
    /// prefix, then canonical, then the first stored.
    pub(super) fn best(
        &self,
        address: &NetworkAddress,
        client_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        let lengths = self.lengths.get(&FamilyKey {
            network: Arc::clone(&address.network),
            ipv6: address.ip.is_ipv6(),
        })?;
        let mut key = RangeKey {
            network: Arc::clone(&address.network),
            range: IpNet::from(address.ip),
        };
        let mut foreign = None;
        for length in &**lengths {
            key.range = truncated(address.ip, length.bits);
            let Some(candidates) = self.ranges.get(&key) else {
                continue;
            };
            let Some(service) = candidates.best_of_range(client_namespace) else {
                continue;
            };
            // A shorter range of the client's own namespace still wins over a foreign one.
            if client_namespace.is_none_or(|client| *service.namespace == *client) {
                return Some(service);
            }
            foreign.get_or_insert(service);
        }
        foreign
    }

    pub(super) fn put(&mut self, cidr: &NetworkCidr, service: &Arc<Service>) {
        let key = range_key(cidr);
        match self.ranges.get(&key) {
            Some(held) => {
                let next = held.with_last(service);
                self.ranges.insert_mut(key, next);
            }
            None => {
                self.count(&key, true);
                let first = Candidates::default().with_last(service);
                self.ranges.insert_mut(key, first);
            }
        }
    }

    pub(super) fn remove(&mut self, cidr: &NetworkCidr, service: &Service) {
        let key = range_key(cidr);
        let Some(held) = self.ranges.get(&key) else {
            return;
        };
        let next = held.without(service);
        if next.is_empty() {
            self.ranges.remove_mut(&key);
            self.count(&key, false);
        } else {
            self.ranges.insert_mut(key, next);
        }
    }

    fn count(&mut self, key: &RangeKey, appeared: bool) {
        let family = FamilyKey {
            network: Arc::clone(&key.network),
            ipv6: key.range.addr().is_ipv6(),
        };
        let bits = key.range.prefix_len();
        let mut lengths = self
            .lengths
            .get(&family)
            .map_or_else(Vec::new, |held| held.to_vec());
        let position = lengths.partition_point(|length| length.bits > bits);
        match lengths.get_mut(position).filter(|held| held.bits == bits) {
            Some(held) if appeared => held.ranges += 1,
            Some(held) if held.ranges > 1 => held.ranges -= 1,
            Some(_) => {
                lengths.remove(position);
            }
            None => lengths.insert(position, Length { bits, ranges: 1 }),
        }
        if lengths.is_empty() {
            self.lengths.remove_mut(&family);
        } else {
            self.lengths.insert_mut(family, lengths.into());
        }
    }
}

fn range_key(cidr: &NetworkCidr) -> RangeKey {
    RangeKey {
        network: Arc::clone(&cidr.network),
        range: cidr.cidr.trunc(),
    }
}

fn truncated(ip: IpAddr, bits: u8) -> IpNet {
    // Only lengths of ranges of this family are asked for, so they always fit.
    IpNet::new(ip, bits)
        .unwrap_or_else(|_| IpNet::from(ip))
        .trunc()
}
