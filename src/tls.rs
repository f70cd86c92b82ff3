//! Mutual TLS between workloads; types of the TLS library stop here.
//!
//! [`credentials`] turns PEM material into one immutable value per identity, [`verify`] turns a
//! peer's chain into a proven identity, [`handshake`] runs both sides of a handshake over any
//! [`Transport`](crate::transport::Transport) and [`stream`] carries the records afterwards, through
//! our own record layer or through the TLS library. [`control_plane`] is the client side towards servers
//! that have a host name instead of an identity.
//!
//! Deliberately absent: session resumption, tickets and 0-RTT (each would skip verifying the peer
//! again), server names between workloads, and any process-wide default provider.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::model::identity::Identity;

pub mod certificate;
pub mod control_plane;
pub mod credentials;
mod der;
pub mod dev_pki;
pub mod error;
pub mod handshake;
pub mod pem;
mod provider;
mod record;
pub mod revocation;
mod session;
pub mod signing_request;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod verify;

pub use credentials::{CredentialState, CredentialStore, Credentials, IdentityError};
pub use error::{HandshakeError, TlsError};
#[cfg(fuzzing)]
pub(crate) use record::fuzz::run as play_records;
pub use stream::TlsStream;

/// What an operator may change about TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Accept and offer TLS 1.2 besides 1.3. Without effect together with `pqc_only`, whose group
    /// exists in TLS 1.3 alone.
    pub tls12: bool,
    /// Offer and accept the group X25519MLKEM768 only.
    pub pqc_only: bool,
    /// Who moves records after the handshake. Without effect together with `tls12`: the TLS
    /// library moves them then, because our record layer speaks 1.3 alone.
    pub records: Records,
}

/// Who seals and opens records after the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records {
    /// Our record layer, in the buffers of the thread.
    #[default]
    InPlace,
    /// The TLS library, in buffers of its own.
    Library,
}

/// What a handshake proved about the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Identity in the peer's leaf.
    pub identity: Option<Arc<Identity>>,
    /// End of validity of the peer's leaf.
    pub not_after: SystemTime,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Key exchange group by its IANA name, such as `X25519MLKEM768`.
    pub group: &'static str,
    /// Cipher suite by its IANA name, such as `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// What a later look at revocation lists needs; only where there are some.
    judged: Option<Judged>,
}

/// The chain that was accepted, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Judged {
    chain: Arc<[CertificateDer<'static>]>,
    at: UnixTime,
}
