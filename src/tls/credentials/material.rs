//! What a certificate provider delivers, and what can be wrong with it.

use std::fmt;

use crate::model::identity::Identity;
use crate::tls::certificate::{ReadError, SanError};

/// PEM text and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// File name or other origin, for messages.
    pub origin: String,
    /// One or more PEM blocks.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Pem {
    // Never the bytes: one of them is a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({}, {} bytes)", self.origin, self.bytes.len())
    }
}

/// What a certificate provider delivers for one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Leaf, then its intermediates. A root at the end is tolerated and not presented.
    pub chain: Pem,
    /// Private key of the leaf: PKCS#8, SEC1 or PKCS#1, not encrypted.
    pub key: Pem,
    /// Roots that peers are checked against; any number.
    pub roots: Pem,
}

/// Material that cannot be used. Each text names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not readable as PEM.
    #[error("{origin}: not readable as PEM: {reason}")]
    Pem {
        /// File.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// No block of the wanted kind.
    #[error("{origin}: contains no {wanted}")]
    Missing {
        /// File.
        origin: String,
        /// What was looked for.
        wanted: &'static str,
    },
    /// A certificate of the chain cannot be read.
    #[error("{origin}: certificate {position}: {source}")]
    Certificate {
        /// File.
        origin: String,
        /// Position in the file, from 1.
        position: usize,
        /// What is wrong.
        source: ReadError,
    },
    /// The certificates are not in the order leaf, its issuer, the issuer's issuer.
    #[error(
        "{origin}: certificate {position} ({subject}) did not issue the certificate before it; \
         the order must be leaf first, then each issuer"
    )]
    Order {
        /// File.
        origin: String,
        /// Position in the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
    /// The private key cannot be used.
    #[error("{origin}: private key not usable: {reason}")]
    Key {
        /// File.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The private key belongs to another certificate.
    #[error("{key}: private key does not belong to the first certificate of {chain}")]
    KeyMismatch {
        /// Key file.
        key: String,
        /// Chain file.
        chain: String,
    },
    /// The leaf does not name exactly one identity.
    #[error("{origin}: {source}")]
    San {
        /// File.
        origin: String,
        /// What is wrong.
        source: SanError,
    },
    /// The leaf names another identity than the wanted one.
    #[error("did not find expected SAN: {wanted} ({origin} is for {found})")]
    Identity {
        /// File.
        origin: String,
        /// Identity the leaf was to have.
        wanted: Identity,
        /// Identity it has.
        found: Identity,
    },
    /// No root can be used.
    #[error("{origin}: no usable root certificate: {reason}")]
    Roots {
        /// File.
        origin: String,
        /// What is wrong with the last one.
        reason: String,
    },
    /// The TLS library refuses the combination.
    #[error("tls error: {0}")]
    Tls(String),
}
