//! Does a policy match a connection? (spec: authorization.md 2)
//!
//! The one place where predicates are evaluated: deciding and explaining share it, so they cannot
//! disagree. Nothing here allocates, except for principals longer than any usual one.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ConnectionFacts;
use crate::model::identity::Identity;
use crate::model::policy::{Policy, PolicyMatch, PolicyRule, ServiceAccountMatch, StringMatch};
use crate::snapshot::Traits;

/// Bytes of a principal kept on the stack. Kubernetes bounds a namespace to 63 bytes and a service
/// account to 253, and trust domains are short, so longer ones are rare; they go to the heap.
const PRINCIPAL_INLINE_BYTES: usize = 384;

/// The text policies call principal, `TD/ns/NS/sa/SA`, written once per decision.
#[derive(Debug)]
pub(in crate::decision) struct PrincipalText {
    inline: [u8; PRINCIPAL_INLINE_BYTES],
    len: usize,
    spill: Vec<u8>,
}

impl PrincipalText {
    /// Writes the principal of `identity`; empty without one.
    pub(in crate::decision) fn new(identity: Option<&Identity>) -> Self {
        let mut text = Self {
            inline: [0; PRINCIPAL_INLINE_BYTES],
            len: 0,
            spill: Vec::new(),
        };
        let Some(identity) = identity else {
            return text;
        };
        let parts = [
            identity.trust_domain.as_bytes(),
            b"/ns/",
            identity.namespace.as_bytes(),
            b"/sa/",
            identity.service_account.as_bytes(),
        ];
        text.len = parts.iter().map(|part| part.len()).sum();
        if text.len > PRINCIPAL_INLINE_BYTES {
            text.spill = parts.concat();
            return text;
        }
        let mut at = 0;
        for part in parts {
            text.inline[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        text
    }

    fn as_bytes(&self) -> &[u8] {
        if self.spill.is_empty() {
            &self.inline[..self.len]
        } else {
            &self.spill
        }
    }
}

/// A connection in the form predicates look at.
#[derive(Debug)]
pub(in crate::decision) struct Subject<'a> {
    identity: Option<&'a Identity>,
    /// None without identity: no principal predicate holds then.
    principal: Option<&'a [u8]>,
    /// Empty without identity: that is what namespace predicates are compared with.
    namespace: &'a [u8],
    source_ip: IpAddr,
    destination_ip: IpAddr,
    destination_port: u16,
}

impl<'a> Subject<'a> {
    /// `principal` is the text of the identity in `facts`.
    pub(in crate::decision) fn new(
        facts: &'a ConnectionFacts,
        principal: &'a PrincipalText,
    ) -> Self {
        let identity = facts.identity.as_deref();
        Self {
            identity,
            principal: identity.map(|_| principal.as_bytes()),
            namespace: identity.map_or(b"", |identity| identity.namespace.as_bytes()),
            source_ip: facts.source_ip.to_canonical(),
            destination_ip: facts.destination_ip.to_canonical(),
            destination_port: facts.destination_port,
        }
    }

    /// What the index of policies looks up.
    pub(in crate::decision) fn traits(&self) -> Traits<'a> {
        Traits {
            principal: self.principal,
            namespace: self.namespace,
            service_account: self
                .identity
                .map(|identity| identity.service_account.as_bytes()),
            source_ip: self.source_ip,
            destination_ip: self.destination_ip,
            destination_port: self.destination_port,
        }
    }

    fn has_namespace(&self, pattern: &StringMatch) -> bool {
        string_matches(pattern, self.namespace)
    }

    fn has_principal(&self, pattern: &StringMatch) -> bool {
        self.principal
            .is_some_and(|principal| string_matches(pattern, principal))
    }

    fn has_service_account(&self, account: &ServiceAccountMatch) -> bool {
        self.identity.is_some_and(|identity| {
            identity.service_account == account.service_account
                && identity.namespace == account.namespace
        })
    }
}

/// Field of a match, named as policies name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decision) enum Field {
    Namespaces,
    ServiceAccounts,
    Principals,
    SourceIps,
    DestinationIps,
    DestinationPorts,
}

