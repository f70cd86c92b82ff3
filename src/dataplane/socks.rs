//! SOCKS5 for workloads without capture (RFC 1928: no authentication, CONNECT only).
//!
//! Success is answered only once the server side is open, so a client learns of a refusal.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::capture::{self, CaptureError, Captured};
use super::demand;
use super::hostnames;
use super::listener::Accepted;
use super::local::LocalKey;
use super::outbound::{self, Open};
use super::relay::send_all;
use super::rt::{self, Socket};
use super::shard::Shard;
use super::slot::Slot;
use crate::decision::missing::hostname_key;
use crate::decision::route::{Target, self_call};
use crate::model::addr::OrigDstAddr;
use crate::model::close::CloseReason;
use crate::telemetry::counters::Limit;
use crate::telemetry::flow::Direction;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const COMMAND_CONNECT: u8 = 1;

/// Reply codes of RFC 1928 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
}

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
enum SocksError {
    /// Not a SOCKS5 CONNECT without authentication.
    #[error("socks5: {0}")]
    Malformed(&'static str),
    /// The client went away.
    #[error("socks5: {0}")]
    Io(#[from] io::Error),
}

impl SocksError {
    const fn reply(&self) -> Reply {
        match self {
            Self::Malformed(_) => Reply::CommandNotSupported,
            Self::Io(_) => Reply::GeneralFailure,
        }
    }
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
enum NameError {
    /// Neither the mesh nor a name server has an address for it.
    #[error("socks5: no address for {0}")]
    Unresolved(Arc<str>),
    /// Its address is ours.
    #[error(transparent)]
    SelfCall(CaptureError),
}

impl NameError {
    const fn reply(&self) -> Reply {
        match self {
            Self::Unresolved(_) => Reply::HostUnreachable,
            Self::SelfCall(_) => Reply::NotAllowed,
        }
    }
}

/// What a refused client may still send while it reads the answer.
const REFUSED_BYTES_MAX: usize = 64 * 1024;

/// Serves one connection of port 15080.
pub(crate) async fn serve(shard: Rc<Shard>, local: LocalKey, accepted: Accepted, slot: Slot) {
    let socket = Rc::clone(&accepted.socket);
    match prepare(&shard, &local, accepted).await {
        Ok(open) => {
            if reply(&socket, Reply::Succeeded).await.is_ok() {
                open.relay(slot);
            }
        }
        Err(Some(code)) => refuse(&shard, &socket, code).await,
        Err(None) => socket.reset_on_close(),
    }
}

/// Everything before the success reply. What fails is reported here; the code is the answer, and
/// without one the connection is reset.
async fn prepare(
    shard: &Rc<Shard>,
    local: &LocalKey,
    accepted: Accepted,
) -> Result<Open, Option<Reply>> {
    let client = accepted.client.get();
    let report = |to, error: &dyn std::fmt::Display| {
        shard.refused(Direction::Outbound, client, to, error);
    };
    let limit = shard.config.timeouts.handshake;
    let target = match rt::within(limit, negotiate(&accepted.socket)).await {
        Some(Ok(target)) => target,
        Some(Err(error)) => {
            report(None, &error);
            return Err(Some(error.reply()));
        }
        None => {
            let counters = shard.telemetry.counters();
            counters.limit(Limit::HandshakeTimeout).add(1);
            report(None, &format_args!("socks5: no request within {limit:?}"));
            return Err(None);
        }
    };
    let to = outbound::shown(&target);
    let captured = match capture::identify(shard, local, accepted, target).await {
        Ok(captured) => captured,
        Err(error) => {
            report(to, &error);
            return Err(Some(Reply::NotAllowed));
        }
    };
    let captured = resolved(shard, captured).await.map_err(|error| {
        report(None, &error);
        Some(error.reply())
    })?;
    let opened = outbound::connect(shard, captured).await;
    opened.map_err(|reason| Some(failure(&reason)))
}

/// The connection with an address where the mesh has no service or workload with exactly that hostname: then
/// the name means what the DNS proxy would say it means, an address of the client's family first.
async fn resolved(shard: &Shard, mut captured: Captured) -> Result<Captured, NameError> {
    let Target::Hostname(host, port) = &captured.target else {
        return Ok(captured);
    };
    let source = &captured.source;
    let key = hostname_key(host, &source.namespace);
    let is_known = || {
        let snapshot = shard.snapshot();
        let service = snapshot.service_by_host(host, Some(&source.namespace));
        service.is_some() || snapshot.find_hostname(&key).is_some()
    };
    if !is_known() {
        // Where addresses come on demand, what is unknown may only not have been asked for.
        let _ = Box::pin(demand::look_up(shard, &Arc::from(key.to_string()))).await;
    }
    if is_known() {
        return Ok(captured);
    }
    let unresolved = || NameError::Unresolved(Arc::clone(host));
    if host.is_empty() {
        return Err(unresolved());
    }
    let found = Box::pin(hostnames::destination(shard, host, source)).await;
    let found = found.unwrap_or_default();
    let is_ipv6 = captured.client.ip().is_ipv6();
    let of_family = found.iter().find(|ip| ip.is_ipv6() == is_ipv6);
    let ip = of_family.or_else(|| found.first());
    let to = SocketAddr::new(*ip.ok_or_else(unresolved)?, *port);
    if self_call(to, &shard.config.illegal_ports) {
        return Err(NameError::SelfCall(CaptureError::SelfCall));
    }
    captured.target = Target::Address(OrigDstAddr::new(to));
    Ok(captured)
}

/// Answers with a failure and waits for the client to take it: closing a socket with unread bytes
/// sends a reset, which would overtake the answer.
async fn refuse(shard: &Shard, socket: &Socket, code: Reply) {
    let parting = async {
        reply(socket, code).await?;
        socket.shutdown_write()?;
        let mut rest = [0; 512];
        for _ in 0..REFUSED_BYTES_MAX / rest.len() {
            read_some(socket, &mut rest).await?;
        }
        Ok::<_, io::Error>(())
    };
    // Nobody is left to be told: the client has left, or sends and does not read.
    let _ = rt::within(shard.config.timeouts.handshake, parting).await;
}

async fn reply(socket: &Socket, code: Reply) -> io::Result<()> {
    send_all(socket, &[VERSION, code as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

fn failure(reason: &CloseReason) -> Reply {
    match reason {
        CloseReason::Denied(_) | CloseReason::PolicyChange(_) | CloseReason::Status(_) => {
            Reply::NotAllowed
        }
        CloseReason::Route(_) | CloseReason::ConnectTimeout(_) => Reply::HostUnreachable,
        CloseReason::Connect(_) | CloseReason::Dial(_) => Reply::ConnectionRefused,
        CloseReason::Complete
        | CloseReason::ClientReset
        | CloseReason::ServerReset
        | CloseReason::Revoked
        | CloseReason::Drain
        | CloseReason::Tls(_)
        | CloseReason::Identity(_)
        | CloseReason::Http2(_)
        | CloseReason::Relay(_)
        | CloseReason::Limit(_)
        | CloseReason::Panic => Reply::GeneralFailure,
    }
}

async fn negotiate(socket: &Socket) -> Result<Target, SocksError> {
    let [version, methods] = read(socket).await?;
    if version != VERSION {
        return Err(SocksError::Malformed("the client does not speak version 5"));
    }
    let mut offered = vec![0; usize::from(methods)];
    read_exact(socket, &mut offered).await?;
    if !offered.contains(&NO_AUTHENTICATION) {
        return Err(SocksError::Malformed(
            "the client insists on authentication",
        ));
    }
    send_all(socket, &[VERSION, NO_AUTHENTICATION]).await?;
    let [version, command, _reserved, kind] = read(socket).await?;
    if version != VERSION || command != COMMAND_CONNECT {
        return Err(SocksError::Malformed("only CONNECT is served"));
    }
    match kind {
        1 => {
            let ip: [u8; 4] = read(socket).await?;
            address(socket, IpAddr::from(ip)).await
        }
        4 => {
            let ip: [u8; 16] = read(socket).await?;
            address(socket, IpAddr::from(ip)).await
        }
        3 => {
            let [length] = read(socket).await?;
            let mut name = vec![0; usize::from(length)];
            read_exact(socket, &mut name).await?;
            let port = u16::from_be_bytes(read(socket).await?);
            let name = String::from_utf8(name)
                .map_err(|_| SocksError::Malformed("the host name is not UTF-8"))?;
            Ok(named(&name, port))
        }
        _ => Err(SocksError::Malformed("unknown address type")),
    }
}

async fn address(socket: &Socket, ip: IpAddr) -> Result<Target, SocksError> {
    let port = u16::from_be_bytes(read(socket).await?);
    Ok(Target::Address(OrigDstAddr::new(SocketAddr::new(ip, port))))
}

/// A name that is an address in text form is an address.
fn named(name: &str, port: u16) -> Target {
    match name.parse::<IpAddr>() {
        Ok(ip) => Target::Address(OrigDstAddr::new(SocketAddr::new(ip, port))),
        Err(_) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            Target::Hostname(Arc::from(name), port)
        }
    }
}

async fn read<const N: usize>(socket: &Socket) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    read_exact(socket, &mut bytes).await?;
    Ok(bytes)
}

async fn read_exact(socket: &Socket, bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += read_some(socket, &mut bytes[filled..]).await?;
    }
    Ok(())
}

/// At least one byte; end of stream is an error.
async fn read_some(socket: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.try_recv(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => return Ok(received),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
