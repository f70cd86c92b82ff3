//! Sorts out policies that cannot match a connection, without looking at them.
//!
//! A rule holds only if each of its clauses has a match that holds, and a match only if each of its
//! positive lists has an element that does. So one list for each match of one clause is enough to
//! file a rule under: whoever has none of those elements cannot satisfy it. Text is filed by hash,
//! prefixes, suffixes and address ranges by their length as well, and looked up once for each length
//! that occurs. Hashes may collide; what is found is a candidate and nothing more.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHasher;

use super::{Map, OrderedMap};
use crate::model::policy::{Policy, PolicyClause, PolicyMatch, PolicyRule, StringMatch};
use crate::snapshot::Traits;

type ByKey = OrderedMap<Arc<str>, Arc<Policy>>;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Principal,
    ServiceAccount,
    Namespace,
    PrincipalPrefix,
    PrincipalSuffix,
    NamespacePrefix,
    NamespaceSuffix,
    SourceRange,
    DestinationRange,
    Port,
}

/// A hash table of its own for each of these: the same kind, text or range of this many bytes or bits.
type Class = (Kind, usize);

/// One entry a policy is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tag {
    class: Class,
    hash: u64,
}

impl Tag {
    fn new(kind: Kind, length: usize, parts: &[&[u8]]) -> Self {
        let mut hasher = FxHasher::default();
        hasher.write_u8(kind as u8);
        hasher.write_usize(length);
        for part in parts {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        Self {
            class: (kind, length),
            hash: hasher.finish(),
        }
    }

    fn text(exact: Kind, prefix: Kind, suffix: Kind, pattern: &StringMatch) -> Option<Self> {
        match pattern {
            StringMatch::Exact(text) => Some(Self::new(exact, 0, &[text.as_bytes()])),
            StringMatch::Prefix(text) if !text.is_empty() => {
                Some(Self::new(prefix, text.len(), &[text.as_bytes()]))
            }
            StringMatch::Suffix(text) if !text.is_empty() => {
                Some(Self::new(suffix, text.len(), &[text.as_bytes()]))
            }
            // Nearly everybody.
            StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
        }
    }

    /// Host bits do not count.
    fn range(kind: Kind, range: &IpNet) -> Self {
        let bits = usize::from(range.prefix_len());
        match range.network() {
            IpAddr::V4(ip) => Self::new(kind, bits, &[&ip.octets()]),
            // The families share no class.
            IpAddr::V6(ip) => Self::new(kind, bits + V6_BITS, &[&ip.octets()]),
        }
    }

    fn port(port: u16) -> Self {
        Self::new(Kind::Port, 0, &[&port.to_be_bytes()])
    }
}

/// Added to the length of a range of IPv6.
const V6_BITS: usize = 256;

/// What waits under one hash: mostly one policy.
#[derive(Clone)]
enum Filed {
    One(Arc<str>, Arc<Policy>),
    Many(ByKey),
}

/// Policies by what a connection must have to satisfy them.
#[derive(Clone, Default)]
pub(super) struct Sieve {
    filed: Map<u64, Filed>,
    /// How many tags there are of each class.
    classes: OrderedMap<Class, usize>,
    /// Policies that nothing rules out.
    unsifted: ByKey,
}

impl Sieve {
    pub(super) fn put(&mut self, key: &Arc<str>, policy: &Arc<Policy>) {
        let Some(tags) = tags(policy) else {
            self.unsifted
                .insert_mut(Arc::clone(key), Arc::clone(policy));
            return;
        };
        for tag in tags {
            let count = self.classes.get(&tag.class).copied().unwrap_or_default();
            self.classes.insert_mut(tag.class, count + 1);
            let entry = || (Arc::clone(key), Arc::clone(policy));
            let filed = match self.filed.get(&tag.hash) {
                None => Filed::One(Arc::clone(key), Arc::clone(policy)),
                Some(Filed::One(other, _)) if other == key => continue,
                Some(Filed::One(other, others)) => Filed::Many(
                    [(Arc::clone(other), Arc::clone(others)), entry()]
                        .into_iter()
                        .collect(),
                ),
                Some(Filed::Many(all)) => Filed::Many(all.insert(entry().0, entry().1)),
            };
            self.filed.insert_mut(tag.hash, filed);
        }
    }

    /// `policy` is what was put under this key.
    pub(super) fn remove(&mut self, key: &str, policy: &Policy) {
        let Some(tags) = tags(policy) else {
            self.unsifted.remove_mut(key);
            return;
        };
        for tag in tags {
            match self.classes.get(&tag.class).copied() {
                Some(count) if count > 1 => self.classes.insert_mut(tag.class, count - 1),
                _ => {
                    self.classes.remove_mut(&tag.class);
                }
            }
            let left = match self.filed.get(&tag.hash) {
                Some(Filed::Many(all)) => Some(all.remove(key)),
                // Gone with an earlier tag of the same hash, or the only one.
                Some(Filed::One(other, _)) if &**other == key => None,
                Some(Filed::One(..)) | None => continue,
            };
            match left.filter(|left| !left.is_empty()) {
                Some(left) => self.filed.insert_mut(tag.hash, Filed::Many(left)),
                None => {
                    self.filed.remove_mut(&tag.hash);
                }
            }
        }
    }

