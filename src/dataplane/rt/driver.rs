//! Chooses and builds the driver of a shard: io_uring as fast as the kernel allows, else epoll.

use std::fmt;
use std::future::Future;
use std::io;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::config::tuning::RingFlags;

/// Driver that runs a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring with SINGLE_ISSUER and DEFER_TASKRUN.
    IoUring,
    /// io_uring with COOP_TASKRUN (kernels before 6.1).
    IoUringCoop,
    /// io_uring without flags, only when asked for.
    IoUringPlain,
    /// epoll.
    Epoll,
}

impl DriverKind {
    /// Name in logs, metrics and the status page.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::IoUringCoop => "io_uring-coop",
            Self::IoUringPlain => "io_uring-plain",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which driver runs, and why not a better one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverReport {
    /// The driver.
    pub kind: DriverKind,
    /// Ring entries; 0 for epoll.
    pub entries: u32,
    /// Why a better driver was passed over.
    pub fallback: Option<String>,
}

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The best one that works.
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// monoio rounds smaller rings up to this.
const ENTRIES_MIN: u32 = 256;

enum Built {
    Ring(Box<Runtime<TimeDriver<IoUringDriver>>>),
    Epoll(Box<Runtime<TimeDriver<LegacyDriver>>>),
}

/// Builds the driver on the calling thread and runs `main` on it to its end.
///
/// # Errors
/// When no allowed driver could be built; the text holds every attempt's reason.
pub fn block_on<F: Future>(
    choice: crate::config::DriverChoice,
    entries: u32,
    main: impl FnOnce(DriverReport) -> F,
) -> io::Result<F::Output> {
    block_on_with(choice, RingFlags::Best, entries, main)
}

/// As [`block_on`], with a choice of the ring's flags.
///
/// # Errors
/// As [`block_on`].
pub fn block_on_with<F: Future>(
    choice: crate::config::DriverChoice,
    flags: RingFlags,
    entries: u32,
    main: impl FnOnce(DriverReport) -> F,
) -> io::Result<F::Output> {
    let wanted = match choice {
        crate::config::DriverChoice::Auto => Wanted::Auto,
        crate::config::DriverChoice::IoUring => Wanted::IoUring,
        crate::config::DriverChoice::Epoll => Wanted::Epoll,
    };
    let (built, report) = build(wanted, kinds(flags), entries)?;
    Ok(match built {
        Built::Ring(mut runtime) => runtime.block_on(main(report)),
        Built::Epoll(mut runtime) => runtime.block_on(main(report)),
    })
}

/// Kinds of ring to try, best first.
const fn kinds(flags: RingFlags) -> &'static [DriverKind] {
    match flags {
        RingFlags::Best => &[DriverKind::IoUring, DriverKind::IoUringCoop],
        RingFlags::Coop => &[DriverKind::IoUringCoop],
        RingFlags::Plain => &[DriverKind::IoUringPlain],
    }
}

fn build(wanted: Wanted, kinds: &[DriverKind], entries: u32) -> io::Result<(Built, DriverReport)> {
    let mut reasons = Vec::new();
    if wanted != Wanted::Epoll {
        for &kind in kinds {
            let mut size = entries.max(ENTRIES_MIN);
            loop {
                match ring(kind, size) {
                    Ok(runtime) => {
                        let fallback = (!reasons.is_empty()).then(|| reasons.join("; "));
                        let report = DriverReport {
                            kind,
                            entries: size,
                            fallback,
                        };
                        return Ok((Built::Ring(Box::new(runtime)), report));
                    }
                    // Ring memory counts against RLIMIT_MEMLOCK on old kernels and is returned
                    // late after an exit: a smaller ring is better than none.
                    Err(error)
                        if error.raw_os_error() == Some(libc::ENOMEM) && size > ENTRIES_MIN =>
                    {
                        reasons.push(format!("{kind} with {size} entries: {error}"));
                        size = (size / 2).max(ENTRIES_MIN);
                    }
                    Err(error) => {
                        reasons.push(format!("{kind}: {error}"));
                        break;
                    }
                }
            }
        }
    }
    if wanted == Wanted::IoUring {
        let tried = reasons.join("; ");
        return Err(io::Error::other(format!(
            "io_uring was asked for but cannot be used ({tried}); allow it (sysctl \
             kernel.io_uring_disabled=0, seccomp, memlock) or choose driver `auto` or `epoll`"
        )));
    }
    let runtime = RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()?;
    let fallback = (!reasons.is_empty()).then(|| reasons.join("; "));
    let report = DriverReport {
        kind: DriverKind::Epoll,
        entries: 0,
        fallback,
    };
    Ok((Built::Epoll(Box::new(runtime)), report))
}

fn ring(kind: DriverKind, entries: u32) -> io::Result<Runtime<TimeDriver<IoUringDriver>>> {
    let mut flags = io_uring::IoUring::builder();
    match kind {
        DriverKind::IoUring => {
            flags.setup_single_issuer().setup_defer_taskrun();
        }
        DriverKind::IoUringCoop => {
            flags.setup_coop_taskrun();
        }
        DriverKind::IoUringPlain | DriverKind::Epoll => {}
    }
    // Completions may outnumber submissions many times over when thousands of sockets turn ready.
    flags.setup_cqsize(entries.saturating_mul(4));
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(flags)
        .with_entries(entries)
        .enable_timer()
        .build()
}
