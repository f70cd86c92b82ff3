//! Certificates from an identity directory, read again when its files change.
//!
//! Other programs (cert-manager, Vault agents, SPIFFE helpers) write the files, often one after the
//! other or by swapping a symlink: a change is acted upon only after [`FILE_SETTLE_TIME`] of quiet,
//! and a read during which a file changed is made again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Changes, Fetch, FetchError, Fetched, Provider};
use crate::config::limits::{FILE_SETTLE_TIME, IDENTITY_FILE_BYTES_MAX};
use crate::model::identity::Identity;
use crate::tls::credentials::layout::{self, NameError};
use crate::tls::credentials::{Credentials, Material, Pem};

#[cfg(test)]
mod tests;

/// How often the files are looked at. Other programs renew hours ahead, so seconds do not matter.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Files are read again after this long even if they look unchanged: some file systems show
/// neither new times nor new inodes.
const READ_AGAIN_AFTER: Duration = Duration::from_mins(5);
/// Attempts to read a folder while it is being written.
const READS_MAX: u32 = 10;

/// Write permission for group or others.
const MODE_WRITABLE: u32 = 0o022;
/// Read permission for others.
const MODE_WORLD_READABLE: u32 = 0o004;

/// Folder of `identity` below `dir`; none if its names are no folder names.
#[must_use]
pub fn directory(dir: &Path, identity: &Identity) -> Option<PathBuf> {
    layout::folder(dir, &identity.namespace, &identity.service_account).ok()
}

/// Material could not be read from an identity directory.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The identity's names are no folder names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The folder or a file of it is not there.
    #[error(
        "{path} does not exist; needed are {folder}/{{tls.crt,tls.key,ca.crt}} for {identity} \
         (for a trial, `corelane dev pki` makes them)"
    )]
    Missing {
        /// File looked for.
        path: String,
        /// Its folder.
        folder: String,
        /// Whose certificate.
        identity: Identity,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// File.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Not a regular file, such as a folder or a pipe.
    #[error("{path}: not a regular file")]
    Kind {
        /// File.
        path: String,
    },
    /// Longer than any certificate file is.
    #[error("{path}: longer than {IDENTITY_FILE_BYTES_MAX} bytes")]
    TooLong {
        /// File.
        path: String,
    },
    /// Someone else may replace the private key.
    #[error(
        "{path}: private key is writable by group or others (mode {mode:04o}), refused; \
         run: chmod 600 {path}"
    )]
    KeyWritable {
        /// File.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// The process is ending.
    #[error("reading was given up, the process is ending")]
    Ending,
}

/// Certificates from `DIR/ns/NAMESPACE/sa/SERVICE_ACCOUNT/`.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    look_interval: Duration,
    watched: RefCell<BTreeMap<Identity, Watched>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    folder: PathBuf,
    stamps: Stamps,
}

/// What tells one version of a folder's three files from another.
type Stamps = [Option<Stamp>; 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Changes with permissions too, so that a mended mode is noticed.
    changed: (i64, i64),
}

