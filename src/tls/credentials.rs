//! Key, chain and trust bundle of one identity as one immutable value.
//!
//! Everything that can be wrong with the material is found here, when it is loaded, and named
//! together with its file; a handshake then only uses what was checked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, Error, InconsistentKeys, ServerConfig};

use super::certificate::Certificate;
use super::error::TlsError;
use super::provider;
use super::revocation::{Revocable, RevocationList};
use super::verify::{ClientVerifier, ServerVerifier, TrustRoots};
use super::{Peer, TlsOptions};
use crate::model::identity::Identity;

pub mod layout;
mod material;
mod store;
#[cfg(test)]
mod tests;

pub use material::{CredentialsError, Material, Pem};
pub use store::{CredentialState, CredentialStore, IdentityError};

/// Where a point in time lies in a certificate's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Before `not_before`.
    NotYet,
    /// Usable.
    Current,
    /// After `not_after`.
    Expired,
}

/// Key, chain and roots of one identity, with both TLS configurations built from them.
pub struct Credentials {
    identity: Arc<Identity>,
    not_before: SystemTime,
    not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
    root_certificates: Vec<CertificateDer<'static>>,
    roots: Arc<TrustRoots>,
    server: Arc<ServerConfig>,
    client: ClientConfig,
    warnings: Vec<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Checks `material` and makes it usable for `wanted`. A leaf out of its validity is loaded with
    /// a warning: the peers refuse it, and the caller may hold something better.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn load(
        wanted: &Identity,
        material: &Material,
        options: TlsOptions,
        now: SystemTime,
    ) -> Result<Self, CredentialsError> {
        let (facts, chain) = read_chain(wanted, &material.chain)?;
        let provider = provider::provider(options);
        let key = read_key(material, &chain, &provider)?;
        let mut loaded = Self::assemble(facts, key, &material.roots, options, provider)?;
        loaded
            .warnings
            .extend(own_chain_warning(material, &loaded, now));
        Ok(loaded)
    }

    /// Presents whatever `material` holds as `claimed`, with none of the checks of [`Self::load`] on
    /// our own leaf. Peers are verified as always.
    pub(super) fn load_unchecked(
        claimed: &Identity,
        material: &Material,
        options: TlsOptions,
    ) -> Result<Self, CredentialsError> {
        let chain = read_certificates(&material.chain)?;
        let provider = provider::provider(options);
        let key = CertifiedKey::new(chain, load_key(&material.key, &provider)?);
        let facts = LeafFacts {
            identity: claimed.clone(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
        };
        Self::assemble(facts, key, &material.roots, options, provider)
    }

    fn assemble(
        facts: LeafFacts,
        key: CertifiedKey,
        roots: &Pem,
        options: TlsOptions,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CredentialsError> {
        let root_certificates = read_certificates(roots)?;
        let algorithms = provider.signature_verification_algorithms;
        let (trust, unusable) = TrustRoots::new(&root_certificates, algorithms);
        let origin = &roots.origin;
        let mut warnings: Vec<String> = unusable
            .into_iter()
            .map(|(n, why)| format!("{origin}: root {} is skipped: {why}", n + 1))
            .collect();
        if trust.is_empty() {
            let reason = warnings.pop().unwrap_or_default();
            let origin = origin.clone();
            return Err(CredentialsError::Roots { origin, reason });
        }
        let trust = Arc::new(trust);
        let chain = key.cert.clone();
        let key = Arc::new(key);
        let identity = Arc::new(facts.identity);
        let verifier = ClientVerifier::new(Arc::clone(&trust), Arc::clone(&identity.trust_domain));
        let failed = |error: Error| CredentialsError::Tls(error.to_string());
        let server =
            provider::server_config(options, Arc::clone(&provider), Arc::clone(&key), verifier)
                .map_err(failed)?;
        let client =
            provider::client_config(options, provider, key, Arc::clone(&trust)).map_err(failed)?;
        Ok(Self {
            identity,
            not_before: facts.not_before,
            not_after: facts.not_after,
            chain,
            root_certificates,
            roots: trust,
            server: Arc::new(server),
            client,
            warnings,
        })
    }

    /// Our own identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Start of our own leaf's validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of our own leaf's validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whole life of our own leaf.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }

    /// Seconds until our own leaf expires; negative afterwards.
    #[must_use]
    pub fn seconds_left(&self, now: SystemTime) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => seconds(left),
            Err(ago) => -seconds(ago.duration()),
        }
    }

    /// Where `now` lies in our own leaf's life.
    #[must_use]
    pub fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            Validity::NotYet
        } else if now > self.not_after {
            Validity::Expired
        } else {
            Validity::Current
        }
    }

    /// DER of what is presented to peers: leaf first, then intermediates.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(AsRef::as_ref)
    }

    /// DER of the roots that peers are checked against.
    pub fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.root_certificates.iter().map(AsRef::as_ref)
    }

    /// What an operator should know about this material, found when it was loaded.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// From now on peers are checked against `list`, too.
    pub fn enforce(&self, list: &RevocationList) {
        self.roots.enforce(list);
    }

    pub(super) fn checks_revocation(&self) -> bool {
        self.roots.revocations().is_some()
    }

    /// What tells later whether `peer`, which these credentials accepted, was revoked since. None if
    /// no lists are in force.
    #[must_use]
    pub fn revocable(&self, peer: &Peer) -> Option<Revocable> {
        let judged = peer.judged.as_ref()?;
        let (roots, chain) = (Arc::clone(&self.roots), Arc::clone(&judged.chain));
        Some(Revocable::new(roots, chain, judged.at))
    }

    /// For servers that know us by it.
    pub(super) fn client_certificate(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.client.client_auth_cert_resolver)
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(super) fn client(&self, expected: &Arc<[Identity]>) -> Arc<ClientConfig> {
        let verifier = ServerVerifier::new(Arc::clone(&self.roots), Arc::clone(expected));
        Arc::new(provider::with_expected(&self.client, verifier))
    }
}

