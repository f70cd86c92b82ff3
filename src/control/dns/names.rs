//! Names of services → addresses, as the DNS proxy tells them (spec: dns-socks.md A3).
//!
//! Names are texts in lower case without the final dot. Absent on purpose: messages, time to live,
//! forwarding, and the names of workloads, which are not ours to answer.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::service::Service;
use crate::model::workload::Workload;
use crate::snapshot::Snapshot;

/// Uniform random source: returns a value in `0..bound` (`bound` > 0).
pub(super) type Random<'a> = &'a mut dyn FnMut(u64) -> u64;

/// What kind of address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A.
    V4,
    /// AAAA.
    V6,
}

impl Family {
    const fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }

    /// Whether a service is reached by this family at all.
    fn suits(self, service: &Service) -> bool {
        let any: IpAddr = match self {
            Self::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        service
            .ip_families
            .is_none_or(|families| families.allows(any))
    }
}

/// Domains a stub resolver may have appended to what its application asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum SearchDomains<'a> {
    /// Those every pod of the workload's namespace has.
    OfNamespace,
    /// Those of a host.
    Listed(&'a [Arc<str>]),
}

/// Who asks, and what a name means to them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// The workload.
    pub(super) workload: &'a Workload,
    /// Domain of the cluster, such as `cluster.local`.
    pub(super) cluster_domain: &'a str,
    /// What may have been appended.
    pub(super) search: SearchDomains<'a>,
    /// Namespace that wins where nothing else decides.
    pub(super) preferred_namespace: Option<&'a str>,
    /// Whether AAAA is answered with addresses.
    pub(super) ipv6: bool,
}

/// What the mesh says about a name that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The name that owns the addresses, when it is not the one asked for: then that one is an alias
    /// (CNAME) of it.
    pub(super) alias_of: Option<String>,
    /// Addresses in random order; may be empty, the name exists all the same.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether the service may have addresses of this family.
    pub(super) family_suits: bool,
}

/// Looks `name` up. `None`: the mesh does not know it, somebody else may.
#[must_use]
pub(super) fn look_up(
    name: &str,
    family: Family,
    asker: &Asker<'_>,
    snapshot: &Snapshot,
    random: Random<'_>,
) -> Option<Known> {
    let matched = find(name, asker, snapshot)?;
    let service = matched.service;
    let family_suits = (family == Family::V4 || asker.ipv6) && family.suits(service);
    if !family_suits {
        return Some(Known {
            alias_of: None,
            addresses: Vec::new(),
            family_suits,
        });
    }
    let mut addresses = addresses(service, family, asker, snapshot);
    shuffle(&mut addresses, random);
    let alias_of = if addresses.is_empty() || matched.by_wildcard {
        None
    } else {
        matched.stripped
    };
    Some(Known {
        alias_of,
        addresses,
        family_suits,
    })
}

/// A service found, and how.
struct Match<'s> {
    service: &'s Arc<Service>,
    by_wildcard: bool,
    stripped: Option<String>,
}

fn find<'s>(name: &str, asker: &Asker<'_>, snapshot: &'s Snapshot) -> Option<Match<'s>> {
    let namespace = &*asker.workload.namespace;
    let usable =
        |service: &Service| !service.vips.is_empty() || in_cluster(service, asker.cluster_domain);
    for alias in aliases(name, asker) {
        for (position, candidate) in with_wildcards(&alias.name).enumerate() {
            let best = snapshot.service_by_host_preferring(
                &candidate,
                Some(namespace),
                asker.preferred_namespace,
                &usable,
            );
            if let Some(service) = best {
                return Some(Match {
                    service,
                    by_wildcard: position > 0,
                    stripped: alias.stripped,
                });
            }
        }
    }
    None
}

/// Whether a service without virtual addresses is answered with those of its endpoints: elsewhere its
/// own name server knows better.
fn in_cluster(service: &Service, cluster_domain: &str) -> bool {
    let above = service.hostname.strip_suffix(cluster_domain);
    above.is_some_and(|above| above.ends_with(".svc."))
}

