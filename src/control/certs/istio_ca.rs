//! Certificates from a certificate authority that speaks Istio's signing protocol (spec ca.md).
//!
//! Each fetch makes a key that never leaves the process, sends a request for it, and takes the answer
//! apart. All fetches share one connection; it is made anew when it is closed and when the roots that
//! the authority is checked by have changed. Whether the answer carries the identity and fits the key
//! is checked like all material, where it becomes credentials.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use super::{Changes, Fetch, FetchError, Fetched, Provider, half_life_delay};
use crate::control::grpc::headers::{Headers, HeadersError};
use crate::control::grpc::roots::Stamp;
use crate::control::grpc::{Channel, ConnectError, Server};
use crate::model::identity::Identity;
use crate::proto::ca::IstioCertificateRequest;
use crate::proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::tls::credentials::{Credentials, Validity};
use crate::tls::signing_request::{self, SigningRequestError};

mod answer;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use answer::AnswerError;

/// Largest answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For one call. The reference waits for ever; a call that hangs would hold one of few places.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Renewal is earlier than half of a certificate's life by a random part of this share of the delay,
/// so that identities that began together do not stay together.
const EARLIER_MAX: f64 = 0.05;
/// Field of the request's metadata that says for whom a shared node asks.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// A certificate could not be had from the authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// No request could be made.
    #[error(transparent)]
    Request(#[from] SigningRequestError),
    /// Nothing to show the authority.
    #[error("certificate authority not asked: {0}")]
    Headers(#[from] HeadersError),
    /// No connection.
    #[error("certificate authority not reached: {0}")]
    Connect(#[from] ConnectError),
    /// No answer.
    #[error("certificate authority did not answer within {CALL_TIMEOUT:?}")]
    Timeout,
    /// It refused, or the connection broke.
    #[error("certificate authority: {}{}", describe(.0), hint(.0.code()))]
    Refused(Box<Status>),
    /// The answer makes no certificate.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// What to do about it.
fn hint(code: Code) -> &'static str {
    if code == Code::Unauthenticated {
        " (is the token of AUTH_TOKEN valid and made for this authority?)"
    } else if code == Code::PermissionDenied {
        " (may this node ask for certificates of this workload?)"
    } else {
        ""
    }
}

/// How the authority is reached: over the network, or within a test.
pub trait Reach {
    /// Body of its answers.
    type Answer: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static;
    /// What gRPC runs on.
    type Service: GrpcService<Body, ResponseBody = Self::Answer, Error: Into<StdError>> + Clone;

    /// Makes a connection, showing `own` if there is one.
    fn connect(
        &self,
        own: Option<&Credentials>,
    ) -> impl Future<Output = Result<Self::Service, ConnectError>>;

    /// Which roots the next connection would be checked by.
    fn roots(&self) -> impl Future<Output = Stamp>;

    /// Whether no calls can be made any more.
    fn is_closed(service: &Self::Service) -> bool;
}

impl Reach for Server {
    type Answer = Body;
    type Service = Channel;

    fn connect(
        &self,
        own: Option<&Credentials>,
    ) -> impl Future<Output = Result<Channel, ConnectError>> {
        Self::connect(self, own)
    }

    fn roots(&self) -> impl Future<Output = Stamp> {
        Stamp::of(&self.roots)
    }

    fn is_closed(service: &Channel) -> bool {
        service.is_closed()
    }
}

/// What is asked for, besides the identity.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Life of certificates; the authority may give less.
    pub lifetime: Duration,
    /// The node asks for identities that are not its own.
    pub impersonates: bool,
    /// Renew with the certificate in use as credential, where there is one: a token that is given
    /// once, as on a VM, expires.
    pub renew_with_certificate: bool,
}

/// Certificates from the authority.
pub struct IstioCa<R: Reach = Server> {
    reach: R,
    headers: Headers,
    terms: Terms,
    // Held while connecting, so that those who come meanwhile share the connection.
    shared: Mutex<Option<Shared<R::Service>>>,
}

struct Shared<S> {
    service: S,
    roots: Stamp,
}

impl<R: Reach> fmt::Debug for IstioCa<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IstioCa")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

impl<R: Reach> IstioCa<R> {
    /// Connects when the first certificate is fetched.
    pub fn new(reach: R, headers: Headers, terms: Terms) -> Self {
        Self {
            reach,
            headers,
            terms,
            shared: Mutex::new(None),
        }
    }

    async fn get(
        &self,
        identity: &Identity,
        held: Option<Arc<Credentials>>,
    ) -> Result<Fetched, CaError> {
        let request = signing_request::new(identity)?;
        let message = self.message(identity, request.pem);
        let renewing = held.filter(|held| {
            self.terms.renew_with_certificate
                && held.validity(SystemTime::now()) == Validity::Current
        });
        if let Some(held) = renewing {
            match self.renew(&message, &held).await {
                Ok(chain) => return Ok(answer::fetched(&chain, request.key)?),
                Err(error) => tracing::warn!(
                    target: "corelane::certs",
                    "{identity}: renewal with the certificate in use failed, trying the token: {error}"
                ),
            }
        }
        let headers = self.headers.read().await?;
        let service = self.service().await?;
        let chain = call(service, message, headers).await?;
        Ok(answer::fetched(&chain, request.key)?)
    }

    fn message(&self, identity: &Identity, csr: String) -> IstioCertificateRequest {
        let metadata = self.terms.impersonates.then(|| {
            let kind = Some(Kind::StringValue(identity.to_string()));
            let fields = [(IMPERSONATED.to_owned(), Value { kind })];
            Struct {
                fields: fields.into(),
            }
        });
        IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.terms.lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata,
        }
    }

    /// Over a connection of its own: it is the certificate's.
    async fn renew(
        &self,
        message: &IstioCertificateRequest,
        held: &Credentials,
    ) -> Result<Vec<String>, CaError> {
        let headers = self.headers.without_token()?;
        let service = self.reach.connect(Some(held)).await?;
        call(service, message.clone(), headers).await
    }

    /// The shared connection. With changed roots a new one is made first; if that fails, the old one
    /// serves once more (spec ca.md 2.4).
    async fn service(&self) -> Result<R::Service, CaError> {
        let mut shared = self.shared.lock().await;
        let roots = self.reach.roots().await;
        let open = shared
            .as_ref()
            .filter(|shared| !R::is_closed(&shared.service));
        if let Some(open) = open
            && open.roots == roots
        {
            return Ok(open.service.clone());
        }
        match (self.reach.connect(None).await, open) {
            (Ok(service), _) => {
                let made = service.clone();
                *shared = Some(Shared { service, roots });
                Ok(made)
            }
            (Err(error), Some(open)) => {
                tracing::warn!(
                    target: "corelane::certs",
                    "the roots of the certificate authority have changed; the connection made with \
                     the old ones is used once more: {error}"
                );
                Ok(open.service.clone())
            }
            (Err(error), None) => Err(error.into()),
        }
    }
}

