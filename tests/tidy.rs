//! House rules that no lint covers: layers, place of unsafe code and of foreign types, file sizes and
//! names, banned words, versions in Cargo.lock, proofs of the conformance document.

#[cfg(test)]
#[path = "tidy/conformance.rs"]
mod conformance;

#[cfg(test)]
mod rules {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Lines of a file before its tests.
    const LINES_MAX: usize = 400;

    /// Which modules a module may name. `config::limits` is open to all but `model` and `sys`.
    const LAYERS: &[(&str, &[&str])] = &[
        ("model", &[]),
        ("sys", &[]),
        ("transport", &[]),
        ("config", &["model", "sys"]),
        ("snapshot", &["model"]),
        ("decision", &["snapshot", "model"]),
        ("telemetry", &["model"]),
        ("hbone", &["transport", "model", "sys", "telemetry"]),
        ("tls", &["transport", "model", "sys", "telemetry"]),
        ("proto", &[]),
        (
            "xds",
            &[
                "proto",
                "snapshot",
                "tls",
                "model",
                "sys",
                "config",
                "telemetry",
            ],
        ),
        ("fuzzing", &["hbone", "tls"]),
        (
            "control",
            &[
                "proto",
                "snapshot",
                "tls",
                "model",
                "sys",
                "config",
                "telemetry",
            ],
        ),
        (
            "dataplane",
            &[
                "decision",
                "snapshot",
                "hbone",
                "tls",
                "transport",
                "model",
                "sys",
                "config",
                "telemetry",
            ],
        ),
        (
            "app",
            &[
                "control",
                "xds",
                "dataplane",
                "snapshot",
                "tls",
                "model",
                "sys",
                "config",
                "telemetry",
            ],
        ),
        (
            "cli",
            &[
                "app",
                "control",
                "snapshot",
                "tls",
                "model",
                "sys",
                "config",
                "telemetry",
            ],
        ),
    ];

    /// Foreign crates that may be named in one place only (a prefix of the path below `src`).
    const FOREIGN: &[(&str, &[&str])] = &[
        ("monoio::", &["dataplane/rt"]),
        ("h2::", &["hbone"]),
        ("rustls::", &["tls"]),
        ("tokio_rustls::", &["tls"]),
        ("webpki::", &["tls"]),
        ("rcgen::", &["tls"]),
        ("tokio::runtime", &["control", "app"]),
        ("tokio::spawn", &["control", "xds", "app"]),
        ("tokio::net", &["control", "xds", "app"]),
        ("tokio::time", &["control", "xds", "app"]),
        ("hyper::", &["control"]),
        ("hickory_proto::", &["control/dns"]),
        ("hickory_resolver::", &["control/dns"]),
        ("clap::", &["cli"]),
        (
            "prost::",
            &[
                "xds",
                "control/zds",
                "control/otlp",
                "control/admin/profiling",
            ],
        ),
        ("prost_types::", &["xds", "control/certs"]),
    ];

    /// Texts that must not stand in the sources.
    const BANNED_TEXT: &[&str] = &[
        "todo!",
        "unimplemented!",
        "dbg!(",
        "FIXME",
        "XXX",
        "HACK",
        "#[allow(",
        "#![allow(",
        "/root/",
        "/work/",
    ];

    /// Words that must not be part of a name we declare, with the word to use instead.
    const BANNED_NAMES: &[(&str, &str)] = &[
        ("upstream", "server side"),
        ("downstream", "client side"),
        ("ingress", "inbound"),
        ("egress", "outbound"),
        ("pump", "relay"),
        ("intercept", "capture"),
        ("manager", "the thing itself"),
        ("worker", "shard"),
        ("revalidate", "recheck"),
        ("util", "what it does"),
        ("utils", "what it does"),
        ("helper", "what it does"),
        ("helpers", "what it does"),
    ];

    const BANNED_FILES: &[&str] = &[
        "mod.rs",
        "utils.rs",
        "util.rs",
        "common.rs",
        "types.rs",
        "helpers.rs",
        "misc.rs",
    ];

