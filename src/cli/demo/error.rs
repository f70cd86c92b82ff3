//! Why the demo did not end as it should.

use std::io;
use std::process::ExitStatus;

use crate::tls::dev_pki::folder::WriteError;

/// A failure, told to a stranger.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// Ctrl-C, or the demo was asked to end.
    #[error("interrupted")]
    Interrupted,
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds:.1} s")]
    TimedOut { what: String, seconds: f64 },
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    /// The certificates could not be made.
    #[error("cannot make the throw-away certificates: {0}")]
    Pki(#[from] WriteError),
    /// A node ended although nobody asked it to.
    #[error("{node} ended by itself ({status})")]
    NodeEnded {
        node: &'static str,
        status: ExitStatus,
    },
    /// A node did not end in order.
    #[error("{node} was asked to end and {outcome}")]
    NodeStop { node: &'static str, outcome: String },
    /// No loopback address has the port of HBONE free.
    #[error(
        "port {port} is taken on every loopback address tried; is a node of this machine listening \
         on all addresses? Stop it, or run `corelane demo --netns` as root"
    )]
    PortTaken { port: u16 },
    /// Something else happened than what the demo is to show.
    #[error("expected {expected}, but {found}")]
    Unexpected { expected: String, found: String },
    /// `--netns` without the rights for it.
    #[error(
        "--netns makes network namespaces and nftables rules, which only root may: run it with \
         sudo, or run `corelane demo` without --netns"
    )]
    NotRoot,
    /// A tool of the system failed or is missing.
    #[error("`{command}` failed: {why}")]
    Tool { command: String, why: String },
}

impl DemoError {
    /// Wraps a system error; `what` completes "cannot …".
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// States a contradiction.
    pub(super) fn unexpected(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unexpected {
            expected: expected.into(),
            found: found.into(),
        }
    }
}
