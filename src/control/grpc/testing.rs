//! A gRPC server on loopback for tests: TLS by the throw-away authority, HTTP/2 by hyper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::tls::dev_pki::{Authority, Issued, Leaf};

/// TLS of a server with `issued`; asks clients for a certificate of `clients` if given.
pub(crate) fn tls(issued: &Issued, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = issued.chain();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
    let chain: Vec<_> = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = match clients {
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap();
            roots.add(root).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => config.with_no_client_auth(),
    }
    .with_single_cert(chain, key)
    .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A certificate for hosts, by `authority`.
pub(crate) fn issue_for_hosts(authority: &Authority, hosts: &[&str]) -> Issued {
    let now = std::time::SystemTime::now();
    let nobody = crate::model::identity::Identity::new("cluster.local", "default", "nobody");
    let leaf = Leaf::new(&nobody, now).hosts(hosts);
    authority.issue(&leaf).unwrap()
}

/// Serves `service` on a loopback port until the runtime ends; without `tls` in plain text.
pub(crate) async fn serve<S>(tls: Option<TlsAcceptor>, service: S) -> SocketAddr
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, service) = (tls.clone(), service.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(session) = tls.accept(stream).await {
                            serve_connection(session, service).await;
                        }
                    }
                    None => serve_connection(stream, service).await,
                }
            });
        }
    });
    address
}

/// Serves one connection to its end.
pub(crate) async fn serve_connection<T, S>(stream: T, service: S)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let adapted = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let mut service = service.clone();
        async move { service.call(request.map(Body::new)).await }
    });
    let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // A client that goes away in the middle is not this server's business.
    let _ = http2.serve_connection(TokioIo::new(stream), adapted).await;
}
