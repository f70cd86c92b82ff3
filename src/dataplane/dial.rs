//! Stage 5: opens the server side of a connection by TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::rt::{self, Socket};
use super::shard::Shard;
use crate::sys::socket::{ConnectionOptions, DialOptions, Source, dial, set_connection_options};
use crate::telemetry::counters::Limit;

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No answer within the deadline.
    #[error("no answer from {to} within {limit:?}")]
    TimedOut {
        /// Destination.
        to: SocketAddr,
        /// Deadline.
        limit: Duration,
    },
    /// The kernel's error.
    #[error("{source} (dialling {to})")]
    Io {
        /// Destination.
        to: SocketAddr,
        /// Its error.
        #[source]
        source: io::Error,
    },
}

/// Connects to `to` from the shard's place. The socket carries the node's mark and `options`.
pub(crate) async fn tcp(
    shard: &Shard,
    to: SocketAddr,
    source: Source,
    options: &ConnectionOptions,
) -> Result<Rc<Socket>, DialError> {
    let limit = shard.config.timeouts.dial;
    let failed = |source| DialError::Io { to, source };
    let mark = shard.config.socket.packet_mark;
    let unconnected = DialOptions {
        mark,
        source,
        namespace: shard.place.namespace.as_deref(),
    };
    let dialled = dial(to, &unconnected).map_err(failed)?;
    if let Some(error) = dialled.source_error {
        shard.warn_source(&error);
    }
    let started = rt::now();
    match rt::within(limit, Socket::connect(dialled.fd)).await {
        None => {
            shard.telemetry.counters().limit(Limit::DialTimeout).add(1);
            Err(DialError::TimedOut { to, limit })
        }
        Some(Err(source)) => Err(failed(source)),
        Some(Ok(socket)) => {
            shard
                .telemetry
                .counters()
                .dial_seconds
                .record(rt::now() - started);
            set_connection_options(socket.fd(), options);
            Ok(Rc::new(socket))
        }
    }
}

/// The client's address as source, where that is enabled and differs from the destination (hbone.md
/// 8). A loopback client has the same right to be seen as any other: only a process of this host can
/// have such an address.
pub(crate) fn dial_source(transparent: bool, client: IpAddr, to: IpAddr) -> Source {
    if transparent && client != to {
        Source::Foreign(client)
    } else {
        Source::Any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_the_clients_unless_that_is_the_destination_or_forbidden() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (client, to) in [
            ("10.0.0.1", "10.0.0.2"),
            ("127.0.0.3", "127.0.0.2"),
            ("fd00::1", "fd00::2"),
        ] {
            let (client, to) = (ip(client), ip(to));
            assert_eq!(dial_source(true, client, to), Source::Foreign(client));
            assert_eq!(dial_source(true, to, to), Source::Any);
            assert_eq!(dial_source(false, client, to), Source::Any);
        }
    }
}
