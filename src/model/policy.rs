//! Authorization policies as data. How they are matched: `decision::authorize`.

use std::sync::Arc;

use ipnet::IpNet;

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyScope {
    /// All.
    Global,
    /// Those of the policy's namespace.
    Namespace,
    /// Those that list it.
    WorkloadSelector,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    /// Permit.
    Allow,
    /// Refuse.
    Deny,
}

/// Byte-wise, case-sensitive string predicate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Starts with.
    Prefix(Arc<str>),
    /// Ends with.
    Suffix(Arc<str>),
    /// Not empty.
    Presence,
}

/// Namespace and name of a service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccountMatch {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub service_account: Arc<str>,
}

/// Conditions of which all declared ones must hold; an all-empty match never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyMatch {
    /// Source namespace is one of these.
    pub namespaces: Vec<StringMatch>,
    /// Source namespace is none of these.
    pub not_namespaces: Vec<StringMatch>,
    /// Source service account is one of these.
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// Source service account is none of these.
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// Source principal (`TD/ns/NS/sa/SA`) is one of these.
    pub principals: Vec<StringMatch>,
    /// Source principal is none of these.
    pub not_principals: Vec<StringMatch>,
    /// Source address is in one of these.
    pub source_ips: Vec<IpNet>,
    /// Source address is in none of these.
    pub not_source_ips: Vec<IpNet>,
    /// Destination address is in one of these.
    pub destination_ips: Vec<IpNet>,
    /// Destination address is in none of these.
    pub not_destination_ips: Vec<IpNet>,
    /// Destination port is one of these.
    pub destination_ports: Vec<u16>,
    /// Destination port is none of these.
    pub not_destination_ports: Vec<u16>,
}

/// Matches of which one must hold.
pub type PolicyClause = Vec<PolicyMatch>;
/// Clauses which must all hold.
pub type PolicyRule = Vec<PolicyClause>;

/// One authorization policy; key `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Whom it protects.
    pub scope: PolicyScope,
    /// What a match means.
    pub action: PolicyAction,
    /// Rules of which one must hold.
    pub rules: Vec<PolicyRule>,
    /// Logged and counted, never enforced.
    pub dry_run: bool,
}

impl Policy {
    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}
