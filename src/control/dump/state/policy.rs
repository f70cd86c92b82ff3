//! Policies as JSON (spec: admin.md 3.4).

use serde::{Serialize, Serializer};

use super::{texts, views};
use crate::control::spelling::Spelled;
use crate::model::policy::{Policy, PolicyMatch, ServiceAccountMatch, StringMatch};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyView<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: &'static str,
    action: &'static str,
    rules: Vec<Vec<Vec<MatchView<'a>>>>,
    dry_run: bool,
}

impl<'a> From<&'a Policy> for PolicyView<'a> {
    fn from(policy: &'a Policy) -> Self {
        let rules = policy.rules.iter();
        Self {
            name: &policy.name,
            namespace: &policy.namespace,
            scope: policy.scope.word(),
            action: policy.action.word(),
            rules: rules
                .map(|rule| rule.iter().map(|clause| views(clause)).collect())
                .collect(),
            dry_run: policy.dry_run,
        }
    }
}

/// `{"Exact": text}`, `{"Prefix": text}`, `{"Suffix": text}` or `{"Presence": []}`.
struct StringMatchView<'a>(&'a StringMatch);

impl<'a> From<&'a StringMatch> for StringMatchView<'a> {
    fn from(matcher: &'a StringMatch) -> Self {
        Self(matcher)
    }
}

impl Serialize for StringMatchView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            StringMatch::Exact(text) => serializer.collect_map([("Exact", &**text)]),
            StringMatch::Prefix(text) => serializer.collect_map([("Prefix", &**text)]),
            StringMatch::Suffix(text) => serializer.collect_map([("Suffix", &**text)]),
            StringMatch::Presence => serializer.collect_map([("Presence", [(); 0])]),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceAccountView<'a> {
    namespace: &'a str,
    service_account: &'a str,
}

impl<'a> From<&'a ServiceAccountMatch> for ServiceAccountView<'a> {
    fn from(account: &'a ServiceAccountMatch) -> Self {
        Self {
            namespace: &account.namespace,
            service_account: &account.service_account,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchView<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<StringMatchView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_namespaces: Vec<StringMatchView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<ServiceAccountView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_service_accounts: Vec<ServiceAccountView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    principals: Vec<StringMatchView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_principals: Vec<StringMatchView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    destination_ports: &'a [u16],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_destination_ports: &'a [u16],
}

impl<'a> From<&'a PolicyMatch> for MatchView<'a> {
    fn from(conditions: &'a PolicyMatch) -> Self {
        Self {
            namespaces: views(&conditions.namespaces),
            not_namespaces: views(&conditions.not_namespaces),
            service_accounts: views(&conditions.service_accounts),
            not_service_accounts: views(&conditions.not_service_accounts),
            principals: views(&conditions.principals),
            not_principals: views(&conditions.not_principals),
            source_ips: texts(&conditions.source_ips),
            not_source_ips: texts(&conditions.not_source_ips),
            destination_ips: texts(&conditions.destination_ips),
            not_destination_ips: texts(&conditions.not_destination_ips),
            destination_ports: &conditions.destination_ports,
            not_destination_ports: &conditions.not_destination_ports,
        }
    }
}
