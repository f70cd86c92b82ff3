//! The file of revocation lists: read at start, read again when it changes.
//!
//! Nothing is served with a file that cannot be read: the start fails. A file that is not there yet
//! revokes nothing until it is. What is in force stays when the file becomes unreadable or vanishes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::watch::Watch;
use crate::tls::revocation::{RevocationError, RevocationList, Revocations};

/// Lists of several authorities with some 100,000 certificates each.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationFileError {
    /// It cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{}: {source}", .path.display())]
    Content {
        /// File.
        path: PathBuf,
        /// What is wrong.
        source: RevocationError,
    },
}

impl RevocationFileError {
    fn is_missing(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Content { .. } => false,
        }
    }
}

/// The file, and the lists in force.
#[derive(Debug)]
pub struct RevocationFile {
    path: PathBuf,
    list: RevocationList,
    watch: Watch,
}

impl RevocationFile {
    /// Reads the file. To be called in a tokio runtime.
    ///
    /// # Errors
    /// [`RevocationFileError`], unless the file is merely not there.
    pub fn open(path: PathBuf) -> Result<Self, RevocationFileError> {
        // Watched before it is read: a change in between must not be missed.
        let watch = Watch::new([path.clone()]);
        let first = match read(&path) {
            Ok(first) => {
                log(&path, &first);
                first
            }
            Err(error) if error.is_missing() => {
                tracing::warn!(
                    target: "corelane::certs",
                    "{error}; nobody is revoked until this file of CRL_PATH is there"
                );
                Revocations::default()
            }
            Err(error) => return Err(error),
        };
        let list = RevocationList::new(first);
        Ok(Self { path, list, watch })
    }

    /// The lists in force, now and later.
    #[must_use]
    pub fn list(&self) -> RevocationList {
        self.list.clone()
    }

    /// Follows the file for ever, and calls `replaced` when other lists are in force.
    pub async fn follow(mut self, replaced: impl Fn()) {
        loop {
            self.watch.changed().await;
            let path = self.path.clone();
            // Off the control thread: lists may be long.
            let Ok(next) = tokio::task::spawn_blocking(move || read(&path)).await else {
                return;
            };
            match next {
                Ok(next) => {
                    log(&self.path, &next);
                    self.list.replace(next);
                    replaced();
                }
                Err(error) => tracing::error!(
                    target: "corelane::certs",
                    "the changed revocation lists are refused, those read before stay in force: \
                     {error}"
                ),
            }
        }
    }
}

fn log(path: &Path, lists: &Revocations) {
    let (path, lists) = (path.display(), lists.len());
    tracing::info!(target: "corelane::certs", %path, lists, "revocation lists loaded");
}

fn read(path: &Path) -> Result<Revocations, RevocationFileError> {
    let failed = |source| RevocationFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    Revocations::read(&bytes).map_err(|source| RevocationFileError::Content {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::sync::mpsc;

    use super::*;
    use crate::tls::dev_pki::Authority;

    #[tokio::test]
    async fn a_file_is_followed_and_what_cannot_be_read_changes_nothing() {
        let now = SystemTime::now();
        let lists = Authority::new("a", now).unwrap().revoke(&[], now).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crl.pem");
        let file = RevocationFile::open(path.clone()).unwrap();
        let list = file.list();
        assert_eq!(format!("{list:?}"), "Revocations(0 lists)", "not there yet");
        let (sender, mut replaced) = mpsc::unbounded_channel();
        let following = file.follow(move || sender.send(()).unwrap());
        let story = async {
            let next = dir.path().join("next");
            for (text, count) in [(lists.clone() + &lists, 2), (lists.clone(), 1)] {
                std::fs::write(&next, text).unwrap();
                std::fs::rename(&next, &path).unwrap();
                replaced.recv().await.unwrap();
                assert_eq!(format!("{list:?}"), format!("Revocations({count} lists)"));
            }
        };
        tokio::select! {
            () = following => unreachable!(),
            () = story => {}
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crl.pem");
        std::fs::write(&path, "garbage").unwrap();
        let error = RevocationFile::open(path).unwrap_err().to_string();
        assert!(error.contains("crl.pem: revocation list 1:"), "{error}");
        let error = RevocationFile::open(dir.path().to_owned()).unwrap_err();
        assert!(error.to_string().contains("Is a directory"), "{error}");
    }
}
