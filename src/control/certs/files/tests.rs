//! Reading identity directories, and noticing that they changed.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::task::Poll;

use tempfile::TempDir;

use super::*;
use crate::tls::TlsOptions;
use crate::tls::dev_pki::folder::{Request, write};

fn identity(name: &str) -> Identity {
    Identity::new("cluster.local", "default", name)
}

fn make(dir: &Path, names: &[&str]) {
    let identities: Vec<_> = names.iter().map(|name| identity(name)).collect();
    let request = Request {
        out: dir,
        identities: &identities,
        lifetime: Duration::from_secs(3600),
        force: true,
        keep_authority: false,
    };
    write(&request, SystemTime::now()).unwrap();
}

fn made(names: &[&str]) -> (TempDir, Files) {
    let dir = TempDir::new().unwrap();
    make(dir.path(), names);
    let files = Files::with_look_interval(dir.path().to_owned(), Duration::from_millis(1));
    (dir, files)
}

fn folder(dir: &TempDir, name: &str) -> PathBuf {
    directory(dir.path(), &identity(name)).unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(work)
}

fn fetch(files: &Files, name: &str) -> Result<Fetched, String> {
    let whose = identity(name);
    block_on(files.fetch(&whose, None)).map_err(|error| error.to_string())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_sound_folder_gives_usable_material() {
    let (_dir, files) = made(&["a"]);
    let fetched = fetch(&files, "a").unwrap();
    assert_eq!(fetched.warnings, [""; 0]);
    let (options, now) = (TlsOptions::default(), SystemTime::now());
    let loaded = Credentials::load(&identity("a"), &fetched.material, options, now).unwrap();
    assert_eq!(loaded.warnings(), [""; 0]);
    // The trust domain comes from the certificate and has to be the wanted one.
    let other = Identity::new("other.domain", "default", "a");
    let refused = Credentials::load(&other, &fetched.material, options, now).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("did not find expected SAN: spiffe://other.domain/")
    );
}

#[test]
fn a_missing_folder_or_file_is_named_with_a_way_out() {
    let (dir, files) = made(&["a"]);
    let text = fetch(&files, "b").unwrap_err();
    assert!(
        text.contains("/ns/default/sa/b/tls.crt does not exist"),
        "{text}"
    );
    assert!(text.contains("corelane dev pki"), "{text}");
    for file in ["ca.crt", "tls.key", "tls.crt"] {
        fs::remove_file(folder(&dir, "a").join(file)).unwrap();
        let text = fetch(&files, "a").unwrap_err();
        assert!(
            text.contains(&format!("sa/a/{file} does not exist")),
            "{text}"
        );
    }
}

#[test]
fn a_key_that_others_may_write_is_refused_and_one_they_may_read_is_told() {
    let (dir, files) = made(&["a"]);
    let key = folder(&dir, "a").join("tls.key");
    for mode in [0o620, 0o602, 0o666, 0o662] {
        chmod(&key, mode);
        let text = fetch(&files, "a").unwrap_err();
        assert!(text.contains("writable by group or others"), "{text}");
        assert!(
            text.ends_with(&format!("run: chmod 600 {}", key.display())),
            "{text}"
        );
    }
    for (mode, warnings) in [(0o400, 0), (0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)] {
        chmod(&key, mode);
        assert_eq!(
            fetch(&files, "a").unwrap().warnings.len(),
            warnings,
            "{mode:o}"
        );
    }
}

#[test]
fn what_is_no_plain_short_file_is_refused() {
    let (dir, files) = made(&["a"]);
    let chain = folder(&dir, "a").join("tls.crt");
    fs::write(&chain, vec![b' '; IDENTITY_FILE_BYTES_MAX + 1]).unwrap();
    assert!(fetch(&files, "a").unwrap_err().contains("longer than"));
    fs::write(&chain, vec![b' '; IDENTITY_FILE_BYTES_MAX]).unwrap();
    fetch(&files, "a").unwrap();
    fs::remove_file(&chain).unwrap();
    fs::create_dir(&chain).unwrap();
    assert!(
        fetch(&files, "a")
            .unwrap_err()
            .contains("not a regular file")
    );
}

#[test]
fn names_from_the_mesh_do_not_lead_out_of_the_directory() {
    let (dir, files) = made(&["a"]);
    let inside = dir.path().join("ns/default/sa");
    let files_below = Files::new(inside);
    let escaping = Identity::new("cluster.local", "..", "a");
    let text = block_on(files_below.fetch(&escaping, None))
        .unwrap_err()
        .to_string();
    assert!(text.contains("cannot be a namespace"), "{text}");
    assert_eq!(directory(dir.path(), &escaping), None);
    drop(files);
}

/// The next change announced, after `act`.
fn changed_by(files: &Files, act: impl FnOnce()) -> Vec<Identity> {
    block_on(async {
        let mut changes = files.changes();
        // Polled once, as the renewal does, before anything happens.
        let pending =
            std::future::poll_fn(|cx| Poll::Ready(changes.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
        act();
        changes.await
    })
}

#[test]
fn changed_files_are_announced_for_their_identity_alone() {
    let (dir, files) = made(&["a", "b"]);
    fetch(&files, "a").unwrap();
    fetch(&files, "b").unwrap();
    let before = fetch(&files, "b").unwrap().material;
    assert_eq!(
        changed_by(&files, || make(dir.path(), &["b"])),
        [identity("b")]
    );
    assert_ne!(fetch(&files, "b").unwrap().material, before);
    let key = folder(&dir, "a").join("tls.key");
    assert_eq!(
        changed_by(&files, || chmod(&key, 0o640)),
        [identity("a")],
        "mode"
    );
    let gone = || fs::remove_file(&key).unwrap();
    assert_eq!(changed_by(&files, gone), [identity("a")], "removal");
}

#[test]
fn a_folder_that_appears_after_a_failed_fetch_is_announced() {
    let (dir, files) = made(&["a"]);
    fetch(&files, "b").unwrap_err();
    assert_eq!(
        changed_by(&files, || make(dir.path(), &["b"])),
        [identity("b")]
    );
}

#[test]
fn a_swapped_symlink_is_announced() {
    let (dir, files) = made(&["a"]);
    // As kubelet lays a secret out: the files point through `..data`, which is swapped.
    let folder = folder(&dir, "a");
    for (version, names) in [("..1", "a"), ("..2", "a")] {
        let other = TempDir::new().unwrap();
        make(other.path(), &[names]);
        fs::rename(
            directory(other.path(), &identity("a")).unwrap(),
            folder.join(version),
        )
        .unwrap();
    }
    symlink("..1", folder.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::remove_file(folder.join(file)).unwrap();
        symlink(Path::new("..data").join(file), folder.join(file)).unwrap();
    }
    let before = fetch(&files, "a").unwrap().material;
    let swap = || {
        symlink("..2", folder.join("..tmp")).unwrap();
        fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
    };
    assert_eq!(changed_by(&files, swap), [identity("a")]);
    assert_ne!(fetch(&files, "a").unwrap().material, before);
}

#[test]
fn a_forgotten_identity_is_announced_no_more() {
    let (dir, files) = made(&["a", "b"]);
    fetch(&files, "a").unwrap();
    fetch(&files, "b").unwrap();
    files.forget(&identity("a"));
    assert_eq!(
        changed_by(&files, || make(dir.path(), &["a", "b"])),
        [identity("b")]
    );
}
