//! Guides for operators: every command, variable, setting, file and path they name exists.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{run, text};

/// Documents whose commands and names are checked.
const GUIDES: [&str; 5] = [
    "README.md",
    "docs/kubernetes.md",
    "docs/vm.md",
    "docs/dns.md",
    "docs/configuration.md",
];
/// Names in capitals that belong to somebody else.
const FOREIGN: &[&str] = &[
    "CA_ADDR",
    "CANONICAL_SERVICE",
    "CA_TRUSTED_NODE_ACCOUNTS",
    "CAP_DAC_READ_SEARCH",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "ISTIO_INBOUND_PORTS",
    "ISTIO_SERVICE_CIDR",
    "TLS_AES_256_GCM_SHA384",
];
/// Beginnings of families that any name may follow.
const FAMILIES: [&str; 5] = [
    "ISTIO_META_",
    "ISTIO_METAJSON_",
    "XDS_HEADER_",
    "CA_HEADER_",
    "KEEPALIVE_",
];

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// The fenced blocks of a document, indentation of lists taken off.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for line in document.lines() {
        let indent = line.len() - line.trim_start().len();
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some((
                    indent,
                    Block {
                        language,
                        text: String::new(),
                    },
                ));
            }
            (None, Some((indent, block))) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// Code between single backticks, outside of blocks.
fn spans(document: &str) -> Vec<String> {
    let mut outside = String::new();
    let mut inside = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            outside.push_str(line);
            outside.push('\n');
        }
    }
    outside
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|span| span.replace('\n', " "))
        .collect()
}

/// Command lines: blocks without a language, continued lines joined, and code spans.
fn command_lines(document: &str) -> Vec<String> {
    let blocks = blocks(document)
        .into_iter()
        .filter(|block| block.language.is_empty());
    let lines = blocks.flat_map(|block| {
        let joined = block.text.replace("\\\n", " ");
        joined.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.chain(spans(document)).collect()
}

/// Arguments of each call of the program in a command line.
fn calls(line: &str) -> Vec<Vec<String>> {
    let parts = line
        .split(['|', ';', '>'])
        .flat_map(|part| part.split("&&"));
    let parts = parts.flat_map(|part| part.split(" -- ").map(str::to_owned).collect::<Vec<_>>());
    parts
        .filter_map(|part| {
            let words = part.split_whitespace();
            // Variables before the program belong to its call.
            let mut words = words.skip_while(|word| {
                word.contains('=') && word.starts_with(|c: char| c.is_ascii_uppercase())
            });
            (words.next() == Some("corelane")).then(|| {
                words
                    .map(|word| word.trim_matches('\'').to_owned())
                    .collect()
            })
        })
        .collect()
}

#[test]
fn every_command_of_the_guides_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut checked = BTreeSet::new();
    for guide in GUIDES {
        for line in command_lines(&text(guide)) {
            for call in calls(&line) {
                // The rest is parsed before help is printed.
                let mut arguments: Vec<_> = call.iter().map(String::as_str).collect();
                // A choice of values stands for each of them.
                for argument in &mut arguments {
                    *argument = argument.split('|').next().unwrap_or_default();
                }
                arguments.push("--help");
                let help = run(&arguments, &[], dir.path());
                assert!(help.succeeded, "{guide}: {line}\n{}", help.err);
                checked.insert(call.join(" "));
            }
        }
    }
    for known in ["doctor", "config check /etc/corelane/state.yaml", "version"] {
        assert!(checked.contains(known), "{known} in {checked:?}");
    }
}

#[test]
fn what_is_no_command_would_be_found() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in [
        "corelane docter",
        "A=b corelane config chek x",
        "x && corelane proxy --confg y",
    ] {
        let call = calls(wrong).remove(0);
        let arguments: Vec<_> = call.iter().map(String::as_str).chain(["--help"]).collect();
        assert!(!run(&arguments, &[], dir.path()).succeeded, "{wrong}");
    }
    assert!(calls("systemctl edit corelane").is_empty());
}

/// First two cells of each row of the list of settings: names in the file, and variables.
fn settings() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for line in text("docs/configuration.md")
        .lines()
        .filter(|line| line.starts_with('|'))
    {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let code = |cell: &str| -> Vec<String> {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        if cells.len() >= 5 {
            let first = code(cells[1]);
            let (upper, lower): (Vec<_>, Vec<_>) =
                first.into_iter().partition(|name| is_variable(name));
            names.extend(lower);
            variables.extend(upper);
            variables.extend(code(cells[2]).into_iter().filter(|name| is_variable(name)));
        }
    }
    // Settings that are no single value have a sentence of their own.
    for line in text("docs/configuration.md").lines() {
        let name = line.strip_prefix("- `");
        let name = name.and_then(|rest| rest.split_once("` is a list"));
        names.extend(name.map(|(name, _)| name.to_owned()));
    }
    assert!(names.contains("forwards"), "lists are found");
    assert!(names.len() > 80 && variables.len() > 60, "the list is read");
    (names, variables)
}

