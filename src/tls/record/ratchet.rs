//! The key schedule after the handshake: next keys for a KeyUpdate (RFC 8446, 7.2).

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::RecordError;
use super::cipher::Cipher;

/// What the TLS library keeps of a session whose records we move.
pub(super) enum Ratchet {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
    /// Known keys without a handshake.
    #[cfg(any(test, fuzzing))]
    Known(super::fuzz::KnownKeys),
}

impl Ratchet {
    /// Keys for what we send after our next KeyUpdate.
    pub(super) fn next_send(&mut self) -> Result<Cipher, RecordError> {
        let next = match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
            #[cfg(any(test, fuzzing))]
            Self::Known(keys) => return keys.next_send(),
        };
        let (sequence, secrets) = next.map_err(|_| RecordError::Internal("key schedule"))?;
        Cipher::new(sequence, &secrets)
    }

    /// Keys for what the peer sends after its next KeyUpdate.
    pub(super) fn next_receive(&mut self) -> Result<Cipher, RecordError> {
        let next = match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
            #[cfg(any(test, fuzzing))]
            Self::Known(keys) => return keys.next_receive(),
        };
        let (sequence, secrets) = next.map_err(|_| RecordError::Internal("key schedule"))?;
        Cipher::new(sequence, &secrets)
    }

    /// Whether the peer may send session tickets: servers do.
    pub(super) fn takes_tickets(&self) -> bool {
        match self {
            Self::Client(_) => true,
            Self::Server(_) => false,
            #[cfg(any(test, fuzzing))]
            Self::Known(keys) => keys.takes_tickets(),
        }
    }
}
