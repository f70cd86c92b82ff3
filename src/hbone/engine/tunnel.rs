//! One tunnel as its driver, its handles and its streams share it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::connection::Connection;
use super::state::remember;
use crate::hbone::HboneError;
use crate::hbone::guard::{Guard, Role};
use crate::hbone::settings::Settings;
use crate::hbone::stream::StreamError;

/// What a tunnel was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Run,
    Drain,
    Abort,
}

/// State of one tunnel.
pub(super) struct Tunnel {
    pub(super) role: Role,
    pub(super) settings: Rc<Settings>,
    pub(super) guard: Rc<Guard>,
    connection: RefCell<Connection>,
    order: Cell<Order>,
    driver: RefCell<Option<Waker>>,
    failure: RefCell<Option<HboneError>>,
    in_flight: Cell<usize>,
}

impl Tunnel {
    pub(super) fn new(role: Role, settings: &Settings) -> Rc<Self> {
        let settings = Rc::new(settings.clone());
        let guard = Rc::new(Guard::new(role, &settings));
        Rc::new(Self {
            role,
            connection: RefCell::new(Connection::new(role, &settings, &guard)),
            settings,
            guard,
            order: Cell::new(Order::Run),
            driver: RefCell::new(None),
            failure: RefCell::new(None),
            in_flight: Cell::new(0),
        })
    }

    /// Asks the engine something, and wakes the driver if it has work then.
    pub(super) fn ask<R>(&self, ask: impl FnOnce(&mut Connection) -> R) -> R {
        let connection = &mut *self.connection.borrow_mut();
        let answer = ask(connection);
        // Once is enough: a driver that cannot send yet need not be woken for each further byte.
        if std::mem::take(&mut connection.turn_due) {
            self.wake_driver();
        }
        answer
    }

    /// As [`Tunnel::ask`], for the driver itself.
    pub(super) fn drive<R>(&self, drive: impl FnOnce(&mut Connection) -> R) -> R {
        drive(&mut self.connection.borrow_mut())
    }

    /// Remembers whom to wake.
    pub(super) fn driven_by(&self, cx: &Context<'_>) {
        remember(&mut self.driver.borrow_mut(), cx);
    }

    fn wake_driver(&self) {
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Gives an order, unless a stronger one stands, and wakes the driver.
    pub(super) fn order(&self, order: Order) {
        if self.order.get() != Order::Abort {
            self.order.set(order);
        }
        self.wake_driver();
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

    /// Records the end of the tunnel and tells its streams; the first reason stays. Ending in order
    /// is no failure, but no stream can outlive it.
    pub(super) fn end(&self, error: Option<&HboneError>) {
        let error = match error {
            Some(error) => error.clone(),
            None => HboneError::Failed("connection closed".into()),
        };
        let why = StreamError::Connection(error.to_string());
        let first = self.failure.borrow().is_none();
        if first {
            self.failure.replace(Some(error));
            self.connection.borrow_mut().fail(&why);
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("role", &self.role)
            .field("order", &self.order)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// Counts one stream, from the moment it is asked for until its last handle is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Rc<Tunnel>);

impl InFlight {
    pub(super) fn new(tunnel: &Rc<Tunnel>) -> Self {
        tunnel.in_flight.set(tunnel.in_flight.get() + 1);
        Self(Rc::clone(tunnel))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
