//! Errors of TLS in words a user understands, free of the TLS library's types.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::verify::VerifyError;

/// A TLS session failed for a reason that is not plain I/O.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The peer ended the session with an alert.
    #[error("{}", describe_alert(*.0))]
    Alert(u8),
    /// The peer's chain is good, its identity is not.
    #[error("identity verification error: {0}")]
    Identity(VerifyError),
    /// The peer's certificate chain is not acceptable.
    #[error("peer certificate refused: {0}")]
    Certificate(String),
    /// The list of an issuer names a certificate of the peer's chain.
    #[error("peer certificate refused: revoked (it is on a list of CRL_PATH)")]
    Revoked,
    /// The peer gave no certificate.
    #[error("peer presented no certificate")]
    NoCertificate,
    /// The two sides have no version, suite, group or application protocol in common, or the peer
    /// broke the protocol.
    #[error("{0}")]
    Protocol(String),
}

impl TlsError {
    /// The same error for callers that speak `io::Error`.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match self {
            Self::Alert(_) => io::ErrorKind::ConnectionAborted,
            Self::Identity(_)
            | Self::Certificate(_)
            | Self::Revoked
            | Self::NoCertificate
            | Self::Protocol(_) => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

/// A handshake did not complete.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed or ended meanwhile.
    #[error("io error: {0}")]
    Io(#[source] io::Error),
    /// The peer's chain is good, its identity is not.
    #[error("identity verification error: {0}")]
    Identity(#[source] VerifyError),
    /// The TLS layer refused, here or at the peer.
    #[error("tls handshake error: {0}")]
    Tls(#[source] TlsError),
}

impl HandshakeError {
    /// Whether the connection broke, as opposed to one side refusing the other.
    #[must_use]
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    /// Whether the peer was refused here because it is revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Tls(TlsError::Revoked))
    }
}

impl From<TlsError> for HandshakeError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Identity(error) => Self::Identity(error),
            other @ (TlsError::Alert(_)
            | TlsError::Certificate(_)
            | TlsError::Revoked
            | TlsError::NoCertificate
            | TlsError::Protocol(_)) => Self::Tls(other),
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the TLS library adds variants at will; the rest speaks for itself"
)]
impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(alert.into()),
            Error::InvalidCertificate(error) => refused_certificate(&error),
            Error::NoCertificatesPresented => Self::NoCertificate,
            other => Self::Protocol(other.to_string()),
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the TLS library adds variants at will; the rest speaks for itself"
)]
fn refused_certificate(error: &CertificateError) -> TlsError {
    let text = match error {
        CertificateError::Other(other) => {
            if let Some(error) = other.0.downcast_ref::<VerifyError>() {
                return TlsError::Identity(error.clone());
            }
            other.0.to_string()
        }
        CertificateError::Revoked => return TlsError::Revoked,
        CertificateError::UnknownIssuer => {
            "unknown CA: not signed by any root trusted for this workload".to_owned()
        }
        CertificateError::ExpiredContext { .. } | CertificateError::Expired => {
            format!("expired: {error}")
        }
        CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
            format!("not valid yet: {error}")
        }
        CertificateError::BadEncoding => "not a readable X.509 certificate".to_owned(),
        CertificateError::BadSignature => {
            "bad signature: not made by the CA it names, or altered".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("its extended key usage forbids this use: {error}")
        }
        CertificateError::ApplicationVerificationFailure => {
            "unreadable subject alternative names".to_owned()
        }
        other => other.to_string(),
    };
    TlsError::Certificate(text)
}

/// What an alert from the peer means for the one who has to mend it. RFC 8446, 6.2.
fn describe_alert(code: u8) -> String {
    let alert = AlertDescription::from(code);
    let known: &[(AlertDescription, &str)] = &[
        (
            AlertDescription::BadCertificate,
            "peer refused our certificate: malformed",
        ),
        (
            AlertDescription::UnsupportedCertificate,
            "peer refused our certificate: wrong purpose (extended key usage)",
        ),
        (
            AlertDescription::CertificateRevoked,
            "peer refused our certificate: revoked",
        ),
        (
            AlertDescription::CertificateExpired,
            "peer refused our certificate: expired or not valid yet",
        ),
        (
            AlertDescription::CertificateUnknown,
            "peer refused our certificate: not an identity it accepts here",
        ),
        (
            AlertDescription::UnknownCA,
            "peer refused our certificate: unknown CA",
        ),
        (
            AlertDescription::AccessDenied,
            "peer refused our certificate: access denied",
        ),
        (
            AlertDescription::DecryptError,
            "peer refused our certificate or a signature: bad signature",
        ),
        (
            AlertDescription::CertificateRequired,
            "peer requires a client certificate and got none",
        ),
        (
            AlertDescription::NoApplicationProtocol,
            "peer does not speak HTTP/2 here (no common ALPN protocol)",
        ),
        (
            AlertDescription::HandshakeFailure,
            "peer found no cipher suite, group or signature scheme in common",
        ),
        (
            AlertDescription::ProtocolVersion,
            "peer does not speak our TLS version",
        ),
    ];
    match known.iter().find(|(known, _)| *known == alert) {
        Some((_, text)) => format!("{text} (alert {code})"),
        None => format!("peer ended TLS with alert {code} ({alert:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_told_in_words_with_their_number() {
        assert_eq!(
            TlsError::Alert(48).to_string(),
            "peer refused our certificate: unknown CA (alert 48)"
        );
        assert_eq!(
            TlsError::Alert(80).to_string(),
            "peer ended TLS with alert 80 (InternalError)"
        );
    }

    #[test]
    fn only_broken_connections_count_as_io() {
        assert!(HandshakeError::Io(io::ErrorKind::ConnectionReset.into()).is_io());
        assert!(!HandshakeError::from(TlsError::Alert(48)).is_io());
    }
}
