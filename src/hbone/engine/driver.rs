//! Drives a tunnel over its transport: receives, lets the engine work, sends everything in one go,
//! keeps deadlines, and lets others run in between.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::batch::SLICES_MAX;
use super::connection::Draining;
use super::frame::code;
use super::parked::{Received, SLICE_BYTES_MIN};
use super::tunnel::{Order, Tunnel};
use crate::hbone::HboneError;
use crate::hbone::blocks::Block;
use crate::hbone::guard::Role;
use crate::hbone::keepalive::{Deadlines, Keepalive, Pings};
use crate::hbone::settings::{LimitKind, Settings, Sleep};
use crate::transport::Transport;

/// Bytes received before the tunnel lets others run: about half a millisecond of work.
const BATCH_BYTES: usize = 512 * 1024;
/// Answers to the peer that may wait for it to read; until then nothing more is received.
const BACKLOG_BYTES_MAX: usize = 4096;

/// What became of a step.
enum Step {
    /// Something moved.
    Moved,
    /// Nothing can move; a waker is registered.
    Waits,
    /// What we owe the peer has to leave first.
    Owes,
    /// The peer has closed.
    Closed,
}

/// A tunnel and what it runs on.
pub(super) struct Core<T> {
    pub(super) tunnel: Rc<Tunnel>,
    transport: T,
    deadlines: Deadlines,
    keepalive: Keepalive,
    yielding: Option<Sleep>,
    /// Bytes received since others could run.
    moved: usize,
    unflushed: bool,
    /// Everything is said: only flushing and closing are left.
    closing: bool,
}

impl<T: Transport> Core<T> {
    /// A tunnel whose preface is due from now on.
    pub(super) fn new(transport: T, role: Role, settings: &Settings) -> Self {
        let tunnel = Tunnel::new(role, settings);
        tunnel.drive(|connection| connection.greet());
        Self {
            tunnel,
            transport,
            deadlines: Deadlines::start(settings),
            keepalive: Keepalive::new(settings),
            yielding: None,
            moved: 0,
            unflushed: false,
            closing: false,
        }
    }

    /// Sends our preface and settings and, as server, waits for the client's preface.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HboneError>> {
        let failed = |error: io::Error| HboneError::Handshake(error.to_string());
        let sent = self.poll_write(cx).map_err(failed)?;
        while self
            .tunnel
            .drive(|connection| connection.input.awaits_preface())
        {
            match self.poll_read(cx) {
                Ok(Step::Moved) => {}
                // Before the preface nothing is owed but our own first flight.
                Ok(Step::Waits | Step::Owes) => return self.poll_deadlines(cx),
                Ok(Step::Closed) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(failed(error)));
                }
                Err(HboneError::Failed(text)) => {
                    return Poll::Ready(Err(HboneError::Handshake(text)));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if sent.is_ready() {
            // Starts afresh: what was here until now is not the tunnel's life.
            self.keepalive = Keepalive::new(&self.tunnel.settings);
            return Poll::Ready(Ok(()));
        }
        self.poll_deadlines(cx)
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HboneError>> {
        let tunnel = &self.tunnel;
        match self
            .deadlines
            .poll_missed(&tunnel.guard, &tunnel.settings, cx)
        {
            Some(limit) => Poll::Ready(Err(HboneError::Limit(limit))),
            None => Poll::Pending,
        }
    }

    /// Moves what can be moved; ready when the tunnel has ended.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HboneError>> {
        self.tunnel.driven_by(cx);
        if self.tunnel.ordered() == Order::Abort {
            return Poll::Ready(Err(HboneError::Aborted));
        }
        self.check_clock(cx)?;
        self.check_pings(cx)?;
        if self.closing {
            return self.poll_goodbye(cx);
        }
        if let Some(yielding) = &mut self.yielding {
            ready!(yielding.as_mut().poll(cx));
            self.yielding = None;
            self.moved = 0;
        }
        loop {
            if let Poll::Ready(ended) = self.transfer(cx) {
                return Poll::Ready(ended);
            }
            // What came may have started or ended something that is watched.
            self.check_clock(cx)?;
            if self.tunnel.drive(|connection| connection.pong) {
                self.check_pings(cx)?;
            }
            if self.closing {
                return self.poll_goodbye(cx);
            }
            if self.moved < BATCH_BYTES {
                return Poll::Pending;
            }
            let mut yielding = (self.tunnel.settings.yield_now)();
            if yielding.as_mut().poll(cx).is_pending() {
                self.yielding = Some(yielding);
                return Poll::Pending;
            }
            self.moved = 0;
        }
    }

