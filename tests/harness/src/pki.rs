//! Certificates for tests, good ones and every kind of bad one, made without the code under test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// A root that signs leaves.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// What to put into a leaf.
#[derive(Clone, Debug)]
pub struct Leaf {
    uris: Vec<String>,
    validity: Validity,
}

/// When a leaf is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From an hour ago, for a day.
    Now,
    /// Ended a minute ago.
    Expired,
    /// Begins in an hour.
    Future,
}

/// A signed leaf with its key.
#[derive(Debug)]
pub struct Issued {
    /// Certificate.
    pub der: CertificateDer<'static>,
    /// Certificate as PEM.
    pub pem: String,
    /// PKCS #8 key as PEM.
    pub key_pem: String,
    key_der: Vec<u8>,
}

impl Authority {
    /// Makes a new root.
    ///
    /// # Panics
    /// If the crypto library fails.
    #[must_use]
    pub fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("root");
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self {
            issuer: Issuer::new(params, key),
            der,
            pem,
        }
    }

    /// Signs a leaf.
    ///
    /// # Panics
    /// If a name is not ASCII.
    #[must_use]
    pub fn issue(&self, leaf: &Leaf) -> Issued {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        let (from, until) = match leaf.validity {
            Validity::Now => (now - Duration::HOUR, now + Duration::DAY),
            Validity::Expired => (now - Duration::DAY, now - Duration::MINUTE),
            Validity::Future => (now + Duration::HOUR, now + Duration::DAY),
        };
        params.not_before = from;
        params.not_after = until;
        params.subject_alt_names = leaf
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().expect("an ASCII name")))
            .collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("leaf");
        Issued {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }

    /// The root.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The root as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl Leaf {
    /// A leaf with one URI name, valid now.
    #[must_use]
    pub fn named(uri: &str) -> Self {
        Self {
            uris: vec![uri.to_owned()],
            validity: Validity::Now,
        }
    }

    /// A leaf for `spiffe://cluster.local/ns/default/sa/ACCOUNT`.
    #[must_use]
    pub fn for_account(account: &str) -> Self {
        Self::named(&spiffe("cluster.local", account))
    }

    /// The same leaf with other URI names, maybe none.
    #[must_use]
    pub fn with_uris(mut self, uris: &[&str]) -> Self {
        self.uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        self
    }

    /// The same leaf with another validity.
    #[must_use]
    pub const fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }
}

impl Issued {
    /// The key for TLS peers of a test.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()))
    }

    /// Writes certificate, key and roots where a node with `CORELANE_IDENTITY_DIR=dir` looks for the
    /// account of namespace `default`. Files are replaced atomically, the key last.
    ///
    /// # Panics
    /// If the file system refuses.
    pub fn install(&self, dir: &Path, account: &str, roots_pem: &str) {
        let dir = dir.join("ns/default/sa").join(account);
        fs::create_dir_all(&dir).expect("identity directory");
        write_private(&dir, "ca.crt", roots_pem);
        write_private(&dir, "tls.crt", &self.pem);
        write_private(&dir, "tls.key", &self.key_pem);
    }
}

/// SPIFFE ID of an account of namespace `default`.
#[must_use]
pub fn spiffe(trust_domain: &str, account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/default/sa/{account}")
}

fn write_private(dir: &Path, name: &str, content: &str) {
    let aside = dir.join(format!(".{name}.new"));
    fs::write(&aside, content).expect("write");
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).expect("permissions");
    fs::rename(&aside, dir.join(name)).expect("rename");
}
