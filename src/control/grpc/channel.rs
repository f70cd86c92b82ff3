//! One HTTP/2 connection to a server, as the service gRPC runs on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::client::conn::http2::SendRequest;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::config::server::ServerAddress;

/// `:authority` over a socket of the file system, which has no host.
const UNIX_AUTHORITY: &str = "localhost";

/// An open connection. Clones share it; it closes when the last of them and the last call are gone.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: SendRequest<Body>,
    scheme: Scheme,
    authority: Authority,
}

/// A call could not be made, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection is closed or broke.
    #[error("connection lost: {}", describe(.0))]
    Connection(#[from] hyper::Error),
    /// The address makes no `:authority`.
    #[error("not a usable address: {0}")]
    Address(#[from] http::Error),
}

/// The library's text and the one below, which says more.
fn describe(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl Channel {
    pub(super) fn new(
        sender: SendRequest<Body>,
        address: &ServerAddress,
    ) -> Result<Self, ChannelError> {
        let text = address.to_string();
        let (scheme, authority) = match address {
            ServerAddress::Tls { .. } => (Scheme::HTTPS, text.trim_start_matches("https://")),
            ServerAddress::Plain { .. } => (Scheme::HTTP, text.trim_start_matches("http://")),
            ServerAddress::Unix(_) => (Scheme::HTTP, UNIX_AUTHORITY),
        };
        let authority = Authority::try_from(authority).map_err(http::Error::from)?;
        Ok(Self {
            sender,
            scheme,
            authority,
        })
    }

    /// Whether calls can no longer be made on it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// gRPC's request names only a path.
    fn absolute(&self, uri: &Uri) -> Result<Uri, http::Error> {
        let path = uri.path_and_query().cloned();
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ChannelError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        self.sender.poll_ready(cx).map_err(ChannelError::from)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.absolute(request.uri()) {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        }
        let response = self.sender.send_request(request);
        Box::pin(async move { Ok(response.await?.map(Body::new)) })
    }
}
