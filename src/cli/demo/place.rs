//! Where something runs: on this host, or in a network namespace of the demo's own.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::load::READ_TIMEOUT;
use crate::sys;

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A network to open sockets in.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The network the demo was started in.
    Host,
    /// A named network namespace.
    Namespace {
        /// Name, as `ip netns` knows it.
        name: String,
        /// Open handle of it.
        handle: Arc<File>,
    },
}

impl Place {
    /// A namespace that `ip netns add` has made.
    pub(super) fn namespace(name: &str) -> io::Result<Self> {
        let handle = Arc::new(File::open(format!("/run/netns/{name}"))?);
        Ok(Self::Namespace {
            name: name.to_owned(),
            handle,
        })
    }

    /// Runs `work` there. Sockets it makes stay in that network wherever they are used later.
    pub(super) fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        match self {
            Self::Host => work(),
            // A thread cannot leave a namespace without the right to enter the old one again, so
            // one that is thrown away goes there.
            Self::Namespace { handle, .. } => std::thread::scope(|scope| {
                let there = scope.spawn(|| {
                    sys::netns::enter(handle.as_fd())?;
                    work()
                });
                there
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
            }),
        }
    }

    /// Connects from there, with the read timeout that keeps Ctrl-C noticed.
    pub(super) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.enter(|| TcpStream::connect_timeout(&to, CONNECT_TIMEOUT))?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(stream)
    }

    /// Listens there.
    pub(super) fn listen(&self, on: SocketAddr) -> io::Result<TcpListener> {
        self.enter(|| TcpListener::bind(on))
    }

    /// A command that runs `program` there.
    pub(super) fn command(&self, program: &std::path::Path) -> Command {
        match self {
            Self::Host => Command::new(program),
            Self::Namespace { name, .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }
}
