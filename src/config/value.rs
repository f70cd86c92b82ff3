//! Texts → values: one kind for each form a setting may take, with the words that describe it.

mod address;
mod cpus;
mod server;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{DURATION_MAX, RESOURCE_NAME_BYTES_MAX};

pub(super) use address::{Account, Address, Addresses, Target, WorkloadName};
pub(super) use cpus::{Cpus, ShardCount, ShardRule};
pub(super) use server::{Headers, Roots, SecretText, Server, header};

/// A form of value.
pub(super) trait Kind {
    /// What it gives.
    type Value: Clone;
    /// The value, if `text` has this form.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// Completes "expected …".
    fn expected(&self) -> String;
    /// A text that parses to `value`.
    fn show(&self, value: &Self::Value) -> String;
    /// The words that are valid, where they are few.
    fn words(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// Exactly `true` or `false`.
pub(super) struct Bool;

impl Kind for Bool {
    type Value = bool;

    fn parse(&self, text: &str) -> Option<bool> {
        match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    fn expected(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }

    fn words(&self) -> Vec<&'static str> {
        vec!["true", "false"]
    }
}

/// A whole number within bounds.
pub(super) struct Integer<T>(pub(super) RangeInclusive<T>);

impl<T: FromStr + PartialOrd + Display + Clone> Kind for Integer<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Option<T> {
        text.parse().ok().filter(|number| self.0.contains(number))
    }

    fn expected(&self) -> String {
        format!("an integer from {} to {}", self.0.start(), self.0.end())
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// Another kind, or one word for "none".
pub(super) struct Or<K>(pub(super) &'static str, pub(super) K);

impl<K: Kind> Kind for Or<K> {
    type Value = Option<K::Value>;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        if text == self.0 {
            Some(None)
        } else {
            self.1.parse(text).map(Some)
        }
    }

    fn expected(&self) -> String {
        format!("{} or `{}`", self.1.expected(), self.0)
    }

    fn show(&self, value: &Self::Value) -> String {
        value
            .as_ref()
            .map_or_else(|| self.0.to_owned(), |value| self.1.show(value))
    }
}

/// A duration within bounds: `5s`, `1h 5m`, or a bare number of seconds.
pub(super) struct Span(pub(super) RangeInclusive<Duration>);

impl Span {
    /// Any duration above zero.
    pub(super) const fn positive() -> Self {
        Self(Duration::from_millis(1)..=DURATION_MAX)
    }
}

impl Kind for Span {
    type Value = Duration;

    fn parse(&self, text: &str) -> Option<Duration> {
        let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
        let duration = seconds.or_else(|| humantime::parse_duration(text).ok())?;
        self.0.contains(&duration).then_some(duration)
    }

    fn expected(&self) -> String {
        let (from, to) = (self.show(self.0.start()), self.show(self.0.end()));
        format!("a duration such as `5s` or `1m30s`, from {from} to {to}")
    }

    fn show(&self, value: &Duration) -> String {
        humantime::format_duration(*value).to_string()
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Clone + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Option<T> {
        self.0
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| value.clone())
    }

    fn expected(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("`{word}`")).collect();
        format!("one of {}", words.join(", "))
    }

    fn show(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, other)| other == value);
        word.map_or("", |(word, _)| word).to_owned()
    }

    fn words(&self) -> Vec<&'static str> {
        self.0
            .iter()
            .map(|(word, _)| *word)
            .filter(|word| !word.is_empty())
            .collect()
    }
}

/// A share from 0 to 1, as parts of a million.
pub(super) struct PerMillion;

impl PerMillion {
    /// Everything.
    pub(super) const ALL: u32 = 1_000_000;
}

impl Kind for PerMillion {
    type Value = u32;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to a million by the guard"
    )]
    fn parse(&self, text: &str) -> Option<u32> {
        let share: f64 = text.parse().ok()?;
        (0.0..=1.0)
            .contains(&share)
            .then(|| (share * f64::from(Self::ALL)).round() as u32)
    }

    fn expected(&self) -> String {
        "a number from 0 to 1".to_owned()
    }

    fn show(&self, value: &u32) -> String {
        (f64::from(*value) / f64::from(Self::ALL)).to_string()
    }
}

/// A name that goes into headers, labels and logs: no control characters, bounded.
pub(super) struct Name;

impl Kind for Name {
    type Value = Arc<str>;

    fn parse(&self, text: &str) -> Option<Arc<str>> {
        let fits = text.len() <= RESOURCE_NAME_BYTES_MAX && !text.chars().any(char::is_control);
        fits.then(|| text.into())
    }

    fn expected(&self) -> String {
        format!("a text of up to {RESOURCE_NAME_BYTES_MAX} bytes without control characters")
    }

    fn show(&self, value: &Arc<str>) -> String {
        value.to_string()
    }
}

/// A text of any length and content.
pub(super) struct AnyText;

impl Kind for AnyText {
    type Value = Arc<str>;

    fn parse(&self, text: &str) -> Option<Arc<str>> {
        Some(text.into())
    }

    fn expected(&self) -> String {
        "a text".to_owned()
    }

    fn show(&self, value: &Arc<str>) -> String {
        // Such a text may be a whole document; operators want to know that it is there.
        format!("({} bytes)", value.len())
    }
}

/// A path of a file or folder.
pub(super) struct PathText;

impl Kind for PathText {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Option<PathBuf> {
        (!text.is_empty() && !text.contains('\0')).then(|| text.into())
    }

    fn expected(&self) -> String {
        "a path".to_owned()
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }
}

/// A power of two within bounds.
pub(super) struct PowerOfTwo(pub(super) RangeInclusive<u32>);

impl Kind for PowerOfTwo {
    type Value = u32;

    fn parse(&self, text: &str) -> Option<u32> {
        text.parse()
            .ok()
            .filter(|n: &u32| n.is_power_of_two() && self.0.contains(n))
    }

    fn expected(&self) -> String {
        format!("a power of two from {} to {}", self.0.start(), self.0.end())
    }

    fn show(&self, value: &u32) -> String {
        value.to_string()
    }
}

/// Directives of a log filter.
pub(super) struct LogDirectives;

impl Kind for LogDirectives {
    type Value = Arc<str>;

    fn parse(&self, text: &str) -> Option<Arc<str>> {
        let parsed = text.parse::<tracing_subscriber::filter::EnvFilter>();
        parsed.is_ok().then(|| text.into())
    }

    fn expected(&self) -> String {
        "LEVEL or TARGET=LEVEL, separated by commas; levels: off, error, warn, info, debug, trace"
            .to_owned()
    }

    fn show(&self, value: &Arc<str>) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests;
