//! The applications of the tests: servers with a thread for each connection, and client calls.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockRef, Socket, Type};

use crate::clock;
use crate::hosts::Host;

/// How long an application waits for a peer before it reports a stall.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server looks whether it should stop.
const STOP_LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// Connections a listener may hold that have not been accepted.
const BACKLOG: i32 = 1_024;

/// A listening application; dropping it stops accepting and joins its accepting thread.
#[derive(Debug)]
pub struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on all addresses of `host`, both families; port 0 lets the kernel choose. `serve`
    /// runs once for each connection, on a thread of its own.
    ///
    /// # Panics
    /// If the port is taken.
    #[must_use]
    pub fn start(
        host: &Host,
        port: u16,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = host.enter(|| listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
        Self::serve_on(listener, serve, |work| host.spawn(work))
    }

    /// Listens on one address of this machine.
    ///
    /// # Panics
    /// If the port is taken.
    #[must_use]
    pub fn start_here(
        ip: IpAddr,
        port: u16,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        Self::serve_on(listen(ip, port), serve, std::thread::spawn)
    }

    fn serve_on(
        listener: TcpListener,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> JoinHandle<()>,
    ) -> Self {
        let port = listener.local_addr().expect("bound").port();
        let (stop, accepted) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stop_seen, count) = (Arc::clone(&stop), Arc::clone(&accepted));
        let serve = Arc::new(serve);
        let thread = spawn(Box::new(move || {
            while !stop_seen.load(Ordering::Relaxed) {
                let Some(stream) = accept_soon(&listener) else {
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        }));
        Self {
            port,
            accepted,
            stop,
            thread: Some(thread),
        }
    }

    /// Port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds and listens; an IPv6 wildcard serves both families.
///
/// # Panics
/// If the address is taken.
#[must_use]
#[track_caller]
pub fn listen(ip: IpAddr, port: u16) -> TcpListener {
    try_listen(ip, port).unwrap_or_else(|e| panic!("listen on {ip}:{port}: {e}"))
}

/// Like [`listen`], as soon as the process that held the port is gone: the kernel takes the sockets
/// of a ring apart a moment after its process has ended.
///
/// # Panics
/// If the port stays taken.
#[must_use]
#[track_caller]
pub fn listen_when_free(ip: IpAddr, port: u16) -> TcpListener {
    clock::wait_for("a free port", PATIENCE, || try_listen(ip, port).ok())
}

fn try_listen(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts one connection if it comes within a moment.
fn accept_soon(listener: &TcpListener) -> Option<TcpStream> {
    let mut fds = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&STOP_LOOK)).ok()?;
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(false).expect("blocking");
    set_patience(&stream);
    Some(stream)
}

/// Accepts one connection within `limit`.
///
/// # Errors
/// `TimedOut` if none comes.
pub fn accept_within(listener: &TcpListener, limit: Duration) -> io::Result<TcpStream> {
    clock::try_wait_for(limit, || accept_soon(listener))
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Serves a connection by sending everything back, then ending in order.
pub fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if stream.write_all(&buffer[..n]).is_err() {
                    return;
                }
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Serves a connection by answering everything twice.
pub fn double(mut stream: TcpStream) {
    let mut request = Vec::new();
    if stream.read_to_end(&mut request).is_ok() {
        let _ = stream
            .write_all(&request)
            .and_then(|()| stream.write_all(&request));
    }
}

/// Connects from this thread's host.
///
/// # Errors
/// As connect(2).
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    set_patience(&stream);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects from this thread's host, sends `request`, ends the sending direction and reads to the
/// end.
///
/// # Errors
/// The first error of any step.
pub fn exchange(to: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    stream.write_all(request)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Sends `request` on an open connection and reads as many bytes back: one round trip of an echo.
///
/// # Errors
/// The first error of any step.
pub fn round_trip(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Closes with a reset instead of in order.
///
/// # Panics
/// If the option cannot be set.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("linger");
    drop(stream);
}

/// How a connection that should not carry data ended, seen by its client: `Ok(bytes)` is an orderly
/// end after that many bytes.
///
/// # Errors
/// A reset, or a stall.
pub fn read_to_end(stream: &mut TcpStream) -> io::Result<usize> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)
}

/// Whether an error is the end of a connection, not a stall.
#[must_use]
pub fn is_close(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            // What shutdown(2) says of a connection that was reset before.
            | io::ErrorKind::NotConnected
    )
}

fn set_patience(stream: &TcpStream) {
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("read timeout");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("write timeout");
}
