//! A Unix socket of whole packets that may carry descriptors (SOCK_SEQPACKET, SCM_RIGHTS).
//!
//! See unix(7). Every descriptor that arrives is owned before anything else is looked at, so that no
//! error leaks one.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, recvmsg, send as send_bytes,
    socket_with,
};

/// What arrived in one packet.
#[derive(Debug)]
pub struct Packet {
    /// Bytes at the beginning of the buffer; none: the peer has closed.
    pub length: usize,
    /// All descriptors that came with it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// Bytes or descriptors did not fit and were thrown away by the kernel.
    pub truncated: bool,
    /// Control messages other than descriptors came too.
    pub foreign_control: bool,
}

/// Connects to the socket at `path`; non-blocking from the start.
///
/// # Errors
/// `ENOENT`, `ECONNREFUSED`: nobody listens; `EAGAIN`: its queue is full, nothing is under way;
/// `ENAMETOOLONG` beyond 107 bytes.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect_to(&socket, &address)?;
    Ok(socket)
}

/// Takes one packet without blocking. There is room for one descriptor.
///
/// # Errors
/// `WouldBlock`; `ConnectionReset` and others of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut slices, &mut control, flags)?;
    let mut packet = Packet {
        length: received.bytes,
        descriptors: Vec::new(),
        truncated: received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
        foreign_control: false,
    };
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(descriptors) => packet.descriptors.extend(descriptors),
            RecvAncillaryMessage::ScmCredentials(_) | _ => packet.foreign_control = true,
        }
    }
    Ok(packet)
}

/// Sends one packet without blocking and without SIGPIPE.
///
/// # Errors
/// `WouldBlock`; `BrokenPipe`, `ConnectionReset` and others of send(2).
pub fn send(socket: BorrowedFd<'_>, packet: &[u8]) -> io::Result<()> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    send_bytes(socket.as_fd(), packet, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::IoSlice;

    use rustix::net::{
        SendAncillaryBuffer, SendAncillaryMessage, bind, listen, sendmsg, socketpair,
    };

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn send_with(to: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let slices = [IoSlice::new(bytes)];
        sendmsg(to, &slices, &mut control, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_packet_arrives_whole_with_its_descriptor() {
        let (ours, theirs) = pair();
        let file = File::open("/dev/null").unwrap();
        send_with(&theirs, b"one", &[file.as_fd()]);
        send_with(&theirs, b"two", &[]);
        let mut buffer = [0; 16];
        let packet = receive(ours.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..packet.length], b"one");
        assert_eq!(packet.descriptors.len(), 1);
        let flags = rustix::io::fcntl_getfd(&packet.descriptors[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let packet = receive(ours.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..packet.length], b"two");
        assert!(packet.descriptors.is_empty() && !packet.truncated);
        let nothing = receive(ours.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn what_does_not_fit_is_told_and_every_descriptor_that_came_is_owned() {
        let (ours, theirs) = pair();
        let file = File::open("/dev/null").unwrap();
        let mut buffer = [0; 2];
        send_with(&theirs, b"long", &[file.as_fd()]);
        let packet = receive(ours.as_fd(), &mut buffer).unwrap();
        assert!(packet.truncated);
        assert_eq!(packet.descriptors.len(), 1);
        send_with(&theirs, b"x", &[file.as_fd(); 8]);
        let packet = receive(ours.as_fd(), &mut buffer).unwrap();
        assert!(packet.truncated, "there is no room for eight");
        send_with(&theirs, b"x", &[]);
        let packet = receive(ours.as_fd(), &mut buffer).unwrap();
        assert!(!packet.truncated && packet.descriptors.is_empty());
    }

    #[test]
    fn connecting_tells_whether_somebody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        assert_eq!(
            connect(&path).unwrap_err().kind(),
            io::ErrorKind::NotFound,
            "no socket"
        );
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert!(connect(&path).is_err(), "bound, but nobody listens");
        listen(&listener, 1).unwrap();
        let socket = connect(&path).unwrap();
        send(socket.as_fd(), b"hello").unwrap();
        drop(listener);
        assert!(send(socket.as_fd(), b"hello").is_err());
    }
}
