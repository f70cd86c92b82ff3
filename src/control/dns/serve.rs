//! The loops that read queries from bound sockets and write replies.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::message::{self, Incoming};
use super::places::Place;
use super::report::limit_hit;
use super::{Proxy, Step, Transport};
use crate::config::limits::{
    ACCEPT_BACKOFF_MAX, DNS_PENDING_MAX, DNS_TCP_IDLE_TIMEOUT, DNS_TCP_PIPELINE_MAX,
    DNS_UDP_QUERY_BYTES_MAX, LISTEN_BACKLOG,
};

/// Ports tried before none is found that is free for both transports.
const PORT_TRIES: u32 = 16;

/// How listening sockets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// SO_MARK, which replies carry too.
    pub mark: Option<u32>,
    /// SO_REUSEPORT: an old and a new process share the port.
    pub reuse_port: bool,
}

/// Binds both transports to one address; port 0 lets the kernel choose one that is free for both.
///
/// # Errors
/// Of bind(2); `EPERM` when the mark may not be set.
pub fn bind(addr: SocketAddr, options: BindOptions) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = PORT_TRIES;
    loop {
        let tcp = bind_tcp(addr, options)?;
        tries -= 1;
        match bind_udp(tcp.local_addr()?, options) {
            Err(error)
                if addr.port() == 0 && tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            udp => return Ok((udp?, tcp)),
        }
    }
}

