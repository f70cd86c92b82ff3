//! What is wrong with a configuration, where, and what would be right.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value comes from, in falling precedence: flag, environment, own file, mesh file, default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--set NAME=VALUE`.
    Flag(String),
    /// Environment variable.
    Env(String),
    /// Inside the text of `PROXY_CONFIG`.
    ProxyConfig(Position),
    /// Own configuration file.
    File(Arc<PathBuf>, Position),
    /// `./etc/istio/config/mesh`.
    MeshFile(Arc<PathBuf>, Position),
    /// Nobody set it.
    Default,
}

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Position {
    /// The beginning of a text, for what concerns all of it.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Origin {
    /// Higher wins. The environment includes `PROXY_CONFIG`, a variable set for a purpose comes first.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Flag(_) => 5,
            Self::Env(_) => 4,
            Self::ProxyConfig(_) => 3,
            Self::File(..) => 2,
            Self::MeshFile(..) => 1,
            Self::Default => 0,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--set {name}"),
            Self::Env(name) => f.write_str(name),
            Self::ProxyConfig(at) => write!(f, "PROXY_CONFIG:{at}"),
            Self::File(path, at) | Self::MeshFile(path, at) => {
                write!(f, "{}:{at}", path.display())
            }
            Self::Default => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// Name of the setting; empty when the place says it all.
    pub setting: String,
    /// What.
    pub kind: ProblemKind,
}

/// Kinds of problems.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// A file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Not UTF-8.
    #[error("is not UTF-8 text")]
    NotText,
    /// Not YAML.
    #[error("{0}")]
    Syntax(String),
    /// No setting has this name.
    #[error("unknown key{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// The valid name nearest to it.
        nearest: Option<String>,
    },
    /// A mapping where a value is needed, or the reverse.
    #[error("found {found}, expected {expected}")]
    Shape {
        /// What is there.
        found: &'static str,
        /// What should be there.
        expected: String,
    },
    /// The text is not a value of the setting.
    #[error("`{value}` is not {expected}{}", did_you_mean(.nearest.as_deref()))]
    Invalid {
        /// The text, cut when long.
        value: String,
        /// What is valid.
        expected: String,
        /// The valid word nearest to it.
        nearest: Option<String>,
    },
    /// Nothing was given and there is no default.
    #[error("missing, expected {expected}")]
    Missing {
        /// What is valid.
        expected: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Conflict(String),
    /// The setting asks for something this program does not have.
    #[error("{what} is not part of this version; {instead}")]
    NotBuilt {
        /// What was asked for.
        what: String,
        /// What to do.
        instead: &'static str,
    },
    /// Warning: has no effect.
    #[error("has no effect: {0}")]
    NoEffect(&'static str),
    /// Warning: a variable of one of our families that means nothing.
    #[error("unknown variable{}", did_you_mean(.nearest.as_deref()))]
    UnknownVariable {
        /// The valid name nearest to it.
        nearest: Option<String>,
    },
    /// Warning: valid, with a consequence that may surprise.
    #[error("{0}")]
    Surprise(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean `{name}`?"))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.origin.to_string();
        // A variable or flag that is named by its place need not be named twice.
        if self.setting.is_empty() || place == self.setting {
            write!(f, "{place}: {}", self.kind)
        } else {
            write!(f, "{place}: {}: {}", self.setting, self.kind)
        }
    }
}

/// All problems of a configuration, in the order they were found; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigErrors(pub Vec<Problem>);

impl ConfigErrors {
    fn lines(&self) -> String {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}

/// The candidate nearest to `word`, if one is near enough to be a slip of the finger.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near_enough = 1 + word.chars().count() / 4;
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&lower, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// `text` as it may stand in a message: one line, at most 60 characters, no control characters.
#[must_use]
pub fn excerpt(text: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LENGTH_MAX).map(clean).collect();
    if text.chars().count() > LENGTH_MAX {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognized_and_strangers_are_not() {
        let names = ["streamWindow", "connectionWindow", "frameSize"];
        assert_eq!(nearest("framesize", names).as_deref(), Some("frameSize"));
        assert_eq!(
            nearest("steramWindow", names).as_deref(),
            Some("streamWindow")
        );
        assert_eq!(nearest("colour", names), None);
    }

    #[test]
    fn excerpts_stay_on_one_short_line() {
        assert_eq!(excerpt("a\nb\u{1b}[1m"), "a b [1m");
        assert_eq!(excerpt(&"x".repeat(100)).chars().count(), 61);
    }

    #[test]
    fn a_variable_is_named_once_and_a_key_after_its_position() {
        let kind = ProblemKind::NotText;
        let of = |origin, setting: &str| Problem {
            origin,
            setting: setting.into(),
            kind: kind.clone(),
        };
        let variable = of(Origin::Env("NETWORK".into()), "NETWORK");
        assert_eq!(variable.to_string(), "NETWORK: is not UTF-8 text");
        let at = Position { line: 3, column: 7 };
        let file = Origin::File(Arc::new("c.yaml".into()), at);
        assert_eq!(
            of(file, "network").to_string(),
            "c.yaml:3:7: network: is not UTF-8 text"
        );
    }
}
