//! Pipe pairs that carry spliced bytes, and splice(2) itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Both ends of a non-blocking pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    /// Makes a pipe of about `size` bytes, or of a half, a quarter, … of it where the kernel does not
    /// allow more: `fs.pipe-max-size`, or the quota of unprivileged users (pipe(7)). See
    /// [`Pipe::size`].
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn new(size: usize) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let made_with = rustix::pipe::fcntl_getpipe_size(&write)?;
        let mut wanted = size;
        let size = loop {
            match fcntl_setpipe_size(&write, wanted) {
                Ok(size) => break size,
                Err(_) if wanted / 2 > made_with => wanted /= 2,
                // Over the quota: the pipe keeps the size it was made with.
                Err(_) => break made_with,
            }
        };
        Ok(Self { read, write, size })
    }

    /// Bytes it holds, about: a slot may carry a whole segment, so more can be in it.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Moves up to `length` bytes from a socket into the pipe; `Ok(0)` is the socket's end of stream.
    /// The socket must be non-blocking: splice(2) heeds SPLICE_F_NONBLOCK on the pipe's side only.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is empty or the pipe full; those of recv(2).
    pub fn fill(&self, from: impl AsFd, length: usize) -> io::Result<usize> {
        Ok(splice(from, None, &self.write, None, length, flags())?)
    }

    /// Moves up to `length` bytes from the pipe into a socket.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full; those of send(2).
    pub fn drain(&self, to: impl AsFd, length: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, to, None, length, flags())?)
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pipe_that_may_not_be_as_large_as_wanted_is_as_large_as_it_may_be() {
        let most = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let pipe = Pipe::new(most * 4).unwrap();
        // A capability lifts the bound, a user past the quota gets less.
        let sizes = [most, most * 4];
        assert!(
            sizes.contains(&pipe.size()) || pipe.size() <= 65_536,
            "{}",
            pipe.size()
        );
    }

    #[test]
    fn bytes_pass_from_socket_to_socket_and_the_end_is_seen() {
        let (mut sender, from) = UnixStream::pair().unwrap();
        let (to, mut receiver) = UnixStream::pair().unwrap();
        from.set_nonblocking(true).unwrap();
        let pipe = Pipe::new(256 * 1024).unwrap();
        assert!(pipe.size() >= 4096);
        let empty = pipe.fill(&from, 100).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        sender.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill(&from, 100).unwrap(), 5);
        assert_eq!(pipe.drain(&to, 5).unwrap(), 5);
        let mut seen = [0; 5];
        receiver.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"hello");
        drop(sender);
        assert_eq!(pipe.fill(&from, 100).unwrap(), 0);
    }
}
