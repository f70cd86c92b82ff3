//! Moves bytes between two sockets inside the kernel, through a pipe of the shard's pool.
//!
//! Entered when a direction has shown bulk (`copy`), left when it calms down. The pipe belongs to one
//! direction while bytes are in it; empty it goes back to the pool, so that a few serve many. The
//! result of each splice(2) is what was moved: counts stay exact. Never IORING_OP_SPLICE, which the
//! kernel runs on worker threads.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;

use super::copy::{Failure, Turn, half_close, is_transient, sink, source};
use super::tuned;
use crate::config::limits::{RELAY_DEMOTE_WAITS, RELAY_PIPE_BYTES_MIN, RELAY_PIPES_KEPT_MAX};
use crate::dataplane::rt::Socket;
use crate::sys::pipe::Pipe;

thread_local! {
    /// Empty pipes of this shard.
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe on loan. Dropped with bytes in it, it is closed instead of pooled.
struct Loan {
    pipe: Option<Pipe>,
    inside: usize,
}

impl Loan {
    /// A pipe of useful size, or `None`: the direction goes on copying.
    fn take() -> Option<Self> {
        let wanted = tuned::pipe_bytes()?;
        let pooled = POOL.with_borrow_mut(Vec::pop);
        let pipe = match pooled {
            Some(pipe) => pipe,
            None => Pipe::new(wanted).ok()?,
        };
        (pipe.size() >= RELAY_PIPE_BYTES_MIN.min(wanted)).then_some(Self {
            pipe: Some(pipe),
            inside: 0,
        })
    }
}

impl Loan {
    /// Gives an empty pipe back to the pool.
    fn give_back(&mut self) {
        if self.inside == 0
            && let Some(pipe) = self.pipe.take()
        {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < RELAY_PIPES_KEPT_MAX {
                    pool.push(pipe);
                }
            });
        }
    }

    /// Takes a pipe again after [`Loan::give_back`]; false when none is to be had.
    fn renew(&mut self) -> bool {
        if self.pipe.is_none()
            && let Some(mut other) = Self::take()
        {
            self.pipe = other.pipe.take();
        }
        self.pipe.is_some()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// How a spliced direction ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spliced {
    /// End of stream; the sink is half-closed.
    Ended,
    /// The flow calmed down: copy again.
    Calm,
}

/// Splices until end of stream or until the flow calms down. `None`: no pipe is to be had.
///
/// Dropping the future loses what is in the pipe: the connection must end with it.
pub(super) fn run(
    from: &Socket,
    to: &Socket,
    turn: &mut Turn,
    count: &impl Fn(u64),
) -> Option<Pin<Box<impl Future<Output = Result<Spliced, Failure>>>>> {
    Loan::take().map(|loan| Box::pin(with_pipe(from, to, loan, turn, count)))
}

async fn with_pipe(
    from: &Socket,
    to: &Socket,
    mut loan: Loan,
    turn: &mut Turn,
    count: &impl Fn(u64),
) -> Result<Spliced, Failure> {
    let mut calm = 0;
    loop {
        match fill(from, &mut loan)? {
            Filled::End => {
                drain(to, &mut loan, count).await?;
                return half_close(to).map(|()| Spliced::Ended);
            }
            Filled::Some(bytes) => {
                if bytes >= RELAY_PIPE_BYTES_MIN / 4 {
                    calm = 0;
                }
                drain(to, &mut loan, count).await?;
                turn.step(bytes).await;
            }
            Filled::Empty => {
                calm += 1;
                if calm > RELAY_DEMOTE_WAITS {
                    return Ok(Spliced::Calm);
                }
                // A flow that pauses may pause for ever: two descriptors each would be too many.
                loan.give_back();
                turn.wait(from.readable()).await.map_err(source)?;
                if !loan.renew() {
                    return Ok(Spliced::Calm);
                }
            }
        }
    }
}

enum Filled {
    Some(usize),
    Empty,
    End,
}

/// Fills the pipe, which is empty before each call.
fn fill(from: &Socket, loan: &mut Loan) -> Result<Filled, Failure> {
    let Some(pipe) = &loan.pipe else {
        return Err(source(io::Error::from(io::ErrorKind::BrokenPipe)));
    };
    match from.try_fill(pipe, pipe.size()) {
        Ok(0) => Ok(Filled::End),
        Ok(bytes) => {
            loan.inside += bytes;
            Ok(Filled::Some(bytes))
        }
        Err(error) if is_transient(&error) => Ok(Filled::Empty),
        Err(error) => Err(source(error)),
    }
}

/// Empties the pipe into the sink, waiting for room.
async fn drain(to: &Socket, loan: &mut Loan, count: &impl Fn(u64)) -> Result<(), Failure> {
    while loan.inside > 0 {
        let Some(pipe) = &loan.pipe else {
            return Ok(());
        };
        match to.try_drain(pipe, loan.inside) {
            Ok(bytes) => {
                loan.inside -= bytes;
                count(bytes as u64);
            }
            Err(error) if is_transient(&error) => to.writable().await.map_err(sink)?,
            Err(error) => return Err(sink(error)),
        }
    }
    Ok(())
}