    /// Every policy that a connection with these traits may satisfy, in the order of their keys, and
    /// few others.
    pub(super) fn candidates(&self, traits: &Traits<'_>) -> Vec<&Arc<Policy>> {
        let mut found: Vec<_> = self.unsifted.iter().collect();
        let unsifted = found.len();
        for (class, _) in &self.classes {
            let tag = tag_of(*class, traits);
            match tag.and_then(|tag| self.filed.get(&tag.hash)) {
                None => {}
                Some(Filed::One(key, policy)) => found.push((key, policy)),
                Some(Filed::Many(all)) => found.extend(all.iter()),
            }
        }
        if found.len() > unsifted {
            found.sort_unstable_by_key(|(key, _)| *key);
            found.dedup_by_key(|(key, _)| *key);
        }
        found.into_iter().map(|(_, policy)| policy).collect()
    }
}

/// The one tag of a class that fits a connection, if any does.
fn tag_of((kind, length): Class, traits: &Traits<'_>) -> Option<Tag> {
    let whole = |text: &[u8]| Tag::new(kind, 0, &[text]);
    let prefix = |text: &[u8]| Some(Tag::new(kind, length, &[text.get(..length)?]));
    let suffix = |text: &[u8]| {
        let start = text.len().checked_sub(length)?;
        Some(Tag::new(kind, length, &[text.get(start..)?]))
    };
    match kind {
        Kind::Principal => traits.principal.map(whole),
        Kind::PrincipalPrefix => prefix(traits.principal?),
        Kind::PrincipalSuffix => suffix(traits.principal?),
        Kind::Namespace => Some(whole(traits.namespace)),
        Kind::NamespacePrefix => prefix(traits.namespace),
        Kind::NamespaceSuffix => suffix(traits.namespace),
        Kind::ServiceAccount => {
            let account = traits.service_account?;
            Some(Tag::new(kind, 0, &[traits.namespace, account]))
        }
        Kind::SourceRange => range_around(kind, traits.source_ip, length),
        Kind::DestinationRange => range_around(kind, traits.destination_ip, length),
        Kind::Port => Some(Tag::port(traits.destination_port)),
    }
}

/// The range of this length that holds `ip`, if it is of the same family.
fn range_around(kind: Kind, ip: IpAddr, length: usize) -> Option<Tag> {
    let bits = match ip {
        IpAddr::V4(_) => length,
        IpAddr::V6(_) => length.checked_sub(V6_BITS)?,
    };
    let range = IpNet::new(ip, u8::try_from(bits).ok()?).ok()?;
    Some(Tag::range(kind, &range))
}

/// What a policy is filed under, each once; `None` when some rule cannot be.
fn tags(policy: &Policy) -> Option<BTreeSet<Tag>> {
    let mut all = BTreeSet::new();
    for rule in &policy.rules {
        all.extend(rule_tags(rule)?);
    }
    Some(all)
}

/// The clause that tells most: the one whose vaguest match is filed under the most telling field.
fn rule_tags(rule: &PolicyRule) -> Option<Vec<Tag>> {
    let clauses = rule.iter().filter_map(clause_tags);
    clauses.min_by_key(|tags| {
        let vaguest = tags.iter().map(|tag| tag.class.0).max();
        (vaguest, tags.len())
    })
}

/// An empty clause always holds.
fn clause_tags(clause: &PolicyClause) -> Option<Vec<Tag>> {
    if clause.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for one in clause {
        all.extend(match_tags(one)?);
    }
    Some(all)
}

/// The most telling list of a match, all of whose elements can be looked up.
fn match_tags(m: &PolicyMatch) -> Option<Vec<Tag>> {
    let principal = |pattern| {
        use Kind::{Principal, PrincipalPrefix, PrincipalSuffix};
        Tag::text(Principal, PrincipalPrefix, PrincipalSuffix, pattern)
    };
    let namespace = |pattern| {
        use Kind::{Namespace, NamespacePrefix, NamespaceSuffix};
        Tag::text(Namespace, NamespacePrefix, NamespaceSuffix, pattern)
    };
    let accounts = m.service_accounts.iter().map(|account| {
        let parts = [&account.namespace, &account.service_account].map(|part| part.as_bytes());
        Some(Tag::new(Kind::ServiceAccount, 0, &parts))
    });
    let range = |kind| move |range| Some(Tag::range(kind, range));
    let lists: [Option<Vec<Tag>>; 6] = [
        list(m.principals.iter().map(principal)),
        list(accounts),
        list(m.namespaces.iter().map(namespace)),
        list(m.source_ips.iter().map(range(Kind::SourceRange))),
        list(m.destination_ips.iter().map(range(Kind::DestinationRange))),
        list(
            m.destination_ports
                .iter()
                .map(|port| Some(Tag::port(*port))),
        ),
    ];
    let lists = lists.into_iter().flatten();
    lists.min_by_key(|tags| tags.iter().map(|tag| tag.class.0).max())
}

/// `None` for a list that demands nothing, or something that cannot be looked up.
fn list(tags: impl Iterator<Item = Option<Tag>>) -> Option<Vec<Tag>> {
    let tags: Vec<_> = tags.collect::<Option<_>>()?;
    (!tags.is_empty()).then_some(tags)
}

#[cfg(test)]
mod tests;