/// A name that may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alias {
    name: String,
    /// What was left when a search domain had been taken off.
    stripped: Option<String>,
}

/// Every name that `name` may stand for, most likely first, none twice.
fn aliases(name: &str, asker: &Asker<'_>) -> Vec<Alias> {
    let mut found: Vec<Alias> = Vec::new();
    let mut add = |name: String, stripped: Option<&str>| {
        if !found.iter().any(|alias| alias.name == name) {
            let stripped = stripped.map(str::to_owned);
            found.push(Alias { name, stripped });
        }
    };
    add(name.to_owned(), None);
    for expanded in expand(name, asker) {
        add(expanded, None);
    }
    for domain in search_domains(asker) {
        let Some(rest) = without_domain(name, &domain) else {
            continue;
        };
        add(rest.to_owned(), Some(rest));
        for expanded in expand(rest, asker) {
            add(expanded, Some(rest));
        }
    }
    found
}

fn search_domains(asker: &Asker<'_>) -> Vec<Arc<str>> {
    let domain = asker.cluster_domain;
    match asker.search {
        SearchDomains::Listed(domains) => domains.to_vec(),
        SearchDomains::OfNamespace => vec![
            format!("{}.svc.{domain}", asker.workload.namespace).into(),
            format!("svc.{domain}").into(),
            domain.into(),
        ],
    }
}

/// What stands before `.domain`, if anything does.
fn without_domain<'n>(name: &'n str, domain: &str) -> Option<&'n str> {
    let rest = name.strip_suffix(domain)?.strip_suffix('.')?;
    (!rest.is_empty() && !domain.is_empty()).then_some(rest)
}

/// The full names that a short one may stand for in a cluster.
fn expand(name: &str, asker: &Asker<'_>) -> Vec<String> {
    let domain = asker.cluster_domain;
    let namespace = &*asker.workload.namespace;
    let labels = name.split('.').count();
    let is_service = name.rsplit('.').next() == Some("svc");
    let in_svc = || format!("{name}.svc.{domain}");
    match labels {
        1 => vec![format!("{name}.{namespace}.svc.{domain}")],
        2 => vec![in_svc(), format!("{name}.{namespace}.svc.{domain}")],
        3 if is_service => vec![format!("{name}.{domain}"), in_svc()],
        3 => vec![in_svc()],
        4 if is_service => vec![format!("{name}.{domain}")],
        _ => Vec::new(),
    }
}

/// The name, then the wildcards that cover it, the most specific first.
fn with_wildcards(name: &str) -> impl Iterator<Item = String> + '_ {
    let dots = name.match_indices('.');
    let wildcards = dots.map(|(at, _)| format!("*{}", &name[at..]));
    std::iter::once(name.to_owned()).chain(wildcards)
}

/// Virtual addresses on the asker's network, or of a headless service one address of each endpoint.
fn addresses(
    service: &Service,
    family: Family,
    asker: &Asker<'_>,
    snapshot: &Snapshot,
) -> Vec<IpAddr> {
    if !service.vips.is_empty() {
        let near = service.vips.iter();
        return near
            .filter(|vip| vip.network == asker.workload.network && family.has(vip.ip))
            .map(|vip| vip.ip)
            .collect();
    }
    let endpoints = service.endpoints.values();
    endpoints
        .filter_map(|endpoint| {
            let workload = snapshot.workload_by_uid(&endpoint.workload_uid)?;
            let mut own = workload.addresses.iter().copied();
            own.find(|ip| family.has(*ip))
        })
        .collect()
}

/// Any order is as likely as any other, so that clients which take the first address spread.
fn shuffle(addresses: &mut [IpAddr], random: Random<'_>) {
    for last in (1..addresses.len()).rev() {
        let bound = u64::try_from(last).map_or(u64::MAX, |last| last + 1);
        let chosen = usize::try_from(random(bound)).unwrap_or(last).min(last);
        addresses.swap(last, chosen);
    }
}

#[cfg(test)]
mod tests;
