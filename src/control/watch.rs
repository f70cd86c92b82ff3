//! Tells when files changed: rewritten in place, replaced by rename, deleted and made again, or
//! reached through a symbolic link that was swapped, as Kubernetes swaps `..data`.
//!
//! Directories are watched, not files, because a watch on a file dies with its inode. Events only
//! wake us up: what counts is whether the files that the paths resolve to differ from before, so
//! a lost event costs one period of the regular check and noise in the directory costs nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

/// Files have to keep still for this long: writers truncate first and write later.
const SETTLE: Duration = Duration::from_millis(200);
/// How often to wait for [`SETTLE`] before a file that never keeps still is reported anyway.
const SETTLE_ROUNDS_MAX: usize = 25;
/// Regular check beside events, for file systems that report none and for events lost.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// Regular check when there are no events at all.
const CHECK_PERIOD_ALONE: Duration = Duration::from_secs(1);
/// Symbolic links followed in one path, as the kernel's limit (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Identifies a version of a file. Content is not read: the change time, unlike the modification
/// time, cannot be set back by the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for Version {
    fn from(metadata: Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Versions of the watched files; none for one that is absent.
type Versions = BTreeMap<PathBuf, Option<Version>>;

/// Watches a set of files, which need not exist.
#[derive(Debug)]
pub struct Watch {
    versions: Versions,
    /// None where the kernel gives no watches.
    watcher: Option<RecommendedWatcher>,
    /// Watched directories by device and inode, to notice that one was replaced.
    directories: BTreeMap<PathBuf, (u64, u64)>,
    events: mpsc::Receiver<()>,
    check: Interval,
    /// An event was taken, and the files were not compared since.
    pending: bool,
}

impl Watch {
    /// Starts watching; changes from now on are reported. To be called in a tokio runtime.
    ///
    /// Where the kernel refuses watches (limits of inotify(7)), the files are looked at every
    /// second instead, and a warning is logged.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        // Capacity 1: one pending wake-up stands for any number of events.
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_relevant(&event.kind)) {
                // Full: a wake-up is under way. Closed: nobody watches any more.
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "files are checked by polling"))
            .ok();
        Self::with_watcher(paths, watcher, events)
    }

    fn with_watcher(
        paths: impl IntoIterator<Item = PathBuf>,
        watcher: Option<RecommendedWatcher>,
        events: mpsc::Receiver<()>,
    ) -> Self {
        let paths: Vec<_> = paths.into_iter().map(absolute).collect();
        let period = watcher
            .as_ref()
            .map_or(CHECK_PERIOD_ALONE, |_| CHECK_PERIOD);
        let mut check = interval(period);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Self {
            versions: paths.into_iter().map(|path| (path, None)).collect(),
            watcher,
            directories: BTreeMap::new(),
            events,
            check,
            pending: false,
        };
        // Watch first: a change between the two is then an event that finds nothing new.
        watch.watch_directories();
        watch.versions = watch.look();
        watch
    }

    /// Waits until files differ from when they were last reported (or from [`Watch::new`]) and
    /// have settled, and returns their absolute paths. A file that vanished differs, too.
    ///
    /// Dropping the future loses nothing: the next call reports the same.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            if !self.pending {
                let events_possible = self.watcher.is_some();
                tokio::select! {
                    Some(()) = self.events.recv(), if events_possible => self.pending = true,
                    _ = self.check.tick() => self.pending = self.look() != self.versions,
                }
            }
            if !self.pending {
                continue;
            }
            let seen = self.settled().await;
            self.pending = false;
            self.watch_directories();
            if seen != self.versions {
                let before = std::mem::replace(&mut self.versions, seen);
                let now = self.versions.iter();
                let differing = now.filter(|(path, version)| before.get(*path) != Some(*version));
                return differing.map(|(path, _)| path.clone()).collect();
            }
        }
    }

    /// The versions once they keep still.
    async fn settled(&mut self) -> Versions {
        let mut seen = self.look();
        for _ in 0..SETTLE_ROUNDS_MAX {
            sleep(SETTLE).await;
            // Take events that came meanwhile: what they tell is looked at right below.
            while self.events.try_recv().is_ok() {}
            let now = self.look();
            if now == seen {
                break;
            }
            seen = now;
        }
        seen
    }

    fn look(&self) -> Versions {
        let paths = self.versions.keys();
        let version = |path: &PathBuf| std::fs::metadata(path).ok().map(Version::from);
        paths.map(|path| (path.clone(), version(path))).collect()
    }

    /// Watches the directories that decide what the paths resolve to, and no others.
    fn watch_directories(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let mut needed = BTreeMap::new();
        for directory in self.versions.keys().flat_map(|path| directories(path)) {
            if let Ok(metadata) = std::fs::metadata(&directory) {
                needed.insert(directory, (metadata.dev(), metadata.ino()));
            }
        }
        self.directories.retain(|directory, id| {
            let keep = needed.get(directory) == Some(id);
            if !keep {
                // Fails when the directory is gone, and its watch with it.
                let _ = watcher.unwatch(directory);
            }
            keep
        });
        for (directory, id) in needed {
            if self.directories.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(directory, id);
                }
                // Tried again at the next change; until then the regular check finds changes.
                Err(error) => {
                    tracing::warn!(%error, directory = %directory.display(), "directory not watched");
                }
            }
        }
    }
}

/// Whether an event can mean that a file differs. Opening and reading, as we do ourselves, cannot.
const fn is_relevant(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    // Fails only for an empty path, or when the working directory is gone.
    std::path::absolute(&path).unwrap_or(path)
}

/// The directories whose entries decide what `path` resolves to: that of each symbolic link on
/// the way and that of the file. Where the way ends early, the directory where it would go on.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut real = PathBuf::new();
    let mut links = 0;
    let mut ahead: VecDeque<OsString> = parts(path).collect();
    while let Some(part) = ahead.pop_front() {
        let next = real.join(&part);
        if part == ".." {
            real.pop();
            continue;
        }
        match std::fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.is_symlink() && links < LINKS_MAX => {
                links += 1;
                found.insert(real.clone());
                let Ok(target) = std::fs::read_link(&next) else {
                    break; // swapped this very moment: its event looks again
                };
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(part);
                }
            }
            Ok(_) => {
                if ahead.is_empty() {
                    found.insert(real.clone());
                }
                real = next;
            }
            Err(_) => {
                found.insert(real);
                break;
            }
        }
    }
    found
}

/// Components of a path; joining the root to any path gives the root.
fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    let meaningful = path.components().filter(|part| *part != Component::CurDir);
    meaningful.map(|part| part.as_os_str().to_owned())
}

#[cfg(test)]
mod tests;
