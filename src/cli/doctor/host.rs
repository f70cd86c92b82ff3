//! What is known about the host and this process: the raw facts the checks judge.

use std::io;

use super::tree::Tree;
use crate::config::raw::cpu_quota;
use crate::sys::limits::{self, Limit};
use crate::sys::{affinity, ring};

/// Entries of the ring that is tried: the smallest a node makes.
const TRIAL_ENTRIES: u32 = 64;

/// Facts about the host as this process sees them.
#[derive(Debug)]
pub(super) struct Host {
    /// Files of the kernel.
    pub(super) tree: Tree,
    /// Limit of open descriptors.
    pub(super) descriptors: Limit,
    /// Limit of locked memory, bytes.
    pub(super) memlock: Limit,
    /// Bytes of a page.
    pub(super) page_bytes: u64,
    /// CPUs the scheduler may put us on, ascending.
    pub(super) cpus: Vec<usize>,
    /// CPUs the control group pays for; `None`: no quota.
    pub(super) quota: Option<usize>,
    /// What became of the trial of io_uring.
    pub(super) rings: Rings,
}

/// Result of the trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rings {
    /// With SINGLE_ISSUER and DEFER_TASKRUN.
    Best,
    /// With COOP_TASKRUN only; why not better.
    Coop(String),
    /// Not at all; why.
    Refused(Refusal),
}

/// Why no ring could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `EPERM`, `EACCES`: by sysctl, seccomp or a security module.
    Forbidden,
    /// `ENOSYS`: the kernel has none.
    NotBuilt,
    /// `ENOMEM`: the memlock limit.
    NoMemory,
    /// Anything else.
    Other(String),
}

impl Host {
    /// Facts about this process on this host. Rings are not tried yet: see [`Host::try_rings`].
    pub(super) fn of_this_process() -> Self {
        let tree = Tree::new("/");
        Self {
            quota: cpu_quota(&|path| {
                let path = path.strip_prefix("/").unwrap_or(path);
                let text = tree.text(&path.to_string_lossy());
                text.map_err(|unknown| io::Error::other(unknown.to_string()))
            }),
            tree,
            descriptors: limits::descriptors(),
            memlock: limits::locked_memory(),
            page_bytes: limits::page_bytes(),
            cpus: affinity::allowed_cpus().unwrap_or_default(),
            rings: Rings::Best,
        }
    }

    /// Makes a small ring with each set of flags until one works, and closes it.
    pub(super) fn try_rings(&mut self) {
        self.rings = trial(|flags| ring::attempt(flags, TRIAL_ENTRIES));
    }

    /// Release of the kernel, as (major, minor).
    pub(super) fn kernel(&self) -> Option<(u32, u32)> {
        let release = self.tree.text("proc/sys/kernel/osrelease").ok()?;
        let mut parts = release.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Whether this process has any of the capabilities, by number (capabilities(7)).
    pub(super) fn has_any(&self, capabilities: &[u32]) -> bool {
        self.capabilities()
            .is_some_and(|set| capabilities.iter().any(|number| set & (1 << number) != 0))
    }

    /// Effective capabilities of this process.
    pub(super) fn capabilities(&self) -> Option<u64> {
        let set = self.status("CapEff")?;
        u64::from_str_radix(&set, 16).ok()
    }

    /// Whether a seccomp filter watches this process.
    pub(super) fn is_filtered(&self) -> bool {
        self.status("Seccomp").is_some_and(|mode| mode == "2")
    }

    fn status(&self, name: &str) -> Option<String> {
        let status = self.tree.text("proc/self/status").ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    }
}

/// Best flags first.
fn trial(attempt: impl Fn(ring::Flags) -> io::Result<()>) -> Rings {
    let Err(first) = attempt(ring::Flags::Defer) else {
        return Rings::Best;
    };
    match attempt(ring::Flags::Coop) {
        Ok(()) => Rings::Coop(first.to_string()),
        Err(error) => Rings::Refused(match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Refusal::Forbidden,
            Some(libc::ENOSYS) => Refusal::NotBuilt,
            Some(libc::ENOMEM) => Refusal::NoMemory,
            _ => Refusal::Other(error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_tells_the_best_flags_that_work_and_why_not_better() {
        let fails = |number: i32| io::Error::from_raw_os_error(number);
        assert_eq!(trial(|_| Ok(())), Rings::Best);
        let old = trial(|flags| match flags {
            ring::Flags::Defer => Err(fails(libc::EINVAL)),
            ring::Flags::Coop => Ok(()),
        });
        assert!(matches!(old, Rings::Coop(why) if why.contains("Invalid argument")));
        for (number, refusal) in [
            (libc::EPERM, Refusal::Forbidden),
            (libc::EACCES, Refusal::Forbidden),
            (libc::ENOSYS, Refusal::NotBuilt),
            (libc::ENOMEM, Refusal::NoMemory),
        ] {
            assert_eq!(trial(|_| Err(fails(number))), Rings::Refused(refusal));
        }
    }
}