    /// Sends, receives, and sends what that brought about.
    fn transfer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HboneError>> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(self.io_failed(&error));
        }
        loop {
            let mut owes = false;
            while self.moved < BATCH_BYTES && !owes {
                match self.poll_read(cx) {
                    Ok(Step::Moved) => {}
                    Ok(Step::Owes) => owes = true,
                    Ok(Step::Waits) => break,
                    Ok(Step::Closed) => {
                        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                        return Poll::Ready(self.io_failed(&error));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            self.progress();
            match self.poll_write(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(self.io_failed(&error)),
                Poll::Ready(Ok(())) if owes && self.tunnel.guard.verdict().is_none() => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Deadlines and limits.
    fn check_clock(&mut self, cx: &mut Context<'_>) -> Result<(), HboneError> {
        let (guard, settings) = (&self.tunnel.guard, &self.tunnel.settings);
        let missed = self.deadlines.poll_missed(guard, settings, cx);
        match missed.or_else(|| guard.verdict()) {
            Some(limit) => Err(HboneError::Limit(limit)),
            None => Ok(()),
        }
    }

    fn check_pings(&mut self, cx: &mut Context<'_>) -> Result<(), HboneError> {
        let mut pings = PingsOf(&self.tunnel);
        let settings = &self.tunnel.settings;
        match self.keepalive.poll_dead(&mut pings, settings, cx) {
            Poll::Ready(()) => Err(HboneError::PingTimeout),
            Poll::Pending => Ok(()),
        }
    }

    /// Goes on with a drain or the tunnel's end.
    fn progress(&mut self) {
        let tunnel = &self.tunnel;
        let told = tunnel.ordered() == Order::Drain || tunnel.guard.wants_drain();
        let gone = tunnel.guard.goaway_received().is_some();
        let role = tunnel.role;
        self.closing = tunnel.drive(|connection| {
            connection.watch_budget();
            match role {
                Role::Server => {
                    if told {
                        connection.start_drain();
                    }
                    connection.finish_drain();
                    connection.draining == Draining::Closed && connection.is_idle()
                }
                Role::Client => {
                    let over = (told || gone) && connection.is_idle();
                    if over {
                        connection.say_goodbye(code::NO_ERROR);
                    }
                    over
                }
            }
        });
    }

    /// Sends what is left, then closes.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HboneError>> {
        match ready!(self.poll_write(cx)) {
            Ok(()) => {}
            Err(error) => return Poll::Ready(self.io_failed(&error)),
        }
        // The peer may have closed before us, which is as good.
        let _ = ready!(self.transport.poll_close(cx));
        Poll::Ready(Ok(()))
    }

    /// Receives once and lets the engine look at it.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Step, HboneError> {
        let tunnel = &self.tunnel;
        let backlog = tunnel.drive(|connection| connection.control_backlog());
        if backlog >= BACKLOG_BYTES_MAX || tunnel.guard.verdict().is_some() {
            return Ok(Step::Owes);
        }
        let mut block = Block::take();
        let received = match self.transport.poll_recv(cx, block.room()) {
            Poll::Pending => {
                block.give_back();
                return Ok(Step::Waits);
            }
            Poll::Ready(Err(error)) => {
                block.give_back();
                return match self.io_failed(&error) {
                    Ok(()) => Ok(Step::Closed),
                    Err(error) => Err(error),
                };
            }
            Poll::Ready(Ok(0)) => {
                block.give_back();
                return Ok(Step::Closed);
            }
            Poll::Ready(Ok(received)) => received,
        };
        self.moved += received;
        let taken = if received < SLICE_BYTES_MIN {
            let bytes = &block.room()[..received];
            let taken = tunnel.drive(|connection| connection.receive(Received::lent(bytes)));
            block.give_back();
            taken
        } else {
            let bytes = block.fill(received);
            tunnel.drive(|connection| connection.receive(Received::shared(&bytes)))
        };
        if let Err(fault) = taken {
            tunnel.drive(|connection| connection.say_goodbye(fault.code));
            return Err(HboneError::Failed(fault.to_string()));
        }
        self.check_goaway()?;
        Ok(Step::Moved)
    }

    /// A peer that says GOAWAY with an error has ended the connection.
    fn check_goaway(&self) -> Result<(), HboneError> {
        match self.tunnel.guard.goaway_received() {
            Some(goaway) if goaway.code != code::NO_ERROR => {
                let code = crate::hbone::ResetCode::from_code(goaway.code);
                Err(HboneError::Failed(format!(
                    "connection error received: {code}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Sends what the engine has, in batches, and flushes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let transport = &mut self.transport;
            let taken: Poll<io::Result<usize>> = self.tunnel.drive(|connection| {
                if connection.batch.is_empty() {
                    connection.fill();
                }
                if connection.batch.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = connection.batch.slices(&mut slices);
                let taken = ready!(transport.poll_send(cx, &slices[..count]))?;
                if taken == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                connection.sent(taken);
                Poll::Ready(Ok(taken))
            });
            let taken = ready!(taken)?;
            if taken == 0 {
                break;
            }
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(self.transport.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// A peer may cut a tunnel that carries nothing: many do so as soon as they have read our GOAWAY.
    fn io_failed(&self, error: &io::Error) -> Result<(), HboneError> {
        let cut = matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::UnexpectedEof
        );
        let idle =
            self.tunnel.in_flight() == 0 || self.tunnel.drive(|connection| connection.is_idle());
        if cut && idle {
            Ok(())
        } else {
            Err(HboneError::Failed(error.to_string()))
        }
    }

    /// Says GOAWAY if the end is ours, as far as the transport takes it at once, and tells the streams.
    pub(super) fn end(&mut self, error: Option<&HboneError>, cx: &mut Context<'_>) {
        if let Some(code) = error.and_then(|error| goaway_code(self.tunnel.role, error)) {
            self.tunnel.drive(|connection| connection.say_goodbye(code));
        }
        // The tunnel is over: whatever the transport answers changes nothing. One attempt, because a
        // peer that does not read must not keep the tunnel alive.
        let server = self.tunnel.role == Role::Server;
        if error != Some(&HboneError::Aborted) || server {
            let sent = self.poll_write(cx);
            if server && error.is_some() && matches!(sent, Poll::Ready(Ok(()))) {
                let _ = self.transport.poll_close(cx);
            }
        }
        self.tunnel.end(error);
    }
}

/// What we say when we end a tunnel; `None` if it was said, or need not be. A client drops the
/// connection instead (spec: hbone.md 3.3).
fn goaway_code(role: Role, error: &HboneError) -> Option<u32> {
    if role == Role::Client {
        return None;
    }
    match error {
        HboneError::Handshake(_) | HboneError::Failed(_) => None,
        HboneError::PingTimeout | HboneError::Aborted => Some(code::NO_ERROR),
        HboneError::Limit(LimitKind::SettingsAckTimeout) => Some(code::SETTINGS_TIMEOUT),
        HboneError::Limit(LimitKind::PrefaceTimeout) => Some(code::PROTOCOL_ERROR),
        HboneError::Limit(_) => Some(code::ENHANCE_YOUR_CALM),
    }
}

/// The keepalive's view of the engine.
struct PingsOf<'a>(&'a Rc<Tunnel>);

impl Pings for PingsOf<'_> {
    fn send(&mut self) -> bool {
        self.0.drive(|connection| connection.ping());
        true
    }

    fn poll_pong(&mut self, _: &mut Context<'_>) -> Poll<bool> {
        let came = self
            .0
            .drive(|connection| std::mem::take(&mut connection.pong));
        if came {
            Poll::Ready(true)
        } else {
            Poll::Pending
        }
    }
}
