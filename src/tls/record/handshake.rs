//! Drives the TLS library's handshake and then takes keys and records over.
//!
//! The library is shown one record at a time and none after the handshake's last, so everything
//! behind it (the peer's first data) is still sealed when the session begins and nothing is lost.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{CommonState, ExtractedSecrets};

use super::cipher::Cipher;
use super::lend::Lent;
use super::ratchet::Ratchet;
use super::session::Session;
use crate::config::limits::{
    TLS_HANDSHAKE_BYTES_MAX, TLS_RECORD_BYTES_MAX, TLS_RECORD_HEADER_BYTES,
};
use crate::tls::error::{HandshakeError, TlsError};
use crate::transport::Transport;

/// The TLS library's side of a handshake.
pub(in crate::tls) enum Library {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What the library wants next.
enum Step {
    /// Nothing: something was written or noted.
    Again,
    /// The next record.
    Record,
    /// Nothing ever again.
    Done,
}

impl Library {
    /// What is known about the session.
    pub(in crate::tls) fn common(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }

    /// Shows `incoming` and appends what is to be sent to `outgoing`; how much of `incoming` is spent.
    fn step(&mut self, incoming: &mut [u8], outgoing: &mut Vec<u8>) -> (usize, Taken) {
        match self {
            Self::Client(client) => settle(client.process_tls_records(incoming), outgoing),
            Self::Server(server) => settle(server.process_tls_records(incoming), outgoing),
        }
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Ratchet), rustls::Error> {
        Ok(match self {
            Self::Client(client) => {
                let (secrets, kernel) = client.dangerous_into_kernel_connection()?;
                (secrets, Ratchet::Client(Box::new(kernel)))
            }
            Self::Server(server) => {
                let (secrets, kernel) = server.dangerous_into_kernel_connection()?;
                (secrets, Ratchet::Server(Box::new(kernel)))
            }
        })
    }
}

type Taken = Result<Step, TlsError>;

fn settle<D>(status: UnbufferedStatus<'_, '_, D>, outgoing: &mut Vec<u8>) -> (usize, Taken) {
    let taken = match status.state {
        Ok(state) => respond(state, outgoing),
        Err(error) => Err(error.into()),
    };
    (status.discard, taken)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the TLS library may add states; none belongs into a handshake"
)]
fn respond<D>(state: ConnectionState<'_, '_, D>, outgoing: &mut Vec<u8>) -> Taken {
    match state {
        ConnectionState::EncodeTlsData(mut record) => {
            append(&mut record, outgoing)?;
            Ok(Step::Again)
        }
        // Sent before anything else happens.
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Record),
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        _ => Err(TlsError::Protocol(
            "peer ended or sent data inside the handshake".to_owned(),
        )),
    }
}

fn append<D>(record: &mut EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
    let start = outgoing.len();
    let mut size = 0;
    loop {
        outgoing.resize(start + size, 0);
        match record.encode(&mut outgoing[start..]) {
            Ok(written) => {
                outgoing.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(error)) if error.required_size > size => {
                size = error.required_size;
            }
            Err(error) => return Err(TlsError::Protocol(error.to_string())),
        }
    }
}

/// A handshake over `io`.
pub(in crate::tls) struct Handshake<T> {
    io: T,
    library: Library,
    incoming: Vec<u8>,
    /// How much of `incoming`, in whole records, the library has been shown.
    shown: usize,
    /// Bytes of records it has been shown in all.
    shown_in_all: usize,
    outgoing: Vec<u8>,
    sent: usize,
    fault: Option<TlsError>,
    done: bool,
}

impl<T: Transport> Handshake<T> {
    pub(in crate::tls) fn new(io: T, library: Library) -> Self {
        Self {
            io,
            library,
            incoming: Vec::new(),
            shown: 0,
            shown_in_all: 0,
            outgoing: Vec::new(),
            sent: 0,
            fault: None,
            done: false,
        }
    }

    pub(in crate::tls) fn common(&self) -> &CommonState {
        self.library.common()
    }

