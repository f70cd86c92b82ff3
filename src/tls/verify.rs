//! Turns a peer's chain into a verified identity.
//!
//! webpki builds the path to the workload's roots and checks dates and extended key usage; then the
//! leaf must carry exactly one URI name, a mesh identity. A client wants that identity among those
//! it expects, a server wants its own trust domain. Host names are never looked at.
//!
//! The error chosen decides the alert on the wire (spec hbone.md 2.6): what is wrong with the
//! identity is `certificate_unknown`, an unreadable name list is `access_denied`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy,
};

use super::certificate::{Certificate, ReadError, SanError};
use super::revocation::{RevocationList, Revocations};
use crate::model::identity::Identity;

/// A well-signed chain whose identity is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Client side: the server is someone else. `expected` may be empty, which nobody matches.
    #[error("peer did not present the expected SAN ({}), got {presented}", Commas(.expected))]
    Unexpected {
        /// Identities the next hop may have.
        expected: Arc<[Identity]>,
        /// What the leaf carries.
        presented: Identity,
    },
    /// Server side: the client is of another trust domain.
    #[error("peer did not present the expected trustdomain ({expected}), got {presented}")]
    TrustDomain {
        /// Our trust domain.
        expected: Arc<str>,
        /// What the leaf carries.
        presented: Identity,
    },
    /// The leaf does not carry exactly one mesh identity.
    #[error("peer did not present one mesh identity: {0}")]
    San(SanError),
    /// webpki refuses all URI names below a CA with URI name constraints.
    #[error(
        "a CA of the peer's chain restricts URI names by name constraints, which is not supported \
         (issue its certificate again without URI name constraints): {0}"
    )]
    UriNameConstraints(String),
}

struct Commas<'a>(&'a [Identity]);