impl Files {
    /// Reads from `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self::with_look_interval(dir, LOOK_INTERVAL)
    }

    fn with_look_interval(dir: PathBuf, look_interval: Duration) -> Self {
        Self {
            dir,
            look_interval,
            watched: RefCell::default(),
        }
    }

    async fn read(&self, identity: &Identity) -> Result<Fetched, FilesError> {
        let folder = layout::folder(&self.dir, &identity.namespace, &identity.service_account)?;
        for attempt in 1.. {
            let before = look(&folder).await;
            let watched = Watched {
                folder: folder.clone(),
                stamps: before,
            };
            self.watched.borrow_mut().insert(identity.clone(), watched);
            let (path, whose) = (folder.clone(), identity.clone());
            let read = blocking(move || read_folder(&path, &whose)).await;
            if attempt == READS_MAX || look(&folder).await == before {
                return read.ok_or(FilesError::Ending)?;
            }
            tokio::time::sleep(FILE_SETTLE_TIME).await;
        }
        Err(FilesError::Ending)
    }

    /// Identities whose files differ from what was last acted upon.
    async fn look_around(&self) -> Vec<(Identity, Stamps)> {
        let watched = self.watched.borrow().clone();
        let mut different = Vec::new();
        for (identity, watched) in watched {
            let stamps = look(&watched.folder).await;
            if stamps != watched.stamps {
                different.push((identity, stamps));
            }
        }
        different
    }

    async fn wait_for_changes(&self) -> Vec<Identity> {
        loop {
            tokio::time::sleep(self.look_interval).await;
            let mut different = self.look_around().await;
            // Bounded: a folder that never rests is read as it is.
            for _ in 0..READS_MAX {
                if different.is_empty() {
                    break;
                }
                tokio::time::sleep(FILE_SETTLE_TIME).await;
                let again = self.look_around().await;
                if again == different {
                    break;
                }
                different = again;
            }
            // No wait from here on: a change taken note of is a change returned.
            let mut watched = self.watched.borrow_mut();
            let mut changed = Vec::new();
            for (identity, stamps) in different {
                if let Some(watched) = watched.get_mut(&identity) {
                    watched.stamps = stamps;
                    changed.push(identity);
                }
            }
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

impl Provider for Files {
    fn fetch<'a>(&'a self, identity: &'a Identity, _: Option<Arc<Credentials>>) -> Fetch<'a> {
        Box::pin(async move { self.read(identity).await.map_err(FetchError::from) })
    }

    fn changes(&self) -> Changes<'_> {
        Box::pin(self.wait_for_changes())
    }

    fn fetch_again_after(&self, _: &Credentials, _: SystemTime) -> Duration {
        READ_AGAIN_AFTER
    }

    fn forget(&self, identity: &Identity) {
        self.watched.borrow_mut().remove(identity);
    }
}

/// Runs file work off the control thread: a network file system may block for long.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

async fn look(folder: &Path) -> Stamps {
    let folder = folder.to_owned();
    let looked = blocking(move || {
        [layout::CHAIN_FILE, layout::KEY_FILE, layout::ROOTS_FILE].map(|file| {
            // Follows symlinks: a swapped `..data` shows as another inode.
            fs::metadata(folder.join(file)).ok().map(|m| stamp(&m))
        })
    });
    looked.await.unwrap_or_default()
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn read_folder(folder: &Path, identity: &Identity) -> Result<Fetched, FilesError> {
    let read = |file: &str| read_file(folder, file, identity);
    let (chain, _) = read(layout::CHAIN_FILE)?;
    let (key, mode) = read(layout::KEY_FILE)?;
    let (roots, _) = read(layout::ROOTS_FILE)?;
    let path = &key.origin;
    let mut warnings = Vec::new();
    if mode & MODE_WRITABLE != 0 {
        let path = path.clone();
        return Err(FilesError::KeyWritable { path, mode });
    }
    if mode & MODE_WORLD_READABLE != 0 {
        warnings.push(format!(
            "{path}: private key is readable by everyone (mode {mode:04o}); run: chmod 600 {path}"
        ));
    }
    let material = Material { chain, key, roots };
    Ok(Fetched { material, warnings })
}

/// One file and its permissions.
fn read_file(folder: &Path, file: &str, identity: &Identity) -> Result<(Pem, u32), FilesError> {
    let path = folder.join(file);
    let origin = path.display().to_string();
    let failed = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            FilesError::Missing {
                path: path.display().to_string(),
                folder: folder.display().to_string(),
                identity: identity.clone(),
            }
        } else {
            FilesError::Read {
                path: path.display().to_string(),
                source,
            }
        }
    };
    // Asked before opening: opening a named pipe would wait for a writer.
    if !fs::metadata(&path).map_err(failed)?.is_file() {
        return Err(FilesError::Kind { path: origin });
    }
    let opened = File::open(&path).map_err(failed)?;
    let mode = opened.metadata().map_err(failed)?.mode() & 0o7777;
    let mut bytes = Vec::new();
    let limit = IDENTITY_FILE_BYTES_MAX as u64;
    opened
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > IDENTITY_FILE_BYTES_MAX {
        return Err(FilesError::TooLong { path: origin });
    }
    Ok((Pem { origin, bytes }, mode))
}
