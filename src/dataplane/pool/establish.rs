//! Brings a tunnel up as its client: certificate, TLS, HTTP/2.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::Key;
use crate::dataplane::dial::{self, DialError};
use crate::dataplane::inbound;
use crate::dataplane::rt::{self, PollSocket};
use crate::dataplane::shard::Shard;
use crate::dataplane::tunnel_life::TunnelLife;
use crate::hbone;
use crate::hbone::client::{Driver, OpenError, Opener};
use crate::model::close::CloseReason;
use crate::model::identity::Identity;
use crate::sys::socket::Source;
use crate::telemetry::counters::{Limit, Role};
use crate::tls::credentials::Credentials;
use crate::tls::revocation::Revocable;
use crate::tls::{self, Peer, TlsStream};
use crate::transport::Transport;

/// A tunnel after its handshakes.
pub(in crate::dataplane) struct Up<T: Transport> {
    pub(in crate::dataplane) opener: Opener,
    /// To be polled for as long as the tunnel is to live.
    pub(in crate::dataplane) driver: Driver<TlsStream<T>>,
    pub(in crate::dataplane) life: TunnelLife,
    /// Whom we reached.
    pub(in crate::dataplane) peer: Peer,
    /// What tells that it is revoked; `None` when no list is kept.
    pub(in crate::dataplane) revocable: Option<Revocable>,
}

/// Dials the key's next hop and shakes hands with it.
pub(super) async fn establish(shard: &Rc<Shard>, key: &Key) -> Result<Up<PollSocket>, CloseReason> {
    #[cfg(any(test, feature = "faults"))]
    crate::dataplane::faults::trip(key.next_hop.port());
    let credentials = shard.credentials(&key.source).await?;
    let options = shard.tunnel_options();
    let socket = match dial::tcp(shard, key.next_hop, Source::Any, &options).await {
        Ok(socket) => socket,
        Err(error @ DialError::TimedOut { .. }) => {
            return Err(CloseReason::ConnectTimeout(error.to_string()));
        }
        Err(error @ DialError::Io { .. }) => return Err(CloseReason::Connect(error.to_string())),
    };
    let whom = (key.next_hop, &key.expected);
    shake_hands(shard, PollSocket::new(socket), &credentials, whom).await
}

/// Both handshakes of a tunnel over `io`, which leads to the address and there to one of the
/// identities. Dropping the future drops `io`.
pub(in crate::dataplane) async fn shake_hands<T: Transport + 'static>(
    shard: &Shard,
    io: T,
    credentials: &Credentials,
    (to, expected): (SocketAddr, &Arc<[Identity]>),
) -> Result<Up<T>, CloseReason> {
    let started = rt::now();
    let counters = shard.telemetry.counters();
    let limit = shard.config.timeouts.handshake;
    let handshake = tls::handshake::connect(io, credentials, expected);
    let (tls, peer) = match rt::within(limit, handshake).await {
        Some(Ok(done)) => done,
        Some(Err(error)) => {
            counters.handshakes_failed(Role::Client).add(1);
            let revoked = u64::from(error.is_revoked());
            counters.crl_rejections(Role::Client).add(revoked);
            return Err(CloseReason::Tls(error.to_string()));
        }
        None => {
            counters.handshakes_failed(Role::Client).add(1);
            counters.limit(Limit::HandshakeTimeout).add(1);
            return Err(CloseReason::Tls(format!(
                "{to} did not finish it within {limit:?}"
            )));
        }
    };
    counters.handshakes_ok(Role::Client).add(1);
    counters
        .handshake_seconds(Role::Client)
        .record(rt::now() - started);
    let (opener, driver) = match hbone::client::handshake(tls, &shard.hbone).await {
        Ok(open) => open,
        Err(error) => return Err(CloseReason::Http2(error.to_string())),
    };
    inbound::log_tunnel("outbound", to, &peer);
    Ok(Up {
        opener,
        driver,
        life: TunnelLife::new(credentials.not_after(), peer.not_after),
        revocable: credentials.revocable(&peer),
        peer,
    })
}

/// Why a connection ends whose stream did not open.
pub(in crate::dataplane) fn not_opened(error: &OpenError) -> CloseReason {
    match error {
        OpenError::Status(status) => CloseReason::Status(hbone::client::status_text(*status)),
        OpenError::Reset(_)
        | OpenError::NotSent(_)
        | OpenError::Connection(_)
        | OpenError::Authority(_) => CloseReason::Http2(error.to_string()),
    }
}

/// Why a connection ends whose CONNECT got no answer in time; counted.
pub(in crate::dataplane) fn unanswered(shard: &Shard, peer: SocketAddr) -> CloseReason {
    let counters = shard.telemetry.counters();
    counters.limit(Limit::ConnectAnswerTimeout).add(1);
    let limit = shard.config.timeouts.connect_answer;
    CloseReason::Http2(format!(
        "{peer} did not answer the CONNECT within {limit:?}"
    ))
}
