//! Roots that servers of the control plane are checked by, read for each connection.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::config::limits::IDENTITY_FILE_BYTES_MAX;
use crate::config::raw::read_bounded;
use crate::config::server::RootSource;
use crate::tls::TlsOptions;
use crate::tls::control_plane::ServerTrust;
use crate::tls::credentials::{CredentialsError, Pem};

/// Where distributions keep the roots of the operating system; the first that exists is taken.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Tells one version of the roots from another. All versions that cannot be read are one.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stamp(Option<Vec<u8>>);

impl Stamp {
    /// Of the roots as they are now. Those that no file holds never change.
    pub async fn of(source: &RootSource) -> Self {
        let RootSource::File(path) = source else {
            return Self::default();
        };
        let path = path.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let text = read_bounded(&path, IDENTITY_FILE_BYTES_MAX).ok()?;
            Some(digest(&SHA256, text.as_bytes()).as_ref().to_vec())
        });
        Self(reading.await.ok().flatten())
    }
}

/// No roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("no roots to check it by: {}: {source}", .path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system has none in a place we know.
    #[error("no roots to check it by: none of {} exists", SYSTEM_BUNDLES.join(", "))]
    NoSystemRoots,
    /// Nothing usable in it.
    #[error("no roots to check it by: {0}")]
    Unusable(#[from] CredentialsError),
    /// The process is ending.
    #[error("reading was given up, the process is ending")]
    Ending,
}

/// Reads the roots now.
///
/// # Errors
/// [`RootsError`].
pub async fn read(source: &RootSource, options: TlsOptions) -> Result<ServerTrust, RootsError> {
    let source = source.clone();
    // Off the control thread: a file system may block for long.
    let reading = tokio::task::spawn_blocking(move || {
        let pem = load(&source, SYSTEM_BUNDLES.map(Path::new))?;
        Ok(ServerTrust::read(&pem, options)?)
    });
    let trust: Result<ServerTrust, RootsError> = reading.await.map_err(|_| RootsError::Ending)?;
    if let Ok(trust) = &trust {
        for warning in trust.warnings() {
            tracing::warn!("{warning}");
        }
    }
    trust
}

fn load<'a>(
    source: &RootSource,
    bundles: impl IntoIterator<Item = &'a Path>,
) -> Result<Pem, RootsError> {
    let path = match source {
        RootSource::Pem(text) => {
            let origin = "the roots given as text".to_owned();
            let bytes = text.as_bytes().to_vec();
            return Ok(Pem { origin, bytes });
        }
        RootSource::File(path) => path.as_path(),
        RootSource::System => {
            let found = bundles.into_iter().find(|path| path.exists());
            found.ok_or(RootsError::NoSystemRoots)?
        }
    };
    let text = read_bounded(path, IDENTITY_FILE_BYTES_MAX).map_err(|source| RootsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Pem {
        origin: path.display().to_string(),
        bytes: text.into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bundle_of_the_operating_system_that_exists_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (absent, present) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&present, "text").unwrap();
        let bundles = [absent.as_path(), present.as_path()];
        let pem = load(&RootSource::System, bundles).unwrap();
        assert_eq!(pem.bytes, b"text");
        let none = load(&RootSource::System, [absent.as_path()]).unwrap_err();
        assert!(none.to_string().contains("none of"), "{none}");
    }

    #[tokio::test]
    async fn a_stamp_changes_with_the_content_of_a_file_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.pem");
        let source = RootSource::File(path.clone());
        let absent = Stamp::of(&source).await;
        std::fs::write(&path, "one").unwrap();
        let one = Stamp::of(&source).await;
        assert_ne!(absent, one);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(Stamp::of(&source).await, one, "written again");
        std::fs::write(&path, "two").unwrap();
        assert_ne!(Stamp::of(&source).await, one);
        let text = RootSource::Pem("text".into());
        assert_eq!(Stamp::of(&text).await, Stamp::of(&RootSource::System).await);
    }

    #[test]
    fn a_missing_root_file_is_named() {
        let missing = RootSource::File("/nonexistent/root.pem".into());
        let error = load(&missing, []).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/root.pem: No such file"),
            "{error}"
        );
    }
}
