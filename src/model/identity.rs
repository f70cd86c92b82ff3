//! SPIFFE identities of the mesh form `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Identity proven by a verified certificate chain, or assigned to a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Trust domain, compared exactly.
    pub trust_domain: Arc<str>,
    /// Kubernetes-style namespace.
    pub namespace: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
}

/// The text is not an identity of the mesh form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid spiffe identity: {0}")]
pub struct IdentityTextError(pub String);

impl Identity {
    /// Builds an identity from its parts.
    pub fn new(
        trust_domain: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for Identity {
    type Err = IdentityTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || IdentityTextError(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(refuse)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or_else(refuse);
        let (trust_domain, ns, namespace, sa, service_account) =
            (next()?, next()?, next()?, next()?, next()?);
        if ns != "ns" || sa != "sa" || parts.next().is_some() {
            return Err(refuse());
        }
        Ok(Self::new(trust_domain, namespace, service_account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_survives_a_round_trip() {
        for text in [
            "spiffe://td.with.dots/ns/ns.with.dots/sa/sa.with.dots",
            "spiffe://td/ns//sa/",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "td/ns/ns/sa/sa",
            "spiffe://td/ns/ns/sa",
            "spiffe://td/ns/ns/sa/sa/",
            "spiffe://td/ns/ns/foobar/sa/",
            "spiffe://td/xx/ns/sa/sa",
            "",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
