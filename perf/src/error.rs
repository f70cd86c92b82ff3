//! What can go wrong in the lab.

use std::io;
use std::time::Duration;

/// Why a measurement, or the whole run, has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user, or the system, asked us to stop.
    #[error("interrupted")]
    Interrupted,
    /// A program did not end, or did not say what was awaited, in time.
    #[error("{what}: not within {limit:?}\n{output}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// For how long.
        limit: Duration,
        /// Last lines of its output.
        output: String,
    },
    /// A program ended with an error.
    #[error("{what} failed: {status}\n{output}")]
    Failed {
        /// The program.
        what: String,
        /// Its exit status.
        status: String,
        /// Last lines of its output.
        output: String,
    },
    /// A program's output is not what we know how to read.
    #[error("{what}: {why}")]
    Unreadable {
        /// The program or file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A peer did not come up: the harness's own words.
    #[error("{peer} did not start: {why}")]
    NotStarted {
        /// The peer.
        peer: String,
        /// Why.
        why: String,
    },
    /// The arguments do not make sense.
    #[error("{0}")]
    Usage(String),
    /// A system call or file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Names what was tried, for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What most functions of the lab return.
pub type Result<T> = std::result::Result<T, Error>;
