//! A trial of io_uring: sets a ring up and closes it again.

use std::io;

/// Flags of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// SINGLE_ISSUER and DEFER_TASKRUN (kernel 6.1).
    Defer,
    /// COOP_TASKRUN (kernel 5.19).
    Coop,
}

/// Sets up a ring of `entries`, with four completions for each, and closes it.
///
/// # Errors
/// As io_uring_setup(2): `EPERM` forbidden, `ENOSYS` not there, `EINVAL` flags unknown, `ENOMEM`
/// over the memlock limit.
pub fn attempt(flags: Flags, entries: u32) -> io::Result<()> {
    let mut builder: io_uring::Builder = io_uring::IoUring::builder();
    match flags {
        Flags::Defer => builder.setup_single_issuer().setup_defer_taskrun(),
        Flags::Coop => builder.setup_coop_taskrun(),
    };
    builder.setup_cqsize(entries.saturating_mul(4));
    builder.build(entries).map(drop)
}
