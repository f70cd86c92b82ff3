//! Network namespaces: entering one for good, and working in one for the length of a call.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{fstat, fstatfs};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Moves the calling thread into the network namespace behind `namespace`, for the rest of the
/// thread's life: sockets it opens from now on belong there. See setns(2).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; `EINVAL` when the descriptor is no network namespace.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// What tells two namespaces apart for as long as both are held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId {
    inode: u64,
    device: u64,
}

#[cfg(test)]
impl NamespaceId {
    /// For tests of what never enters it.
    pub(crate) const fn invented(inode: u64) -> Self {
        Self { inode, device: 0 }
    }
}

/// Somebody's network namespace, kept alive, with the way back to our own.
#[derive(Debug)]
pub struct Namespace {
    handle: OwnedFd,
    id: NamespaceId,
    home: Home,
}

/// The namespace this process lives in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Home(Arc<File>);

impl Home {
    /// The calling thread's.
    ///
    /// # Errors
    /// `EMFILE`, or `ENOENT` without /proc.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/thread-self/ns/net")?)))
    }

    /// Whether namespaces may be entered at all: enters the one the thread is in.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN.
    pub fn check(&self) -> io::Result<()> {
        enter(self.0.as_fd())
    }
}

/// Filesystems whose files are namespaces: nsfs, and procfs on old kernels. See statfs(2).
const NAMESPACE_FILESYSTEMS: [u64; 2] = [0x6e73_6673, 0x9fa0];

impl Namespace {
    /// Keeps the namespace behind `handle`.
    ///
    /// # Errors
    /// Of fstat(2).
    pub fn new(handle: OwnedFd, home: &Home) -> io::Result<Self> {
        let stat = fstat(&handle)?;
        let id = NamespaceId {
            inode: stat.st_ino,
            device: stat.st_dev,
        };
        Ok(Self {
            handle,
            id,
            home: home.clone(),
        })
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> NamespaceId {
        self.id
    }

    /// Whether the descriptor looks like a namespace at all; entering it is what proves it.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        fstatfs(&self.handle).is_ok_and(|stat| {
            u64::try_from(stat.f_type).is_ok_and(|kind| NAMESPACE_FILESYSTEMS.contains(&kind))
        })
    }

    /// Runs `work` with the calling thread inside. The thread is back when this returns, also when
    /// `work` panics. `work` must not hand control to other tasks of the thread: it is a plain call.
    ///
    /// A thread that cannot come back would mix up the traffic of workloads, so then the process
    /// ends at once.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN; `EINVAL` when it is no network namespace.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let _back = {
            enter(self.handle.as_fd())?;
            Return(&self.home)
        };
        Ok(work())
    }
}

/// Brings the thread home when dropped.
struct Return<'a>(&'a Home);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(error) = enter(self.0.0.as_fd()) {
            let mut stderr = io::stderr();
            let _ = writeln!(
                stderr,
                "fatal: a thread cannot leave a workload's network namespace: {error}"
            );
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[expect(
        deprecated,
        reason = "its successor is unsafe for flags that this test does not use"
    )]
    fn foreign() -> Namespace {
        let made = std::thread::spawn(|| {
            // Only this thread leaves, and it ends here.
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
            Ok::<_, io::Error>(File::open("/proc/thread-self/ns/net")?.into())
        });
        let handle: OwnedFd = made.join().unwrap().unwrap();
        Namespace::new(handle, &Home::of_this_thread().unwrap()).unwrap()
    }

    fn interfaces() -> Vec<String> {
        let text = fs::read_to_string(Path::new("/proc/thread-self/net/dev")).unwrap();
        let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
        names.map(|(name, _)| name.trim().to_owned()).collect()
    }

    fn here() -> NamespaceId {
        let home = Home::of_this_thread().unwrap();
        let handle = home.0.try_clone().unwrap().into();
        Namespace::new(handle, &home).unwrap().id()
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        let file = File::open("/dev/null").unwrap();
        assert!(enter(file.as_fd()).is_err());
        let home = Home::of_this_thread().unwrap();
        let before = here();
        let namespace = Namespace::new(file.into(), &home).unwrap();
        assert!(!namespace.is_plausible());
        assert!(namespace.within(|| ()).is_err());
        assert_eq!(here(), before);
    }

    #[test]
    fn work_sees_the_other_namespace_and_the_thread_is_back_afterwards() {
        if !corelane_harness::requirements::has_netns("work_sees_the_other_namespace") {
            return;
        }
        let namespace = foreign();
        assert!(namespace.is_plausible());
        let (before, own) = (here(), interfaces());
        assert_ne!(before, namespace.id());
        let (inside, seen) = namespace.within(|| (here(), interfaces())).unwrap();
        assert_eq!(inside, namespace.id());
        assert_eq!(seen, ["lo"]);
        assert_eq!(here(), before);
        assert_eq!(interfaces(), own);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            namespace.within(|| panic!("inside"))
        }));
        assert!(panicked.is_err());
        assert_eq!(
            here(),
            before,
            "a panic inside does not keep the thread there"
        );
    }
}
