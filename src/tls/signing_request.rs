//! Requests for workload certificates (PKCS#10, spec ca.md 2.3), each with a new key.

use std::fmt;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
};

use super::credentials::Pem;
use super::der::{OID_SUBJECT_ALT_NAME, TAG_SEQUENCE, TAG_URI, der};
use crate::model::identity::Identity;

/// A request and the key it is signed with. The key exists nowhere else.
pub struct SigningRequest {
    /// PEM, to be sent.
    pub pem: String,
    /// PKCS#8.
    pub key: Pem,
}

impl fmt::Debug for SigningRequest {
    // Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest").finish_non_exhaustive()
    }
}

/// A request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SigningRequestError {
    /// Certificates carry identities in ASCII.
    #[error("{0} cannot be written into a certificate: it holds other characters than ASCII")]
    Identity(Identity),
    /// The certificate library refused.
    #[error("cannot make a certificate request: {0}")]
    Library(#[from] rcgen::Error),
}

/// Asks for a certificate that carries `identity`, and nothing else: no subject, one critical URI name.
///
/// # Errors
/// [`SigningRequestError`].
pub fn new(identity: &Identity) -> Result<SigningRequest, SigningRequestError> {
    let uri = identity.to_string();
    if !uri.is_ascii() {
        return Err(SigningRequestError::Identity(identity.clone()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let names = der(TAG_SEQUENCE, &der(TAG_URI, uri.as_bytes()));
    let mut names = CustomExtension::from_oid_content(&OID_SUBJECT_ALT_NAME, names);
    // The subject is empty, so the names must be critical (RFC 5280, 4.2.1.6).
    names.set_criticality(true);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions.push(names);
    let pem = params.serialize_request(&key)?.pem()?;
    let key = Pem {
        origin: "the key of the request".to_owned(),
        bytes: key.serialize_pem().into_bytes(),
    };
    Ok(SigningRequest { pem, key })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer as _;

    use super::*;

    #[test]
    fn a_request_carries_one_critical_uri_and_proves_its_key() {
        let identity: Identity = "spiffe://td/ns/ns1/sa/sa1".parse().unwrap();
        let request = new(&identity).unwrap();
        assert!(
            request
                .pem
                .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        );
        let (_, pem) = x509_parser::pem::parse_x509_pem(request.pem.as_bytes()).unwrap();
        let (rest, csr) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        assert!(rest.is_empty());
        let info = &csr.certification_request_info;
        assert_eq!(info.subject.iter().count(), 0, "no subject");
        let public = &info.subject_pki.subject_public_key.data;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public);
        key.verify(info.raw, &csr.signature_value.data).unwrap();
        assert_eq!(info.attributes().len(), 1, "extensionRequest alone");
        let extensions: Vec<_> = csr.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(names)] = extensions.as_slice() else {
            panic!("{extensions:?}");
        };
        assert_eq!(
            names.general_names,
            [GeneralName::URI("spiffe://td/ns/ns1/sa/sa1")]
        );
        // Critical: BOOLEAN true follows the object identifier.
        let oid_and_true = [0x55, 0x1d, 0x11, 0x01, 0x01, 0xff];
        let found = pem.contents.windows(6).any(|bytes| bytes == oid_and_true);
        assert!(found, "critical");
    }

    #[test]
    fn each_request_has_a_key_of_its_own() {
        let identity = Identity::new("td", "ns", "sa");
        let (one, other) = (new(&identity).unwrap(), new(&identity).unwrap());
        assert_ne!(one.key.bytes, other.key.bytes);
        assert!(!format!("{one:?}").contains("BEGIN"));
    }

    #[test]
    fn an_identity_no_certificate_can_carry_is_refused() {
        let identity = Identity::new("td", "ns", "s\u{e4}");
        let error = new(&identity).unwrap_err().to_string();
        assert!(error.contains("ASCII"), "{error}");
    }
}
