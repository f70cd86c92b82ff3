//! SOCKS5 for workloads without capture (RFC 1928: no authentication, CONNECT only).
//!
//! Success is answered only once the server side is open, so a client learns of a refusal.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::capture;
use super::listener::Accepted;
use super::local::LocalKey;
use super::outbound;
use super::relay::send_all;
use super::rt::{self, First, Socket};
use super::shard::Shard;
use crate::decision::route::Target;
use crate::model::addr::OrigDstAddr;
use crate::model::close::CloseReason;
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

/// Serves one connection of port 15080.
pub(crate) async fn serve(shard: Rc<Shard>, local: LocalKey, accepted: Accepted) {
    let socket = Rc::clone(&accepted.socket);
    let work = run(&shard, &local, accepted);
    if let First::Left(()) = rt::race(shard.force.wait(), work).await {
        socket.reset_on_close();
    }
}

async fn run(shard: &Rc<Shard>, local: &LocalKey, accepted: Accepted) {
    let (socket, client) = (Rc::clone(&accepted.socket), accepted.client.get());
    let limit = shard.config.timeouts.handshake;
    let target = match rt::within(limit, negotiate(&socket)).await {
        Some(Ok(target)) => target,
        Some(Err(error)) => {
            shard.refused(Direction::Outbound, client, None, &error);
            return answer(&socket, error.reply()).await;
        }
        None => {
            let error = format_args!("socks5: no request within {limit:?}");
            shard.refused(Direction::Outbound, client, None, &error);
            return socket.reset_on_close();
        }
    };
    let captured = match capture::identify(shard, local, accepted, target).await {
        Ok(captured) => captured,
        Err(error) => {
            shard.refused(Direction::Outbound, client, None, &error);
            return answer(&socket, Reply::NotAllowed).await;
        }
    };
    match outbound::connect(shard, captured).await {
        Ok(open) => {
            if reply(&socket, Reply::Succeeded).await.is_ok() {
                open.relay().await;
            }
        }
        Err(reason) => answer(&socket, failure(&reason)).await,
    }
}

/// Answers with a failure and closes.
async fn answer(socket: &Socket, code: Reply) {
    let _ = reply(socket, code).await;
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
        match socket.try_recv(&mut bytes[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => filled += received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
