//! The configuration file: tree of texts → candidates. Unknown keys are errors with the nearest name.

use std::path::PathBuf;
use std::sync::Arc;

use super::limits::FORWARDS_MAX;
use super::problem::{Origin, Position, ProblemKind, nearest};
use super::raw::{Candidate, RawConfig, RawForward, ReadFile};
use super::schema::{FORWARD_KEYS, FORWARDS, Key, LOCAL_WORKLOADS, SETTINGS, by_path};
use super::yaml::{self, Name, Node, Value};

pub use workloads::RawLocalWorkload;

mod workloads;

/// Top-level keys of a local state document, to explain a mix-up.
const STATE_KEYS: [&str; 3] = ["workloads", "services", "policies"];

/// Whether `text` is a local state document rather than a configuration: the first key that either
/// of them knows decides.
#[must_use]
pub fn is_local_state(text: &str) -> bool {
    let ours = |key: &str| {
        key == FORWARDS
            || SETTINGS
                .iter()
                .any(|setting| setting.path.split('.').next() == Some(key))
    };
    let theirs = |key: &str| STATE_KEYS.contains(&key);
    yaml::find_top_level_key(text, |key| ours(key) || theirs(key)).is_some_and(|key| theirs(&key))
}

/// Reads the configuration file at `path` into `raw`.
pub(super) fn read(raw: &mut RawConfig, path: PathBuf, read_file: ReadFile<'_>) {
    let path = Arc::new(path);
    match read_file(&path) {
        Ok(text) => FileReader { raw, path }.document(&text),
        Err(error) => {
            let origin = Origin::File(path, Position::START);
            raw.file_lost = true;
            raw.problem(origin, "", ProblemKind::Unreadable(error.to_string()));
        }
    }
}

struct FileReader<'r> {
    raw: &'r mut RawConfig,
    path: Arc<PathBuf>,
}

impl FileReader<'_> {
    fn origin(&self, at: Position) -> Origin {
        Origin::File(Arc::clone(&self.path), at)
    }

    fn problem(&mut self, at: Position, setting: &str, kind: ProblemKind) {
        let origin = self.origin(at);
        self.raw.problem(origin, setting, kind);
    }

    fn shape(&mut self, node: &Node, setting: &str, expected: &str) {
        let (found, expected) = (node.value.describe(), expected.to_owned());
        self.problem(node.at, setting, ProblemKind::Shape { found, expected });
    }

    fn document(&mut self, text: &str) {
        match yaml::parse(text) {
            Err(errors) => {
                self.raw.file_lost = true;
                for error in errors {
                    self.problem(error.at, "", ProblemKind::Syntax(error.message));
                }
            }
            Ok(None) => {}
            Ok(Some(Node {
                value: Value::Null, ..
            })) => {}
            Ok(Some(root)) => self.group(&root, ""),
        }
    }

    /// Reads the mapping whose keys begin with `prefix` (empty, or ending in a dot).
    fn group(&mut self, node: &Node, prefix: &str) {
        let Value::Map(entries) = &node.value else {
            self.shape(node, prefix.trim_end_matches('.'), "a mapping");
            return;
        };
        for (name, node) in entries {
            let path = format!("{prefix}{}", name.text);
            let below = format!("{path}.");
            if path == FORWARDS {
                self.forwards(node);
            } else if path == LOCAL_WORKLOADS {
                self.local_workloads(node);
            } else if let Some(setting) = by_path(&path) {
                self.leaf(setting.key, &path, node);
            } else if SETTINGS
                .iter()
                .any(|setting| setting.path.starts_with(&below))
            {
                self.group(node, &below);
            } else {
                self.unknown(name, prefix);
            }
        }
    }

    fn unknown(&mut self, name: &Name, prefix: &str) {
        let path = format!("{prefix}{}", name.text);
        if prefix.is_empty() && STATE_KEYS.contains(&name.text.as_str()) {
            let message = "belongs into a local state file, name that file by `localState`";
            self.problem(name.at, &path, ProblemKind::Conflict(message.to_owned()));
            return;
        }
        let siblings = SETTINGS
            .iter()
            .filter_map(|setting| setting.path.strip_prefix(prefix))
            .map(|rest| rest.split('.').next().unwrap_or(rest))
            .chain(prefix.is_empty().then_some(FORWARDS))
            .chain(
                LOCAL_WORKLOADS
                    .strip_prefix(prefix)
                    .filter(|_| !prefix.is_empty()),
            )
            .filter(|sibling| !sibling.is_empty());
        // A key one level too high or too low is as likely as a slip of the finger.
        let elsewhere = SETTINGS
            .iter()
            .map(|setting| setting.path)
            .find(|path| path.rsplit('.').next() == Some(name.text.as_str()) && !path.is_empty());
        let nearest = nearest(&name.text, siblings).or_else(|| elsewhere.map(str::to_owned));
        self.problem(name.at, &path, ProblemKind::UnknownKey { nearest });
    }

    fn leaf(&mut self, key: Key, path: &str, node: &Node) {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            // The only settings that may be a list of values.
            Value::List(items)
                if matches!(key, Key::ListenAdmin | Key::XdsHeaders | Key::CaHeaders) =>
            {
                // No header holds a line break.
                let (expected, separator) = if key != Key::ListenAdmin {
                    ("a header `NAME=VALUE`", "\n")
                } else {
                    ("an address", ",")
                };
                let mut texts = Vec::new();
                for item in items {
                    match &item.value {
                        Value::Text(text) => texts.push(text.as_str()),
                        Value::Null | Value::List(_) | Value::Map(_) => {
                            self.shape(item, path, expected);
                            return;
                        }
                    }
                }
                texts.join(separator)
            }
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.shape(node, path, "a single value");
                return;
            }
        };
        let origin = self.origin(node.at);
        self.raw.add(key, text, origin);
    }

    fn forwards(&mut self, node: &Node) {
        let Value::List(items) = &node.value else {
            self.shape(
                node,
                FORWARDS,
                "a list of mappings with `listen`, `to` and `as`",
            );
            return;
        };
        if items.len() > FORWARDS_MAX {
            let message = format!("more than {FORWARDS_MAX} forwards");
            self.problem(node.at, FORWARDS, ProblemKind::Conflict(message));
            return;
        }
        for item in items {
            self.forward(item);
        }
    }

    fn forward(&mut self, item: &Node) {
        let Value::Map(entries) = &item.value else {
            self.shape(item, FORWARDS, "a mapping with `listen`, `to` and `as`");
            return;
        };
        let origin = self.origin(item.at);
        let mut forward = RawForward {
            origin,
            listen: None,
            to: None,
            as_workload: None,
        };
        for (name, node) in entries {
            let path = format!("{FORWARDS}.{}", name.text);
            if !FORWARD_KEYS.contains(&name.text.as_str()) {
                let nearest = nearest(&name.text, FORWARD_KEYS);
                self.problem(name.at, &path, ProblemKind::UnknownKey { nearest });
                continue;
            }
            let Value::Text(text) = &node.value else {
                self.shape(node, &path, "a single value");
                continue;
            };
            let value = Some(Candidate {
                text: text.clone(),
                origin: self.origin(node.at),
            });
            match name.text.as_str() {
                "listen" => forward.listen = value,
                "to" => forward.to = value,
                _ => forward.as_workload = value,
            }
        }
        self.raw.forwards.push(forward);
    }
}
