//! Authorization message → model. An element that cannot be read refuses the policy.

use ipnet::IpNet;

use super::Rejected;
use super::scalar::{known, policy_port, range};
use crate::model::policy::{
    Policy, PolicyAction, PolicyClause, PolicyMatch, PolicyRule, PolicyScope, ServiceAccountMatch,
    StringMatch,
};
use crate::proto::security as raw;

pub(super) fn policy(message: raw::Authorization) -> Result<Policy, Rejected> {
    let rules: Result<Vec<PolicyRule>, _> = message.rules.into_iter().map(rule).collect();
    Ok(Policy {
        name: message.name.into(),
        namespace: message.namespace.into(),
        scope: match known("scope", message.scope)? {
            raw::Scope::Global => PolicyScope::Global,
            raw::Scope::Namespace => PolicyScope::Namespace,
            raw::Scope::WorkloadSelector => PolicyScope::WorkloadSelector,
        },
        action: match known("action", message.action)? {
            raw::Action::Allow => PolicyAction::Allow,
            raw::Action::Deny => PolicyAction::Deny,
        },
        rules: rules?,
        dry_run: message.dry_run,
    })
}

fn rule(message: raw::Rule) -> Result<PolicyRule, Rejected> {
    message.clauses.into_iter().map(clause).collect()
}

fn clause(message: raw::Clause) -> Result<PolicyClause, Rejected> {
    message.matches.into_iter().map(one_match).collect()
}

fn one_match(message: raw::Match) -> Result<PolicyMatch, Rejected> {
    Ok(PolicyMatch {
        namespaces: strings("namespaces", message.namespaces)?,
        not_namespaces: strings("not_namespaces", message.not_namespaces)?,
        service_accounts: accounts(message.service_accounts),
        not_service_accounts: accounts(message.not_service_accounts),
        principals: strings("principals", message.principals)?,
        not_principals: strings("not_principals", message.not_principals)?,
        source_ips: ranges("source_ips", &message.source_ips)?,
        not_source_ips: ranges("not_source_ips", &message.not_source_ips)?,
        destination_ips: ranges("destination_ips", &message.destination_ips)?,
        not_destination_ips: ranges("not_destination_ips", &message.not_destination_ips)?,
        destination_ports: ports("destination_ports", &message.destination_ports)?,
        not_destination_ports: ports("not_destination_ports", &message.not_destination_ports)?,
    })
}

fn strings(field: &'static str, list: Vec<raw::StringMatch>) -> Result<Vec<StringMatch>, Rejected> {
    let convert = |message: raw::StringMatch| {
        let set = message.match_type.ok_or(Rejected::EmptyMatch { field })?;
        Ok(match set {
            raw::string_match::MatchType::Exact(text) => StringMatch::Exact(text.into()),
            raw::string_match::MatchType::Prefix(text) => StringMatch::Prefix(text.into()),
            raw::string_match::MatchType::Suffix(text) => StringMatch::Suffix(text.into()),
            raw::string_match::MatchType::Presence(()) => StringMatch::Presence,
        })
    };
    list.into_iter().map(convert).collect()
}

fn accounts(list: Vec<raw::ServiceAccountMatch>) -> Vec<ServiceAccountMatch> {
    let convert = |message: raw::ServiceAccountMatch| ServiceAccountMatch {
        namespace: message.namespace.into(),
        service_account: message.service_account.into(),
    };
    list.into_iter().map(convert).collect()
}

fn ranges(field: &'static str, list: &[raw::Address]) -> Result<Vec<IpNet>, Rejected> {
    let addresses = list.iter();
    addresses
        .map(|a| range(field, &a.address, a.length))
        .collect()
}

fn ports(field: &'static str, list: &[u32]) -> Result<Vec<u16>, Rejected> {
    list.iter().map(|port| policy_port(field, *port)).collect()
}
