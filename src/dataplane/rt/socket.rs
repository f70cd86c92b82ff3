//! Sockets of a shard: readiness from the driver, bytes by non-blocking calls.
//!
//! Nothing here owns a buffer, so an idle connection costs none, and no byte is lost when a future
//! is dropped.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use monoio::net::UnixStream;

use crate::sys;
use crate::sys::pipe::Pipe;
use crate::transport::Transport;

/// A connected TCP socket.
pub struct Socket {
    // monoio asks nothing of a descriptor but that it can be polled, and its type for TCP keeps room
    // for two addresses that nobody asks it for.
    inner: UnixStream,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.inner.as_raw_fd())
    }
}

impl Socket {
    /// Registers a non-blocking descriptor with this shard's driver.
    ///
    /// # Errors
    /// When the driver refuses it (epoll only).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            inner: UnixStream::from_std(fd.into())?,
        })
    }

    /// Its descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        sys::fds::borrow(&self.inner)
    }

    /// Waits until receiving would not block.
    ///
    /// # Errors
    /// Of the driver.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.inner.readable(false)
    }

    /// Waits until sending would not block.
    ///
    /// # Errors
    /// Of the driver.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
        self.inner.writable(false)
    }

    /// Receives without blocking; `Ok(0)` is end of stream.
    ///
    /// # Errors
    /// `WouldBlock` and those of recv(2).
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::socket::recv(self.fd(), buffer)
    }

    /// Sends without blocking.
    ///
    /// # Errors
    /// `WouldBlock` and those of send(2).
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        sys::socket::send(self.fd(), bytes)
    }

    /// As [`Socket::try_send`], for several slices.
    ///
    /// # Errors
    /// As [`Socket::try_send`].
    pub fn try_send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::socket::send_vectored(self.fd(), slices)
    }

    /// Moves bytes into a pipe without blocking; `Ok(0)` is end of stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there or the pipe is full; those of recv(2).
    pub fn try_fill(&self, pipe: &Pipe, length: usize) -> io::Result<usize> {
        pipe.fill(self.fd(), length)
    }

    /// Moves bytes out of a pipe without blocking.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full; those of send(2).
    pub fn try_drain(&self, pipe: &Pipe, length: usize) -> io::Result<usize> {
        pipe.drain(self.fd(), length)
    }

    /// Ends the sending direction.
    ///
    /// # Errors
    /// `NotConnected` after a reset.
    pub fn shutdown_write(&self) -> io::Result<()> {
        sys::socket::shutdown_write(self.fd())
    }

    /// Makes the close that follows the last use send RST.
    pub fn reset_on_close(&self) {
        sys::socket::reset_on_close(self.fd());
    }

    /// Local address, canonical.
    ///
    /// # Errors
    /// Of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(crate::model::addr::canonical(sys::socket::local_addr(
            self.fd(),
        )?))
    }

    /// Starts and completes a connect. Bound it with a deadline.
    ///
    /// # Errors
    /// Of connect(2).
    pub async fn connect(fd: OwnedFd) -> io::Result<Self> {
        let socket = Self::from_fd(fd)?;
        socket.writable().await?;
        match sys::socket::take_error(socket.fd())? {
            Some(error) => Err(error),
            None => Ok(socket),
        }
    }
}

/// Anything whose readability matters: a listening socket or an eventfd.
pub struct Listener {
    inner: UnixStream,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.inner.as_raw_fd())
    }
}

impl Listener {
    /// Registers a non-blocking descriptor with this shard's driver.
    ///
    /// # Errors
    /// When the driver refuses it.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            inner: UnixStream::from_std(fd.into())?,
        })
    }

    /// Waits until a connection (or event) is there.
    ///
    /// # Errors
    /// Of the driver.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        self.inner.readable(false)
    }

    /// Accepts one waiting connection.
    ///
    /// # Errors
    /// `WouldBlock` when none waits; those of accept(2).
    pub fn try_accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        sys::socket::accept(sys::fds::borrow(&self.inner))
    }

    /// Ends listening now; dropped, it would end when its driver has let go.
    pub fn stop(&self) {
        sys::socket::stop_listening(sys::fds::borrow(&self.inner));
    }
}

/// A socket as [`Transport`]: polled instead of awaited, for TLS and HTTP/2.
pub struct PollSocket {
    socket: Rc<Socket>,
    read: Waiter,
    write: Waiter,
    /// The last receive took all there was: the next one waits, because asking again mostly costs a
    /// system call to hear `WouldBlock`.
    drained: bool,
    luck: Luck,
}

