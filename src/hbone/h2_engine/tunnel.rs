//! What both roles of a tunnel share: orders from outside, the table of streams, and the work around
//! each turn of `h2` (deadlines, keepalive, small frames, flushing, yielding).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustc_hash::FxHashMap;

use super::io::{Io, Wire};
use super::parking::RecvCell;
use crate::hbone::HboneError;
use crate::hbone::guard::{Guard, Role};
use crate::hbone::keepalive::{Deadlines, Keepalive, Pings};
use crate::hbone::settings::{LimitKind, Settings, Sleep};
use crate::transport::Transport;

/// `h2` charges each waiting DATA frame below 256 bytes to a budget of the whole connection, and some
/// charges are never returned (frames for streams that we reset). Our own bound on waiting small
/// frames ([`Guard::small_full`]) stands in its place, so that a healthy tunnel cannot die of it.
pub(super) const DATA_FRAME_BUDGET: usize = usize::MAX;

/// What a tunnel was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    Drain,
    Abort,
}

/// State of one tunnel, reachable from its driver, its handles and its streams.
pub(super) struct Shared {
    pub(super) role: Role,
    pub(super) settings: Settings,
    pub(super) guard: Rc<Guard>,
    order: Cell<Order>,
    driver: RefCell<Option<Waker>>,
    failure: RefCell<Option<HboneError>>,
    streams: RefCell<FxHashMap<u32, Rc<RecvCell>>>,
    in_flight: Cell<usize>,
}

impl Shared {
    pub(super) fn new(role: Role, settings: &Settings) -> Rc<Self> {
        Rc::new(Self {
            role,
            settings: settings.clone(),
            guard: Rc::new(Guard::new(role, settings)),
            order: Cell::new(Order::Run),
            driver: RefCell::new(None),
            failure: RefCell::new(None),
            streams: RefCell::default(),
            in_flight: Cell::new(0),
        })
    }

