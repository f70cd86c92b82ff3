//! A raw HBONE peer: TLS sessions that trust anybody and HTTP/2 frames written by hand, for sending
//! what a correct peer never sends and for seeing exactly what comes back.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned,
};

use crate::apps;
use crate::pki::{Authority, Issued};

mod hpack;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest frame accepted from a peer.
const FRAME_MAX: usize = 1 << 24;

/// Frame types of RFC 9113 section 6.
pub mod frame {
    /// Bytes of a stream.
    pub const DATA: u8 = 0;
    /// Start of a stream, or its answer.
    pub const HEADERS: u8 = 1;
    /// Abrupt end of a stream.
    pub const RST_STREAM: u8 = 3;
    /// Parameters of the connection.
    pub const SETTINGS: u8 = 4;
    /// Liveness check.
    pub const PING: u8 = 6;
    /// No more streams.
    pub const GOAWAY: u8 = 7;
}

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const FLAG_END_OR_ACK: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;

/// One received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`frame`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream, 0 for the connection.
    pub stream: u32,
    /// Content.
    pub payload: Vec<u8>,
}

/// How a stream was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
}

/// The client end of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    tls: StreamOwned<ClientConnection, TcpStream>,
}

impl Tunnel {
    /// Connects to an HBONE port with a certificate and completes TLS as far as the client sees it.
    /// A server that refuses the certificate says so in its next message, see [`Tunnel::refusal`].
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn open(to: SocketAddr, certificate: &Issued) -> io::Result<Self> {
        let config = client_config(certificate);
        let name = ServerName::IpAddress(to.ip().into());
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, apps::connect(to)?);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self { tls })
    }

    /// Sends the connection preface and empty SETTINGS.
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn start_http2(&mut self) -> io::Result<()> {
        self.tls.write_all(PREFACE)?;
        self.send(frame::SETTINGS, 0, 0, &[])
    }

    /// What the server says next, if it is an alert: its description.
    pub fn refusal(&mut self) -> Option<Error> {
        let mut byte = [0];
        let error = self.tls.read(&mut byte).err()?;
        error
            .into_inner()?
            .downcast::<Error>()
            .ok()
            .map(|error| *error)
    }

    /// Certificates the server presented.
    #[must_use]
    pub fn server_chain(&self) -> Vec<CertificateDer<'static>> {
        self.tls
            .conn
            .peer_certificates()
            .unwrap_or_default()
            .to_vec()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len())
            .expect("a short frame")
            .to_be_bytes();
        let mut bytes = vec![len[1], len[2], len[3], kind, flags];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.send_raw(&bytes)
    }

    /// Opens a stream with these header fields, in this order, without ending it.
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn request(&mut self, stream: u32, fields: &[(&str, &str)]) -> io::Result<()> {
        let mut block = Vec::new();
        for (name, value) in fields {
            hpack::push_literal(&mut block, name, value.as_bytes());
        }
        self.send(frame::HEADERS, FLAG_END_HEADERS, stream, &block)
    }

    /// Opens a stream with a CONNECT to `authority`, as a correct peer does.
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn connect(&mut self, stream: u32, authority: &str) -> io::Result<()> {
        self.request(stream, &[(":method", "CONNECT"), (":authority", authority)])
    }

    /// Sends bytes on a stream.
    ///
    /// # Errors
    /// Connection and TLS errors.
    pub fn send_data(&mut self, stream: u32, bytes: &[u8], end: bool) -> io::Result<()> {
        self.send(frame::DATA, u8::from(end) * FLAG_END_OR_ACK, stream, bytes)
    }

    /// Receives the next frame that is not connection upkeep; answers SETTINGS and PING itself.
    ///
    /// # Errors
    /// Connection and TLS errors; `UnexpectedEof` at the end.
    pub fn receive(&mut self) -> io::Result<Frame> {
        loop {
            let frame = self.receive_any()?;
            let ack = frame.flags & FLAG_END_OR_ACK != 0;
            match frame.kind {
                frame::SETTINGS | frame::PING if !ack => {
                    let payload = if frame.kind == frame::PING {
                        frame.payload
                    } else {
                        Vec::new()
                    };
                    self.send(frame.kind, FLAG_END_OR_ACK, 0, &payload)?;
                }
                frame::DATA | frame::HEADERS | frame::RST_STREAM | frame::GOAWAY => {
                    return Ok(frame);
                }
                _ => {}
            }
        }
    }

    /// How the server answers that stream.
    ///
    /// # Errors
    /// Connection and TLS errors; `InvalidData` for a response without readable status.
    pub fn reply(&mut self, stream: u32) -> io::Result<Reply> {
        loop {
            let frame = self.receive()?;
            match frame.kind {
                frame::HEADERS if frame.stream == stream => {
                    let status =
                        hpack::parse_status(&frame.payload).ok_or(io::ErrorKind::InvalidData)?;
                    return Ok(Reply::Status(status));
                }
                frame::RST_STREAM if frame.stream == stream => {
                    return Ok(Reply::Reset(code_at(&frame.payload, 0)));
                }
                frame::GOAWAY if code_at(&frame.payload, 4) != 0 => {
                    return Ok(Reply::GoAway(code_at(&frame.payload, 4)));
                }
                _ => {}
            }
        }
    }

    /// Receives the bytes of a stream to its end.
    ///
    /// # Errors
    /// Connection and TLS errors; `ConnectionReset` if the stream is reset.
    pub fn receive_data(&mut self, stream: u32) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let frame = self.receive()?;
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                frame::DATA => bytes.extend_from_slice(&frame.payload),
                frame::RST_STREAM => return Err(io::ErrorKind::ConnectionReset.into()),
                _ => {}
            }
            if frame.flags & FLAG_END_OR_ACK != 0 {
                return Ok(bytes);
            }
        }
    }

    fn receive_any(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.tls.read_exact(&mut head)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if len > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; len];
        self.tls.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }
}

/// Accepts one TLS connection as a server with that certificate, trusting `authority`, and reads
/// until something happens: the peer's alert, if it refused us, or `None` if it went on.
///
/// # Errors
/// Connection errors.
///
/// # Panics
/// If the certificate does not fit its key.
pub fn serve_tls(
    stream: TcpStream,
    certificate: &Issued,
    authority: &Authority,
) -> io::Result<Option<Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("verifier"))
        .with_single_cert(vec![certificate.der.clone()], certificate.key())
        .expect("certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    let mut bytes = [0; PREFACE.len()];
    match tls.read_exact(&mut bytes) {
        Ok(()) => Ok(None),
        Err(e) => match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Ok(Some(error.clone())),
            None => Err(e),
        },
    }
}

fn client_config(certificate: &Issued) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAnybody))
        .with_client_auth_cert(vec![certificate.der.clone()], certificate.key())
        .expect("certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Lets every server through: these sessions examine what the server does with *our* certificate.
#[derive(Debug)]
struct TrustAnybody;

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn code_at(payload: &[u8], at: usize) -> u32 {
    let bytes = payload
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(u32::MAX, u32::from_be_bytes)
}