/// Whether asking before the driver tells is worth it: on a tunnel of many streams more bytes are often
/// there, and taking them now saves a turn; with a single one they never are.
struct Luck {
    credit: u8,
    skipped: u8,
}

impl Luck {
    const CREDIT_MAX: u8 = 16;
    const HIT_CREDIT: u8 = 4;
    /// Without credit, every so many chances one is taken.
    const PROBE_EVERY: u8 = 32;

    const fn new() -> Self {
        Self {
            credit: Self::CREDIT_MAX,
            skipped: 0,
        }
    }

    const fn try_it(&mut self) -> bool {
        if self.credit > 0 {
            return true;
        }
        self.skipped = (self.skipped + 1) % Self::PROBE_EVERY;
        self.skipped == 0
    }

    fn learn(&mut self, hit: bool) {
        self.credit = if hit {
            Self::CREDIT_MAX.min(self.credit + Self::HIT_CREDIT)
        } else {
            self.credit.saturating_sub(1)
        };
    }
}

impl std::fmt::Debug for PollSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl PollSocket {
    /// Wraps a socket.
    #[must_use]
    pub fn new(socket: Rc<Socket>) -> Self {
        Self {
            socket,
            read: Waiter::default(),
            write: Waiter::default(),
            drained: false,
            luck: Luck::new(),
        }
    }

    /// The socket below.
    #[must_use]
    pub const fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }
}

impl Transport for PollSocket {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut untold = false;
            if self.drained {
                match self.read.poll(cx, &self.socket, Direction::Read) {
                    Poll::Ready(done) => done?,
                    Poll::Pending if self.luck.try_it() => untold = true,
                    Poll::Pending => return Poll::Pending,
                }
            }
            let received = self.socket.try_recv(buffer);
            if untold {
                self.luck.learn(received.is_ok());
            }
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if untold {
                        return Poll::Pending;
                    }
                    self.drained = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(received) => {
                    // At end of stream there is nothing to wait for.
                    self.drained = received > 0 && received < buffer.len();
                    return Poll::Ready(Ok(received));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match sys::socket::send_vectored(self.socket.fd(), slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.write.poll(cx, &self.socket, Direction::Write))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.shutdown_write() {
            // A peer that reset the connection has closed it already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitState {
    Idle,
    Armed,
    Ready,
    Failed,
}

type Loop = Pin<Box<dyn Future<Output = ()>>>;

/// Waits for one direction. The waiting future is made once and armed again for each wait, so a
/// wait costs no allocation.
#[derive(Default)]
struct Waiter {
    running: Option<(Loop, Rc<Cell<WaitState>>)>,
}

impl Waiter {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Rc<Socket>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        let (task, state) = self.running.get_or_insert_with(|| {
            let state = Rc::new(Cell::new(WaitState::Idle));
            (
                wait_loop(Rc::clone(socket), direction, Rc::clone(&state)),
                state,
            )
        });
        if state.get() == WaitState::Idle {
            state.set(WaitState::Armed);
        }
        // Never completes; progress shows in the state.
        let _ = task.as_mut().poll(cx);
        match state.get() {
            WaitState::Ready => {
                state.set(WaitState::Idle);
                Poll::Ready(Ok(()))
            }
            WaitState::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            WaitState::Idle | WaitState::Armed => Poll::Pending,
        }
    }
}

fn wait_loop(socket: Rc<Socket>, direction: Direction, state: Rc<Cell<WaitState>>) -> Loop {
    Box::pin(async move {
        loop {
            poll_fn(|_| match state.get() {
                WaitState::Armed => Poll::Ready(()),
                WaitState::Idle | WaitState::Ready | WaitState::Failed => Poll::Pending,
            })
            .await;
            let waited = match direction {
                Direction::Read => socket.readable().await,
                Direction::Write => socket.writable().await,
            };
            state.set(if waited.is_ok() {
                WaitState::Ready
            } else {
                WaitState::Failed
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Luck;

    #[test]
    fn chances_are_taken_while_they_pay_and_probed_when_they_do_not() {
        let mut luck = Luck::new();
        for _ in 0..Luck::CREDIT_MAX {
            assert!(luck.try_it());
            luck.learn(false);
        }
        let taken = (0..u32::from(Luck::PROBE_EVERY) * 3).filter(|_| luck.try_it());
        assert_eq!(taken.count(), 3);
        luck.learn(true);
        assert!((0..Luck::HIT_CREDIT).all(|_| {
            let tried = luck.try_it();
            luck.learn(false);
            tried
        }));
        assert!(!luck.try_it());
    }
}
