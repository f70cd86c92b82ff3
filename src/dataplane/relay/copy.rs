//! Moves bytes in one direction through a buffer the shard lends, readiness first.
//!
//! An idle direction owns no buffer. Bytes are taken from a source only when its sink has room, so
//! back-pressure reaches the sender. Nothing here wakes itself; long turns yield.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use pin_project_lite::pin_project;

use super::pieces::Pieces;
use super::splice::{self, Spliced};
use super::tuned;
use crate::config::limits::RELAY_TURN_BYTES_MAX;
use crate::dataplane::rt::{self, First, Socket};
use crate::decision::authorize::Permit;
use crate::hbone::ResetCode;
use crate::hbone::blocks::Block;
use crate::hbone::stream::{RecvHalf, SendHalf, StreamError};

/// Where a direction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Taking bytes.
    Source,
    /// Giving bytes.
    Sink,
}

/// What failed.
#[derive(Debug)]
pub(super) enum Cause {
    /// A socket.
    Socket(io::Error),
    /// A stream.
    Stream(StreamError),
}

/// Why a direction ended other than by end of stream.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) place: Place,
    cause: Cause,
}

impl Failure {
    /// Whether the peer of that place reset the connection, or is gone.
    pub(super) fn is_reset(&self) -> bool {
        match &self.cause {
            Cause::Socket(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::HostUnreachable
            ),
            Cause::Stream(error) => matches!(error, StreamError::Reset(_)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Socket(error) => error.fmt(f),
            Cause::Stream(error) => error.fmt(f),
        }
    }
}

pub(super) fn source(cause: impl Into<Cause>) -> Failure {
    Failure {
        place: Place::Source,
        cause: cause.into(),
    }
}

pub(super) fn sink(cause: impl Into<Cause>) -> Failure {
    Failure {
        place: Place::Sink,
        cause: cause.into(),
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

thread_local! {
    /// Lent for the moment between a receive and the send that follows, never across an await.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; tuned::buffer_bytes()].into());
}

/// Receives in a row without a wait in between. With epoll, readiness may be known already, so a
/// sender of small messages could keep a direction from ever waiting.
const TURN_STEPS_MAX: u32 = 64;

/// What a direction has done since other tasks of the shard could run.
#[derive(Default)]
pub(super) struct Turn {
    bytes: u32,
    steps: u32,
}

impl Turn {
    /// Counts a step; lets others run when it was enough.
    pub(super) async fn step(&mut self, bytes: usize) {
        self.bytes = self
            .bytes
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.steps += 1;
        if self.bytes as usize >= RELAY_TURN_BYTES_MAX || self.steps >= TURN_STEPS_MAX {
            *self = Self::default();
            rt::yield_now().await;
        }
    }

    /// Waits; others run meanwhile, unless there was nothing to wait for.
    pub(super) const fn wait<F: Future>(&mut self, until: F) -> Wait<'_, F> {
        Wait { turn: self, until }
    }
}

pin_project! {
    /// See [`Turn::wait`].
    pub(super) struct Wait<'a, F> {
        turn: &'a mut Turn,
        #[pin]
        until: F,
    }
}

impl<F: Future> Future for Wait<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.until.poll(cx);
        if polled.is_pending() {
            **this.turn = Turn::default();
        }
        polled
    }
}

/// What one non-blocking step did.
enum Step {
    /// Bytes went through; `more` when the source probably has more at once.
    Moved { bytes: usize, more: bool },
    /// The source has nothing now.
    SourceEmpty,
    /// The sink took a part; what is left is to be sent when it has room.
    SinkFull { bytes: usize },
    /// End of stream.
    End,
}

/// What a sink did not take.
type Rest = Option<Box<Vec<u8>>>;

