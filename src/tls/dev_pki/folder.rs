//! Writes a throw-away authority's certificates as an identity directory.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Authority, Leaf, PkiError};
use crate::model::identity::Identity;
use crate::tls::credentials::layout::{self, NameError};

/// Permissions of private keys.
const MODE_PRIVATE: u32 = 0o600;
/// Permissions of certificates.
const MODE_PUBLIC: u32 = 0o644;
/// Folder and name of a kept authority.
const AUTHORITY_FOLDER: &str = "ca";

/// An identity directory could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An identity's names are no folder names.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something is there already.
    #[error("{0} exists already; nothing was written")]
    Exists(PathBuf),
    /// A file or folder cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Directory; made if it is not there.
    pub out: &'a Path,
    /// One certificate each.
    pub identities: &'a [Identity],
    /// Life of authority and certificates.
    pub lifetime: Duration,
    /// Replace what is there.
    pub force: bool,
    /// Write the authority's certificate and key too, into `out/ca`.
    pub keep_authority: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Folder of each identity, in the order asked for.
    pub folders: Vec<PathBuf>,
    /// Folder of the authority, if it was kept.
    pub authority: Option<PathBuf>,
    /// Folders of identities that were there before and stay: another authority issued them.
    pub strangers: Vec<PathBuf>,
}

/// Makes an authority, issues a certificate for each identity and writes them. Each file appears
/// whole or not at all, so a running node may read meanwhile.
///
/// # Errors
/// [`WriteError`]; without `force` nothing has been written when something is there already.
pub fn write(request: &Request<'_>, now: SystemTime) -> Result<Written, WriteError> {
    let mut folders = Vec::with_capacity(request.identities.len());
    for identity in request.identities {
        let folder = layout::folder(request.out, &identity.namespace, &identity.service_account)?;
        folders.push(folder);
    }
    let authority_folder = request
        .keep_authority
        .then(|| request.out.join(AUTHORITY_FOLDER));
    if !request.force
        && let Some(there) = folders.iter().chain(&authority_folder).find(|f| f.exists())
    {
        return Err(WriteError::Exists(there.clone()));
    }
    let authority = Authority::with_lifetime("corelane dev", now, request.lifetime)?;
    for (identity, folder) in request.identities.iter().zip(&folders) {
        let leaf = Leaf::new(identity, now);
        let from = leaf.not_before;
        let issued = authority.issue(&leaf.valid(from, now + request.lifetime))?;
        make_folder(folder)?;
        write_file(folder, layout::ROOTS_FILE, &issued.roots, MODE_PUBLIC)?;
        write_file(folder, layout::KEY_FILE, &issued.key, MODE_PRIVATE)?;
        write_file(folder, layout::CHAIN_FILE, &issued.chain(), MODE_PUBLIC)?;
    }
    if let Some(folder) = &authority_folder {
        make_folder(folder)?;
        write_file(folder, "ca.crt", authority.root_pem(), MODE_PUBLIC)?;
        write_file(folder, "ca.key", &authority.key_pem(), MODE_PRIVATE)?;
    }
    let strangers = strangers(request.out, &folders);
    Ok(Written {
        folders,
        authority: authority_folder,
        strangers,
    })
}

/// Folders of the layout below `out` other than `ours`; what cannot be listed has none.
fn strangers(out: &Path, ours: &[PathBuf]) -> Vec<PathBuf> {
    let list = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let accounts = list(out.join("ns")).flat_map(|namespace| list(namespace.join("sa")));
    let mut found: Vec<_> = accounts
        .filter(|folder| folder.is_dir() && !ours.contains(folder))
        .collect();
    found.sort();
    found
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Write { path, source }
}

fn make_folder(folder: &Path) -> Result<(), WriteError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(folder).map_err(failed(folder))
}

/// Writes beside the target and renames, so that no reader sees half a file.
fn write_file(folder: &Path, name: &str, text: &str, mode: u32) -> Result<(), WriteError> {
    let target = folder.join(name);
    let draft = folder.join(format!(".{name}.new"));
    // A left-over of an interrupted run would keep its own permissions.
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(&draft)(error));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .map_err(failed(&draft))?;
    file.write_all(text.as_bytes()).map_err(failed(&draft))?;
    fs::rename(&draft, &target).map_err(failed(&target))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::new("cluster.local", "default", name)
    }

    fn request<'a>(out: &'a Path, identities: &'a [Identity]) -> Request<'a> {
        Request {
            out,
            identities,
            lifetime: Duration::from_secs(3600),
            force: false,
            keep_authority: false,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn every_identity_gets_its_folder_and_keys_are_private() {
        let dir = tempfile::TempDir::new().unwrap();
        let identities = [identity("a"), identity("b")];
        let now = SystemTime::now();
        let written = write(&request(dir.path(), &identities), now).unwrap();
        assert_eq!(written.folders[1], dir.path().join("ns/default/sa/b"));
        assert_eq!(written.authority, None);
        assert!(!dir.path().join("ca").exists());
        for folder in &written.folders {
            assert_eq!(mode(&folder.join("tls.key")), 0o600);
            let mut names: Vec<_> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["ca.crt", "tls.crt", "tls.key"]);
        }
        let roots = |n: usize| fs::read(written.folders[n].join("ca.crt")).unwrap();
        assert_eq!(roots(0), roots(1), "they trust each other");
    }

    #[test]
    fn what_is_there_is_replaced_by_force_only() {
        let dir = tempfile::TempDir::new().unwrap();
        let now = SystemTime::now();
        let identities = [identity("new"), identity("old")];
        let old = write(&request(dir.path(), &identities[1..]), now).unwrap();
        let key = || fs::read(old.folders[0].join("tls.key")).unwrap();
        let before = key();
        let refused = write(&request(dir.path(), &identities), now).unwrap_err();
        assert!(matches!(refused, WriteError::Exists(there) if there == old.folders[0]));
        assert!(!dir.path().join("ns/default/sa/new").exists());
        assert_eq!(key(), before);
        let forced = Request {
            force: true,
            ..request(dir.path(), &identities)
        };
        assert!(write(&forced, now).unwrap().strangers.is_empty());
        assert_ne!(key(), before);
        let one = Request {
            identities: &identities[..1],
            ..forced
        };
        assert_eq!(write(&one, now).unwrap().strangers, old.folders);
        assert_eq!(mode(&old.folders[0].join("tls.key")), 0o600);
    }

    #[test]
    fn the_authority_is_kept_on_request() {
        let dir = tempfile::TempDir::new().unwrap();
        let identities = [identity("a")];
        let kept = Request {
            keep_authority: true,
            ..request(dir.path(), &identities)
        };
        let written = write(&kept, SystemTime::now()).unwrap();
        let folder = written.authority.unwrap();
        assert_eq!(mode(&folder.join("ca.key")), 0o600);
        assert_eq!(
            fs::read(folder.join("ca.crt")).unwrap(),
            fs::read(written.folders[0].join("ca.crt")).unwrap()
        );
    }
}
