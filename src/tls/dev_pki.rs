//! A throw-away certificate authority for demos and tests, never for production.
//!
//! [`Authority`] issues workload certificates, and on request certificates broken in one chosen way
//! ([`Leaf`]), so that every refusal can be tried against a real peer. Keys are ECDSA P-256.
//!
//! ```
//! use std::time::SystemTime;
//! use corelane::model::identity::Identity;
//! use corelane::tls::{TlsOptions, dev_pki::Authority};
//!
//! let now = SystemTime::now();
//! let authority = Authority::new("example", now)?;
//! let client = Identity::new("cluster.local", "default", "client");
//! let credentials = authority.credentials(&client, TlsOptions::default(), now)?;
//! assert_eq!(**credentials.identity(), client);
//! # Ok::<(), corelane::tls::dev_pki::PkiError>(())
//! ```

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams, SerialNumber,
    SignatureAlgorithm,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::credentials::{Credentials, CredentialsError};
use super::der::{OID_SUBJECT_ALT_NAME, TAG_SEQUENCE, TAG_URI, der};
use super::{TlsOptions, pem};
use crate::model::identity::Identity;

pub mod folder;
mod leaf;

pub use leaf::{Issued, Leaf, Usage};

/// Certificates are valid from so long before they are made, for clocks that run behind.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Life of a certificate unless chosen otherwise.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

const OID_NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Not a certificate, or no request for one.
    #[error("not a readable certificate or certificate request")]
    Request,
    /// The result is not usable as credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// A certificate authority whose key lives in memory.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: Certificate,
    /// PEM of the intermediates from this one up, without the root.
    intermediates: String,
    root: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A root called `name`, valid for 30 days.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn new(name: &str, now: SystemTime) -> Result<Self, PkiError> {
        Self::with_lifetime(name, now, LIFETIME)
    }

    /// A root called `name`, valid until `now + lifetime`.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn with_lifetime(
        name: &str,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = authority_params(name, &key, now, lifetime);
        let certificate = params.self_signed(&key)?;
        let root = certificate.pem();
        Ok(Self {
            params,
            key,
            certificate,
            intermediates: String::new(),
            root,
        })
    }

    /// An authority below this one.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn intermediate(&self, name: &str, now: SystemTime) -> Result<Self, PkiError> {
        self.subordinate(name, now, None)
    }

    /// An authority below this one that may only issue URI names under `uri_host`. No TLS library
    /// of ours can check that, so everything below is refused.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn intermediate_for_uris(
        &self,
        name: &str,
        uri_host: &str,
        now: SystemTime,
    ) -> Result<Self, PkiError> {
        let subtree = der(TAG_SEQUENCE, &der(TAG_URI, uri_host.as_bytes()));
        let permitted = der(TAG_SEQUENCE, &der(0xa0, &subtree));
        self.subordinate(name, now, Some(permitted))
    }

    fn subordinate(
        &self,
        name: &str,
        now: SystemTime,
        name_constraints: Option<Vec<u8>>,
    ) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority_params(name, &key, now, LIFETIME);
        params.use_authority_key_identifier_extension = true;
        if let Some(content) = name_constraints {
            let mut extension = CustomExtension::from_oid_content(&OID_NAME_CONSTRAINTS, content);
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
        let certificate = params.signed_by(&key, &self.issuer())?;
        let intermediates = certificate.pem() + &self.intermediates;
        Ok(Self {
            params,
            key,
            certificate,
            intermediates,
            root: self.root.clone(),
        })
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// PEM of this authority's own certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// PEM of the root above (or equal to) this authority.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root
    }

    /// PEM of the authorities between this one's leaves and the root, nearest first; may be empty.
    #[must_use]
    pub fn intermediates_pem(&self) -> &str {
        &self.intermediates
    }

    /// PEM of this authority's private key.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Issues a certificate for a new key.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn issue(&self, leaf: &Leaf) -> Result<Issued, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign(leaf, &key)?;
        Ok(Issued {
            leaf: certificate.pem(),
            intermediates: self.intermediates.clone(),
            key: key.serialize_pem(),
            roots: self.root.clone(),
        })
    }

    /// Issues a certificate for a key that stays with its owner.
    fn sign(&self, leaf: &Leaf, key: &impl PublicKeyData) -> Result<Certificate, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = leaf.usages.iter().map(Usage::purpose).collect();
        if let Some(names) = &leaf.names {
            let mut extension =
                CustomExtension::from_oid_content(&OID_SUBJECT_ALT_NAME, names.clone());
            // The subject is empty, so the names must be critical (RFC 5280, 4.2.1.6).
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        }
        Ok(params.signed_by(key, &self.issuer())?)
    }

    /// Issues a certificate for the key of a certificate request (PEM), as an authority does that is
    /// asked over the network. It says what `leaf` says. PEM, without what is above it.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn sign_request(&self, request: &str, leaf: &Leaf) -> Result<String, PkiError> {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(request.as_bytes()).map_err(|_| PkiError::Request)?;
        let (_, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|_| PkiError::Request)?;
        let key = &request.certification_request_info.subject_pki;
        let key = RequestedKey(key.subject_public_key.data.to_vec());
        Ok(self.sign(leaf, &key)?.pem())
    }

    /// PEM of a list that revokes these certificates (PEM) of this authority.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn revoke(&self, certificates: &[&str], now: SystemTime) -> Result<String, PkiError> {
        let mut revoked_certs = Vec::with_capacity(certificates.len());
        for pem in certificates {
            let der = pem::decode_certificate(pem.as_bytes()).ok_or(PkiError::Request)?;
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| PkiError::Request)?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(parsed.raw_serial()),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + LIFETIME).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer())?.pem()?)
    }

    /// Sound credentials for `identity`.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn credentials(
        &self,
        identity: &Identity,
        options: TlsOptions,
        now: SystemTime,
    ) -> Result<Credentials, PkiError> {
        let material = self.issue(&Leaf::new(identity, now))?.material();
        Ok(Credentials::load(identity, &material, options, now)?)
    }
}

/// A public key on P-256, as an uncompressed point.
struct RequestedKey(Vec<u8>);

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn authority_params(
    name: &str,
    key: &KeyPair,
    now: SystemTime,
    lifetime: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two authorities of one name would make a wrong root look like a forged signature.
    let id = params.key_identifier(key);
    let suffix: String = id
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name} {suffix}"));
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
