//! Revocation lists (spec hbone.md 2.7): read, replaced while in use, and asked again about peers whose
//! handshake is over.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::{CertificateError, Error};
use webpki::{CertRevocationList, KeyUsage, OwnedCertRevocationList};

use super::verify::TrustRoots;

#[cfg(test)]
mod tests;

/// How a PEM file begins. Everything else is one list in DER.
const PEM_START: &[u8] = b"-----BEGIN";

/// A file that is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Not readable as PEM.
    #[error("not readable as PEM: {0}")]
    Pem(String),
    /// Not a usable revocation list.
    #[error("revocation list {position}: {reason}")]
    List {
        /// Position in the file, from 1.
        position: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The lists of one file, of any number of issuers. None means that nothing is revoked.
#[derive(Default)]
pub struct Revocations(Vec<CertRevocationList<'static>>);

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({} lists)", self.0.len())
    }
}

impl Revocations {
    /// Reads PEM with any number of lists, other items being skipped, or one list in DER. An empty
    /// file revokes nothing.
    ///
    /// # Errors
    /// [`RevocationError`]: a file that cannot be read whole is refused whole.
    pub fn read(bytes: &[u8]) -> Result<Self, RevocationError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let ders = if bytes.trim_ascii_start().starts_with(PEM_START) {
            let blocks = CertificateRevocationListDer::pem_slice_iter(bytes);
            let blocks: Result<Vec<_>, _> = blocks.collect();
            blocks.map_err(|error| RevocationError::Pem(error.to_string()))?
        } else {
            vec![CertificateRevocationListDer::from(bytes)]
        };
        let lists = ders.iter().enumerate().map(|(n, der)| {
            let list = OwnedCertRevocationList::from_der(der);
            let list = list.map_err(|error| RevocationError::List {
                position: n + 1,
                reason: error.to_string(),
            })?;
            Ok(CertRevocationList::from(list))
        });
        lists.collect::<Result<_, _>>().map(Self)
    }

    /// How many lists there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing can be revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.0.iter().collect()
    }
}

/// The lists in force. Clones show the same, on any thread.
#[derive(Clone)]
pub struct RevocationList(Arc<ArcSwap<Revocations>>);

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current().fmt(f)
    }
}

impl RevocationList {
    /// With these in force.
    #[must_use]
    pub fn new(first: Revocations) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// Puts others in force: handshakes from now on are judged by them.
    pub fn replace(&self, next: Revocations) {
        self.0.store(Arc::new(next));
    }

    pub(super) fn current(&self) -> Arc<Revocations> {
        self.0.load_full()
    }
}

/// A peer that was accepted and may be revoked later.
#[derive(Debug)]
pub struct Revocable {
    roots: Arc<TrustRoots>,
    chain: Arc<[CertificateDer<'static>]>,
    /// Of the handshake, so that expiry is not taken for revocation.
    at: UnixTime,
    /// The lists it was last judged by.
    judged_by: RefCell<Option<Arc<Revocations>>>,
}

impl Revocable {
    pub(super) fn new(
        roots: Arc<TrustRoots>,
        chain: Arc<[CertificateDer<'static>]>,
        at: UnixTime,
    ) -> Self {
        Self {
            roots,
            chain,
            at,
            judged_by: RefCell::default(),
        }
    }

    /// Whether a certificate of its chain is revoked now. Cheap while the lists are the same.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        let Some(now) = self.roots.revocations() else {
            return false;
        };
        let mut judged_by = self.judged_by.borrow_mut();
        if judged_by
            .as_ref()
            .is_some_and(|last| Arc::ptr_eq(last, &now))
        {
            return false;
        }
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return false;
        };
        // As client or as server: the other use fails for another reason.
        let revoked = [KeyUsage::server_auth(), KeyUsage::client_auth()]
            .into_iter()
            .any(|usage| {
                let verdict = self.roots.verify_path(leaf, intermediates, self.at, usage);
                verdict == Err(Error::InvalidCertificate(CertificateError::Revoked))
            });
        *judged_by = (!revoked).then_some(now);
        revoked
    }
}
