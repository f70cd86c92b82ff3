//! The demo's application: a plain HTTP/1.1 server that knows nothing of tunnels or identities.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::http::{self, HEAD_BYTES_MAX};

/// What `/` says.
pub(super) const GREETING: &str = "hello from default/server\n";
/// Longest answer of `/bulk/BYTES`; a longer one would outlive the demo.
const BULK_BYTES_MAX: u64 = 4 << 30;
/// Bytes written at once.
const PIECE_BYTES: usize = 256 * 1024;
/// How often an idle connection looks whether the backend stops.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// Time for a client to take what it asked for; a stuck one must not keep the demo from ending.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections served at once; the demo opens a handful.
const CONNECTIONS_MAX: u64 = 64;

/// A running backend; dropping it stops it.
#[derive(Debug)]
pub(super) struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicU64,
    open: AtomicU64,
}

impl Backend {
    /// Serves a listener, and a second one where there are two ways in.
    pub(super) fn start(listener: TcpListener, second: Option<TcpListener>) -> io::Result<Self> {
        let (address, shared) = (listener.local_addr()?, Arc::new(Shared::default()));
        let mut backend = Self {
            address,
            shared,
            threads: Vec::new(),
        };
        for listener in std::iter::once(listener).chain(second) {
            // Also bounds accept(2), so that the thread notices the stop (socket(7)).
            SockRef::from(&listener).set_read_timeout(Some(STOP_INTERVAL))?;
            let shared = Arc::clone(&backend.shared);
            let thread = std::thread::Builder::new().name("demo-backend".to_owned());
            backend
                .threads
                .push(thread.spawn(move || accept(&listener, &shared))?);
        }
        Ok(backend)
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has already been reported on standard error.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            // Nobody came in this interval, or a client has gone already.
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        connections.retain(|connection| !connection.is_finished());
        if shared.open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        shared.open.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("demo-backend-io".to_owned());
        let started = thread.spawn(move || {
            // An error ends the connection, which is all a client has to know.
            let _ = serve(stream, &shared);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        });
        connections.extend(started);
    }
    for connection in connections {
        let _ = connection.join();
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STOP_INTERVAL))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut waiting = Vec::new();
    let mut piece = [0; HEAD_BYTES_MAX];
    while !shared.stop.load(Ordering::Relaxed) {
        while let Some(length) = http::head_length(&waiting) {
            let more = answer(&mut stream, &waiting[..length], shared)?;
            waiting.drain(..length);
            if !more {
                return stream.shutdown(Shutdown::Write);
            }
        }
        if waiting.len() > HEAD_BYTES_MAX {
            respond(
                &mut stream,
                "431 Request Header Fields Too Large",
                "too long\n",
                true,
            )?;
            return Ok(());
        }
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => waiting.extend_from_slice(&piece[..read]),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Answers one request; `false`: the connection ends here.
fn answer(stream: &mut TcpStream, head: &[u8], shared: &Shared) -> io::Result<bool> {
    let Some(request) = http::parse_request(head) else {
        respond(stream, "400 Bad Request", "not HTTP/1.1\n", true)?;
        return Ok(false);
    };
    let close = request.close;
    if request.method != "GET" {
        // Its body, if any, would be taken for the next request.
        respond(stream, "405 Method Not Allowed", "only GET\n", true)?;
        return Ok(false);
    }
    match bulk_length(&request.path) {
        Some(Ok(length)) => bulk(stream, length, close, shared)?,
        Some(Err(())) => respond(stream, "400 Bad Request", "try /bulk/1048576\n", close)?,
        None if request.path == "/" => respond(stream, "200 OK", GREETING, close)?,
        None => respond(stream, "404 Not Found", "try / or /bulk/1048576\n", close)?,
    }
    Ok(!close)
}

/// The number in `/bulk/BYTES`.
fn bulk_length(path: &str) -> Option<Result<u64, ()>> {
    let number = path.strip_prefix("/bulk/")?;
    Some(
        number
            .parse()
            .ok()
            .filter(|length| *length <= BULK_BYTES_MAX)
            .ok_or(()),
    )
}

fn head(status: &str, length: u64, close: bool) -> String {
    let connection = if close { "close" } else { "keep-alive" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n"
    )
}

fn respond(stream: &mut TcpStream, status: &str, body: &str, close: bool) -> io::Result<()> {
    let text = head(status, body.len() as u64, close) + body;
    stream.write_all(text.as_bytes())
}

fn bulk(stream: &mut TcpStream, length: u64, close: bool, shared: &Shared) -> io::Result<()> {
    stream.write_all(head("200 OK", length, close).as_bytes())?;
    let piece = vec![b'.'; PIECE_BYTES];
    let mut left = length;
    while left > 0 {
        if shared.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let now = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        stream.write_all(&piece[..now])?;
        left -= now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Backend {
        Backend::start(TcpListener::bind("127.0.0.1:0").unwrap(), None).unwrap()
    }

    fn exchange(backend: &Backend, request: &str) -> String {
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn two_requests_on_one_connection_get_two_answers() {
        let backend = start();
        let close = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let answer = exchange(&backend, &format!("GET / HTTP/1.1\r\n\r\n{close}"));
        assert_eq!(answer.matches(GREETING).count(), 2, "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2);
        assert_eq!(backend.accepted(), 1);
    }

    #[test]
    fn bulk_has_exactly_the_length_asked_for() {
        let backend = start();
        let request = "GET /bulk/1000003 HTTP/1.1\r\nConnection: close\r\n\r\n";
        let answer = exchange(&backend, request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: 1000003"));
        assert_eq!(body.len(), 1_000_003);
    }

    #[test]
    fn bad_requests_are_told_so() {
        let backend = start();
        for (request, status) in [
            ("GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", "404"),
            ("POST / HTTP/1.1\r\n\r\n", "405"),
            ("GET /bulk/x HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
            (
                "GET /bulk/99999999999 HTTP/1.1\r\nConnection: close\r\n\r\n",
                "400",
            ),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let answer = exchange(&backend, request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{request:?}: {answer}"
            );
        }
    }

    #[test]
    fn dropping_it_ends_connections_and_frees_the_port() {
        let backend = start();
        let addr = backend.address();
        let mut idle = TcpStream::connect(addr).unwrap();
        idle.write_all(b"GET / HT").unwrap();
        drop(backend);
        assert!(matches!(idle.read(&mut [0; 8]), Ok(0) | Err(_)));
        assert!(TcpStream::connect(addr).is_err());
    }
}