    /// Completes when both sides have finished and our last flight is with the kernel.
    pub(in crate::tls) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), HandshakeError>> {
        loop {
            self.advance();
            if self.fault.is_none()
                && let Err(error) = ready!(self.poll_flush(cx))
            {
                return Poll::Ready(Err(self.read_parting_alert(cx, error)));
            }
            if let Some(fault) = self.fault.clone() {
                return Poll::Ready(Err(fault.into()));
            }
            if self.done {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_more(cx)).map_err(HandshakeError::Io)?;
        }
    }

    /// Lets the library work until it wants bytes that are not here.
    fn advance(&mut self) {
        while !self.done && self.fault.is_none() {
            match self.show(self.shown) {
                Ok(Step::Again) => continue,
                Ok(Step::Done) if !self.common().is_handshaking() => {
                    self.done = true;
                    return;
                }
                Ok(Step::Record | Step::Done) => {}
                Err(fault) => return self.refuse(fault),
            }
            let Some(length) = self.next_record() else {
                // The header of a record may be enough to refuse it.
                if let Err(fault) = self.show(self.incoming.len()) {
                    self.refuse(fault);
                }
                return;
            };
            self.shown += length;
            self.shown_in_all += length;
            if self.shown_in_all > TLS_HANDSHAKE_BYTES_MAX {
                self.fault = Some(TlsError::Protocol("handshake too long".to_owned()));
            }
        }
    }

    /// Length of the next record, if all of it is here.
    fn next_record(&self) -> Option<usize> {
        let rest = &self.incoming[self.shown..];
        let [_, _, _, high, low] = rest.first_chunk::<TLS_RECORD_HEADER_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        Some(TLS_RECORD_HEADER_BYTES + length).filter(|length| *length <= rest.len())
    }

    fn show(&mut self, end: usize) -> Taken {
        let (spent, taken) = self
            .library
            .step(&mut self.incoming[..end], &mut self.outgoing);
        self.incoming.drain(..spent);
        self.shown = self.shown.saturating_sub(spent);
        taken
    }

    /// Notes why the handshake fails and lets the library write its alert.
    fn refuse(&mut self, fault: TlsError) {
        self.fault = Some(fault);
        while let Ok(Step::Again) = self.show(self.shown) {}
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut lent = Lent::for_receive();
        let room = &mut lent[..TLS_RECORD_BYTES_MAX];
        let received = ready!(self.io.poll_recv(cx, room))?;
        if received == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.incoming.extend_from_slice(&room[..received]);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let slices = [IoSlice::new(&self.outgoing[self.sent..])];
            match ready!(self.io.poll_send(cx, &slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.sent = 0;
        self.outgoing.clear();
        self.io.poll_flush(cx)
    }

    /// After a failed write: an alert that arrived before tells more than a broken pipe does.
    fn read_parting_alert(&mut self, cx: &mut Context<'_>, error: io::Error) -> HandshakeError {
        while let Poll::Ready(Ok(())) = self.poll_more(cx) {
            self.advance();
            if let Some(fault) = self.fault.take() {
                return fault.into();
            }
        }
        HandshakeError::Io(error)
    }

    /// After a refusal: sends our alert, ends our side, and takes what is already here off the
    /// socket, because closing it unread would reset the connection and lose the alert.
    pub(in crate::tls) fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_flush(cx)).is_ok() && ready!(self.io.poll_close(cx)).is_ok() {
            let mut lent = Lent::for_receive();
            // Bounded: a peer that keeps sending gets its reset.
            for _ in 0..4 {
                match self.io.poll_recv(cx, &mut lent) {
                    Poll::Ready(Ok(received)) if received > 0 => {}
                    Poll::Ready(_) | Poll::Pending => break,
                }
            }
        }
        Poll::Ready(())
    }

    /// The session, once [`Handshake::poll`] has completed.
    pub(in crate::tls) fn into_session(mut self) -> Result<Session<T>, TlsError> {
        if self.shown > 0 {
            // A message that was begun in the last record of the handshake.
            return Err(TlsError::Protocol(
                "handshake ended inside a message".to_owned(),
            ));
        }
        let (secrets, ratchet) = self.library.into_keys()?;
        let (sequence, keys) = &secrets.tx;
        let send = Cipher::new(*sequence, keys)?;
        let (sequence, keys) = &secrets.rx;
        let receive = Cipher::new(*sequence, keys)?;
        self.incoming.shrink_to_fit();
        Ok(Session::new(self.io, ratchet, send, receive, self.incoming))
    }
}
