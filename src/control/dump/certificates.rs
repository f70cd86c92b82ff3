//! The `certificates` member of the dump (spec admin.md 3.5).

use serde::Serialize;

use crate::control::certs::rfc3339;
use crate::model::identity::Identity;
use crate::tls::certificate::Certificate;
use crate::tls::credentials::{CredentialState, CredentialStore};
use crate::tls::pem;

/// One identity's certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityDump {
    /// SPIFFE URI.
    pub identity: String,
    /// `Initializing`, `Available` or `Unavailable: ERROR`.
    pub state: String,
    /// Leaf first; empty unless available.
    pub cert_chain: Vec<CertificateDump>,
    /// Empty unless available.
    pub root_certs: Vec<CertificateDump>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateDump {
    /// Base64 of the PEM text.
    pub pem: String,
    /// Decimal.
    pub serial_number: String,
    /// RFC 3339, UTC, seconds.
    pub valid_from: String,
    /// RFC 3339, UTC, seconds.
    pub expiration_time: String,
}

/// All identities, sorted by their URI.
#[must_use]
pub fn certificates(store: &CredentialStore) -> Vec<IdentityDump> {
    let mut dumps: Vec<_> = store
        .entries()
        .map(|(identity, state)| dump(identity, state))
        .collect();
    dumps.sort_by(|one, other| one.identity.cmp(&other.identity));
    dumps
}

fn dump(identity: &Identity, state: &CredentialState) -> IdentityDump {
    let (state, cert_chain, root_certs) = match state {
        CredentialState::Initializing => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        CredentialState::Unavailable(error) => {
            (format!("Unavailable: {error}"), Vec::new(), Vec::new())
        }
        CredentialState::Available(credentials) => (
            "Available".to_owned(),
            credentials.chain().map(certificate).collect(),
            credentials.roots().map(certificate).collect(),
        ),
    };
    IdentityDump {
        identity: identity.to_string(),
        state,
        cert_chain,
        root_certs,
    }
}

fn certificate(der: &[u8]) -> CertificateDump {
    let pem = pem::base64(pem::encode("CERTIFICATE", der).as_bytes());
    // A root that cannot be read (it is skipped in handshakes) still shows its bytes.
    let read = Certificate::read(der).ok();
    let text = |value: fn(&Certificate<'_>) -> String| read.as_ref().map(value).unwrap_or_default();
    CertificateDump {
        pem,
        serial_number: text(|certificate| certificate.serial_decimal()),
        valid_from: text(|certificate| rfc3339(certificate.not_before())),
        expiration_time: text(|certificate| rfc3339(certificate.not_after())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::tls::TlsOptions;
    use crate::tls::credentials::Credentials;
    use crate::tls::dev_pki::{Authority, Leaf};

    fn identity(name: &str) -> Identity {
        Identity::new("cluster.local", "default", name)
    }

    #[test]
    fn every_state_has_its_words_and_identities_are_sorted() {
        let authority = Authority::new("root", SystemTime::now()).unwrap();
        let (options, now) = (TlsOptions::default(), SystemTime::now());
        let credentials = authority.credentials(&identity("b"), options, now).unwrap();
        let gone = "the identity is no longer needed".to_owned();
        let store = CredentialStore::new([
            (identity("c"), CredentialState::Initializing),
            (
                identity("b"),
                CredentialState::Available(Arc::new(credentials)),
            ),
            (identity("a"), CredentialState::Unavailable(gone)),
        ]);
        let dump = certificates(&store);
        let seen: Vec<_> = dump
            .iter()
            .map(|d| {
                (
                    d.identity.as_str(),
                    d.state.as_str(),
                    d.cert_chain.len(),
                    d.root_certs.len(),
                )
            })
            .collect();
        let unavailable = "Unavailable: the identity is no longer needed";
        assert_eq!(
            seen,
            [
                ("spiffe://cluster.local/ns/default/sa/a", unavailable, 0, 0),
                ("spiffe://cluster.local/ns/default/sa/b", "Available", 1, 1),
                (
                    "spiffe://cluster.local/ns/default/sa/c",
                    "Initializing",
                    0,
                    0
                ),
            ]
        );
        let json = serde_json::to_value(&dump[1]).unwrap();
        assert!(json["certChain"][0]["serialNumber"].is_string());
        assert!(json["rootCerts"][0]["expirationTime"].is_string());
    }

    #[test]
    fn a_certificate_is_shown_as_the_tools_expect_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let authority = Authority::new("root", now).unwrap();
        let below = authority.intermediate("below", now).unwrap();
        let leaf = Leaf::new(&identity("a"), now).valid(now, now + Duration::from_secs(60));
        let issued = below.issue(&leaf).unwrap();
        let loaded = Credentials::load(
            &identity("a"),
            &issued.material(),
            TlsOptions::default(),
            now,
        );
        let state = CredentialState::Available(Arc::new(loaded.unwrap()));
        let dump = dump(&identity("a"), &state);
        assert_eq!(dump.cert_chain.len(), 2);
        let leaf = &dump.cert_chain[0];
        assert_eq!(leaf.valid_from, "2030-03-17T17:46:40Z");
        assert_eq!(leaf.expiration_time, "2030-03-17T17:47:40Z");
        assert!(leaf.serial_number.bytes().all(|byte| byte.is_ascii_digit()));
        let der = pem::decode_certificate(issued.leaf.as_bytes()).unwrap();
        let text = pem::encode("CERTIFICATE", &der);
        assert_eq!(leaf.pem, pem::base64(text.as_bytes()));
        assert_eq!(dump.root_certs[0].expiration_time, "2030-04-16T17:46:40Z");
    }
}
