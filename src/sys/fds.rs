//! Descriptors: borrowing them from foreign types, limits, and a count of those open.

#![expect(
    unsafe_code,
    reason = "monoio sockets offer their descriptor only as a raw number"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Borrows the descriptor of a socket that implements `AsRawFd` only.
pub fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // JUSTIFICATION: monoio sockets implement `AsRawFd` but not `AsFd`.
    // SAFETY: `owner` owns an open descriptor and stays borrowed as long as the result lives, so
    // the number cannot be closed or reused meanwhile.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Raises the soft limit of open descriptors to the hard limit; returns (before, now).
///
/// # Errors
/// `EPERM` where a sandbox forbids it.
pub fn raise_limit() -> io::Result<(u64, u64)> {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok((before, limit.maximum.unwrap_or(u64::MAX)))
}

/// Soft limit of open descriptors.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether an error means that descriptors or socket memory have run out.
#[must_use]
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
