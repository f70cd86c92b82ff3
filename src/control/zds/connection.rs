//! One connection to the agent: whole packets, waiting without blocking.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram as Plain;
use std::path::Path;

use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::message::{self, ReadError};
use super::session::Request;
use crate::sys::netns::{Home, Namespace};
use crate::sys::packets::{self, Packet};

/// Longest packet we take, the reference's.
const PACKET_BYTES_MAX: usize = 1_024;

/// What came of waiting for a packet.
pub(super) enum Received {
    /// A request.
    Request(Request<Namespace>),
    /// A packet that is none.
    Unreadable(ReadError),
    /// The agent has closed.
    Closed,
    /// The socket failed.
    Failed(io::Error),
}

/// An open connection.
pub(super) struct Connection {
    /// Packets, whatever the type says: it only waits for us.
    socket: UnixDatagram,
}

impl Connection {
    /// Connects.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = Plain::from(packets::connect(path)?);
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
        })
    }

    /// Sends one packet.
    pub(super) async fn send(&self, packet: &[u8]) -> io::Result<()> {
        let send = || packets::send(self.socket.as_fd(), packet);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Waits for a packet. Dropping the future loses none.
    pub(super) async fn receive(&self, home: &Home) -> Received {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let take = || packets::receive(self.socket.as_fd(), &mut buffer);
        match self.socket.async_io(Interest::READABLE, take).await {
            Err(error) => Received::Failed(error),
            // An empty packet looks like the end, and the protocol has none.
            Ok(packet) if packet.length == 0 && packet.descriptors.is_empty() => Received::Closed,
            Ok(packet) => {
                let bytes = &buffer[..packet.length.min(PACKET_BYTES_MAX)];
                read(bytes, packet, home).map_or_else(Received::Unreadable, Received::Request)
            }
        }
    }
}

fn read(bytes: &[u8], packet: Packet, home: &Home) -> Result<Request<Namespace>, ReadError> {
    if packet.foreign_control {
        tracing::warn!(target: "corelane::zds", "ignoring control messages of the node agent");
    }
    let request = message::parse(bytes, packet.truncated, packet.descriptors)?;
    let request = request
        .try_map(|descriptor| Namespace::new(descriptor, home).map_err(ReadError::Descriptor))?;
    if let Request::Add { uid, namespace, .. } = &request
        && !namespace.is_plausible()
    {
        tracing::warn!(
            target: "corelane::zds", %uid,
            "the descriptor the node agent sent does not look like a network namespace"
        );
    }
    Ok(request)
}
