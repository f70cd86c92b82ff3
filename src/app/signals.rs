//! What ends a node: SIGTERM, SIGINT, `/quitquitquit`; a second signal ends it at once. SIGHUP does not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// The signals a node ends by. Registered once, so that none is lost between two waits.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Takes SIGHUP over from now on, which would end the process otherwise.
///
/// # Errors
/// Of sigaction(2).
pub(crate) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

impl Signals {
    /// Takes the signals over from now on.
    ///
    /// # Errors
    /// Of sigaction(2).
    pub(crate) fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first reason to stop.
    pub(crate) async fn first(&mut self, quit: &Notify) -> &'static str {
        tokio::select! {
            reason = self.next() => reason,
            () = quit.notified() => "quitquitquit",
        }
    }

    /// Waits for a signal.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