async fn call<S>(
    service: S,
    message: IstioCertificateRequest,
    headers: MetadataMap,
) -> Result<Vec<String>, CaError>
where
    S: GrpcService<
            Body,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
            Error: Into<StdError>,
        >,
{
    let mut request = Request::new(message);
    *request.metadata_mut() = headers;
    let mut client =
        IstioCertificateServiceClient::new(service).max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = timeout(CALL_TIMEOUT, client.create_certificate(request)).await;
    match answer {
        Ok(Ok(answer)) => Ok(answer.into_inner().cert_chain),
        Ok(Err(status)) => Err(CaError::Refused(Box::new(status))),
        Err(_) => Err(CaError::Timeout),
    }
}

impl<R: Reach> Provider for IstioCa<R> {
    fn fetch<'a>(&'a self, identity: &'a Identity, held: Option<Arc<Credentials>>) -> Fetch<'a> {
        Box::pin(async move { self.get(identity, held).await.map_err(FetchError::from) })
    }

    fn changes(&self) -> Changes<'_> {
        // An authority announces nothing.
        Box::pin(pending())
    }

    fn fetch_again_after(&self, credentials: &Credentials, now: SystemTime) -> Duration {
        let half = half_life_delay(credentials.not_before(), credentials.not_after(), now);
        half.mul_f64(1.0 - EARLIER_MAX * fastrand::f64())
    }

    fn forget(&self, _: &Identity) {}
}
