//! TCP sockets: creation with every option set before bind or connect, non-blocking transfer.
//!
//! Options and their meaning: socket(7), tcp(7), ip(7), ipv6(7).

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::netns::Namespace;

/// TCP keepalive settings, all in whole seconds on the wire of setsockopt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is dead.
    pub retries: u32,
}

/// Options of accepted and dialled connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// Keepalive, if on.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT, if on.
    pub user_timeout: Option<Duration>,
    /// SO_RCVBUF in bytes; `None`: the kernel adapts it.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF in bytes; `None`: the kernel adapts it.
    pub send_buffer: Option<usize>,
    /// TCP_NOTSENT_LOWAT in bytes.
    pub notsent_lowat: Option<u32>,
    /// SO_BUSY_POLL in microseconds.
    pub busy_poll: Option<u32>,
}

/// Options of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// SO_REUSEPORT: several shards, or an old and a new process, share the port.
    pub reuse_port: bool,
    /// SO_MARK, inherited by accepted sockets.
    pub mark: Option<u32>,
    /// Try IP_TRANSPARENT.
    pub transparent: bool,
    /// Length of the accept queue.
    pub backlog: i32,
}

/// Opens a listening socket. The flag tells whether IP_TRANSPARENT could be set.
///
/// # Errors
/// `EADDRINUSE`, `EACCES` (port below 1024, or a mark without CAP_NET_RAW/ADMIN), `EMFILE`,
/// `EAFNOSUPPORT` on a kernel without IPv6.
pub fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<(OwnedFd, bool)> {
    let socket = Socket::new(Domain::for_address(addr), stream(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        // The wildcard listener serves both families, as the reference's does.
        socket.set_only_v6(false)?;
    }
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    let transparent = options.transparent && set_transparent(&socket, addr.ip()).is_ok();
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(options.backlog)?;
    Ok((socket.into(), transparent))
}

/// The kernel sets up sockets non-blocking and close-on-exec in one call.
fn stream() -> Type {
    Type::STREAM.nonblocking().cloexec()
}

fn set_transparent(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    if ip.is_ipv6() {
        socket.set_ip_transparent_v6(true)?;
    }
    // On a dual-stack socket the IPv4 option governs the IPv4 half.
    socket.set_ip_transparent_v4(true)
}

/// Accepts one waiting connection, non-blocking.
///
/// # Errors
/// `WouldBlock` when none waits; `ECONNABORTED`, `EMFILE` and others of accept(2).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let Some(Ok(peer)) = peer.map(SocketAddr::try_from) else {
        // A peer that is already gone has no name; the connection is of no use.
        return Err(io::ErrorKind::ConnectionAborted.into());
    };
    Ok((fd, peer))
}

/// What a dialled socket needs before connect(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct DialOptions<'a> {
    /// SO_MARK, so that capture rules leave our own traffic alone.
    pub mark: Option<u32>,
    /// Address to send from.
    pub source: Source,
    /// Namespace to make the socket in; `None`: the thread's own. It belongs there for good.
    pub namespace: Option<&'a Namespace>,
}

/// Source address of a dialled socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The kernel chooses.
    #[default]
    Any,
    /// A local address of this host.
    Local(IpAddr),
    /// Somebody else's address (IP_TRANSPARENT and IP_FREEBIND).
    Foreign(IpAddr),
}

/// Result of [`dial`].
#[derive(Debug)]
pub struct Dialled {
    /// The socket, connecting or connected.
    pub fd: OwnedFd,
    /// Why the foreign source address could not be used; the dial goes on without it.
    pub source_error: Option<io::Error>,
}

/// Starts a non-blocking connect. Wait for writability, then ask [`take_error`].
///
/// # Errors
/// `EMFILE`, `ENETUNREACH`, `EACCES`, `EPERM` (mark) and others of connect(2).
pub fn dial(to: SocketAddr, options: &DialOptions<'_>) -> io::Result<Dialled> {
    let make = || Socket::new(Domain::for_address(to), stream(), Some(Protocol::TCP));
    let socket = match options.namespace {
        Some(namespace) => namespace.within(make)??,
        None => make()?,
    };
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    let source_error = match options.source {
        Source::Any => None,
        Source::Local(ip) => {
            bind_address(&socket, ip)?;
            None
        }
        Source::Foreign(ip) => bind_foreign(&socket, ip).err(),
    };
    match socket.connect(&SockAddr::from(to)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(Dialled {
        fd: socket.into(),
        source_error,
    })
}

fn bind_foreign(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    if ip.is_ipv6() {
        socket.set_ip_transparent_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_ip_transparent_v4(true)?;
        socket.set_freebind_v4(true)?;
    }
    bind_address(socket, ip)
}

/// Binds to an address and leaves the port to connect(2), which may share it among destinations: at most
/// one in each range of local ports would be open otherwise (IP_BIND_ADDRESS_NO_PORT, ip(7)).
fn bind_address(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    super::steering::set_bind_address_no_port(socket.as_fd())?;
    socket.bind(&SockAddr::from(SocketAddr::new(ip, 0)))
}

/// Pending error of a socket (SO_ERROR), cleared by the call.
///
/// # Errors
/// Of getsockopt(2).
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    SockRef::from(&fd).take_error()
}