/// Copies until end of stream, then half-closes the sink. A direction that shows bulk is spliced for
/// as long as that lasts; only what is permitted gets here.
///
/// An idle connection holds this future twice, so it has room for a wait for bytes and little more: a
/// block that captures, because an `async fn` holds its arguments twice; nothing that must be dropped
/// is kept over a wait; what only a busy direction needs is boxed.
#[expect(clippy::manual_async_fn, reason = "half as large")]
pub(super) fn tcp_to_tcp(
    from: &Socket,
    to: &Socket,
    _permit: &Permit,
    count: impl Fn(u64),
) -> impl Future<Output = Result<(), Failure>> {
    async move {
        let (mut turn, mut full, mut rest) = (Turn::default(), 0, Rest::None);
        loop {
            match step(from, to, &mut rest)? {
                Step::Moved { bytes, more } => {
                    count(bytes as u64);
                    turn.step(bytes).await;
                    full = if more { full + 1 } else { 0 };
                    if !more && full < tuned::promote_reads() {
                        turn.wait(from.readable()).await.map_err(source)?;
                    }
                }
                Step::SourceEmpty => turn.wait(from.readable()).await.map_err(source)?,
                Step::SinkFull { bytes } => {
                    count(bytes as u64);
                    let rest = rest.take().unwrap_or_default();
                    Box::pin(send_all(to, rest, &count)).await?;
                    // A sink that cannot keep up is bulk too.
                    full += 1;
                    continue;
                }
                Step::End => return half_close(to),
            }
            if full >= tuned::promote_reads() {
                full = 0;
                // Without a pipe (descriptors or quota are short) copying goes on.
                if let Some(spliced) = splice::run(from, to, &mut turn, &count)
                    && spliced.await? == Spliced::Ended
                {
                    return Ok(());
                }
            }
        }
    }
}

fn step(from: &Socket, to: &Socket, rest: &mut Rest) -> Result<Step, Failure> {
    BUFFER.with_borrow_mut(|buffer| {
        let received = match from.try_recv(buffer) {
            Ok(0) => return Ok(Step::End),
            Ok(received) => received,
            Err(error) if is_transient(&error) => return Ok(Step::SourceEmpty),
            Err(error) => return Err(source(error)),
        };
        let sent = match to.try_send(&buffer[..received]) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(error) => return Err(sink(error)),
        };
        if sent == received {
            Ok(Step::Moved {
                bytes: sent,
                more: received == buffer.len(),
            })
        } else {
            *rest = Some(Box::new(buffer[sent..received].to_vec()));
            Ok(Step::SinkFull { bytes: sent })
        }
    })
}

#[expect(clippy::box_collection, reason = "as the relay keeps it: in one word")]
async fn send_all(to: &Socket, rest: Box<Vec<u8>>, count: &impl Fn(u64)) -> Result<(), Failure> {
    let mut sent = 0;
    while sent < rest.len() {
        match to.try_send(&rest[sent..]) {
            Ok(bytes) => {
                count(bytes as u64);
                sent += bytes;
            }
            Err(error) if is_transient(&error) => to.writable().await.map_err(sink)?,
            Err(error) => return Err(sink(error)),
        }
    }
    Ok(())
}

pub(super) fn half_close(to: &Socket) -> Result<(), Failure> {
    match to.shutdown_write() {
        // The sink reset its connection; its own direction tells so.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        Err(error) => Err(sink(error)),
        Ok(()) => Ok(()),
    }
}

pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Copies until end of stream, then sends END_STREAM. Watches for the peer's reset meanwhile. `wait` for
/// a source that hardly has anything to say yet.
pub(super) async fn tcp_to_tunnel(
    from: &Socket,
    to: &mut SendHalf,
    mut wait: bool,
    count: impl Fn(u64),
) -> Result<(), Failure> {
    let mut turn = Turn::default();
    loop {
        if wait {
            let ready = rt::race(poll_fn(|cx| to.poll_reset(cx)), from.readable());
            match turn.wait(ready).await {
                First::Left(error) => return stopped(error),
                First::Right(ready) => ready.map_err(source)?,
            }
        }
        // Room is asked for only once bytes are there: reserved and unused, it would be taken from
        // the other streams of the tunnel.
        let room = match poll_fn(|cx| to.poll_capacity(cx, tuned::buffer_bytes())).await {
            Ok(room) => room.min(tuned::buffer_bytes()),
            Err(error) => return stopped(error),
        };
        let Some(data) = receive(from, room)? else {
            to.release();
            wait = true;
            continue;
        };
        if data.is_empty() {
            return to.finish().map_err(sink);
        }
        let bytes = data.len();
        to.send(data).map_err(sink)?;
        count(bytes as u64);
        wait = bytes < room;
        if wait {
            to.release();
        }
        turn.step(bytes).await;
    }
}