    /// Gives an order, unless a stronger one stands, and wakes the driver.
    pub(super) fn order(&self, order: Order) {
        if self.order.get() != Order::Abort {
            self.order.set(order);
        }
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn ordered(&self) -> Order {
        self.order.get()
    }

    /// Why the tunnel ended, once it has.
    pub(super) fn failure(&self) -> Option<HboneError> {
        self.failure.borrow().clone()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(super) fn register(&self, stream: u32, cell: &Rc<RecvCell>) {
        self.streams.borrow_mut().insert(stream, Rc::clone(cell));
    }

    pub(super) fn forget(&self, stream: u32) {
        self.streams.borrow_mut().remove(&stream);
    }

    /// Records the end of the tunnel for its streams; the first reason stays.
    pub(super) fn fail(&self, error: &HboneError) {
        self.failure
            .borrow_mut()
            .get_or_insert_with(|| error.clone());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("role", &self.role)
            .field("order", &self.order)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Counts one stream, from the moment it is asked for until its last handle is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Rc<Shared>);

impl InFlight {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        shared.in_flight.set(shared.in_flight.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// The keepalive's view of `h2`.
struct H2Pings(h2::PingPong);

impl Pings for H2Pings {
    fn send(&mut self) -> bool {
        self.0.send_ping(h2::Ping::opaque()).is_ok()
    }

    fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.0.poll_pong(cx).map(|pong| pong.is_ok())
    }
}

/// What to do after a turn of `h2`.
pub(super) enum Next {
    /// Give `h2` another turn.
    Again,
    /// A waker is registered.
    Wait,
    /// The tunnel has ended in order.
    Ended,
    /// End the tunnel.
    Dead(HboneError),
}

/// The work around `h2`.
pub(super) struct Core<T> {
    pub(super) shared: Rc<Shared>,
    wire: Rc<Wire<T>>,
    keepalive: Option<(Keepalive, H2Pings)>,
    deadlines: Deadlines,
    yielding: Option<Sleep>,
    window: u32,
    drain_noticed: bool,
}

impl<T: Transport> Core<T> {
    /// The core of a tunnel whose preface is due from now on, and what `h2` is to run on.
    pub(super) fn new(io: T, role: Role, settings: &Settings) -> (Self, Io<T>) {
        let shared = Shared::new(role, settings);
        let wire = Wire::new(io);
        let io = Io::new(Rc::clone(&wire), Rc::clone(&shared.guard));
        let core = Self {
            shared,
            wire,
            keepalive: None,
            deadlines: Deadlines::start(settings),
            yielding: None,
            window: settings.connection_window,
            drain_noticed: false,
        };
        (core, io)
    }

    /// Drives the handshake of `h2`, with its deadline.
    pub(super) fn poll_handshake<C>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<Result<C, h2::Error>>,
    ) -> Poll<Result<C, HboneError>> {
        let outcome = poll(cx).map_err(|error| HboneError::Handshake(error.to_string()));
        match self.wire.poll_flush(cx) {
            Poll::Ready(Err(error)) => {
                return Poll::Ready(Err(HboneError::Handshake(error.to_string())));
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if outcome.is_ready() {
            return outcome;
        }
        match self.missed_deadline(cx) {
            Some(limit) => Poll::Ready(Err(HboneError::Limit(limit))),
            None => Poll::Pending,
        }
    }

    /// The tunnel is up: starts the keepalive.
    pub(super) fn start(&mut self, pings: Option<h2::PingPong>) {
        let settings = &self.shared.settings;
        self.keepalive = pings.map(|pings| (Keepalive::new(settings), H2Pings(pings)));
    }

    /// Before a turn: remembers the waker, looks at the clock. An error ends the tunnel.
    pub(super) fn attend(&mut self, cx: &mut Context<'_>) -> Result<(), HboneError> {
        {
            let mut driver = self.shared.driver.borrow_mut();
            match &mut *driver {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *driver = Some(cx.waker().clone()),
            }
        }
        if self.shared.ordered() == Order::Abort {
            return Err(HboneError::Aborted);
        }
        if let Some(limit) = self.missed_deadline(cx) {
            return Err(HboneError::Limit(limit));
        }
        let dead = self.keepalive.as_mut().is_some_and(|(keepalive, pings)| {
            keepalive
                .poll_dead(pings, &self.shared.settings, cx)
                .is_ready()
        });
        if dead {
            return Err(HboneError::PingTimeout);
        }
        if let Some(yielding) = &mut self.yielding
            && yielding.as_mut().poll(cx).is_ready()
        {
            self.yielding = None;
            self.shared.guard.next_batch();
        }
        Ok(())
    }

    fn missed_deadline(&mut self, cx: &mut Context<'_>) -> Option<LimitKind> {
        let Shared {
            settings, guard, ..
        } = &*self.shared;
        self.deadlines.poll_missed(guard, settings, cx)
    }

    /// The connection window to set before a turn, if it changed: with `n` streams open, `n` stalled
    /// readers must leave room for one more stream (spec: design.md 5).
    pub(super) fn window_change(&mut self) -> Option<u32> {
        let settings = &self.shared.settings;
        let streams = u32::try_from(self.shared.in_flight()).unwrap_or(u32::MAX);
        let wanted = streams
            .saturating_add(1)
            .saturating_mul(settings.stream_window)
            .min(settings.connection_window_max)
            .max(settings.connection_window);
        // Growing only: taking credit back while it is in use would leave the window below zero.
        (wanted > self.window).then(|| {
            self.window = wanted;
            wanted
        })
    }

    /// After a turn in which `h2` had nothing more to do.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) -> Next {
        // A header block may have begun in this turn: its clock starts now.
        if let Some(limit) = self.missed_deadline(cx) {
            return Next::Dead(HboneError::Limit(limit));
        }
        let guard = &self.shared.guard;
        if let Some(limit) = guard.verdict() {
            return Next::Dead(HboneError::Limit(limit));
        }
        if let Poll::Ready(Err(error)) = self.wire.poll_flush(cx) {
            return match self.io_failed(&error) {
                Ok(()) => Next::Ended,
                Err(error) => Next::Dead(error),
            };
        }
        if guard.wants_drain() && !self.drain_noticed {
            self.drain_noticed = true;
            return Next::Again;
        }
        let small_full = guard.small_full();
        if small_full {
            for stream in self.shared.streams.borrow().values() {
                stream.park();
            }
            guard.take_small();
        }
        if guard.batch_full() {
            if self.yielding.is_some() {
                return Next::Wait;
            }
            let mut yielding = (self.shared.settings.yield_now)();
            if yielding.as_mut().poll(cx).is_pending() {
                self.yielding = Some(yielding);
                return Next::Wait;
            }
            guard.next_batch();
            return Next::Again;
        }
        if small_full { Next::Again } else { Next::Wait }
    }

    /// What an error of `h2` means for the tunnel.
    pub(super) fn failed(&self, error: &h2::Error) -> Result<(), HboneError> {
        if let Some(limit) = self.shared.guard.verdict() {
            return Err(HboneError::Limit(limit));
        }
        match error.get_io() {
            Some(io) => self.io_failed(io),
            None => Err(HboneError::Failed(error.to_string())),
        }
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
        if cut && self.shared.in_flight() == 0 {
            Ok(())
        } else {
            Err(HboneError::Failed(error.to_string()))
        }
    }

    /// Records the end: streams that fail from now on learn this reason. Ending in order is no failure,
    /// but no stream can outlive it.
    pub(super) fn end(&self, error: Option<&HboneError>) {
        match error {
            Some(error) => self.shared.fail(error),
            None => self
                .shared
                .fail(&HboneError::Failed("connection closed".into())),
        }
    }

    /// One attempt to send what is left.
    pub(super) fn last_flush(&self, cx: &mut Context<'_>) {
        // The tunnel is over: whatever the transport answers changes nothing.
        let _ = self.wire.poll_flush(cx);
    }
}

impl<T> fmt::Debug for Core<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