fn bind_tcp(addr: SocketAddr, options: BindOptions) -> io::Result<TcpListener> {
    let socket = socket(addr, Type::STREAM, Protocol::TCP, options)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_udp(addr: SocketAddr, options: BindOptions) -> io::Result<UdpSocket> {
    let socket = socket(addr, Type::DGRAM, Protocol::UDP, options)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

fn socket(
    addr: SocketAddr,
    kind: Type,
    protocol: Protocol,
    options: BindOptions,
) -> io::Result<Socket> {
    let domain = Domain::for_address(addr);
    let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

/// Answers the datagrams of `socket` until `stop` turns true (or its sender is gone), then those that
/// wait for an answer and those that come meanwhile. Dropping the future leaves them unanswered.
pub async fn serve_udp(socket: UdpSocket, proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    // One byte more than we take shows that a datagram was longer.
    let mut buffer = vec![0; DNS_UDP_QUERY_BYTES_MAX + 1];
    let (mut stopping, mut last) = (false, DNS_PENDING_MAX);
    loop {
        // As long as the socket is open the kernel gives it its share of the queries, also when another
        // process has taken over: so they are answered until nothing waits any more, here or in the kernel.
        let received = if stopping && waiting.is_empty() {
            match socket.try_recv_from(&mut buffer) {
                Ok(received) if last > 0 => {
                    last -= 1;
                    Ok(received)
                }
                _ => break,
            }
        } else {
            tokio::select! {
                biased;
                () = stopped(&mut stop), if !stopping => {
                    stopping = true;
                    continue;
                }
                received = socket.recv_from(&mut buffer) => received,
                Some(_) = waiting.join_next() => continue,
            }
        };
        let Ok((length, from)) = received else {
            sleep(ACCEPT_BACKOFF_MAX).await;
            continue;
        };
        let bytes = &buffer[..length];
        if !answerable(from) {
            continue;
        }
        if length > DNS_UDP_QUERY_BYTES_MAX {
            limit_hit("query_bytes");
            if let Incoming::Refused(reply) = message::too_long(bytes) {
                send(&socket, message::encode(&reply, u16::MAX), from).await;
            }
            continue;
        }
        match take(&proxy, bytes, from, Transport::Udp) {
            Step::Done(reply) => send(&socket, reply, from).await,
            Step::Later(pending) => {
                let socket = Arc::clone(&socket);
                waiting.spawn(async move { send(&socket, pending.answer().await, from).await });
            }
        }
    }
}

/// A panic over one message must not end the loop that serves all clients.
fn take(proxy: &Arc<Proxy>, bytes: &[u8], from: SocketAddr, transport: Transport) -> Step {
    let taken = catch_unwind(AssertUnwindSafe(|| proxy.take(bytes, from, transport)));
    taken.unwrap_or_else(|_| {
        tracing::error!(target: "corelane::dns", "a query panicked; it is not answered");
        Step::Done(None)
    })
}

async fn send(socket: &UdpSocket, reply: Option<Vec<u8>>, to: SocketAddr) {
    if let Some(reply) = reply
        && let Err(error) = socket.send_to(&reply, to).await
    {
        tracing::debug!(target: "corelane::dns", %to, %error, "reply not sent");
    }
}

/// Whether a reply to this source would reach one host, and only one.
fn answerable(from: SocketAddr) -> bool {
    let ip = from.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    from.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Answers the connections of `listener` until `stop` turns true (or its sender is gone), then the
/// queries that wait for an answer. Dropping the future cuts every connection.
pub async fn serve_tcp(listener: TcpListener, proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, from)) = accepted else {
            sleep(ACCEPT_BACKOFF_MAX).await;
            continue;
        };
        match Place::connection(&proxy.own, &proxy.settings.of_node) {
            Some(place) => {
                let (proxy, stop) = (Arc::clone(&proxy), stop.clone());
                connections.spawn(async move {
                    converse(stream, from, &proxy, stop).await;
                    drop(place);
                });
            }
            None => limit_hit("tcp_connections"),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection.
async fn converse(
    stream: TcpStream,
    from: SocketAddr,
    proxy: &Arc<Proxy>,
    stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (replies, queue) = mpsc::channel(DNS_TCP_PIPELINE_MAX);
    tokio::join!(
        read(reader, from, proxy, replies, stop),
        write(writer, queue)
    );
}

/// Reads queries until the client has no more, pauses too long, or breaks the rules.
async fn read(
    mut reader: OwnedReadHalf,
    from: SocketAddr,
    proxy: &Arc<Proxy>,
    replies: mpsc::Sender<Vec<u8>>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(DNS_TCP_PIPELINE_MAX));
    let mut waiting = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await.ok()?;
            match timeout(DNS_TCP_IDLE_TIMEOUT, query(&mut reader)).await {
                Ok(query) => query.ok().map(|query| (query, place)),
                Err(_) => {
                    limit_hit("tcp_idle");
                    None
                }
            }
        };
        let next = tokio::select! {
            biased;
            () = stopped(&mut stop) => None,
            next = next => next,
        };
        let Some((query, place)) = next else { break };
        match proxy.take(&query, from, Transport::Tcp) {
            Step::Done(None) => {}
            Step::Done(Some(reply)) => {
                if replies.send(reply).await.is_err() {
                    break;
                }
            }
            Step::Later(pending) => {
                let replies = replies.clone();
                waiting.spawn(async move {
                    if let Some(reply) = pending.answer().await {
                        let _gone = replies.send(reply).await;
                    }
                    drop(place);
                });
            }
        }
        while waiting.try_join_next().is_some() {}
    }
    while waiting.join_next().await.is_some() {}
}

/// One message behind its length (RFC 1035 §4.2.2). Dropping the future loses what was read of it.
async fn query(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = usize::from(reader.read_u16().await?);
    let mut query = vec![0; length];
    reader.read_exact(&mut query).await?;
    Ok(query)
}

/// Writes replies in the order in which they come, until the client no longer takes them.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(reply) = queue.recv().await {
        let Ok(length) = u16::try_from(reply.len()) else {
            continue;
        };
        let mut message = Vec::with_capacity(reply.len() + 2);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(&reply);
        match timeout(DNS_TCP_IDLE_TIMEOUT, writer.write_all(&message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => return limit_hit("tcp_idle"),
        }
    }
    let _ = writer.shutdown().await;
}

/// Completes when the node stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
}
