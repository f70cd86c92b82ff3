//! Environment variables of the reference that belong to parts this version does not have.
//!
//! None is ignored in silence. One that asks for protection or for another source of state is
//! refused: running without it would not be what the operator ordered. The others get a warning.

/// What happens when such a variable is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A boolean; refused when `true`, fine when `false`.
    RefuseTrue,
    /// A warning unless empty.
    #[expect(dead_code, reason = "no variable that only deserves a warning is left")]
    Warn,
}

/// A variable, or a family of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable {
    /// Name, or beginning of the names of a family (then it ends in `_`).
    pub(super) name: &'static str,
    /// What happens.
    pub(super) rule: Rule,
    /// For a refusal the missing part, for a warning why it has no effect.
    pub(super) what: &'static str,
    /// For a refusal: what to do.
    pub(super) instead: &'static str,
}

/// Why what concerns a control plane has no effect without one.
pub(super) const NO_CONTROL_PLANE: &str = "this node does not talk to a control plane";
/// Why what concerns an authority has no effect without one.
pub(super) const NO_CA: &str = "this node does not talk to a certificate authority";
/// Why what concerns a node agent has no effect without one.
pub(super) const NO_SHARED: &str = "only a shared node talks to a node agent";
/// Why what tells the workloads of a host apart has no effect elsewhere.
pub(super) const NO_NODE: &str = "only a node in mode `node` tells local workloads apart";
/// Why the account of the own pod has no effect elsewhere.
pub(super) const NO_OWN_WORKLOAD: &str = "a dedicated node takes it from PROXY_WORKLOAD_INFO";

/// All of them. A family stands after the members that have a row of their own.
pub(super) const VARIABLES: &[Variable] = &[Variable {
    name: "FAKE_CA",
    rule: Rule::RefuseTrue,
    what: "a fake certificate authority",
    instead: "make a throw-away one with `corelane dev pki`",
}];

/// Node metadata this node reads itself; other entries only matter to a control plane.
pub(super) const METADATA_READ: [&str; 4] = [
    "CLUSTER_ID",
    "DNS_CAPTURE",
    "DNS_PROXY_ADDR",
    "ISTIO_VERSION",
];

/// Families in which a variable that means nothing is probably a typing mistake.
pub(super) const FAMILIES: [&str; 8] = [
    "ZTUNNEL_",
    "CORELANE_",
    "XDS_",
    "POOL_",
    "HTTP2_",
    "KEEPALIVE_",
    "INPOD_",
    "LOCAL_XDS",
];

/// The row of a variable.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    let exact = VARIABLES.iter().find(|variable| variable.name == name);
    exact.or_else(|| {
        VARIABLES.iter().find(|variable| {
            variable.name.ends_with('_')
                && name
                    .strip_prefix(variable.name)
                    .is_some_and(|rest| !rest.is_empty())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_by_their_whole_name() {
        assert_eq!(find("FAKE_CA").map(|v| v.rule), Some(Rule::RefuseTrue));
        assert!(find("FAKE_CAS").is_none());
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for variable in VARIABLES {
            let refuses = matches!(variable.rule, Rule::RefuseTrue);
            assert_eq!(refuses, !variable.instead.is_empty(), "{}", variable.name);
        }
    }
}
