//! Signals read like a file, and children that do not outlive their parent: for command-line tools.

#![expect(
    unsafe_code,
    reason = "signal masks and pre_exec have no safe interface"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// SIGINT, SIGTERM and SIGHUP, taken away from their default action while this value lives.
pub struct Interrupts {
    fd: OwnedFd,
    previous: libc::sigset_t,
}

impl std::fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupts")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

impl Interrupts {
    /// Takes the signals over for the calling thread and all threads it starts later; threads that
    /// exist already keep the default action. Children inherit it, unless [`release_child`] is
    /// asked to give the signals back to them.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2): no descriptor left.
    pub fn take_over() -> io::Result<Self> {
        let set = interrupt_set();
        let mut previous = MaybeUninit::uninit();
        // JUSTIFICATION: neither std nor rustix changes a thread's signal mask.
        // SAFETY: `set` is initialised and `previous` is writable memory of the right type.
        let status = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, previous.as_mut_ptr())
        };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        // JUSTIFICATION: the value exists only behind the pointer given to pthread_sigmask.
        // SAFETY: the call above succeeded, so it has filled `previous`.
        let previous = unsafe { previous.assume_init() };
        match signal_fd(&set) {
            Ok(fd) => Ok(Self { fd, previous }),
            Err(error) => {
                restore(&previous);
                Err(error)
            }
        }
    }

    /// Takes one signal that has arrived, without waiting.
    #[must_use]
    pub fn take(&self) -> bool {
        // One read of this size returns exactly one signal (signalfd(2)).
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        matches!(rustix::io::read(&self.fd, &mut record), Ok(read) if read == record.len())
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        restore(&self.previous);
    }
}

fn interrupt_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // JUSTIFICATION: a signal set can only be made by the C library.
    // SAFETY: sigemptyset initialises the memory it is given, and cannot fail on valid memory.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // JUSTIFICATION: as above.
    // SAFETY: sigemptyset has initialised `set`.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // JUSTIFICATION: as above.
        // SAFETY: `set` is initialised; the number is a valid signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn signal_fd(set: &libc::sigset_t) -> io::Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // JUSTIFICATION: rustix has no signalfd.
    // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, ptr::from_ref(set), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // JUSTIFICATION: the kernel hands descriptors out as numbers.
    // SAFETY: the call succeeded, so `fd` is open, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn restore(previous: &libc::sigset_t) {
    // JUSTIFICATION: as in `take_over`.
    // SAFETY: `previous` came from pthread_sigmask; a null pointer asks for no old mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::from_ref(previous), ptr::null_mut()) };
}

/// Prepares a child that lives on its own: it gets the signals back that [`Interrupts`] took, and
/// the kernel sends it SIGTERM when the thread that starts it ends, however it ends.
pub fn release_child(command: &mut Command) {
    let release = || {
        let set = interrupt_set();
        // JUSTIFICATION: neither std nor rustix changes a thread's signal mask.
        // SAFETY: `set` is initialised; a null pointer asks for no old mask.
        let status =
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        Ok(set_parent_process_death_signal(Some(Signal::TERM))?)
    };
    // JUSTIFICATION: only the child itself can do either, between fork and exec.
    // SAFETY: the closure calls sigemptyset, sigaddset, pthread_sigmask and prctl, all of them
    // async-signal-safe, allocates nothing and touches no memory of other threads.
    unsafe { command.pre_exec(release) };
}

/// Asks a child to end (SIGTERM). `pid` must be a child that has not been waited for, so that its
/// number cannot belong to anybody else.
///
/// # Errors
/// `EPERM` when the child runs as somebody else.
pub fn terminate(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, Signal::TERM)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(signal: libc::c_int) {
        // SAFETY: has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: the calling thread is alive, and has the signal blocked.
        let status = unsafe { libc::pthread_kill(thread, signal) };
        assert_eq!(status, 0);
    }

    #[test]
    fn an_interrupt_is_read_once_and_does_not_end_the_process() {
        let seen = std::thread::spawn(|| {
            let interrupts = Interrupts::take_over().unwrap();
            let before = interrupts.take();
            raise(libc::SIGTERM);
            (before, interrupts.take(), interrupts.take())
        });
        assert_eq!(seen.join().unwrap(), (false, true, false));
    }

    #[test]
    fn a_released_child_is_ended_by_sigterm_although_we_hold_it_back() {
        use std::os::unix::process::ExitStatusExt;
        let signal = std::thread::spawn(|| {
            let _interrupts = Interrupts::take_over().unwrap();
            let mut command = Command::new("sleep");
            command.arg("60");
            release_child(&mut command);
            let mut child = command.spawn().unwrap();
            terminate(child.id()).unwrap();
            child.wait().unwrap().signal()
        });
        assert_eq!(signal.join().unwrap(), Some(libc::SIGTERM));
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("60");
            release_child(&mut command);
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
