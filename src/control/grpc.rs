//! gRPC connections to servers of the control plane: where they are, who is believed, what is sent.
//!
//! [`Server::connect`] makes one HTTP/2 connection, in TLS unless the address says otherwise, and reads
//! the roots anew each time, so that a replaced root file is used by the next connection.
//! [`headers::Headers`] gives what each request carries. Deliberately absent: reconnecting, which
//! callers do by rules of their own, and a deadline for calls, which the PINGs of the connection and
//! the callers bound.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::server::{RootSource, ServerAddress};
use crate::tls::TlsOptions;
use crate::tls::control_plane::{self, ServerHost, ServerTlsError, ServerTrust};
use crate::tls::credentials::Credentials;

pub mod channel;
pub mod headers;
pub mod roots;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use channel::Channel;
pub use roots::RootsError;

/// For the name, and again for all of its addresses together (spec: xds.md 1).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For TLS. The reference waits for ever, and a server that says nothing would stop us.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// TCP keepalive (spec: xds.md 1).
const KEEPALIVE_IDLE: Duration = Duration::from_mins(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_RETRIES: u32 = 9;
/// Between PINGs while a call is open.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// For the answer to a PING; then the connection is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A server of the control plane and how to reach it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub address: ServerAddress,
    /// By which roots it is believed. Not used without TLS.
    pub roots: RootSource,
    /// A name its certificate may be valid for instead of its host.
    pub alt_hostname: Option<Arc<str>>,
    /// SO_MARK of the connection, by which rules for captured traffic know us.
    pub packet_mark: Option<u32>,
    /// Versions and groups.
    pub tls: TlsOptions,
}

/// No connection to a server of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name of the host leads nowhere.
    #[error("{server}: host name not resolved: {source}")]
    Resolve {
        /// Its address.
        server: ServerAddress,
        /// Why.
        source: io::Error,
    },
    /// No address of the host takes connections.
    #[error("{server}: no connection to {tried}: {source}")]
    Dial {
        /// Its address.
        server: ServerAddress,
        /// The address tried last.
        tried: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket of the file system takes no connections.
    #[error("unix:{}: no connection: {source}", .path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No roots to check the server by.
    #[error("{server}: {source}")]
    Roots {
        /// Its address.
        server: ServerAddress,
        /// Why.
        source: RootsError,
    },
    /// No TLS session.
    #[error("{server}: no TLS session: {source}{}", hint(.source))]
    Tls {
        /// Its address.
        server: ServerAddress,
        /// Why.
        source: ServerTlsError,
    },
    /// The server answers TCP and no TLS.
    #[error("{server}: no TLS session within {HANDSHAKE_TIMEOUT:?}")]
    TlsTimeout {
        /// Its address.
        server: ServerAddress,
    },
    /// HTTP/2 could not begin.
    #[error("{server}: HTTP/2 does not start: {source}")]
    Http2 {
        /// Its address.
        server: ServerAddress,
        /// Why.
        source: channel::ChannelError,
    },
}

/// What to do about it.
fn hint(error: &ServerTlsError) -> &'static str {
    match error {
        ServerTlsError::UnknownCa { .. } => " (is this the right root file?)",
        ServerTlsError::Host(_) | ServerTlsError::Tls(_) | ServerTlsError::Io(_) => "",
    }
}

impl Server {
    /// Makes a connection. `own` is the certificate we show if the server asks for one.
    ///
    /// Dropping the future closes what was opened so far.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, own: Option<&Credentials>) -> Result<Channel, ConnectError> {
        // Boxed: TLS and HTTP/2 take room only while they begin.
        Box::pin(self.open(own)).await
    }

    async fn open(&self, own: Option<&Credentials>) -> Result<Channel, ConnectError> {
        match &self.address {
            ServerAddress::Unix(path) => {
                let path = path.clone();
                let connected = within_limit(UnixStream::connect(&path)).await;
                let stream = connected.map_err(|source| ConnectError::Unix { path, source })?;
                self.start_http2(stream).await
            }
            ServerAddress::Plain { host, port } => {
                let stream = self.dial(host, *port).await?;
                self.start_http2(stream).await
            }
            ServerAddress::Tls { host, port } => {
                let trust = self.trust().await?;
                let stream = self.dial(host, *port).await?;
                let name = ServerHost {
                    host,
                    alternative: self.alt_hostname.as_deref(),
                };
                let session = control_plane::connect(stream, &trust, name, own);
                let session = timeout(HANDSHAKE_TIMEOUT, session).await;
                let server = self.address.clone();
                match session {
                    Ok(Ok(session)) => Box::pin(self.start_http2(session)).await,
                    Ok(Err(source)) => Err(ConnectError::Tls { server, source }),
                    Err(_) => Err(ConnectError::TlsTimeout { server }),
                }
            }
        }
    }

    async fn trust(&self) -> Result<ServerTrust, ConnectError> {
        let trust = roots::read(&self.roots, self.tls).await;
        trust.map_err(|source| ConnectError::Roots {
            server: self.address.clone(),
            source,
        })
    }

    /// Connects to the first address of `host` that answers; each gets its share of the time, so that
    /// one that is silent does not use up that of the others.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let resolve = |source| ConnectError::Resolve {
            server: self.address.clone(),
            source,
        };
        let found = within_limit(tokio::net::lookup_host((host, port))).await;
        let addresses: Vec<SocketAddr> = found.map_err(resolve)?.collect();
        let share = CONNECT_TIMEOUT / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failed = resolve(io::Error::other("the name has no address"));
        for tried in addresses {
            let dialled = timeout(share, self.dial_address(tried)).await;
            let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            match dialled {
                Ok(stream) => return Ok(stream),
                Err(source) => {
                    let server = self.address.clone();
                    failed = ConnectError::Dial {
                        server,
                        tried,
                        source,
                    };
                }
            }
        }
        Err(failed)
    }

    async fn dial_address(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        let options = SockRef::from(&socket);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        options.set_tcp_keepalive(&keepalive)?;
        if let Some(mark) = self.packet_mark
            && let Err(error) = options.set_mark(mark)
        {
            // Without the privilege nothing captures by mark either.
            tracing::debug!("connection to {address} carries no mark: {error}");
        }
        socket.set_nodelay(true)?;
        socket.connect(address).await
    }

    async fn start_http2<T>(&self, stream: T) -> Result<Channel, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let failed = |source| ConnectError::Http2 {
            server: self.address.clone(),
            source,
        };
        let started = http2.handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            started.map_err(|error| failed(channel::ChannelError::from(error)))?;
        let server = self.address.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection to {server} ended: {error}");
            }
        });
        Channel::new(sender, &self.address).map_err(failed)
    }
}

async fn within_limit<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let ended = timeout(CONNECT_TIMEOUT, work).await;
    ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
