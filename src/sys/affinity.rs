//! The CPUs this process may use, and pinning a thread to one of them.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity};

/// CPUs the calling thread may run on, ascending, never empty.
///
/// Call it before any thread is pinned: a pinned thread sees its own CPU only.
///
/// # Errors
/// As sched_getaffinity(2): the machine has more CPUs than the kernel's default mask holds.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect();
    if cpus.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(cpus)
}

/// Lets the calling thread run on `cpu` only. `false`: the kernel refused, nothing changed.
#[must_use]
pub fn pin_current_thread(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_sees_only_its_cpu() {
        let cpus = allowed_cpus().unwrap();
        let last = *cpus.last().unwrap();
        let seen = std::thread::spawn(move || (pin_current_thread(last), allowed_cpus().unwrap()));
        assert_eq!(seen.join().unwrap(), (true, vec![last]));
        assert_eq!(
            allowed_cpus().unwrap(),
            cpus,
            "other threads are not affected"
        );
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        let refused = std::thread::spawn(|| pin_current_thread(CpuSet::MAX_CPU - 1));
        assert!(!refused.join().unwrap());
    }
}
