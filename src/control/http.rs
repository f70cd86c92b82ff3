//! One small HTTP/1.1 server for operators: carries the admin, metrics and readiness endpoints.
//!
//! Clear text, no authentication. Bounded in every direction a client could push: head size, time
//! to send a head (which also ends idle connections), connections at once, life of a connection.
//! Request bodies are never read.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::config::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX, ADMIN_HEAD_TIMEOUT};
use crate::telemetry::log_limit;

/// Longest life of a connection: a client that stops reading an answer holds its slot no longer.
/// The longest answer, a five-minute profile, fits.
const CONNECTION_LIFE: Duration = Duration::from_mins(6);

/// First and longest pause after a failed accept.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Connections the kernel queues.
const BACKLOG: u32 = 128;

/// Answer to a request.
pub type Response = hyper::Response<Full<Bytes>>;

/// What a handler returns.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response, HandlerError>> + Send + 'a>>;

/// A request failed inside; answered with 500 and this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub String);

/// Head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Target.
    pub uri: Uri,
    /// Header fields.
    pub headers: HeaderMap,
}

impl Request {
    /// Path of the target.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Value of a query parameter, percent-decoded; the last of its name wins, and one without `=`
    /// is empty.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.uri.query()?.split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut last_first = pairs.rev().filter(|(key, _)| percent_decode(key) == name);
        last_first.next().map(|(_, value)| percent_decode(value))
    }
}

/// Decodes `%41` and `+`; anything malformed stays as it is.
fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let escape = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(value) = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(if byte == b'+' { b' ' } else { byte });
            at += 1;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> Answer<'_>;
}

/// An answer with a body.
#[must_use]
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A plain-text answer.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    respond(status, "text/plain", body)
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Bounds of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Name in logs and metrics: `admin`, `stats`, `readiness`.
    pub name: &'static str,
    /// Connections served at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Time to send a request head, and idle time between requests.
    pub head_timeout: Duration,
}

impl ServerOptions {
    /// The default bounds.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            connections_max: ADMIN_CONNECTIONS_MAX,
            head_timeout: ADMIN_HEAD_TIMEOUT,
        }
    }
}

/// Binds a listener; `[::]` takes IPv4 as well. Must be called within the control runtime.
///
/// # Errors
/// The address is taken or not usable.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG.cast_signed())?;
    TcpListener::from_std(socket.into())
}

/// Serves until `stop` turns true (or its sender is gone), then finishes the requests in flight.
/// Dropping the future cuts every connection.
pub async fn serve(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    options: ServerOptions,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, slot)) => {
                pause = ACCEPT_PAUSE.0;
                let (handler, stop) = (Arc::clone(&handler), stop.clone());
                connections.spawn(async move {
                    serve_connection(stream, handler, options, stop).await;
                    drop(slot);
                });
            }
            Err(error) => {
                log_limit::warn!(server = options.name, %error, "accept failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    tracing::info!(component = options.name, "shutdown complete");
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means the sender is gone, which stops the server as well.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Waits for a free slot first, so that a full server leaves connections in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await;
    let slot = slot.map_err(|_| io::Error::other("server closed"))?;
    let (stream, _) = listener.accept().await?;
    // Fails when the client is gone already; serving it then ends at once.
    drop(stream.set_nodelay(true));
    Ok((stream, slot))
}

async fn serve_connection(
    stream: TcpStream,
    handler: Arc<dyn Handler>,
    options: ServerOptions,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(answer(&*handler, request, options.name).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(ADMIN_HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let life = tokio::time::sleep(CONNECTION_LIFE);
    // A connection that ends with an error has told its peer what can be told (400), and concerns
    // nobody else.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = life => return,
        () = stopped(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

async fn answer(
    handler: &dyn Handler,
    request: hyper::Request<Incoming>,
    server: &'static str,
) -> Response {
    let (head, _unread) = request.into_parts();
    let request = Request {
        method: head.method,
        uri: head.uri,
        headers: head.headers,
    };
    let response = handler.handle(request).await.unwrap_or_else(|error| {
        log_limit::warn!(server, %error, "request failed");
        text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    });
    let code = response.status().as_u16().to_string();
    metrics::counter!("corelane_http_requests", "server" => server, "code" => code).increment(1);
    response
}

#[cfg(test)]
pub(in crate::control) mod tests;