/// Sets TCP_NODELAY and `options`. Failures are ignored: a peer that is already gone makes them
/// fail, and the next read tells so.
pub fn set_connection_options(fd: BorrowedFd<'_>, options: &ConnectionOptions) {
    let socket = SockRef::from(&fd);
    let _ = socket.set_tcp_nodelay(true);
    if let Some(keepalive) = options.keepalive {
        let params = TcpKeepalive::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.retries);
        let _ = socket.set_tcp_keepalive(&params);
    }
    if options.user_timeout.is_some() {
        let _ = socket.set_tcp_user_timeout(options.user_timeout);
    }
    if let Some(bytes) = options.receive_buffer {
        let _ = socket.set_recv_buffer_size(bytes);
    }
    if let Some(bytes) = options.send_buffer {
        let _ = socket.set_send_buffer_size(bytes);
    }
    if let Some(bytes) = options.notsent_lowat {
        let _ = socket.set_tcp_notsent_lowat(bytes);
    }
    if let Some(micros) = options.busy_poll {
        let _ = super::steering::set_busy_poll(fd, micros);
    }
}

/// Original destination of a redirected connection: SO_ORIGINAL_DST, else IP6T_SO_ORIGINAL_DST,
/// else the local address (TPROXY).
///
/// # Errors
/// When even the local address is gone.
pub fn original_dst(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let socket = SockRef::from(&fd);
    let redirected = socket
        .original_dst_v4()
        .or_else(|_| socket.original_dst_v6());
    match redirected.ok().and_then(|addr| addr.as_socket()) {
        Some(addr) => Ok(addr),
        None => local_addr(fd),
    }
}

/// Local address.
///
/// # Errors
/// Of getsockname(2).
pub fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    socket_addr(SockRef::from(&fd).local_addr()?)
}

/// The peer's address.
///
/// # Errors
/// `ENOTCONN` when the connection was reset; of getpeername(2).
pub fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    socket_addr(SockRef::from(&fd).peer_addr()?)
}

fn socket_addr(addr: SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Receives without blocking. `Ok(0)` is end of stream.
///
/// # Errors
/// `WouldBlock`; `ConnectionReset`, `TimedOut` and others of recv(2).
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT)?;
    Ok(received)
}

/// Sends without blocking and without SIGPIPE.
///
/// # Errors
/// `WouldBlock`; `BrokenPipe`, `ConnectionReset` and others of send(2).
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(
        fd,
        bytes,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?)
}

/// Sends several slices in one call.
///
/// # Errors
/// As [`send`].
pub fn send_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut control = rustix::net::SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(fd, slices, &mut control, flags)?)
}

/// Ends the sending direction (FIN).
///
/// # Errors
/// `NotConnected` when the peer reset the connection.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// Ends listening at once, whoever else still holds the socket, such as a poll under way in a ring: until
/// then the kernel goes on completing connections that nobody will accept (shutdown(2)).
pub fn stop_listening(listener: BorrowedFd<'_>) {
    let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
}

/// Makes the coming close send RST instead of FIN.
pub fn reset_on_close(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
}

/// Whether this kernel has IPv6.
#[must_use]
pub fn ipv6_available() -> bool {
    Socket::new(Domain::IPV6, stream(), Some(Protocol::TCP)).is_ok()
}

/// Whether an address is one of this host's. In doubt it is.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    let bound = std::net::UdpSocket::bind((ip, 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Wildcard address of the preferred family.
#[must_use]
pub const fn wildcard(ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

/// Whether the mark can be set in this process (CAP_NET_ADMIN or CAP_NET_RAW).
///
/// # Errors
/// `EPERM` without the capability.
pub fn check_mark(mark: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, stream(), Some(Protocol::TCP))?;
    SockRef::from(&socket.as_fd()).set_mark(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local_and_documentation_addresses_are_not() {
        for (ip, local) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(ip.parse().unwrap()), local, "{ip}");
        }
    }

    #[test]
    fn a_source_address_leaves_the_port_to_the_connect() {
        let socket = Socket::new(Domain::IPV4, stream(), Some(Protocol::TCP)).unwrap();
        bind_address(&socket, Ipv4Addr::LOCALHOST.into()).unwrap();
        let bound = local_addr(socket.as_fd()).unwrap();
        assert_eq!(bound, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    }
}
