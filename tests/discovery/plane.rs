//! A control plane on loopback: hands each stream to the test, which says what is answered.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::task::{Context, Poll};
use std::time::Duration;

use corelane::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use corelane::xds::resource::ResourceType;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::tokio_stream;
use tonic::metadata::MetadataMap;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

use crate::serving::Serving;

/// Longest wait for anything the client does; only a defect reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const ADDRESS: ResourceType = ResourceType::Address;
pub(crate) const AUTHORIZATION: ResourceType = ResourceType::Authorization;

const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

type Answer = Result<DeltaDiscoveryResponse, Status>;

/// A running control plane. Dropped, it is gone with all its connections.
pub(crate) struct Plane {
    address: SocketAddr,
    streams: blocking::Receiver<Stream>,
    _serving: Serving,
}

/// The server's end of one stream. Dropped, it is closed in order.
pub(crate) struct Stream {
    pub(crate) headers: MetadataMap,
    requests: blocking::Receiver<DeltaDiscoveryRequest>,
    responses: mpsc::UnboundedSender<Answer>,
    nonces: u64,
}

impl Plane {
    /// Listens on a port of its own, without TLS.
    pub(crate) fn start() -> Self {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), None)
    }

    /// The same with TLS.
    pub(crate) fn with_tls(config: rustls::ServerConfig) -> Self {
        let tls = TlsAcceptor::from(Arc::new(config));
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), Some(tls))
    }

    /// A control plane that comes back at the address of a former one.
    pub(crate) fn again(at: SocketAddr) -> Self {
        Self::listen(at, None)
    }

    fn listen(at: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let (sender, streams) = blocking::channel();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(64).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let serving = Serving::start(move || async move {
            let listener = TcpListener::from_std(listener).unwrap();
            accept(listener, tls, sender).await;
        });
        Self {
            address,
            streams,
            _serving: serving,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a setting.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next stream a client opens.
    #[track_caller]
    pub(crate) fn stream(&self) -> Stream {
        self.streams.recv_timeout(PATIENCE).expect("a stream")
    }

    /// The next stream with its two first requests.
    #[track_caller]
    pub(crate) fn stream_begun(&self) -> (Stream, [DeltaDiscoveryRequest; 2]) {
        let stream = self.stream();
        let first = [stream.request(), stream.request()];
        (stream, first)
    }

    /// The next stream, answered with that state: policies, then addresses.
    #[track_caller]
    pub(crate) fn stream_with(&self, addresses: Vec<Resource>, policies: Vec<Resource>) -> Stream {
        let (mut stream, _) = self.stream_begun();
        stream.push(AUTHORIZATION, policies, &[]);
        stream.push(ADDRESS, addresses, &[]);
        stream
    }
}

impl Stream {
    /// The client's next request.
    #[track_caller]
    pub(crate) fn request(&self) -> DeltaDiscoveryRequest {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }

    /// A request that is there already.
    pub(crate) fn try_request(&self) -> Option<DeltaDiscoveryRequest> {
        self.requests.try_recv().ok()
    }

    /// Waits for the first two requests; false if the connection broke before.
    pub(crate) fn try_begun(&self) -> bool {
        let moment = Duration::from_secs(2);
        (0..2).all(|_| self.requests.recv_timeout(moment).is_ok())
    }

    /// Waits for the client's answer; false if the connection broke before.
    pub(crate) fn wait_answer(&self) -> bool {
        self.requests.recv_timeout(Duration::from_secs(2)).is_ok()
    }

    /// Whether the client says nothing for a moment.
    pub(crate) fn is_silent(&self) -> bool {
        let moment = Duration::from_millis(100);
        self.requests.recv_timeout(moment).is_err()
    }

    /// Sends a response without waiting for its answer; its nonce.
    pub(crate) fn send(
        &mut self,
        kind: ResourceType,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> String {
        self.nonces += 1;
        let nonce = format!("n{}", self.nonces);
        self.send_raw(DeltaDiscoveryResponse {
            type_url: kind.url().to_owned(),
            nonce: nonce.clone(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        });
        nonce
    }

    pub(crate) fn send_raw(&self, response: DeltaDiscoveryResponse) {
        // A client that is gone takes nothing.
        let _ = self.responses.send(Ok(response));
    }

    /// Sends a response and returns the client's answer to it.
    #[track_caller]
    pub(crate) fn answer(
        &mut self,
        kind: ResourceType,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> DeltaDiscoveryRequest {
        let nonce = self.send(kind, resources, removed);
        let answer = self.request();
        assert_eq!(
            (&*answer.type_url, &answer.response_nonce),
            (kind.url(), &nonce)
        );
        answer
    }

    /// Sends a response that is to be accepted.
    #[track_caller]
    pub(crate) fn push(&mut self, kind: ResourceType, resources: Vec<Resource>, removed: &[&str]) {
        let answer = self.answer(kind, resources, removed);
        assert_eq!(answer.error_detail, None);
    }

    /// Ends the stream with a status.
    pub(crate) fn fail(self, status: Status) {
        self.responses
            .send(Err(status))
            .expect("the stream is open");
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    streams: blocking::Sender<Stream>,
) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        let (tls, streams) = (tls.clone(), streams.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(socket, streams).await,
                Some(tls) => {
                    if let Ok(session) = tls.accept(socket).await {
                        serve(session, streams).await;
                    }
                }
            }
        });
    }
}

async fn serve<T>(socket: T, streams: blocking::Sender<Stream>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        assert_eq!(request.uri().path(), METHOD);
        let method = HandOver(streams.clone());
        async move {
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default())
                .max_decoding_message_size(64 << 20);
            let answer = grpc.streaming(method, request.map(Body::new)).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http2
        .initial_stream_window_size(Some(8 << 20))
        .initial_connection_window_size(Some(16 << 20));
    // A client that goes away is not the server's business.
    let _ = http2.serve_connection(TokioIo::new(socket), service).await;
}

/// Hands each stream to the test.
struct HandOver(blocking::Sender<Stream>);

impl StreamingService<DeltaDiscoveryRequest> for HandOver {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = Answers;
    type Future = Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let (responses, answers) = mpsc::unbounded_channel();
        let (sender, requests) = blocking::channel();
        let headers = request.metadata().clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(request)) = incoming.message().await {
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        let stream = Stream {
            headers,
            requests,
            responses,
            nonces: 0,
        };
        let over = |_| Status::unavailable("the test is over");
        let handed = self.0.send(stream).map_err(over);
        ready(handed.map(|()| Response::new(Answers(answers))))
    }
}

/// What the test says.
struct Answers(mpsc::UnboundedReceiver<Answer>);

impl tokio_stream::Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.0.poll_recv(context)
    }
}
