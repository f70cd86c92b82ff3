//! The last accepted resources on disk, for a start without the control plane.
//!
//! One file, replaced as a whole (written beside, synced, renamed), with a digest over everything. It
//! is believed only whole, only for the same control plane and node, only when it was complete, and
//! only for a day. A write merges what changed into what the former file holds, so that nothing has to
//! be kept in memory for it.
//!
//! Format: magic, time of writing, origin, records (kind, name, content), end mark, SHA-256; lengths
//! before texts, numbers little-endian.

mod format;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

pub use format::CorruptCache;
use format::{Writer, records};

use super::client::Received;
use super::resource::ResourceType;
use crate::proto::discovery::{Any, DeltaDiscoveryResponse, Resource};

/// Name of the file in its folder.
const FILE: &str = "corelane-xds-v1";
/// Certificates of a mesh live a day: older state is of workloads that are likely gone.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest file: more than twice the largest response.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Only the node's own user reads and writes what decides who may connect.
const MODE: u32 = 0o600;

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Larger than any we write.
    #[error("{path}: larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// File.
        path: PathBuf,
    },
    /// Not as we wrote it.
    #[error("{path}: {source}")]
    Corrupt {
        /// File.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: CorruptCache,
    },
    /// Somebody has removed it, and changes alone are no state.
    #[error("{path}: has been removed; nothing is kept until the next start")]
    Gone {
        /// File.
        path: PathBuf,
    },
    /// From another control plane, or for another node.
    #[error("{path}: was written for {origin}")]
    Foreign {
        /// File.
        path: PathBuf,
        /// For whom.
        origin: String,
    },
    /// Too old, or from the future.
    #[error("{path}: was not written within the last {} hours", AGE_MAX.as_secs() / 3600)]
    Old {
        /// File.
        path: PathBuf,
    },
}

/// The cache of one node and control plane.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    origin: Arc<str>,
    /// Whether the file holds the state that changes are to be merged into.
    merge: bool,
}

/// What was accepted in a former life, policies first.
#[derive(Debug)]
pub struct Kept {
    pub(super) responses: Vec<DeltaDiscoveryResponse>,
}

impl Kept {
    /// How many resources.
    #[must_use]
    pub fn resources(&self) -> usize {
        self.responses.iter().map(|r| r.resources.len()).sum()
    }
}

/// Changes that are not written yet: what each resource is now, or that it is gone.
#[derive(Debug, Default)]
pub struct Pending {
    changed: HashMap<(ResourceType, Arc<str>), Option<Bytes>>,
}

impl Pending {
    /// Adds what a response changed.
    pub fn add(&mut self, received: Received) {
        let Received {
            kind,
            accepted,
            removed,
        } = received;
        for (name, content) in accepted {
            self.changed.insert((kind, name), Some(content));
        }
        for name in removed {
            self.changed.insert((kind, name), None);
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }
}

impl Cache {
    /// In `dir`, for the control plane and node that `origin` names.
    #[must_use]
    pub fn new(dir: &Path, origin: &str) -> Self {
        Self {
            path: dir.join(FILE),
            origin: origin.into(),
            merge: false,
        }
    }

    /// What was accepted last, policies first; none if nothing was ever kept. What is returned is
    /// what later writes are merged into.
    ///
    /// # Errors
    /// [`CacheError`]; then the file is of no use.
    pub fn load(&mut self, now: SystemTime) -> Result<Option<Kept>, CacheError> {
        let Some(bytes) = self.read()? else {
            return Ok(None);
        };
        let corrupt = |source| CacheError::Corrupt {
            path: self.path.clone(),
            source,
        };
        let content = format::Content::open(&bytes).map_err(corrupt)?;
        if content.origin != &*self.origin {
            let (path, origin) = (self.path.clone(), content.origin.to_owned());
            return Err(CacheError::Foreign { path, origin });
        }
        let age = now.duration_since(content.written);
        if age.is_err() || age.is_ok_and(|age| age > AGE_MAX) {
            let path = self.path.clone();
            return Err(CacheError::Old { path });
        }
        let [mut policies, mut addresses] = [ResourceType::Authorization, ResourceType::Address]
            .map(|kind| DeltaDiscoveryResponse {
                type_url: kind.url().to_owned(),
                ..DeltaDiscoveryResponse::default()
            });
        for record in records(&bytes, &content).map_err(corrupt)? {
            let list = match record.kind {
                ResourceType::Address => &mut addresses.resources,
                ResourceType::Authorization => &mut policies.resources,
            };
            list.push(Resource {
                name: record.name.to_owned(),
                resource: Some(Any {
                    value: bytes.slice(record.content),
                    ..Any::default()
                }),
                ..Resource::default()
            });
        }
        self.merge = true;
        let responses = vec![policies, addresses];
        Ok(Some(Kept { responses }))
    }

    /// Nothing of the file is to be kept: the next write makes it anew.
    pub const fn forget(&mut self) {
        self.merge = false;
    }

    /// Merges `pending` into the file. Blocks; the old file stays until the new one is complete.
    ///
    /// # Errors
    /// [`CacheError::Io`], or the former file has become unreadable; then `pending` alone is not
    /// enough, and nothing is written.
    pub fn store(&mut self, pending: &Pending, now: SystemTime) -> Result<(), CacheError> {
        let former = if self.merge {
            Some(self.read()?.ok_or_else(|| CacheError::Gone {
                path: self.path.clone(),
            })?)
        } else {
            None
        };
        let beside = self.path.with_extension("new");
        let written = self.write(&beside, former, pending, now);
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written?;
        self.merge = true;
        Ok(())
    }

    fn write(
        &self,
        beside: &Path,
        former: Option<Bytes>,
        pending: &Pending,
        now: SystemTime,
    ) -> Result<(), CacheError> {
        let failed = |source| CacheError::Io {
            path: beside.to_owned(),
            source,
        };
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        // Never through a link or into a file somebody else has made.
        match fs::remove_file(beside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(beside)
            .map_err(failed)?;
        let mut writer = Writer::new(BufWriter::new(file), &self.origin, now).map_err(failed)?;
        if let Some(former) = former {
            let corrupt = |source| CacheError::Corrupt {
                path: self.path.clone(),
                source,
            };
            let content = format::Content::open(&former).map_err(corrupt)?;
            for record in records(&former, &content).map_err(corrupt)? {
                let key = (record.kind, Arc::from(record.name));
                if !pending.changed.contains_key(&key) {
                    let content = &former[record.content];
                    writer
                        .record(record.kind, record.name, content)
                        .map_err(failed)?;
                }
            }
        }
        for ((kind, name), content) in &pending.changed {
            if let Some(content) = content {
                writer.record(*kind, name, content).map_err(failed)?;
            }
        }
        let file = writer.finish().map_err(failed)?;
        let mut file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.flush().map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(beside, &self.path).map_err(failed)?;
        // The name must survive a power cut too.
        let dir = self.path.parent().map(File::open);
        dir.map_or(Ok(()), |dir| dir?.sync_all()).map_err(failed)
    }

    fn read(&self) -> Result<Option<Bytes>, CacheError> {
        let path = || self.path.clone();
        let failed = |source| CacheError::Io {
            path: path(),
            source,
        };
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX || !metadata.is_file() => {
                Err(CacheError::TooLarge { path: path() })
            }
            Ok(_) => fs::read(&self.path)
                .map(|bytes| Some(bytes.into()))
                .map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests;
