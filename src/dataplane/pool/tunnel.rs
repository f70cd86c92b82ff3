//! One tunnel of the pool: being dialled, up, or spent; and the leases its streams hold.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::dataplane::rt::{self, Signal};
use crate::hbone::client::Opener;
use crate::model::close::CloseReason;

/// A tunnel from the start of its dial to its end.
#[derive(Debug)]
pub(in crate::dataplane) struct Tunnel {
    opener: OnceCell<Opener>,
    dialled: Signal<Result<(), CloseReason>>,
    leases: Cell<usize>,
    unused_since: Cell<Instant>,
    spent: Cell<bool>,
    revoked: Cell<bool>,
}

impl Tunnel {
    pub(in crate::dataplane) fn new() -> Rc<Self> {
        Rc::new(Self {
            opener: OnceCell::new(),
            dialled: Signal::default(),
            leases: Cell::new(0),
            unused_since: Cell::new(rt::now()),
            spent: Cell::new(false),
            revoked: Cell::new(false),
        })
    }

    /// Whether one more stream fits. A peer that allows none still gets one to refuse or answer:
    /// another tunnel to it would fare no better.
    pub(super) fn has_room(&self, streams_max: usize) -> bool {
        let limit = match self.opener.get() {
            None => streams_max,
            Some(opener) if opener.is_usable() => streams_max.min(opener.peer_max_streams().max(1)),
            Some(_) => return false,
        };
        !self.spent.get() && self.leases.get() < limit
    }

    /// Whether its streams wait because the peer takes nothing on the whole connection.
    pub(super) fn is_congested(&self) -> bool {
        self.opener.get().is_some_and(Opener::is_congested)
    }

    /// Waits for the dial.
    pub(super) async fn up(&self) -> Result<Opener, CloseReason> {
        self.dialled.wait().await?;
        // A dial that succeeded has left its opener.
        self.opener.get().cloned().ok_or(CloseReason::Panic)
    }

    /// Answers everybody who waits for the dial.
    pub(in crate::dataplane) fn came_up(&self, opener: Opener) {
        self.unused_since.set(rt::now());
        // The dial ends once.
        drop(self.opener.set(opener));
        self.dialled.fire(Ok(()));
        self.close_if_done();
    }

    /// Answers everybody who waits for the dial, unless it has had a result.
    pub(super) fn failed(&self, reason: CloseReason) {
        self.dialled.fire(Err(reason));
    }

    /// Takes no new streams.
    pub(in crate::dataplane) fn spend(&self) {
        self.spent.set(true);
    }

    /// The peer is revoked: takes no new streams, and those there are end for that reason.
    pub(in crate::dataplane) fn revoke(&self) {
        self.revoked.set(true);
        self.spend();
    }

    /// Takes no new streams; closes when the last one ends.
    pub(super) fn retire(&self) {
        self.spend();
        self.close_if_done();
    }

    fn close_if_done(&self) {
        if self.spent.get()
            && self.leases.get() == 0
            && let Some(opener) = self.opener.get()
        {
            opener.close_when_idle();
        }
    }

    /// Whether it is up, would take streams, and carries none.
    pub(super) fn is_unused(&self) -> bool {
        self.opener.get().is_some() && !self.spent.get() && self.leases.get() == 0
    }

    /// Since when it carries no stream; of no meaning while it carries some.
    pub(super) fn unused_since(&self) -> Instant {
        self.unused_since.get()
    }

    /// Completes when no stream was there for that long.
    pub(super) async fn unused_for(&self, long: Duration) {
        loop {
            let unused = rt::now().saturating_duration_since(self.unused_since.get());
            if self.leases.get() > 0 {
                rt::sleep(long).await;
            } else if unused < long {
                rt::sleep(long - unused).await;
            } else {
                return;
            }
        }
    }
}

/// One stream's share of a tunnel; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    tunnel: Rc<Tunnel>,
}

impl Lease {
    pub(in crate::dataplane) fn take(tunnel: &Rc<Tunnel>) -> Self {
        tunnel.leases.set(tunnel.leases.get() + 1);
        Self {
            tunnel: Rc::clone(tunnel),
        }
    }

    /// Whether the peer was revoked meanwhile.
    pub(crate) fn is_revoked(&self) -> bool {
        self.tunnel.revoked.get()
    }

    pub(super) const fn tunnel(&self) -> &Rc<Tunnel> {
        &self.tunnel
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let tunnel = &self.tunnel;
        tunnel.leases.set(tunnel.leases.get() - 1);
        if tunnel.leases.get() == 0 {
            tunnel.unused_since.set(rt::now());
            tunnel.close_if_done();
        }
    }
}
