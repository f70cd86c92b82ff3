//! Which level each log target is let through at (spec: telemetry 3.2, admin 4).

use std::fmt;

use crate::telemetry::line::Level;

/// Always in front of what the operator asks for.
const PREFIX: &str = "hickory_server::server=off";

/// What the operator asks for by default.
const DEFAULT: &str = "info";

/// Why a filter text was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Neither `level` nor `target=level`.
    #[error(
        "`{0}`: expected `level` or `target=level`, level one of off, error, warn, info, debug, trace"
    )]
    Directive(String),
}

/// A level for each target, and one for the rest. The longest target that a line's target starts
/// with decides; without any, and without a default, a line is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Longest target first, then by name.
    targets: Vec<(String, Level)>,
    rest: Option<Level>,
}

fn level_of(text: &str) -> Option<Level> {
    Level::ALL.into_iter().find(|level| level.as_str() == text)
}

fn directive(text: &str) -> Option<(&str, Level)> {
    let (target, level) = text.split_once('=')?;
    let plain = |c: char| !c.is_whitespace() && !"[]{}=\"".contains(c);
    let level = level_of(&level.to_ascii_lowercase())?;
    (!target.is_empty() && target.chars().all(plain)).then_some((target, level))
}

impl Filter {
    /// The filter at start: `RUST_LOG`, or `info`, behind the directives that always apply. An empty
    /// `RUST_LOG` counts as unset.
    ///
    /// # Errors
    /// A directive is malformed.
    pub fn at_start(rust_log: Option<&str>) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        filter.add_strict(PREFIX)?;
        let wanted = rust_log.map(str::trim).filter(|text| !text.is_empty());
        for text in wanted.unwrap_or(DEFAULT).split(',').map(str::trim) {
            match level_of(&text.to_ascii_lowercase()) {
                Some(level) => filter.rest = Some(level),
                None => filter.add_strict(text)?,
            }
        }
        Ok(filter)
    }

    /// Adds directives; later ones win over earlier ones of the same target. A level of its own must
    /// be lower-case, one behind `=` need not.
    ///
    /// # Errors
    /// One is malformed; the filter is then of no use.
    pub fn add_strict(&mut self, directives: &str) -> Result<(), FilterError> {
        for text in directives.split(',') {
            if let Some(level) = level_of(text) {
                self.rest = Some(level);
            } else if let Some((target, level)) = directive(text) {
                self.set(target, level);
            } else {
                return Err(FilterError::Directive(text.to_owned()));
            }
        }
        Ok(())
    }

    fn set(&mut self, target: &str, level: Level) {
        self.targets.retain(|(known, _)| known != target);
        let order = |(known, _): &(String, Level)| {
            (std::cmp::Reverse(known.len()), known.as_str())
                < (std::cmp::Reverse(target.len()), target)
        };
        let at = self.targets.partition_point(order);
        self.targets.insert(at, (target.to_owned(), level));
    }

    /// Most verbose level of a target.
    #[must_use]
    pub fn level(&self, target: &str) -> Level {
        let own = self
            .targets
            .iter()
            .find(|(known, _)| target.starts_with(known.as_str()));
        own.map(|(_, level)| *level)
            .or(self.rest)
            .unwrap_or(Level::Off)
    }

    /// Most verbose level of any target.
    #[must_use]
    pub fn max(&self) -> Level {
        let levels = self
            .targets
            .iter()
            .map(|(_, level)| *level)
            .chain(self.rest);
        levels.max().unwrap_or(Level::Off)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (target, level) in &self.targets {
            write!(f, "{separator}{target}={}", level.as_str())?;
            separator = ",";
        }
        if let Some(level) = self.rest {
            write!(f, "{separator}{}", level.as_str())?;
        }
        Ok(())
    }
}
