//! Asks name servers, with hickory's resolver: cache, retries, TCP after a cut reply.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::Resolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use hickory_resolver::net::{DnsError, NetError};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::name_servers::NameServers;
use super::report::limit_hit;
use crate::config::limits::{
    DNS_CACHE_ENTRIES, DNS_CONNECT_TIMEOUT, DNS_FORWARD_TIMEOUT, DNS_FORWARDS_PER_CONNECTION_MAX,
    DNS_POD_PARTS,
};
use crate::sys::netns::Namespace;

/// Why a resolver could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot make a resolver: {0}")]
pub struct ResolverError(#[from] NetError);

/// Forwards questions.
pub(super) struct Forwarder {
    resolver: Resolver<Sockets>,
}

impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").finish_non_exhaustive()
    }
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There are records.
    Answered {
        /// The whole chain of aliases and what it leads to.
        answers: Vec<Record>,
        /// What the server added.
        additionals: Vec<Record>,
    },
    /// There are none, or nobody said so in time.
    Failed {
        /// For the client.
        code: ResponseCode,
        /// For the log.
        why: String,
    },
}

/// How a resolver is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// Replies kept.
    pub(super) cache_entries: u64,
    /// Families that a look-up of addresses asks for.
    pub(super) addresses: LookupIpStrategy,
}

/// How a resolver's sockets are made.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// SO_MARK.
    pub(super) mark: Option<u32>,
    /// Network namespace; `None`: this process's own. Not kept alive: look-ups that were begun must not
    /// hold a workload's namespace when the workload has gone.
    pub(super) namespace: Option<Weak<Namespace>>,
}

/// A resolver whose sockets carry the mark of the node.
pub(super) fn resolver(
    name_servers: &NameServers,
    origin: Origin,
    usage: Use,
) -> Result<Resolver<Sockets>, ResolverError> {
    let (config, mut options) = name_servers.parts();
    options.cache_size = usage.cache_entries;
    options.ip_strategy = usage.addresses;
    options.max_active_requests = DNS_FORWARDS_PER_CONNECTION_MAX;
    let sockets = Sockets {
        handle: TokioHandle::default(),
        origin,
    };
    let builder = Resolver::builder_with_config(config, sockets).with_options(options);
    Ok(builder.build()?)
}

impl Forwarder {
    pub(super) fn new(name_servers: &NameServers, origin: Origin) -> Result<Self, ResolverError> {
        let usage = Use {
            cache_entries: if origin.namespace.is_some() {
                DNS_CACHE_ENTRIES / u64::from(DNS_POD_PARTS)
            } else {
                DNS_CACHE_ENTRIES
            },
            addresses: LookupIpStrategy::default(),
        };
        let resolver = resolver(name_servers, origin, usage)?;
        Ok(Self { resolver })
    }

    /// Asks for exactly this name.
    pub(super) async fn forward(&self, name: &Name, record_type: RecordType) -> Outcome {
        let mut name = name.to_lowercase();
        name.set_fqdn(true);
        let lookup = self.resolver.lookup(name, record_type);
        match tokio::time::timeout(DNS_FORWARD_TIMEOUT, lookup).await {
            Ok(Ok(found)) => Outcome::Answered {
                answers: found.answers().to_vec(),
                additionals: found.additionals().to_vec(),
            },
            Ok(Err(error)) => Outcome::Failed {
                code: code(&error),
                why: error.to_string(),
            },
            Err(_) => {
                limit_hit("forward_timeout");
                Outcome::Failed {
                    code: ResponseCode::ServFail,
                    why: format!("no answer within {DNS_FORWARD_TIMEOUT:?}"),
                }
            }
        }
    }
}

/// The code a client gets for a failure.
fn code(error: &NetError) -> ResponseCode {
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
        none.response_code
    } else if let NetError::Dns(DnsError::ResponseCode(code)) = error {
        *code
    } else {
        ResponseCode::ServFail
    }
}

/// Whether a failure only says that the name has no records of the type.
pub(super) fn says_no_records(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError
    )
}

/// Makes the sockets of a resolver.
#[derive(Clone)]
pub(super) struct Sockets {
    handle: TokioHandle,
    origin: Origin,
}

impl Sockets {
    fn socket(&self, local: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let domain = Domain::for_address(local);
        let make = || Socket::new(domain, kind.nonblocking(), Some(protocol));
        let socket = match &self.origin.namespace {
            None => make()?,
            Some(namespace) => {
                let namespace = namespace.upgrade().ok_or(io::ErrorKind::NotConnected)?;
                namespace.within(make)??
            }
        };
        if let Some(mark) = self.origin.mark {
            socket.set_mark(mark)?;
        }
        Ok(socket)
    }
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        wait: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let socket = self.socket(server, Type::STREAM, Protocol::TCP);
        Box::pin(async move {
            let socket = socket?;
            if let Some(local) = local {
                socket.bind(&local.into())?;
            }
            socket.set_tcp_nodelay(true)?;
            let connect = TcpSocket::from_std_stream(socket.into()).connect(server);
            let wait = wait.unwrap_or(DNS_CONNECT_TIMEOUT);
            match tokio::time::timeout(wait, connect).await {
                Ok(connected) => connected.map(AsyncIoTokioAsStd),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let socket = self.socket(local, Type::DGRAM, Protocol::UDP);
        Box::pin(async move {
            let socket = socket?;
            socket.bind(&local.into())?;
            UdpSocket::from_std(socket.into())
        })
    }
}
