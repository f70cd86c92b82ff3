//! What Cargo.toml says of `.deb` and `.rpm` packages: complete, and of files that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::text;

/// One table of the manifest's metadata, with its sub-tables.
fn table(name: &str) -> String {
    let manifest = text("Cargo.toml");
    let heads = [
        format!("[package.metadata.{name}"),
        format!("[[package.metadata.{name}"),
    ];
    let mut inside = false;
    let mut lines = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = heads.iter().any(|head| line.starts_with(head));
        }
        if inside {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    assert!(!lines.is_empty(), "{name}");
    lines
}

/// Source and place of each asset: the first two texts of each line that has three.
fn assets(name: &str) -> BTreeMap<String, String> {
    let table = table(name);
    let lines = table
        .lines()
        .filter(|line| line.starts_with("  [") || line.starts_with("  {"));
    let texts = lines.map(|line| line.split('"').skip(1).step_by(2).collect::<Vec<_>>());
    texts
        .map(|texts| {
            (
                texts[0].to_owned(),
                texts[1].trim_start_matches('/').to_owned(),
            )
        })
        .collect()
}

#[test]
fn both_packages_hold_the_same_files_and_these_exist() {
    let (deb, mut rpm) = (assets("deb"), assets("generate-rpm"));
    // In the Debian package they come by way of their own tables.
    for unit in ["corelane", "corelane-capture"] {
        let file = format!("packaging/systemd/{unit}.service");
        let place = rpm.remove(&file);
        assert_eq!(
            place,
            Some(format!("usr/lib/systemd/system/{unit}.service"))
        );
        assert!(table("deb").contains(&format!("unit-name = \"{unit}\"\n")));
    }
    assert_eq!(deb, rpm);
    for source in deb.keys().filter(|source| !source.starts_with("target/")) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        assert!(path.is_file(), "{source}");
    }
}

#[test]
fn no_file_for_hosts_is_forgotten() {
    let packaged: BTreeSet<_> = assets("generate-rpm").into_keys().collect();
    for folder in ["packaging/systemd", "packaging/config"] {
        let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        for file in files.unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(
                packaged.contains(&format!("{folder}/{name}")),
                "{folder}/{name}"
            );
        }
    }
}

#[test]
fn nothing_is_enabled_or_started_by_installation() {
    let deb = table("deb");
    let count = |line: &str| deb.lines().filter(|found| *found == line).count();
    let units = deb
        .lines()
        .filter(|line| line.starts_with("unit-name"))
        .count();
    assert_eq!(units, 2);
    assert_eq!(
        (count("enable = false"), count("start = false")),
        (units, units)
    );
}

#[test]
fn scripts_are_shell_and_remove_what_the_guide_removes() {
    let scripts = [
        "debian/postinst",
        "debian/postrm",
        "rpm/post_install.sh",
        "rpm/pre_uninstall.sh",
        "rpm/post_uninstall.sh",
    ];
    for script in scripts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("packaging")
            .join(script);
        let parsed = Command::new("sh").arg("-n").arg(&path).status().unwrap();
        assert!(parsed.success(), "{script}");
    }
    let metadata = table("generate-rpm");
    for script in scripts.iter().filter(|script| script.starts_with("rpm/")) {
        assert!(
            metadata.contains(&format!("\"packaging/{script}\"")),
            "{script}"
        );
    }
    for script in &scripts[..2] {
        // Where `cargo deb` puts what units need.
        assert!(
            text(&format!("packaging/{script}")).contains("#DEBHELPER#"),
            "{script}"
        );
    }
    assert!(text("packaging/debian/postrm").contains("rm -rf /etc/corelane /var/cache/corelane"));
}
