//! What is wrong with a state file, where, and what was expected there.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde_saphyr::Location;

/// A position in a document, counted from 1 in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path of the file, or the name of the variable that holds the text.
    pub origin: Arc<str>,
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.origin, self.line, self.column)
    }
}

impl Place {
    pub(super) fn new(origin: &Arc<str>, location: Location) -> Self {
        Self {
            origin: Arc::clone(origin),
            line: location.line().max(1),
            column: location.column().max(1),
        }
    }
}

/// Why a state file was refused. The state in use stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LocalStateError {
    /// The file could not be read.
    #[error("{origin}: cannot be read: {source}")]
    Unreadable {
        /// Path.
        origin: Arc<str>,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// A directory, pipe or device.
    #[error("{origin}: not a regular file")]
    NotAFile {
        /// Path.
        origin: Arc<str>,
    },
    /// The file is larger than any real one.
    #[error("{origin}: larger than {bytes_max} bytes")]
    TooLarge {
        /// Path.
        origin: Arc<str>,
        /// Limit.
        bytes_max: u64,
    },
    /// Nothing in it, as when a writer has just truncated it.
    #[error("{place}: the document is empty, expected a mapping ({{}} for an empty state)")]
    Empty {
        /// Start of the document.
        place: Place,
    },
    /// Not YAML, or beyond the limits on depth, size and aliases.
    #[error("{place}: {reason}")]
    Malformed {
        /// Where reading stopped.
        place: Place,
        /// The parser's words.
        reason: String,
    },
    /// A key nobody reads.
    #[error("{place}: unknown key `{key}`{}, expected one of {}", did_you_mean(.nearest), .expected.join(", "))]
    UnknownKey {
        /// The key.
        place: Place,
        /// As written.
        key: String,
        /// The most similar valid key.
        nearest: Option<&'static str>,
        /// All valid keys.
        expected: Vec<&'static str>,
    },
    /// A required key is absent.
    #[error("{place}: missing key `{key}`")]
    MissingKey {
        /// The last key of the mapping.
        place: Place,
        /// The key.
        key: &'static str,
    },
    /// A key comes twice in one mapping.
    #[error("{place}: key `{key}` comes twice in one mapping")]
    RepeatedKey {
        /// The second one.
        place: Place,
        /// The key.
        key: String,
    },
    /// Not a word of the closed set.
    #[error("{place}: unknown value `{word}`{}, expected one of {}", did_you_mean(.nearest), .expected.join(", "))]
    UnknownWord {
        /// The word, or its key.
        place: Place,
        /// As written.
        word: String,
        /// The most similar valid word.
        nearest: Option<&'static str>,
        /// All valid words.
        expected: Vec<&'static str>,
    },
    /// A value of the wrong kind or form.
    #[error("{place}: found {found}, expected {expected}")]
    BadValue {
        /// The value, or its key.
        place: Place,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// Two resources have the same key.
    #[error("{place}: {what} `{key}` is defined already at {first}")]
    Duplicate {
        /// The second one.
        place: Place,
        /// The first one.
        first: Place,
        /// Kind of resource and of key.
        what: &'static str,
        /// The key.
        key: String,
    },
}

impl LocalStateError {
    /// Position of the fault; none when the file could not be read at all.
    #[must_use]
    pub const fn place(&self) -> Option<&Place> {
        match self {
            Self::Unreadable { .. } | Self::NotAFile { .. } | Self::TooLarge { .. } => None,
            Self::Empty { place }
            | Self::Malformed { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::MissingKey { place, .. }
            | Self::RepeatedKey { place, .. }
            | Self::UnknownWord { place, .. }
            | Self::BadValue { place, .. }
            | Self::Duplicate { place, .. } => Some(place),
        }
    }

    /// Puts the parser's error into our words.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "some seventy causes of a foreign, open enum; all others keep the parser's words"
    )]
    pub(super) fn from_yaml(origin: &Arc<str>, error: &serde_saphyr::Error) -> Self {
        use serde_saphyr::Error as Yaml;
        let error = error.without_snippet();
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let place = Place::new(origin, location);
        match error {
            Yaml::AliasError { error, .. } => Self::from_yaml(origin, error),
            Yaml::SerdeUnknownField {
                field, expected, ..
            } => Self::UnknownKey {
                place,
                key: field.clone(),
                nearest: nearest(field, expected),
                expected: expected.clone(),
            },
            Yaml::SerdeUnknownVariant {
                variant, expected, ..
            } => Self::UnknownWord {
                place,
                word: variant.clone(),
                nearest: nearest(variant, expected),
                expected: expected.clone(),
            },
            Yaml::SerdeMissingField { field, .. } => Self::MissingKey { place, key: field },
            Yaml::DuplicateMappingKey { key, .. } => Self::RepeatedKey {
                place,
                key: key.clone().unwrap_or_default(),
            },
            Yaml::SerdeInvalidType {
                unexpected,
                expected,
                ..
            }
            | Yaml::SerdeInvalidValue {
                unexpected,
                expected,
                ..
            } => Self::BadValue {
                place,
                found: found(unexpected),
                expected: expected.clone(),
            },
            Yaml::NullIntoString { .. } => Self::BadValue {
                place,
                found: "nothing".to_owned(),
                expected: "a string (\"\" when empty)".to_owned(),
            },
            Yaml::Unexpected { expected, .. } => Self::BadValue {
                place,
                found: "something else".to_owned(),
                expected: kind(expected),
            },
            Yaml::MultipleDocuments { .. } => Self::BadValue {
                place,
                found: "a second document".to_owned(),
                expected: "one document".to_owned(),
            },
            other => Self::Malformed {
                place,
                reason: reason(other, location),
            },
        }
    }
}

fn found(unexpected: &str) -> String {
    match unexpected {
        "unit value" => "nothing".to_owned(),
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        other => other.to_owned(),
    }
}

fn kind(expected: &str) -> String {
    match expected {
        "mapping start" => "a mapping".to_owned(),
        "sequence start" => "a list".to_owned(),
        "string scalar" => "a string".to_owned(),
        other => other.to_owned(),
    }
}

/// The parser's words without the position, which ours begin with.
fn reason(error: &serde_saphyr::Error, location: Location) -> String {
    let text = error.to_string();
    let position = format!(" at line {}, column {}", location.line(), location.column());
    text.replace(&position, "")
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |word| format!(", did you mean `{word}`?"))
}

/// The most similar word, if it is similar enough to have been meant.
fn nearest(written: &str, words: &[&'static str]) -> Option<&'static str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let written = plain(written);
    let distance = |word: &str| strsim::osa_distance(&written, &plain(word));
    let best = words.iter().copied().min_by_key(|word| distance(word))?;
    (distance(best) <= 1 + written.chars().count() / 4).then_some(best)
}