impl fmt::Display for Commas<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, identity) in self.0.iter().enumerate() {
            write!(f, "{}{identity}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The roots one workload trusts, ready for path building.
#[derive(Debug)]
pub(super) struct TrustRoots {
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    /// Subjects of roots that restrict URI names, for messages.
    uri_constrained: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Set once, before anybody is judged.
    revocation: OnceLock<RevocationList>,
}

impl TrustRoots {
    /// Takes roots one by one; those webpki cannot use are returned with the reason.
    pub(super) fn new(
        roots: &[CertificateDer<'_>],
        algorithms: WebPkiSupportedAlgorithms,
    ) -> (Self, Vec<(usize, String)>) {
        let mut trust = Self {
            anchors: Vec::with_capacity(roots.len()),
            subjects: Vec::with_capacity(roots.len()),
            uri_constrained: Vec::new(),
            algorithms,
            revocation: OnceLock::new(),
        };
        let mut unusable = Vec::new();
        for (n, root) in roots.iter().enumerate() {
            let anchor = match webpki::anchor_from_trusted_cert(root) {
                Ok(anchor) => anchor.to_owned(),
                Err(error) => {
                    unusable.push((n, error.to_string()));
                    continue;
                }
            };
            if let Ok(certificate) = Certificate::read(root)
                && certificate.constrains_uris()
            {
                trust.uri_constrained.push(certificate.subject());
            }
            trust
                .subjects
                .push(DistinguishedName::in_sequence(&anchor.subject));
            trust.anchors.push(anchor);
        }
        (trust, unusable)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Checks against `list` from now on.
    pub(super) fn enforce(&self, list: &RevocationList) {
        // The first one stays: there is one list in a process.
        let _ = self.revocation.set(list.clone());
    }

    /// The lists in force now; none if none are checked.
    pub(super) fn revocations(&self) -> Option<Arc<Revocations>> {
        self.revocation.get().map(RevocationList::current)
    }

    pub(super) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.algorithms
    }

    /// Whether `chain` leads to one of these roots at `now`, for both uses of a workload
    /// certificate. The text says why not.
    pub(super) fn accepts_own(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.verify_path(leaf, intermediates, now, KeyUsage::server_auth())?;
        self.verify_path(leaf, intermediates, now, KeyUsage::client_auth())
    }

    /// Whether a chain leads to one of these roots at `now` for `usage`.
    pub(super) fn verify_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let end_entity = EndEntityCert::try_from(leaf).map_err(path_error)?;
        let revocations = self.revocations().unwrap_or_default();
        let lists = revocations.lists();
        // An empty list of lists is no error to us: nothing is revoked.
        let options = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let path = end_entity.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            usage,
            options,
            None,
        );
        match path {
            Ok(_) => Ok(()),
            Err(webpki::Error::NameConstraintViolation) => {
                Err(self.explain_name_constraints(intermediates))
            }
            Err(error) => Err(path_error(error)),
        }
    }

    fn explain_name_constraints(&self, intermediates: &[CertificateDer<'_>]) -> Error {
        let below = intermediates
            .iter()
            .filter_map(|der| Certificate::read(der).ok())
            .filter(Certificate::constrains_uris)
            .map(|certificate| certificate.subject());
        let named: Vec<String> = below.chain(self.uri_constrained.iter().cloned()).collect();
        if named.is_empty() {
            return path_error(webpki::Error::NameConstraintViolation);
        }
        identity_error(VerifyError::UriNameConstraints(named.join(", ")))
    }

    fn verify_leaf(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<Identity, Error> {
        let certificate = Certificate::read(leaf).map_err(|error| match error {
            ReadError::Malformed => Error::from(CertificateError::BadEncoding),
            ReadError::AlternativeNames => CertificateError::ApplicationVerificationFailure.into(),
        })?;
        self.verify_path(leaf, intermediates, now, usage)?;
        certificate
            .identity()
            .map_err(|error| identity_error(VerifyError::San(error)))
    }
}

fn identity_error(error: VerifyError) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// webpki's verdict as the error whose alert spec hbone.md 2.6 asks for.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "webpki adds variants at will; all others are `certificate_unknown`"
)]
fn path_error(error: webpki::Error) -> Error {
    use webpki::Error as Path;
    let mapped = match error {
        Path::BadDer
        | Path::BadDerTime
        | Path::TrailingData(_)
        | Path::UnsupportedCertVersion
        | Path::MalformedExtensions
        | Path::ExtensionValueInvalid
        | Path::UnsupportedCriticalExtension => CertificateError::BadEncoding,
        Path::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Path::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Path::InvalidCertValidity => CertificateError::Expired,
        Path::UnknownIssuer => CertificateError::UnknownIssuer,
        Path::CertRevoked => CertificateError::Revoked,
        Path::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Path::UnsupportedSignatureAlgorithmContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: context.signature_algorithm_id,
                supported_algorithms: context.supported_algorithms,
            }
        }
        Path::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: context.signature_algorithm_id,
                public_key_algorithm_id: context.public_key_algorithm_id,
            }
        }
        Path::RequiredEkuNotFoundContext(_) | Path::EmptyEkuExtension => {
            CertificateError::InvalidPurpose
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    mapped.into()
}

/// Client side: accepts a server whose identity is one of `expected`.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    roots: Arc<TrustRoots>,
    expected: Arc<[Identity]>,
}

impl ServerVerifier {
    /// An empty list accepts nobody.
    pub(super) fn new(roots: Arc<TrustRoots>, expected: Arc<[Identity]>) -> Self {
        Self { roots, expected }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usage = KeyUsage::server_auth();
        let presented = self
            .roots
            .verify_leaf(end_entity, intermediates, now, usage)?;
        if !self.expected.contains(&presented) {
            let expected = Arc::clone(&self.expected);
            return Err(identity_error(VerifyError::Unexpected {
                expected,
                presented,
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.roots.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.roots.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms.supported_schemes()
    }
}

/// Server side: accepts a client of our own trust domain.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    roots: Arc<TrustRoots>,
    trust_domain: Arc<str>,
}

impl ClientVerifier {
    pub(super) fn new(roots: Arc<TrustRoots>, trust_domain: Arc<str>) -> Self {
        Self {
            roots,
            trust_domain,
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.roots.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let usage = KeyUsage::client_auth();
        let presented = self
            .roots
            .verify_leaf(end_entity, intermediates, now, usage)?;
        if presented.trust_domain != self.trust_domain {
            let expected = Arc::clone(&self.trust_domain);
            return Err(identity_error(VerifyError::TrustDomain {
                expected,
                presented,
            }));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.roots.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.roots.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms.supported_schemes()
    }
}
