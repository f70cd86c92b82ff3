//! Ways in which files change, on a real file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::slice::from_ref;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Far more than any change takes, so that only a lost one runs into it.
const DEADLINE: Duration = Duration::from_secs(20);

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(test)
}

async fn next(watch: &mut Watch) -> Vec<PathBuf> {
    timeout(DEADLINE, watch.changed())
        .await
        .expect("no change was reported")
}

/// A folder, and its path without symbolic links.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

#[test]
fn a_file_written_in_place_is_reported_each_time() {
    let (_guard, folder) = folder();
    let file = folder.join("state.yaml");
    fs::write(&file, "one").unwrap();
    run(async {
        let mut watch = Watch::new([file.clone()]);
        for text in ["longer", "longest"] {
            fs::write(&file, text).unwrap();
            assert_eq!(next(&mut watch).await, from_ref(&file));
        }
    });
}

#[test]
fn a_file_replaced_by_rename_is_reported_each_time() {
    let (_guard, folder) = folder();
    let file = folder.join("state.yaml");
    fs::write(&file, "one").unwrap();
    run(async {
        let mut watch = Watch::new([file.clone()]);
        for text in ["longer", "longest"] {
            fs::write(folder.join(".state.yaml.swp"), text).unwrap();
            fs::rename(folder.join(".state.yaml.swp"), &file).unwrap();
            assert_eq!(next(&mut watch).await, from_ref(&file));
        }
    });
}

#[test]
fn a_file_is_reported_when_deleted_and_when_made_again() {
    let (_guard, folder) = folder();
    let file = folder.join("state.yaml");
    fs::write(&file, "one").unwrap();
    run(async {
        let mut watch = Watch::new([file.clone()]);
        fs::remove_file(&file).unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
        fs::write(&file, "two").unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
    });
}

#[test]
fn a_swapped_data_link_is_reported_each_time() {
    let (_guard, folder) = folder();
    let file = folder.join("state.yaml");
    let publish = |version: &str| {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("state.yaml"), version).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..one");
    symlink("..data/state.yaml", &file).unwrap();
    run(async {
        let mut watch = Watch::new([file.clone()]);
        for (version, old) in [("..two", "..one"), ("..three", "..two")] {
            publish(version);
            fs::remove_dir_all(folder.join(old)).unwrap();
            assert_eq!(next(&mut watch).await, from_ref(&file));
            assert_eq!(fs::read_to_string(&file).unwrap(), version);
        }
    });
}

#[test]
fn an_edit_behind_links_to_other_folders_is_reported() {
    let (_guard, folder) = folder();
    for name in ["far", "farther"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let target = folder.join("farther/real.yaml");
    fs::write(&target, "one").unwrap();
    symlink("../farther/real.yaml", folder.join("far/link.yaml")).unwrap();
    symlink(folder.join("far/link.yaml"), folder.join("state.yaml")).unwrap();
    let expected: BTreeSet<PathBuf> =
        [folder.clone(), folder.join("far"), folder.join("farther")].into();
    assert_eq!(directories(&folder.join("state.yaml")), expected);
    run(async {
        let mut watch = Watch::new([folder.join("state.yaml")]);
        fs::write(&target, "longer").unwrap();
        assert_eq!(next(&mut watch).await, [folder.join("state.yaml")]);
    });
}

#[test]
fn a_file_in_a_folder_that_does_not_exist_yet_is_reported_when_it_appears() {
    let (_guard, folder) = folder();
    let file = folder.join("later/deeper/state.yaml");
    run(async {
        let mut watch = Watch::new([file.clone()]);
        fs::create_dir_all(folder.join("later/deeper")).unwrap();
        fs::write(&file, "one").unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
        fs::write(&file, "longer").unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
    });
}

#[test]
fn a_replaced_folder_is_followed() {
    let (_guard, folder) = folder();
    let file = folder.join("conf/state.yaml");
    fs::create_dir(folder.join("conf")).unwrap();
    fs::write(&file, "one").unwrap();
    run(async {
        let mut watch = Watch::new([file.clone()]);
        fs::create_dir(folder.join("next")).unwrap();
        fs::write(folder.join("next/state.yaml"), "two").unwrap();
        fs::rename(folder.join("conf"), folder.join("old")).unwrap();
        fs::rename(folder.join("next"), folder.join("conf")).unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
        fs::write(&file, "three").unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
    });
}

#[test]
fn only_files_that_differ_are_reported() {
    let (_guard, folder) = folder();
    let files = ["a", "b", "c"].map(|name| folder.join(name));
    for file in &files {
        fs::write(file, "one").unwrap();
    }
    run(async {
        let mut watch = Watch::new(files.clone());
        fs::write(folder.join("other"), "noise").unwrap();
        fs::write(&files[0], "longer").unwrap();
        fs::remove_file(&files[2]).unwrap();
        assert_eq!(next(&mut watch).await, [files[0].clone(), files[2].clone()]);
    });
}

#[test]
fn dropping_the_future_loses_no_change() {
    let (_guard, folder) = folder();
    let file = folder.join("state.yaml");
    run(async {
        let mut watch = Watch::new([file.clone()]);
        fs::write(&file, "one").unwrap();
        for _ in 0..3 {
            // Shorter than settling takes, so the future is dropped half-way.
            assert!(timeout(SETTLE / 4, watch.changed()).await.is_err());
        }
        assert_eq!(next(&mut watch).await, from_ref(&file));
    });
}

#[test]
fn without_events_the_regular_check_finds_changes() {
    let (_guard, folder) = folder();
    let file = folder.join("state.yaml");
    fs::write(&file, "one").unwrap();
    run(async {
        let (_sender, events) = mpsc::channel(1);
        let mut watch = Watch::with_watcher([file.clone()], None, events);
        fs::write(&file, "longer").unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
        fs::remove_file(&file).unwrap();
        assert_eq!(next(&mut watch).await, from_ref(&file));
    });
}

#[test]
fn relative_paths_are_reported_as_absolute_ones() {
    run(async {
        let watch = Watch::new([PathBuf::from("state.yaml")]);
        let path = watch.versions.keys().next().unwrap();
        assert_eq!(*path, std::env::current_dir().unwrap().join("state.yaml"));
    });
}

#[test]
fn a_circle_of_links_ends() {
    let (_guard, folder) = folder();
    symlink("b", folder.join("a")).unwrap();
    symlink("a", folder.join("b")).unwrap();
    assert_eq!(directories(&folder.join("a")), [folder].into());
}
