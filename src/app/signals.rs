//! What ends a node: SIGTERM, SIGINT, `/quitquitquit`; a second signal ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Waits for the first reason to stop.
pub(crate) async fn first(quit: &Notify) -> &'static str {
    tokio::select! {
        reason = again() => reason,
        () = quit.notified() => "quitquitquit",
    }
}

/// Waits for a signal.
pub(crate) async fn again() -> &'static str {
    tokio::select! {
        () = one(SignalKind::terminate()) => "SIGTERM",
        () = one(SignalKind::interrupt()) => "SIGINT",
    }
}

async fn one(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::error!(target: "corelane::app", %error, "cannot listen for a signal");
            std::future::pending::<()>().await;
        }
    }
}
