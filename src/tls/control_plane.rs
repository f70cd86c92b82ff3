//! TLS towards servers of the control plane: a host name is checked, not an identity.
//!
//! The server's chain must lead to one of the roots, and its certificate must be valid for the host
//! that was dialled or for the alternative name. We show a certificate of our own only when given one.
//! Nothing is resumed, so each connection is judged by the roots it was given.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use webpki::{EndEntityCert, KeyUsage};

use super::credentials::{Credentials, CredentialsError, Pem, read_certificates};
use super::error::TlsError;
use super::verify::TrustRoots;
use super::{TlsOptions, provider};

/// Names of a certificate that a message shows.
const NAMES_SHOWN_MAX: usize = 8;

/// Roots that servers are checked by.
#[derive(Debug)]
pub struct ServerTrust {
    roots: Arc<TrustRoots>,
    options: TlsOptions,
    origin: String,
    skipped: Vec<String>,
}

impl ServerTrust {
    /// Reads roots from `pem`; single ones that cannot be used are skipped.
    ///
    /// # Errors
    /// [`CredentialsError`] if not one can be used.
    pub fn read(pem: &Pem, options: TlsOptions) -> Result<Self, CredentialsError> {
        let certificates = read_certificates(pem)?;
        let algorithms = provider::provider(options).signature_verification_algorithms;
        let (roots, unusable) = TrustRoots::new(&certificates, algorithms);
        let origin = pem.origin.clone();
        let mut skipped: Vec<String> = unusable
            .into_iter()
            .map(|(n, why)| format!("{origin}: root {} is skipped: {why}", n + 1))
            .collect();
        if roots.is_empty() {
            let reason = skipped.pop().unwrap_or_default();
            return Err(CredentialsError::Roots { origin, reason });
        }
        Ok(Self {
            roots: Arc::new(roots),
            options,
            origin,
            skipped,
        })
    }

    /// What an operator should know about these roots.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.skipped
    }
}

/// Whom a connection has to reach.
#[derive(Clone, Copy, Debug)]
pub struct ServerHost<'a> {
    /// DNS name or address that was dialled; sent as the server name if it is a DNS name.
    pub host: &'a str,
    /// Another name that will do.
    pub alternative: Option<&'a str>,
}

/// No TLS session with a server of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// Nothing a certificate could be valid for.
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
    /// The server's chain leads to none of the roots.
    #[error("its certificate is not signed by a root of {origin}")]
    UnknownCa {
        /// Where the roots come from.
        origin: String,
    },
    /// Refused here or there.
    #[error(transparent)]
    Tls(TlsError),
    /// The connection broke.
    #[error("{0}")]
    Io(#[source] io::Error),
}

/// The certificate is sound and belongs to another host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WrongHost {
    wanted: Vec<String>,
    presented: Vec<String>,
}

impl fmt::Display for WrongHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.join(" nor ");
        let not = if self.wanted.len() > 1 {
            "neither"
        } else {
            "not"
        };
        let presented = match self.presented.as_slice() {
            [] => "no DNS name".to_owned(),
            names => names.join(", "),
        };
        write!(f, "valid {not} for {wanted}, only for {presented}")
    }
}

impl std::error::Error for WrongHost {}

/// Client side of a session with a server of the control plane. `own` is the certificate we show if
/// the server asks.
///
/// Dropping the future cuts the connection.
///
/// # Errors
/// [`ServerTlsError`].
pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    trust: &ServerTrust,
    server: ServerHost<'_>,
    own: Option<&Credentials>,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<T>, ServerTlsError> {
    let name = server_name(server.host)?;
    let alternative = server.alternative.map(server_name).transpose()?;
    let config = config(trust, alternative, own).map_err(|error| trust.explain(&error))?;
    let session = TlsConnector::from(Arc::new(config)).connect(name, io).await;
    session.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(refused) => trust.explain(refused),
            None => ServerTlsError::Io(error),
        }
    })
}

fn server_name(text: &str) -> Result<ServerName<'static>, ServerTlsError> {
    let name = ServerName::try_from(text).map_err(|_| ServerTlsError::Host(text.to_owned()))?;
    Ok(name.to_owned())
}

fn config(
    trust: &ServerTrust,
    alternative: Option<ServerName<'static>>,
    own: Option<&Credentials>,
) -> Result<ClientConfig, Error> {
    let verifier = HostVerifier {
        roots: Arc::clone(&trust.roots),
        alternative,
    };
    let config = ClientConfig::builder_with_provider(provider::provider(trust.options))
        .with_protocol_versions(&provider::versions(trust.options))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => config.with_client_cert_resolver(own.client_certificate()),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![provider::ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

impl ServerTrust {
    fn explain(&self, error: &Error) -> ServerTlsError {
        if *error == Error::InvalidCertificate(CertificateError::UnknownIssuer) {
            let origin = self.origin.clone();
            return ServerTlsError::UnknownCa { origin };
        }
        ServerTlsError::Tls(error.clone().into())
    }
}

/// Accepts a server by its host name.
#[derive(Debug)]
struct HostVerifier {
    roots: Arc<TrustRoots>,
    alternative: Option<ServerName<'static>>,
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usage = KeyUsage::server_auth();
        self.roots
            .verify_path(end_entity, intermediates, now, usage)?;
        let leaf = EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let mut names = std::iter::once(server_name).chain(self.alternative.as_ref());
        if names.any(|name| leaf.verify_is_valid_for_subject_name(name).is_ok()) {
            return Ok(ServerCertVerified::assertion());
        }
        let names = std::iter::once(server_name).chain(self.alternative.as_ref());
        let wrong = WrongHost {
            wanted: names.map(|name| name.to_str().into_owned()).collect(),
            presented: leaf
                .valid_dns_names()
                .take(NAMES_SHOWN_MAX)
                .map(|name| name.escape_default().to_string())
                .collect(),
        };
        Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, self.roots.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, self.roots.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.algorithms().supported_schemes()
    }
}