/// Below this, bytes are copied out of the block they were received into, which is then used again at
/// once.
const SHARE_BYTES_MIN: usize = 32 * 1024;

/// Receives at most `room` bytes; large ones are sealed from where they were received.
fn receive(from: &Socket, room: usize) -> Result<Option<Bytes>, Failure> {
    let mut block = Block::take();
    let buffer = block.room();
    let room = room.min(buffer.len());
    match from.try_recv(&mut buffer[..room]) {
        Ok(received) if received >= SHARE_BYTES_MIN => Ok(Some(block.fill(received))),
        Ok(received) => {
            let data = Bytes::copy_from_slice(&buffer[..received]);
            block.give_back();
            Ok(Some(data))
        }
        Err(error) => {
            block.give_back();
            if is_transient(&error) {
                Ok(None)
            } else {
                Err(source(error))
            }
        }
    }
}

/// A peer that has ended its own direction may ask us to stop sending: that is an orderly end.
fn stopped(error: StreamError) -> Result<(), Failure> {
    match error {
        StreamError::Reset(ResetCode::NoError) => Ok(()),
        StreamError::Reset(_)
        | StreamError::Connection(_)
        | StreamError::GoneAway
        | StreamError::Closed => Err(sink(error)),
    }
}

/// Copies until END_STREAM, then half-closes the socket. Credit returns only for forwarded bytes.
pub(super) async fn tunnel_to_tcp(
    from: &mut RecvHalf,
    to: &Socket,
    count: impl Fn(u64),
) -> Result<(), Failure> {
    let mut turn = Turn::default();
    let mut pieces = Pieces::default();
    loop {
        match turn.wait(poll_fn(|cx| from.poll_data(cx))).await {
            Ok(Some(data)) => pieces.gather(data, from),
            Ok(None) => return half_close(to),
            Err(error) => return Err(source(error)),
        }
        let bytes = pieces.bytes();
        while pieces.bytes() > 0 {
            match pieces.send(to) {
                Ok(sent) => {
                    count(sent as u64);
                    from.forwarded(sent);
                }
                Err(error) if is_transient(&error) => {
                    turn.wait(to.writable()).await.map_err(sink)?;
                }
                Err(error) => return Err(sink(error)),
            }
        }
        turn.step(bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::Waker;

    #[test]
    fn only_a_wait_in_which_others_could_run_begins_a_new_turn() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut turn = Turn { bytes: 7, steps: 3 };
        assert!(pin!(turn.wait(ready(()))).poll(&mut cx).is_ready());
        assert_eq!((turn.bytes, turn.steps), (7, 3));
        assert!(pin!(turn.wait(pending::<()>())).poll(&mut cx).is_pending());
        assert_eq!((turn.bytes, turn.steps), (0, 0));
    }

    #[test]
    fn a_turn_ends_by_bytes_or_by_steps() {
        for (size, steps) in [(1, TURN_STEPS_MAX), (RELAY_TURN_BYTES_MAX, 1)] {
            let choice = crate::config::DriverChoice::Epoll;
            let left = rt::block_on(choice, 256, |_| async move {
                let mut turn = Turn::default();
                for _ in 1..steps {
                    turn.step(size).await;
                }
                let before = turn.steps;
                turn.step(size).await;
                (before, turn.steps)
            });
            assert_eq!(left.unwrap(), (steps - 1, 0));
        }
    }
}
