//! The Dockerfile: what it copies is what the build needs, what it runs is the program.

use std::path::Path;

use crate::text;

/// Instructions with their arguments, continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let joined = text("Dockerfile").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// Sources of COPY in the build stage.
fn copied() -> Vec<String> {
    let instructions = instructions();
    let copies = instructions
        .iter()
        .filter(|(name, rest)| name == "COPY" && !rest.starts_with("--"));
    copies
        .flat_map(|(_, rest)| {
            let words: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
            words[..words.len() - 1].to_vec()
        })
        .collect()
}

fn is_copied(path: &str) -> bool {
    copied()
        .iter()
        .any(|from| Path::new(path).starts_with(from.trim_start_matches("./")))
}

#[test]
fn every_member_of_the_workspace_is_copied() {
    let manifest = text("Cargo.toml");
    let members = manifest
        .split_once("members = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .unwrap()
        .0;
    let members: Vec<_> = members
        .split(',')
        .map(|member| member.trim().trim_matches('"'))
        .filter(|member| *member != ".")
        .collect();
    assert!(members.len() >= 3, "{members:?}");
    for path in members
        .into_iter()
        .chain(["Cargo.toml", "Cargo.lock", "src", "benches"])
    {
        assert!(is_copied(path), "{path}");
    }
}

#[test]
fn files_that_are_compiled_in_are_copied() {
    let profiles = text("src/cli/doctor/profile.rs");
    let included = profiles.split("include_str!(\"").skip(1);
    let mut count = 0;
    for rest in included {
        let path = rest.split('"').next().unwrap().trim_start_matches("../");
        assert!(is_copied(path), "{path}");
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn what_is_copied_is_let_through_by_the_ignore_file_and_exists() {
    let ignore = text(".dockerignore");
    let through: Vec<_> = ignore
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    for path in copied() {
        let let_through = through
            .iter()
            .any(|t| Path::new(&path).starts_with(t) || Path::new(t).starts_with(&path));
        assert!(let_through, "{path}");
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).exists(),
            "{path}"
        );
    }
}

#[test]
fn it_starts_the_node_where_charts_mount_their_files() {
    let instructions = instructions();
    let last = |wanted: &str| {
        let found = instructions.iter().rev().find(|(name, _)| name == wanted);
        found.map(|(_, rest)| rest.as_str())
    };
    assert_eq!(last("WORKDIR"), Some("/"), "default paths are relative");
    assert_eq!(last("ENTRYPOINT"), Some("[\"/usr/local/bin/corelane\"]"));
    assert_eq!(last("CMD"), Some("[\"proxy\"]"));
    assert_eq!(last("USER"), Some("1337:1337"));
    assert_eq!(last("STOPSIGNAL"), Some("SIGTERM"));
}
