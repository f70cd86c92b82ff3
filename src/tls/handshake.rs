//! Client and server handshakes over any transport.
//!
//! No timer runs here: the caller bounds each handshake with a deadline and drops it. When a
//! handshake is refused here, the alert is flushed and the sending side closed before the error is
//! returned, so the peer can read why.
//!
//! In TLS 1.3 a client finishes before the server has judged its certificate: a refused client sees
//! the alert as the error of its first read (spec hbone.md 2.6).

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{IpAddr, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConnection, CommonState, Connection, ServerConnection};

use super::certificate::Certificate;
use super::credentials::Credentials;
use super::error::{HandshakeError, TlsError};
use super::record::handshake::{Handshake, Library};
use super::session::Session;
use super::stream::{Established, TlsStream};
use super::verify::VerifyError;
use super::{Judged, Peer, provider};
use crate::model::identity::Identity;
use crate::transport::Transport;

#[cfg(test)]
mod tests;

/// Client side: presents `credentials` and accepts a server whose identity is one of `expected`; an
/// empty list accepts nobody.
///
/// Dropping the future cuts the connection.
///
/// # Errors
/// [`HandshakeError`].
pub async fn connect<T: Transport>(
    stream: T,
    credentials: &Credentials,
    expected: &Arc<[Identity]>,
) -> Result<(TlsStream<T>, Peer), HandshakeError> {
    // The library asks for a name, which is neither sent nor checked.
    let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let config = credentials.client(expected);
    if config.enable_secret_extraction {
        let client = UnbufferedClientConnection::new(config, name).map_err(refused)?;
        return run_in_place(stream, Library::Client(Box::new(client)), credentials).await;
    }
    let client = ClientConnection::new(config, name).map_err(refused)?;
    run(
        Session::new(stream, Connection::Client(client)),
        credentials,
    )
    .await
}

/// Server side: presents `credentials` and requires a client of the same trust domain.
///
/// Dropping the future cuts the connection.
///
/// # Errors
/// [`HandshakeError`].
pub async fn accept<T: Transport>(
    stream: T,
    credentials: &Credentials,
) -> Result<(TlsStream<T>, Peer), HandshakeError> {
    let config = credentials.server();
    if config.enable_secret_extraction {
        let server = UnbufferedServerConnection::new(config).map_err(refused)?;
        return run_in_place(stream, Library::Server(Box::new(server)), credentials).await;
    }
    let server = ServerConnection::new(config).map_err(refused)?;
    run(
        Session::new(stream, Connection::Server(server)),
        credentials,
    )
    .await
}

fn refused(error: rustls::Error) -> HandshakeError {
    TlsError::from(error).into()
}

/// The TLS library moves the records afterwards, too.
async fn run<T: Transport>(
    mut session: Session<T>,
    credentials: &Credentials,
) -> Result<(TlsStream<T>, Peer), HandshakeError> {
    if let Err(error) = poll_fn(|cx| session.poll_handshake(cx)).await {
        if !error.is_io() {
            poll_fn(|cx| session.poll_refuse(cx)).await;
        }
        return Err(error);
    }
    let peer = peer(session.tls(), credentials)?;
    let session = Established::Library(session);
    Ok((TlsStream::new(session, peer.clone()), peer))
}

/// Our record layer moves the records afterwards.
async fn run_in_place<T: Transport>(
    stream: T,
    library: Library,
    credentials: &Credentials,
) -> Result<(TlsStream<T>, Peer), HandshakeError> {
    let mut handshake = Handshake::new(stream, library);
    if let Err(error) = poll_fn(|cx| handshake.poll(cx)).await {
        if !error.is_io() {
            poll_fn(|cx| handshake.poll_refuse(cx)).await;
        }
        return Err(error);
    }
    let peer = peer(handshake.common(), credentials)?;
    let session = Established::InPlace(handshake.into_session()?);
    Ok((TlsStream::new(session, peer.clone()), peer))
}

/// What the finished handshake proved. The verifier has accepted the leaf already.
fn peer(tls: &CommonState, credentials: &Credentials) -> Result<Peer, TlsError> {
    let chain = tls.peer_certificates().unwrap_or_default();
    let leaf = chain.first().ok_or(TlsError::NoCertificate)?;
    let judged = credentials.checks_revocation().then(|| Judged {
        chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        at: UnixTime::now(),
    });
    let leaf = Certificate::read(leaf).map_err(|error| TlsError::Certificate(error.to_string()))?;
    let identity = leaf
        .identity()
        .map_err(|error| TlsError::Identity(VerifyError::San(error)))?;
    let group = tls
        .negotiated_key_exchange_group()
        .map(|group| group.name());
    let cipher = tls.negotiated_cipher_suite().map(|suite| suite.suite());
    Ok(Peer {
        identity: Some(Arc::new(identity)),
        not_after: leaf.not_after(),
        version: provider::version_name(tls.protocol_version()),
        group: provider::group_name(group),
        cipher: provider::cipher_name(cipher),
        judged,
    })
}