    /// Oldest versions without a known defect that concerns us.
    const VERSIONS_MIN: &[(&str, [u32; 3])] = &[
        ("h2", [0, 4, 16]),
        ("rustls", [0, 23, 46]),
        ("rustls-webpki", [0, 103, 13]),
        ("metrics", [0, 24, 6]),
        ("aws-lc-rs", [1, 19, 0]),
        ("rcgen", [0, 14, 10]),
        ("tokio", [1, 53, 0]),
        ("hickory-proto", [0, 26, 1]),
        ("hickory-resolver", [0, 26, 1]),
        ("tracing-subscriber", [0, 3, 23]),
    ];

    /// Crates that would bring a second crypto provider, or another allocator's C code.
    const CRATES_BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "mimalloc", "rustables"];

    /// A source file: path below the package, whole text, and the part that is not test code.
    struct Source {
        path: String,
        text: String,
        lines_before_tests: usize,
    }

    impl Source {
        fn code(&self) -> impl Iterator<Item = (usize, &str)> {
            let numbered = self.text.lines().enumerate().map(|(i, line)| (i + 1, line));
            numbered
                .take(self.lines_before_tests)
                .map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
        }

        fn is_test(&self) -> bool {
            let name = self.path.rsplit('/').next().unwrap();
            let stem_is_test = ["tests.rs", "testing.rs", "oracle.rs"].contains(&name);
            stem_is_test || self.path.contains("/tests/") || self.path.starts_with("tests/")
        }

        /// `dataplane` for `src/dataplane/rt.rs` and `src/dataplane.rs`.
        fn module(&self) -> Option<&str> {
            let below = self.path.strip_prefix("src/")?;
            below.split(['/', '.']).next()
        }
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn sources(folder: &str) -> Vec<Source> {
        let mut found = Vec::new();
        collect(&root().join(folder), &mut found);
        assert!(
            !found.is_empty() || folder == "benches",
            "no sources in {folder}"
        );
        found
    }

    fn collect(dir: &Path, found: &mut Vec<Source>) {
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.ends_with("src/proto/generated") {
                continue;
            }
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines_before_tests = lines_before_tests(&text);
                let path = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push(Source {
                    path,
                    text,
                    lines_before_tests,
                });
            }
        }
    }

    /// Tests end the file: everything before `#[cfg(test)]` at the left margin followed by a module.
    fn lines_before_tests(text: &str) -> usize {
        let lines: Vec<&str> = text.lines().collect();
        let starts = lines.windows(2).position(|pair| {
            let opens = pair[1].starts_with("mod ") || pair[1].starts_with("pub(crate) mod ");
            pair[0] == "#[cfg(test)]" && opens && pair[1].ends_with('{')
        });
        starts.unwrap_or(lines.len())
    }

    /// Top-level modules of this crate that a line of code names: `crate::a`, `crate::{a::b, c}`.
    fn named_modules(code: &str) -> BTreeSet<(usize, String)> {
        let mut named = BTreeSet::new();
        for (at, _) in code.match_indices("crate::") {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                named.extend(heads_of_group(group).map(|name| (line, name)));
            } else {
                named.insert((line, path_of(rest)));
            }
        }
        named
    }

    /// First two segments of each path in a brace group, at its outer level.
    fn heads_of_group(group: &str) -> impl Iterator<Item = String> {
        let (mut depth, mut end) = (1, group.len());
        let mut parts = vec![String::new()];
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => parts.push(String::new()),
                _ if depth == 1 => parts.last_mut().unwrap().push(c),
                _ => {}
            }
            if depth == 0 {
                end = at;
                break;
            }
        }
        assert!(end < group.len(), "an open brace group");
        parts
            .into_iter()
            .map(|part| path_of(part.trim()))
            .filter(|path| !path.is_empty())
    }

    /// `config::limits` as such; of any other path the first segment.
    fn path_of(text: &str) -> String {
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let path: String = text.chars().take_while(|c| is_name(*c)).collect();
        if path.starts_with("config::limits") {
            return "config::limits".into();
        }
        path.split(':').next().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn assert_none(what: &str, found: &[String]) {
        assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    }

    #[test]
    fn modules_name_only_the_layers_below_them() {
        let mut wrong = Vec::new();
        for source in sources("src").iter().filter(|source| !source.is_test()) {
            let Some(module) = source.module().filter(|m| !["lib", "main"].contains(m)) else {
                continue;
            };
            let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
                wrong.push(format!("{}: module {module} has no layer", source.path));
                continue;
            };
            let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
            for (line, named) in named_modules(&code.join("\n")) {
                let own = named == module;
                let limits = named == "config::limits" && !["model", "sys"].contains(&module);
                let known = LAYERS.iter().any(|(name, _)| *name == named);
                let head = if named == "config::limits" {
                    "config"
                } else {
                    named.as_str()
                };
                if known && !own && !allowed.contains(&head) || named == "config::limits" && !limits
                {
                    wrong.push(format!("{}:{line}: {module} names {named}", source.path));
                }
            }
        }
        assert_none("edges that are not in the layers", &wrong);
    }

    #[test]
    fn named_modules_are_found_in_each_form() {
        let code = "use crate::model::addr::X;\nuse crate::{\n sys, hbone::{a, b}, tls::c};\nlet x = crate::config::limits::Y; $crate::z";
        let named: Vec<String> = named_modules(code)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(named, ["model", "hbone", "sys", "tls", "config::limits"]);
    }

    #[test]
    fn unsafe_code_is_in_sys_only() {
        let mut wrong = Vec::new();
        for source in sources("src") {
            let in_sys = source.module() == Some("sys");
            for (number, line) in source.code() {
                let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
                if !in_sys && words.clone().any(|word| word == "unsafe") {
                    wrong.push(format!("{}:{number}", source.path));
                }
            }
        }
        assert_none("unsafe outside sys", &wrong);
    }

    #[test]
    fn foreign_types_stay_inside_their_wrapper() {
        let mut wrong = Vec::new();
        for source in sources("src").iter().filter(|source| !source.is_test()) {
            let below = source.path.trim_start_matches("src/");
            for (number, line) in source.code() {
                for (text, places) in FOREIGN {
                    if names_crate(line, text) && !places.iter().any(|p| below.starts_with(p)) {
                        wrong.push(format!("{}:{number}: {text}", source.path));
                    }
                }
            }
        }
        assert_none("foreign crates outside their wrapper", &wrong);
    }

    /// Whether `text` stands in the line as the start of a path.
    fn names_crate(line: &str, text: &str) -> bool {
        let starts_path = |at: usize| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
        };
        line.match_indices(text).any(|(at, _)| starts_path(at))
    }

    #[test]
    fn files_are_short_and_say_what_they_are_for() {
        let mut wrong = Vec::new();
        let all = ["src", "tests", "benches", "perf"].map(sources);
        for source in all.iter().flatten() {
            let name = source.path.rsplit('/').next().unwrap();
            if BANNED_FILES.contains(&name) {
                wrong.push(format!("{}: no such file name", source.path));
            }
            if !source.text.starts_with("//! ") {
                wrong.push(format!(
                    "{}: the first line does not begin with //!",
                    source.path
                ));
            }
            // Tests of a module may be long; they are tables.
            let is_table = source.path.starts_with("src/") && source.is_test();
            if source.lines_before_tests > LINES_MAX && !is_table {
                let lines = source.lines_before_tests;
                wrong.push(format!("{}: {lines} lines before its tests", source.path));
            }
        }
        assert_none("files", &wrong);
    }

    #[test]
    fn sources_hold_no_banned_word() {
        let mut wrong = Vec::new();
        let all = ["src", "tests", "benches", "perf"].map(sources);
        let others = all
            .iter()
            .flatten()
            .filter(|source| source.path != "tests/tidy.rs");
        for source in others {
            for (index, line) in source.text.lines().enumerate() {
                let number = index + 1;
                if let Some(text) = BANNED_TEXT.iter().find(|text| line.contains(**text)) {
                    wrong.push(format!("{}:{number}: {text}", source.path));
                }
                let prints = ["println!(", "print!("].iter().any(|p| line.contains(p));
                if prints && source.path.starts_with("src/") {
                    wrong.push(format!("{}:{number}: prints past the log", source.path));
                }
                for (word, instead) in banned_words_in_names(line) {
                    wrong.push(format!(
                        "{}:{number}: say {instead}, not {word}",
                        source.path
                    ));
                }
            }
        }
        assert_none("banned words", &wrong);
    }

    fn banned_words_in_names(line: &str) -> Vec<(&'static str, &'static str)> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kinds = ["struct", "enum", "trait", "type", "mod", "fn", "const"];
        let declared = words.windows(2).find(|pair| kinds.contains(&pair[0]));
        let Some(name) = declared.map(|pair| pair[1]) else {
            return Vec::new();
        };
        let name: String = name
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let parts = split_name(&name);
        let banned = BANNED_NAMES
            .iter()
            .filter(|(word, _)| parts.iter().any(|p| p == word));
        banned.copied().collect()
    }

    /// `TunnelPool` and `tunnel_pool` both give `tunnel`, `pool`.
    fn split_name(name: &str) -> Vec<String> {
        let mut parts = vec![String::new()];
        for c in name.chars() {
            if c == '_' || c.is_uppercase() && !name.contains('_') {
                parts.push(String::new());
            }
            if c != '_' {
                parts.last_mut().unwrap().extend(c.to_lowercase());
            }
        }
        parts
    }

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(split_name("TunnelPool"), ["", "tunnel", "pool"]);
        assert_eq!(split_name("RELAY_PIPE_BYTES"), ["relay", "pipe", "bytes"]);
        assert_eq!(
            banned_words_in_names("    fn upstream_address(&self) {").len(),
            1
        );
        assert!(banned_words_in_names("let upstream = 1;").is_empty());
    }

    /// (name, version) of every locked package.
    fn locked() -> Vec<(String, [u32; 3])> {
        let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        let value = |block: &str, key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key));
            line.map(|text| text.trim_matches([' ', '=', '"']).to_owned())
        };
        let blocks = text.split("[[package]]").skip(1);
        let package = |block: &str| {
            let version = value(block, "version").unwrap();
            let numbers = version
                .split(['.', '-', '+'])
                .take(3)
                .map(|n| n.parse().unwrap());
            let numbers: Vec<u32> = numbers.collect();
            (value(block, "name").unwrap(), numbers.try_into().unwrap())
        };
        blocks.map(package).collect()
    }

    #[test]
    fn locked_versions_have_no_known_defect() {
        let locked = locked();
        let mut wrong = Vec::new();
        for (name, min) in VERSIONS_MIN {
            let found: Vec<_> = locked.iter().filter(|(n, _)| n == name).collect();
            assert!(!found.is_empty(), "{name} is not locked");
            let old = found.iter().filter(|(_, version)| version < min);
            wrong.extend(old.map(|(n, version)| format!("{n} {version:?} is older than {min:?}")));
        }
        assert_none("old versions", &wrong);
    }

    /// Cargo.lock also lists what optional features could bring, so the resolved tree is asked.
    #[test]
    fn one_crypto_provider_is_compiled_in() {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--workspace",
                "--offline",
                "--prefix",
                "none",
                "--format",
                "{p}",
            ])
            .current_dir(root())
            .output()
            .unwrap();
        let tree = String::from_utf8(output.stdout).unwrap();
        let compiled: BTreeSet<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(compiled.contains("aws-lc-rs"), "cargo tree: {complaint}");
        let banned = CRATES_BANNED
            .iter()
            .filter(|name| compiled.contains(**name));
        let banned: Vec<String> = banned.map(|name| (*name).to_owned()).collect();
        assert_none("banned crates are compiled in", &banned);
    }
}
