//! Environment variables of the reference that belong to parts this version does not have.
//!
//! None is ignored in silence. One that asks for protection or for another source of state is
//! refused: running without it would not be what the operator ordered. The others get a warning.

/// What happens when such a variable is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Refused unless empty.
    RefuseValue,
    /// A boolean; refused when `true`, fine when `false`.
    RefuseTrue,
    /// A boolean; a warning when `true`, fine when `false`.
    WarnTrue,
    /// A warning unless empty.
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

const NO_CONTROL_PLANE: &str = "this node does not talk to a control plane";
const NO_CA: &str = "certificates come from CORELANE_IDENTITY_DIR";
const NO_SHARED: &str = "only a shared node talks to a node agent";

const fn refuse(name: &'static str, what: &'static str, instead: &'static str) -> Variable {
    Variable {
        name,
        rule: Rule::RefuseValue,
        what,
        instead,
    }
}

const fn warn(name: &'static str, what: &'static str) -> Variable {
    Variable {
        name,
        rule: Rule::Warn,
        what,
        instead: "",
    }
}

/// All of them. A family stands after the members that have a row of their own.
pub(super) const VARIABLES: &[Variable] = &[
    refuse(
        "XDS_ADDRESS",
        "a control plane",
        "leave it empty and give LOCAL_XDS_PATH",
    ),
    refuse(
        "CA_ADDRESS",
        "a certificate authority client",
        "unset it and give CORELANE_IDENTITY_DIR",
    ),
    refuse(
        "CRL_PATH",
        "checking of revocation lists",
        "unset it to accept that revoked certificates are taken",
    ),
    Variable {
        name: "FAKE_CA",
        rule: Rule::RefuseTrue,
        what: "a fake certificate authority",
        instead: "make a throw-away one with `corelane dev pki`",
    },
    Variable {
        name: "XDS_ON_DEMAND",
        rule: Rule::WarnTrue,
        what: NO_CONTROL_PLANE,
        instead: "",
    },
    warn("XDS_ROOT_CA", NO_CONTROL_PLANE),
    warn("ALT_XDS_HOSTNAME", NO_CONTROL_PLANE),
    warn("XDS_HEADER_", NO_CONTROL_PLANE),
    warn("AUTH_TOKEN", NO_CONTROL_PLANE),
    warn("INSTANCE_IP", NO_CONTROL_PLANE),
    warn("INSTANCE_IPS", NO_CONTROL_PLANE),
    warn("POD_NAME", NO_CONTROL_PLANE),
    warn("POD_NAMESPACE", NO_CONTROL_PLANE),
    warn(
        "SERVICE_ACCOUNT",
        "a dedicated node takes it from PROXY_WORKLOAD_INFO",
    ),
    warn("KUBERNETES_SERVICE_HOST", NO_CONTROL_PLANE),
    warn("ISTIO_METAJSON_", NO_CONTROL_PLANE),
    warn("CA_ROOT_CA", NO_CA),
    warn("ALT_CA_HOSTNAME", NO_CA),
    warn("CA_HEADER_", NO_CA),
    warn("SECRET_TTL", NO_CA),
    warn("INPOD_UDS", NO_SHARED),
    warn("INPOD_PORT_REUSE", NO_SHARED),
];

/// Node metadata this version reads; other entries only matter to a control plane.
pub(super) const METADATA_READ: [&str; 2] = ["CLUSTER_ID", "ISTIO_VERSION"];

/// Why other metadata has no effect.
pub(super) const METADATA_UNREAD: &str = NO_CONTROL_PLANE;

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
    fn families_match_by_their_beginning_and_others_exactly() {
        assert_eq!(find("XDS_HEADER_FOO").map(|v| v.name), Some("XDS_HEADER_"));
        assert_eq!(find("CRL_PATH").map(|v| v.rule), Some(Rule::RefuseValue));
        assert!(find("CRL_PATHS").is_none());
        assert!(find("XDS_HEADER_").is_some_and(|v| v.name == "XDS_HEADER_"));
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for variable in VARIABLES {
            let refuses = matches!(variable.rule, Rule::RefuseValue | Rule::RefuseTrue);
            assert_eq!(refuses, !variable.instead.is_empty(), "{}", variable.name);
        }
    }
}