fn is_variable(word: &str) -> bool {
    let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    word.contains('_')
        && word.chars().all(legal)
        && word.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Words of code that have the form of variables.
fn variables_in(document: &str) -> BTreeSet<String> {
    let blocks = blocks(document).into_iter().map(|block| block.text);
    let code: Vec<_> = blocks.chain(spans(document)).collect();
    let words = code
        .iter()
        .flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words
        .filter(|word| is_variable(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_variable_of_the_guides_is_read() {
    let (_, known) = settings();
    let mut foreign: BTreeSet<_> = FOREIGN.iter().copied().collect();
    let own = ["CORELANE_CONFIG", "PROXY_CONFIG"];
    for guide in [
        "docs/kubernetes.md",
        "docs/vm.md",
        "docs/dns.md",
        "README.md",
    ] {
        for name in variables_in(&text(guide)) {
            foreign.remove(&*name);
            let is_known = known.contains(&name)
                || own.contains(&&*name)
                || FOREIGN.contains(&&*name)
                || FAMILIES.iter().any(|family| name.starts_with(family));
            assert!(is_known, "{guide}: {name}");
        }
    }
    assert!(foreign.is_empty(), "no longer named: {foreign:?}");
}

#[test]
fn every_setting_of_the_guides_is_one() {
    let (known, _) = settings();
    let sections: BTreeSet<_> = known
        .iter()
        .filter_map(|name| name.split_once('.'))
        .collect();
    let sections: BTreeSet<_> = sections.into_iter().map(|(section, _)| section).collect();
    for guide in [
        "docs/kubernetes.md",
        "docs/vm.md",
        "docs/dns.md",
        "README.md",
    ] {
        for span in spans(&text(guide)) {
            let name = span.split([':', '=']).next().unwrap_or_default();
            let Some((section, rest)) = name.split_once('.') else {
                continue;
            };
            let is_name = rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
            if sections.contains(section) && is_name && !rest.is_empty() {
                assert!(known.contains(name), "{guide}: {name}");
            }
        }
    }
}

#[test]
fn every_configuration_and_state_of_the_guides_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for guide in ["README.md", "docs/vm.md", "docs/kubernetes.md"] {
        for block in blocks(&text(guide))
            .iter()
            .filter(|block| block.language == "yaml")
        {
            let documents: Result<Vec<serde_json::Value>, _> =
                serde_saphyr::from_multiple(&block.text);
            if block.text.starts_with("apiVersion: ") {
                assert!(documents.is_ok(), "{guide}: {documents:?}");
                continue;
            }
            let file = dir.path().join("block.yaml");
            std::fs::write(&file, &block.text).unwrap();
            let checking = run(
                &["config", "check", file.to_str().unwrap()],
                &[],
                dir.path(),
            );
            assert!(checking.succeeded, "{guide}\n{}", checking.out);
            checked += 1;
        }
    }
    assert!(checked >= 6, "{checked}");
}

#[test]
fn every_endpoint_of_the_guides_is_served() {
    const SERVED: [(&str, &[&str]); 3] = [
        (
            "15000",
            &["/status", "/config_dump", "/logging", "/quitquitquit"],
        ),
        ("15020", &["/metrics", "/stats/prometheus"]),
        ("15021", &["/healthz/ready"]),
    ];
    let mut found = 0;
    for guide in ["README.md", "docs/kubernetes.md", "docs/vm.md"] {
        for line in command_lines(&text(guide))
            .iter()
            .filter(|line| line.contains("curl "))
        {
            let (port, paths) = SERVED
                .iter()
                .find(|(port, _)| line.contains(&format!(":{port}/")))
                .unwrap_or_else(|| panic!("{guide}: {line}"));
            let rest = line.split_once(&format!(":{port}")).unwrap().1;
            let path = rest.split(['?', ' ', '\'']).next().unwrap_or_default();
            assert!(paths.contains(&path), "{guide}: {line}");
            found += 1;
        }
    }
    assert!(found >= 8, "{found}");
}

#[test]
fn every_file_of_the_guides_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for guide in GUIDES {
        let document = text(guide);
        let folder = root.join(guide);
        let folder = folder.parent().unwrap();
        for link in document.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{guide}: {target}");
            }
        }
        for line in command_lines(&document) {
            for word in line
                .split_whitespace()
                .filter(|word| word.starts_with("packaging/"))
            {
                assert!(root.join(word).exists(), "{guide}: {word}");
            }
        }
    }
}

#[test]
fn the_guides_install_and_remove_every_file_of_the_package() {
    let guide = text("docs/vm.md");
    let (install, removal) = guide.split_once("## Reload, upgrade, removal").unwrap();
    let units = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd"));
    for file in units.unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(install.contains(&name), "{name} is not installed");
        // corelane.sysusers becomes sysusers.d/corelane.conf.
        let installed = match name.strip_prefix("corelane.") {
            Some(kind @ ("sysusers" | "tmpfiles")) => format!("{kind}.d/corelane.conf"),
            _ => name.clone(),
        };
        assert!(removal.contains(&installed), "{installed} is not removed");
    }
}
