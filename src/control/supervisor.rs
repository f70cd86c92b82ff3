//! Tells the service manager how the node is: ready, reloading, stopping, alive (sd_notify(3)).
//!
//! One datagram a report, to the socket the manager named. Without such a socket every report does
//! nothing. A report that cannot be delivered is logged and given up: the manager's own time limits
//! then decide, and traffic does not wait for it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How often a full socket is tried, and the pause between. The manager reads in milliseconds.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// Longest status line, in bytes: it is shown on one line of a terminal.
const STATUS_BYTES_MAX: usize = 200;

/// What the manager is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// The node serves, or serves again after [`Report::Reloading`].
    Ready,
    /// It reads its files again.
    Reloading,
    /// It ends, and needs up to this long for it.
    Stopping(Duration),
    /// Every shard turns its loop.
    Alive,
    /// One line for people.
    Status(&'a str),
}

impl Report<'_> {
    fn text(&self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Reloading => "RELOADING=1\n".to_owned(),
            Self::Stopping(needs) => {
                format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n", needs.as_micros())
            }
            Self::Alive => "WATCHDOG=1\n".to_owned(),
            Self::Status(line) => format!("STATUS={}\n", one_line(line)),
        }
    }
}

/// A line break would begin another assignment, which whoever wrote the text must not be able to.
fn one_line(text: &str) -> String {
    let end = text.floor_char_boundary(STATUS_BYTES_MAX);
    text[..end].replace(|c: char| c.is_control(), " ")
}

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// `socket` is a path, or `@` and an abstract name; none: nobody listens.
    ///
    /// # Errors
    /// When `socket` names no socket address, or no socket can be made.
    pub fn new(socket: Option<&OsStr>) -> io::Result<Self> {
        let Some(name) = socket else {
            return Ok(Self(None));
        };
        let addr = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let message = format!("{} is no address of a socket", name.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, addr))))
    }

    /// Whether anybody listens.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Delivers `report`. Dropping the future may leave it undelivered.
    pub async fn send(&self, report: &Report<'_>) {
        let Some((socket, addr)) = &self.0 else {
            return;
        };
        let text = report.text();
        let mut result = socket.send_to_addr(text.as_bytes(), addr);
        for _ in 1..ATTEMPTS {
            match &result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(PAUSE).await;
                    result = socket.send_to_addr(text.as_bytes(), addr);
                }
                _ => break,
            }
        }
        if let Err(error) = result {
            tracing::warn!(target: "corelane::app", %error, ?report, "service manager not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1_024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn reports_arrive_at_a_socket_of_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        assert!(notifier.is_heard());
        for (report, text) in [
            (Report::Ready, "READY=1\n"),
            (Report::Reloading, "RELOADING=1\n"),
            (
                Report::Stopping(Duration::from_secs(7)),
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=7000000\n",
            ),
            (Report::Alive, "WATCHDOG=1\n"),
            (Report::Status("serving"), "STATUS=serving\n"),
        ] {
            notifier.send(&report).await;
            assert_eq!(receive(&listener), text);
        }
    }

    #[tokio::test]
    async fn reports_arrive_at_an_abstract_socket() {
        let name = format!("corelane-test-notify-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&addr).unwrap();
        let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}")))).unwrap();
        notifier.send(&Report::Ready).await;
        assert_eq!(receive(&listener), "READY=1\n");
    }

    #[tokio::test]
    async fn without_a_listener_reports_do_nothing() {
        let notifier = Notifier::new(None).unwrap();
        assert!(!notifier.is_heard());
        notifier.send(&Report::Ready).await;
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let notifier = Notifier::new(Some(gone.as_os_str())).unwrap();
        notifier.send(&Report::Ready).await;
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("/{}", "x".repeat(200));
        for name in ["", "notify", "vsock:2:1", &long] {
            assert!(Notifier::new(Some(OsStr::new(name))).is_err(), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_does_not_read_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        let full = async {
            // Far more than the queue of a datagram socket holds (net.unix.max_dgram_qlen).
            for _ in 0..2_000 {
                notifier.send(&Report::Alive).await;
            }
        };
        let waited = tokio::time::Instant::now();
        full.await;
        assert!(waited.elapsed() > Duration::ZERO, "the queue was full");
    }

    #[test]
    fn a_status_cannot_say_anything_else() {
        let text = Report::Status("bad\nREADY=1").text();
        assert_eq!(text, "STATUS=bad READY=1\n");
        let long = Report::Status(&"ä".repeat(200)).text();
        assert_eq!(long.len(), "STATUS=\n".len() + STATUS_BYTES_MAX);
    }
}