struct LeafFacts {
    identity: Identity,
    not_before: SystemTime,
    not_after: SystemTime,
}

pub(super) fn read_certificates(
    pem: &Pem,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&pem.bytes).collect();
    let found = found.map_err(|error| CredentialsError::Pem {
        origin: pem.origin.clone(),
        reason: error.to_string(),
    })?;
    if found.is_empty() {
        return Err(CredentialsError::Missing {
            origin: pem.origin.clone(),
            wanted: "certificate (a PEM block CERTIFICATE)",
        });
    }
    Ok(found)
}

/// Reads and checks the chain; a self-issued certificate at its end is the root and left out.
fn read_chain(
    wanted: &Identity,
    pem: &Pem,
) -> Result<(LeafFacts, Vec<CertificateDer<'static>>), CredentialsError> {
    let mut chain = read_certificates(pem)?;
    let origin = || pem.origin.clone();
    let certificates = chain
        .iter()
        .enumerate()
        .map(|(n, der)| {
            Certificate::read(der).map_err(|source| CredentialsError::Certificate {
                origin: origin(),
                position: n + 1,
                source,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (n, pair) in certificates.windows(2).enumerate() {
        if !pair[0].names_issuer(&pair[1]) {
            return Err(CredentialsError::Order {
                origin: origin(),
                position: n + 2,
                subject: pair[1].subject(),
            });
        }
    }
    let leaf = &certificates[0];
    let found = leaf.identity().map_err(|source| CredentialsError::San {
        origin: origin(),
        source,
    })?;
    if found != *wanted {
        return Err(CredentialsError::Identity {
            origin: origin(),
            wanted: wanted.clone(),
            found,
        });
    }
    let facts = LeafFacts {
        identity: found,
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
    };
    let presented = 1 + certificates[1..]
        .iter()
        .take_while(|certificate| !certificate.is_self_issued())
        .count();
    chain.truncate(presented);
    Ok((facts, chain))
}

fn load_key(pem: &Pem, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, CredentialsError> {
    let origin = || pem.origin.clone();
    let der = PrivateKeyDer::pem_slice_iter(&pem.bytes)
        .next()
        .ok_or_else(|| CredentialsError::Missing {
            origin: origin(),
            wanted: "private key (a PEM block PRIVATE KEY, not encrypted)",
        })?
        .map_err(|error| CredentialsError::Pem {
            origin: origin(),
            reason: error.to_string(),
        })?;
    let loaded = provider.key_provider.load_private_key(der);
    loaded.map_err(|error| CredentialsError::Key {
        origin: origin(),
        reason: error.to_string(),
    })
}

fn read_key(
    material: &Material,
    chain: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CredentialsError> {
    let key = CertifiedKey::new(chain.to_vec(), load_key(&material.key, provider)?);
    match key.keys_match() {
        Ok(()) => Ok(key),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(CredentialsError::KeyMismatch {
                key: material.key.origin.clone(),
                chain: material.chain.origin.clone(),
            })
        }
        // A key whose public half cannot be compared is refused: nothing proves it fits.
        Err(error) => Err(CredentialsError::Key {
            origin: material.key.origin.clone(),
            reason: error.to_string(),
        }),
    }
}

/// Why a peer with the same roots would refuse us, if it would.
fn own_chain_warning(material: &Material, loaded: &Credentials, now: SystemTime) -> Option<String> {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = UnixTime::since_unix_epoch(since_epoch);
    let (leaf, intermediates) = loaded.chain.split_first()?;
    let error = loaded.roots.accepts_own(leaf, intermediates, now).err()?;
    Some(format!(
        "{}: peers with the roots of {} will refuse it: {}",
        material.chain.origin,
        material.roots.origin,
        TlsError::from(error)
    ))
}
