//! A node agent: tells a node which workloads there are, over a Unix socket, each with the descriptor
//! of its network namespace. Messages are encoded by hand, so that both ends cannot share a mistake.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recvmsg, sendmsg,
    socket_with,
};

/// How long a node may take to connect or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a node says first.
const HELLO: &[u8] = &[0x08, 0x01];

/// A listening agent.
#[derive(Debug)]
pub struct Agent {
    listener: OwnedFd,
    path: PathBuf,
}

/// One connection of a node.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
}

/// Who a workload is; the rest comes from the mesh state.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Name.
    pub name: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Service account.
    pub account: &'a str,
}

impl Agent {
    /// Listens at `path`.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn listen(path: &Path) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket");
        let address = SocketAddrUnix::new(path).expect("a short path");
        bind(&listener, &address).expect("bind the agent's socket");
        listen(&listener, 8).expect("listen");
        patient(&listener);
        Self {
            listener,
            path: path.to_owned(),
        }
    }

    /// Waits for a node and its hello.
    ///
    /// # Panics
    /// If none comes, or it says something else.
    #[must_use]
    #[track_caller]
    pub fn accept(&self) -> Session {
        let session = self.accept_silently();
        let hello = session.receive().expect("the node closed before its hello");
        assert_eq!(hello, HELLO, "the first packet");
        session
    }

    /// Waits for a node and leaves what it says where it is.
    ///
    /// # Panics
    /// If none comes.
    #[must_use]
    #[track_caller]
    pub fn accept_silently(&self) -> Session {
        let accepted = retry_on_intr(|| accept(&self.listener));
        let socket = accepted.expect("the node connects");
        patient(&socket);
        Session { socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Session {
    /// Adds a workload; the node's error, if it has one.
    ///
    /// # Panics
    /// If the node does not answer.
    #[track_caller]
    pub fn add(&self, uid: &str, who: Who<'_>, namespace: BorrowedFd<'_>) -> Result<(), String> {
        self.send(&add(uid, Some(who)), &[namespace]);
        self.acknowledged()
    }

    /// Says that a workload is still there.
    ///
    /// # Panics
    /// If the node does not answer.
    #[track_caller]
    pub fn keep(&self, uid: &str) -> Result<(), String> {
        self.send(&message(5, &text(1, uid)), &[]);
        self.acknowledged()
    }

    /// Removes a workload.
    ///
    /// # Panics
    /// If the node does not answer.
    #[track_caller]
    pub fn delete(&self, uid: &str) -> Result<(), String> {
        self.send(&message(2, &text(2, uid)), &[]);
        self.acknowledged()
    }

    /// Says that everything was said.
    ///
    /// # Panics
    /// If the node does not answer.
    #[track_caller]
    pub fn snapshot(&self) -> Result<(), String> {
        self.send(&message(3, &[]), &[]);
        self.acknowledged()
    }

    /// Sends any bytes with any descriptors.
    ///
    /// # Panics
    /// If the node has closed.
    #[track_caller]
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(pushed, "too many descriptors");
        }
        let slices = [IoSlice::new(bytes)];
        sendmsg(&self.socket, &slices, &mut control, SendFlags::NOSIGNAL).expect("send");
    }

    /// The next answer.
    ///
    /// # Panics
    /// If the node closes instead.
    #[track_caller]
    pub fn acknowledged(&self) -> Result<(), String> {
        let answer = self.receive().expect("the node closed without an answer");
        let error = read_ack(&answer);
        if error.is_empty() { Ok(()) } else { Err(error) }
    }

    /// Waits until the node has closed.
    ///
    /// # Panics
    /// If it says something instead.
    #[track_caller]
    pub fn wait_closed(&self) {
        let received = self.receive();
        assert_eq!(received, None, "the node should have closed");
    }

    /// The next packet; none at the end.
    #[track_caller]
    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4_096];
        let mut control = RecvAncillaryBuffer::default();
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::empty();
        // A signal for the test's process ends calls with a time limit early (signal(7)).
        let receive = || recvmsg(&self.socket, &mut slices, &mut control, flags);
        let length = match retry_on_intr(receive) {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => panic!("waiting for the node: {error}"),
        };
        buffer.truncate(length);
        (length > 0).then_some(buffer)
    }
}

/// A request to add a workload, also one that does not say who it is.
#[must_use]
pub fn add(uid: &str, who: Option<Who<'_>>) -> Vec<u8> {
    let mut fields = text(1, uid);
    if let Some(who) = who {
        let parts = [
            text(1, who.name),
            text(2, who.namespace),
            text(3, who.account),
        ];
        fields.extend(field(2, &parts.concat()));
    }
    message(1, &fields)
}

/// A request whose payload has that number.
fn message(number: u8, payload: &[u8]) -> Vec<u8> {
    field(number, payload)
}

fn text(number: u8, text: &str) -> Vec<u8> {
    field(number, text.as_bytes())
}

/// A field of bytes (wire type 2) shorter than 128 bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    assert!(length < 0x80, "a length of one byte");
    [&[number << 3 | 2, length], bytes].concat()
}

/// `{1: {1: error}}`, the inner field absent when empty.
fn read_ack(bytes: &[u8]) -> String {
    match bytes {
        [0x0a, 0x00] => String::new(),
        [0x0a, rest @ ..] => {
            let (_, rest) = varint(rest);
            let [0x0a, rest @ ..] = rest else {
                panic!("an ack without an error: {bytes:?}");
            };
            let (length, error) = varint(rest);
            assert_eq!(length, error.len());
            String::from_utf8(error.to_vec()).expect("text")
        }
        _ => panic!("no ack: {bytes:?}"),
    }
}

fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, &bytes[index + 1..]);
        }
    }
    panic!("an endless number: {bytes:?}");
}

fn patient(socket: &OwnedFd) {
    set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(PATIENCE)).expect("a timeout");
}
