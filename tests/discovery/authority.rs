//! A certificate authority on loopback, over TLS: signs what it is asked for and says so.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, SystemTime};

use corelane::model::identity::Identity;
use corelane::proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use corelane::tls::dev_pki::{Authority, Leaf};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_types::value::Kind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

use crate::plane::PATIENCE;
use crate::serving::Serving;

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// What it issued.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) identity: Identity,
    /// PEM.
    pub(crate) leaf: String,
    pub(crate) token: Option<String>,
    /// Valid until then.
    pub(crate) until: SystemTime,
}

/// A running authority. Dropped, it is gone with all its connections.
pub(crate) struct Ca {
    pub(crate) authority: Arc<Authority>,
    address: SocketAddr,
    lifetime: Duration,
    issued: blocking::Receiver<Issued>,
    _serving: Serving,
}

/// An authority that is away: nobody listens at its address.
pub(crate) struct Away {
    authority: Arc<Authority>,
    address: SocketAddr,
    lifetime: Duration,
}

impl Away {
    /// The same authority at the same address.
    pub(crate) fn back(self) -> Ca {
        Ca::listen(self.authority, self.address, self.lifetime)
    }
}

#[derive(Clone)]
struct Signer {
    authority: Arc<Authority>,
    lifetime: Duration,
    issued: blocking::Sender<Issued>,
}

impl UnaryService<IstioCertificateRequest> for Signer {
    type Response = IstioCertificateResponse;
    type Future = Ready<Result<Response<IstioCertificateResponse>, Status>>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        ready(self.sign(request))
    }
}

impl Signer {
    fn sign(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let token = request.metadata().get("authorization");
        let token = token.map(|token| token.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let fields = request.metadata.unwrap_or_default().fields;
        let asked = fields.get("ImpersonatedIdentity").cloned();
        let Some(Kind::StringValue(asked)) = asked.and_then(|value| value.kind) else {
            return Err(Status::invalid_argument("for whom?"));
        };
        let identity: Identity = asked.parse().unwrap();
        let now = SystemTime::now();
        let leaf = Leaf::new(&identity, now).valid(now, now + self.lifetime);
        let leaf = self.authority.sign_request(&request.csr, &leaf).unwrap();
        let root = self.authority.root_pem().to_owned();
        let cert_chain = vec![leaf.clone(), root];
        let issued = Issued {
            identity,
            leaf,
            token,
            until: now + self.lifetime,
        };
        // A test that has seen enough listens no more.
        let _ = self.issued.send(issued);
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

impl Ca {
    /// Listens on a port of its own; certificates live so long.
    pub(crate) fn start(lifetime: Duration) -> Self {
        let authority = Arc::new(Authority::new("mesh", SystemTime::now()).unwrap());
        Self::listen(authority, (Ipv4Addr::LOCALHOST, 0).into(), lifetime)
    }

    fn listen(authority: Arc<Authority>, at: SocketAddr, lifetime: Duration) -> Self {
        let (sender, issued) = blocking::channel();
        let listener = std::net::TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls(&authority);
        let signer = Signer {
            authority: Arc::clone(&authority),
            lifetime,
            issued: sender,
        };
        let serving = Serving::start(move || async move {
            let listener = TcpListener::from_std(listener).unwrap();
            serve(listener, tls, signer).await;
        });
        Self {
            authority,
            address,
            lifetime,
            issued,
            _serving: serving,
        }
    }

    /// Ends it with all its connections.
    pub(crate) fn leave(self) -> Away {
        Away {
            authority: Arc::clone(&self.authority),
            address: self.address,
            lifetime: self.lifetime,
        }
    }

    /// As a setting.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Puts its root where nodes can be told to find it.
    pub(crate) fn write_root(&self, path: &Path) {
        std::fs::write(path, self.authority.root_pem()).unwrap();
    }

    /// The next certificate it issues.
    #[track_caller]
    pub(crate) fn next(&self) -> Issued {
        self.issued.recv_timeout(PATIENCE).expect("a request")
    }

    /// Takes a tunnel as a workload of the mesh would, and ends it; the certificate its client showed,
    /// unless the client was gone.
    pub(crate) fn client_of(&self, tunnel: TcpStream) -> Option<CertificateDer<'static>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.root_pem().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let workload = Identity::new("cluster.local", "default", "probe");
        let (chain, key) = issue(&self.authority, &Leaf::new(&workload, SystemTime::now()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let session = ServerConnection::new(config.into()).unwrap();
        let mut session = StreamOwned::new(session, tunnel);
        session.read_exact(&mut [0]).ok()?;
        session.conn.peer_certificates()?.first().cloned()
    }

    /// A certificate it has issued already.
    pub(crate) fn try_next(&self) -> Option<Issued> {
        self.issued.try_recv().ok()
    }
}

fn tls(authority: &Authority) -> TlsAcceptor {
    let nobody = Identity::new("cluster.local", "istio-system", "istiod");
    let leaf = Leaf::new(&nobody, SystemTime::now()).hosts(&["localhost"]);
    let (chain, key) = issue(authority, &leaf);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn issue(
    authority: &Authority,
    leaf: &Leaf,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let issued = authority.issue(leaf).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(issued.leaf.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    (chain, key)
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, signer: Signer) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        let (tls, signer) = (tls.clone(), signer.clone());
        tokio::spawn(async move {
            let Ok(session) = tls.accept(socket).await else {
                return;
            };
            let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                assert_eq!(request.uri().path(), METHOD);
                let signer = signer.clone();
                async move {
                    let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
                    let answer = grpc.unary(signer, request.map(Body::new)).await;
                    Ok::<_, Infallible>(answer)
                }
            });
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A node that goes away is not the authority's business.
            let _ = http2.serve_connection(TokioIo::new(session), service).await;
        });
    }
}
