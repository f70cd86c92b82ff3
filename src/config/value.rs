//! Texts → values: one kind for each form a setting may take, with the words that describe it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::limits::{DURATION_MAX, RESOURCE_NAME_BYTES_MAX, SHARDS_MAX};
use super::{ForwardTarget, ServiceAccountRef};
use crate::model::workload::WorkloadInfo;

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
        if text == self.0 { Some(None) } else { self.1.parse(text).map(Some) }
    }

    fn expected(&self) -> String {
        format!("{} or `{}`", self.1.expected(), self.0)
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| self.0.to_owned(), |value| self.1.show(value))
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
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone())
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
        self.0.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect()
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

/// `ADDRESS:PORT`.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn expected(&self) -> String {
        "an address with a port such as `127.0.0.1:15008` or `[::1]:15008`".to_owned()
    }

    fn show(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}

/// Several addresses, separated by commas.
pub(super) struct Addresses;

impl Kind for Addresses {
    type Value = Vec<SocketAddr>;

    fn parse(&self, text: &str) -> Option<Vec<SocketAddr>> {
        text.split(',').map(|part| part.trim().parse().ok()).collect()
    }

    fn expected(&self) -> String {
        "addresses with ports such as `127.0.0.1:15000`".to_owned()
    }

    fn show(&self, value: &Vec<SocketAddr>) -> String {
        let texts: Vec<_> = value.iter().map(ToString::to_string).collect();
        texts.join(",")
    }
}

/// `NAMESPACE/NAME/SERVICEACCOUNT`.
pub(super) struct WorkloadName;

impl Kind for WorkloadName {
    type Value = WorkloadInfo;

    fn parse(&self, text: &str) -> Option<WorkloadInfo> {
        let [namespace, name, service_account] = parts(text)?;
        Some(WorkloadInfo { name, namespace, service_account })
    }

    fn expected(&self) -> String {
        "NAMESPACE/NAME/SERVICEACCOUNT".to_owned()
    }

    fn show(&self, value: &WorkloadInfo) -> String {
        format!("{}/{}/{}", value.namespace, value.name, value.service_account)
    }
}

/// `NAMESPACE/SERVICEACCOUNT`.
pub(super) struct Account;

impl Kind for Account {
    type Value = ServiceAccountRef;

    fn parse(&self, text: &str) -> Option<ServiceAccountRef> {
        let [namespace, service_account] = parts(text)?;
        Some(ServiceAccountRef { namespace, service_account })
    }

    fn expected(&self) -> String {
        "NAMESPACE/SERVICEACCOUNT".to_owned()
    }

    fn show(&self, value: &ServiceAccountRef) -> String {
        format!("{}/{}", value.namespace, value.service_account)
    }
}

/// Exactly `N` non-empty names between slashes.
fn parts<const N: usize>(text: &str) -> Option<[Arc<str>; N]> {
    let names: Option<Vec<_>> = text
        .split('/')
        .map(|part| Name.parse(part).filter(|name| !name.is_empty()))
        .collect();
    names?.try_into().ok()
}

/// `ADDRESS:PORT` or `HOSTNAME:PORT`, port not 0.
pub(super) struct Target;

impl Kind for Target {
    type Value = ForwardTarget;

    fn parse(&self, text: &str) -> Option<ForwardTarget> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let usable = address.port() != 0 && !address.ip().is_unspecified();
            return usable.then_some(ForwardTarget::Address(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port: &u16| *port != 0)?;
        is_hostname(host).then(|| ForwardTarget::Hostname(host.into(), port))
    }

    fn expected(&self) -> String {
        "a destination such as `10.0.0.1:5432` or `db.default.example:5432`".to_owned()
    }

    fn show(&self, value: &ForwardTarget) -> String {
        match value {
            ForwardTarget::Address(address) => address.to_string(),
            ForwardTarget::Hostname(host, port) => format!("{host}:{port}"),
        }
    }
}

/// RFC 1123 §2.1, with the underscore that service names use, and not all digits and dots.
fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253
        && text.split('.').all(label)
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// A CPU quantity as Kubernetes writes it: `2`, `1.5`, `500m`. Rounded up.
pub(super) struct Cpus;

impl Kind for Cpus {
    type Value = usize;

    fn parse(&self, text: &str) -> Option<usize> {
        let cpus = match text.strip_suffix('m') {
            Some(thousandths) => thousandths.parse::<f64>().ok()? / 1000.0,
            None => text.parse::<f64>().ok()?,
        };
        // Counting up needs no cast from float: the bound is small.
        (cpus > 0.0).then(|| (1..=SHARDS_MAX).find(|count| cpus <= as_float(*count)))?
    }

    fn expected(&self) -> String {
        format!("a number of CPUs such as `2`, `1.5` or `500m`, up to {SHARDS_MAX}")
    }

    fn show(&self, value: &usize) -> String {
        value.to_string()
    }
}

fn as_float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// How many shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShardRule {
    /// As many as CPUs.
    Cpus,
    /// This many.
    Count(usize),
    /// This part of the CPUs.
    Percent(usize),
}

/// `0`, a number, or `NN%`.
pub(super) struct ShardCount;

impl Kind for ShardCount {
    type Value = ShardRule;

    fn parse(&self, text: &str) -> Option<ShardRule> {
        if let Some(percent) = text.strip_suffix('%') {
            return Integer(1..=100).parse(percent).map(ShardRule::Percent);
        }
        match Integer(0..=SHARDS_MAX).parse(text)? {
            0 => Some(ShardRule::Cpus),
            count => Some(ShardRule::Count(count)),
        }
    }

    fn expected(&self) -> String {
        format!("a number of threads from 0 to {SHARDS_MAX}, or a percentage from `1%` to `100%`")
    }

    fn show(&self, value: &ShardRule) -> String {
        match value {
            ShardRule::Cpus => "0".to_owned(),
            ShardRule::Count(count) => count.to_string(),
            ShardRule::Percent(percent) => format!("{percent}%"),
        }
    }
}

/// A power of two within bounds.
pub(super) struct PowerOfTwo(pub(super) RangeInclusive<u32>);

impl Kind for PowerOfTwo {
    type Value = u32;

    fn parse(&self, text: &str) -> Option<u32> {
        text.parse().ok().filter(|n: &u32| n.is_power_of_two() && self.0.contains(n))
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
