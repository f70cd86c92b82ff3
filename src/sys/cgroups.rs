//! Names of control groups (v2) by their numbers.

#![expect(unsafe_code, reason = "rustix does not open files by handle")]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstatfs, open, readlink};

/// `CGROUP2_SUPER_MAGIC`; see statfs(2).
const CGROUP2: u64 = 0x6367_7270;
/// `FILEID_KERNFS` of linux/exportfs.h: the handle is the number of the node.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// The mounted hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    root: OwnedFd,
    path: PathBuf,
}

/// `struct file_handle` with room for a number; see open_by_handle_at(2).
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

impl Cgroups {
    /// The hierarchy mounted at `path`.
    ///
    /// # Errors
    /// Of open(2); `InvalidInput` when something else is mounted there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty())?;
        let kind = fstatfs(&root)?.f_type;
        if u64::try_from(kind).ok() != Some(CGROUP2) {
            let message = format!("{} is no cgroup v2", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let path = path_of(&root)?;
        Ok(Self { root, path })
    }

    /// Where the kernel has it mounted, the first place of several.
    ///
    /// # Errors
    /// Of reading `/proc/self/mounts`; `NotFound` when it is nowhere.
    pub fn mounted_at() -> io::Result<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        mounted_at(&mounts).ok_or_else(|| {
            let message = "cgroup v2 is not mounted";
            io::Error::new(io::ErrorKind::NotFound, message)
        })
    }

    /// Path from the root of the group with that number, `/` for the root itself; `None` when it is not
    /// below what is mounted. Nothing is read from a disk.
    ///
    /// # Errors
    /// `NotFound` when there is no such group any more: whoever was in it must not pass for somebody who
    /// is in none. `EPERM` without CAP_DAC_READ_SEARCH; of open_by_handle_at(2).
    pub fn path_of(&self, id: u64) -> io::Result<Option<String>> {
        let group = match self.by_id(id) {
            Ok(group) => group,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Err(gone()),
            Err(error) => return Err(error),
        };
        let path = path_of(&group)?;
        if path.as_os_str().as_bytes().ends_with(DELETED) {
            return Err(gone());
        }
        let below = path.strip_prefix(&self.path).ok();
        Ok(below
            .and_then(Path::to_str)
            .map(|below| format!("/{below}")))
    }

    fn by_id(&self, id: u64) -> io::Result<OwnedFd> {
        let mut handle = Handle {
            bytes: 8,
            kind: FILEID_KERNFS,
            id: id.to_ne_bytes(),
        };
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // JUSTIFICATION: see the top of the file.
        // SAFETY: `root` is open; `handle` has the layout of `struct file_handle` followed by as many
        // bytes as it says, and lives until the call returns, which does not keep it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.root.as_raw_fd(),
                &raw mut handle,
                flags,
            )
        };
        let fd = libc::c_int::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // JUSTIFICATION: the system call has no safe wrapper that would give an owned descriptor.
        // SAFETY: the kernel has just opened `fd` for us, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// How the kernel marks the path of what was removed while it was open.
const DELETED: &[u8] = b" (deleted)";

fn gone() -> io::Error {
    let message = "the control group of the process has gone";
    io::Error::new(io::ErrorKind::NotFound, message)
}

/// Where an open file is.
fn path_of(file: &OwnedFd) -> io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}

fn mounted_at(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_mount_is_found_among_others() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = mounted_at(mounts);
        assert_eq!(found.as_deref(), Some("/sys/fs/cgroup/unified".as_ref()));
        assert_eq!(mounted_at("proc /proc proc rw 0 0\n"), None);
        assert_eq!(mounted_at("\nbroken\n"), None);
    }

    #[test]
    fn groups_are_found_by_number_until_they_go() {
        let mounted = Cgroups::mounted_at().unwrap_or_default();
        let group = mounted.join(format!("corelane-test-{}", std::process::id()));
        let made = mounted.is_absolute() && std::fs::create_dir_all(group.join("below")).is_ok();
        if !corelane_harness::requirements::has_cgroup("groups_are_found_by_number", made) {
            return;
        }
        let name = group.file_name().unwrap().to_str().unwrap().to_owned();
        let ids = [&mounted, &group, &group.join("below")].map(|p| p.metadata().unwrap().ino());
        let cgroups = Cgroups::open(&mounted).unwrap();
        let paths = ids.map(|id| cgroups.path_of(id).unwrap());
        std::fs::remove_dir(group.join("below")).unwrap();
        std::fs::remove_dir(&group).unwrap();
        let expected = ["/".to_owned(), format!("/{name}"), format!("/{name}/below")];
        assert_eq!(paths, expected.map(Some));
        let gone = cgroups.path_of(ids[2]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound, "{gone}");
        assert!(Cgroups::open(Path::new("/proc")).is_err());
    }
}
