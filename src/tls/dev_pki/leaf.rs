//! What a leaf of the throw-away authority says, sound or broken, and what was issued for it.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use rcgen::ExtendedKeyUsagePurpose;

use super::{BACKDATED, LIFETIME};
use crate::model::identity::Identity;
use crate::tls::TlsOptions;
use crate::tls::credentials::{Credentials, CredentialsError, Material, Pem};
use crate::tls::der::{TAG_SEQUENCE, TAG_URI, der};
use crate::tls::pem;

/// Forms of RFC 5280 `GeneralName`.
const TAG_DNS: u8 = 0x82;
const TAG_ADDRESS: u8 = 0x87;

/// Use a leaf is allowed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Accepting tunnels.
    Server,
    /// Opening tunnels.
    Client,
    /// Something that is no TLS at all.
    CodeSigning,
}

impl Usage {
    pub(super) fn purpose(&self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Self::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
        }
    }
}

/// What a leaf is to say. [`Leaf::new`] is sound; each other method breaks or changes one thing.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub(super) names: Option<Vec<u8>>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) usages: Vec<Usage>,
}

impl Leaf {
    /// A sound workload certificate for `identity`, valid for 30 days.
    #[must_use]
    pub fn new(identity: &Identity, now: SystemTime) -> Self {
        let sound = Self {
            names: None,
            not_before: now - BACKDATED,
            not_after: now + LIFETIME,
            usages: vec![Usage::Server, Usage::Client],
        };
        sound.uris(&[identity.to_string().as_bytes()])
    }

    /// Carries exactly these URI names, whatever bytes they have.
    #[must_use]
    pub fn uris(self, uris: &[&[u8]]) -> Self {
        let list: Vec<u8> = uris.iter().flat_map(|uri| der(TAG_URI, uri)).collect();
        self.raw_names(der(TAG_SEQUENCE, &list))
    }

    /// Carries these hosts, DNS names or addresses, instead of an identity: a server of the control
    /// plane.
    #[must_use]
    pub fn hosts(self, hosts: &[&str]) -> Self {
        let name = |host: &&str| match host.parse() {
            Ok(IpAddr::V4(address)) => der(TAG_ADDRESS, &address.octets()),
            Ok(IpAddr::V6(address)) => der(TAG_ADDRESS, &address.octets()),
            Err(_) => der(TAG_DNS, host.as_bytes()),
        };
        let list: Vec<u8> = hosts.iter().flat_map(name).collect();
        self.raw_names(der(TAG_SEQUENCE, &list))
    }

    /// Carries this as its subject alternative name extension, readable or not.
    #[must_use]
    pub fn raw_names(mut self, extension: Vec<u8>) -> Self {
        self.names = Some(extension);
        self
    }

    /// Carries no subject alternative name extension.
    #[must_use]
    pub fn without_names(mut self) -> Self {
        self.names = None;
        self
    }

    /// Is valid in this time only.
    #[must_use]
    pub fn valid(mut self, not_before: SystemTime, not_after: SystemTime) -> Self {
        (self.not_before, self.not_after) = (not_before, not_after);
        self
    }

    /// Is allowed for these uses; none leaves the restriction out.
    #[must_use]
    pub fn usages(mut self, usages: &[Usage]) -> Self {
        self.usages = usages.to_vec();
        self
    }
}

/// A certificate with its key and chain, all PEM.
#[derive(Clone)]
pub struct Issued {
    /// The leaf.
    pub leaf: String,
    /// Intermediates, nearest first; may be empty.
    pub intermediates: String,
    /// Private key of the leaf.
    pub key: String,
    /// Roots to check peers against.
    pub roots: String,
}

impl fmt::Debug for Issued {
    // Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl Issued {
    /// Leaf and intermediates in the order they are presented.
    #[must_use]
    pub fn chain(&self) -> String {
        format!("{}{}", self.leaf, self.intermediates)
    }

    /// The same with the last bit of the leaf's signature flipped.
    #[must_use]
    pub fn with_altered_signature(self) -> Self {
        let mut der = pem::decode_certificate(self.leaf.as_bytes()).unwrap_or_default();
        if let Some(last) = der.last_mut() {
            *last ^= 1;
        }
        self.with_leaf(&der)
    }

    /// The same with these bytes in place of the leaf.
    #[must_use]
    pub fn with_leaf(mut self, der: &[u8]) -> Self {
        self.leaf = pem::encode("CERTIFICATE", der);
        self
    }

    /// The form a certificate provider delivers.
    #[must_use]
    pub fn material(&self) -> Material {
        let pem = |origin: &str, text: String| Pem {
            origin: origin.to_owned(),
            bytes: text.into_bytes(),
        };
        Material {
            chain: pem("tls.crt", self.chain()),
            key: pem("tls.key", self.key.clone()),
            roots: pem("ca.crt", self.roots.clone()),
        }
    }

    /// Credentials that present this chain as it is, sound or not, for tests of refusals: none of
    /// the checks on our own certificate is made. `claimed` is the identity we hold ourselves for.
    ///
    /// # Errors
    /// [`CredentialsError`] if key or roots cannot be used at all.
    pub fn present_unchecked(
        &self,
        claimed: &Identity,
        options: TlsOptions,
    ) -> Result<Credentials, CredentialsError> {
        Credentials::load_unchecked(claimed, &self.material(), options)
    }
}