impl Field {
    /// Name of the positive list.
    pub(in crate::decision) const fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::ServiceAccounts => "service_accounts",
            Self::Principals => "principals",
            Self::SourceIps => "source_ips",
            Self::DestinationIps => "destination_ips",
            Self::DestinationPorts => "destination_ports",
        }
    }
}

/// Why one match does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decision) enum Unmet {
    /// It declares nothing.
    Empty,
    /// No element of the positive list holds.
    Outside(Field),
    /// An element of the negative list holds.
    Excluded(Field),
}

/// Whether the policy matches: some rule does.
pub(in crate::decision) fn policy_matches(policy: &Policy, subject: &Subject<'_>) -> bool {
    policy.rules.iter().any(|rule| rule_matches(rule, subject))
}

/// Position of the first rule that matches.
pub(in crate::decision) fn matching_rule(policy: &Policy, subject: &Subject<'_>) -> Option<usize> {
    policy
        .rules
        .iter()
        .position(|rule| rule_matches(rule, subject))
}

/// Every clause holds; a clause holds when it is empty or one of its matches does.
fn rule_matches(rule: &PolicyRule, subject: &Subject<'_>) -> bool {
    rule.iter()
        .all(|clause| clause.is_empty() || clause.iter().any(|m| check(m, subject).is_ok()))
}

/// Evaluates one match, cheapest fields first.
///
/// # Errors
/// The first thing that does not hold.
pub(in crate::decision) fn check(m: &PolicyMatch, subject: &Subject<'_>) -> Result<(), Unmet> {
    field(
        Field::DestinationPorts,
        (&m.destination_ports, &m.not_destination_ports),
        |port| *port == subject.destination_port,
    )?;
    field(
        Field::Namespaces,
        (&m.namespaces, &m.not_namespaces),
        |pattern| subject.has_namespace(pattern),
    )?;
    field(
        Field::Principals,
        (&m.principals, &m.not_principals),
        |pattern| subject.has_principal(pattern),
    )?;
    field(
        Field::ServiceAccounts,
        (&m.service_accounts, &m.not_service_accounts),
        |account| subject.has_service_account(account),
    )?;
    field(
        Field::SourceIps,
        (&m.source_ips, &m.not_source_ips),
        |cidr| contains(cidr, subject.source_ip),
    )?;
    field(
        Field::DestinationIps,
        (&m.destination_ips, &m.not_destination_ips),
        |cidr| contains(cidr, subject.destination_ip),
    )?;
    // Last, because only a match that excludes nothing can be an empty one.
    if declares_nothing(m) {
        return Err(Unmet::Empty);
    }
    Ok(())
}

fn field<T>(
    name: Field,
    (positive, negative): (&[T], &[T]),
    holds: impl Fn(&T) -> bool,
) -> Result<(), Unmet> {
    if !positive.is_empty() && !positive.iter().any(&holds) {
        return Err(Unmet::Outside(name));
    }
    if negative.iter().any(&holds) {
        return Err(Unmet::Excluded(name));
    }
    Ok(())
}

const fn declares_nothing(m: &PolicyMatch) -> bool {
    m.namespaces.is_empty()
        && m.not_namespaces.is_empty()
        && m.service_accounts.is_empty()
        && m.not_service_accounts.is_empty()
        && m.principals.is_empty()
        && m.not_principals.is_empty()
        && m.source_ips.is_empty()
        && m.not_source_ips.is_empty()
        && m.destination_ips.is_empty()
        && m.not_destination_ips.is_empty()
        && m.destination_ports.is_empty()
        && m.not_destination_ports.is_empty()
}

/// Byte-wise, because pattern and value need not share character boundaries.
pub(in crate::decision) fn string_matches(pattern: &StringMatch, value: &[u8]) -> bool {
    match pattern {
        StringMatch::Exact(text) => text.as_bytes() == value,
        StringMatch::Prefix(text) => value.starts_with(text.as_bytes()),
        StringMatch::Suffix(text) => value.ends_with(text.as_bytes()),
        StringMatch::Presence => !value.is_empty(),
    }
}

/// Host bits of the range are irrelevant; families never mix.
fn contains(cidr: &IpNet, ip: IpAddr) -> bool {
    cidr.contains(&ip)
}
