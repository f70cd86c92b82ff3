//! Reads access-log lines in the plain format: tab-separated time, level, scope, message, fields.

use std::collections::BTreeMap;

use crate::metrics::parse_quoted;

/// One access-log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLine {
    /// `info`, `error`, ...
    pub level: String,
    /// `connection complete`, `connection opened`, `connection failed`.
    pub message: String,
    /// Fields without quotes.
    pub fields: BTreeMap<String, String>,
}

impl AccessLine {
    /// Value of a field; empty if it is absent.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Whether the line carries all of `fields`.
    #[must_use]
    pub fn has(&self, fields: &[(&str, &str)]) -> bool {
        fields
            .iter()
            .all(|(name, value)| self.field(name) == *value)
    }
}

/// All access-log lines of a node's output; other lines are passed over.
#[must_use]
pub fn parse(output: &str) -> Vec<AccessLine> {
    output.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<AccessLine> {
    let mut parts = line.splitn(5, '\t');
    let (_time, level, scope, message) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if scope != "access" {
        return None;
    }
    let fields = parse_fields(parts.next()?)?;
    Some(AccessLine {
        level: level.to_owned(),
        message: message.to_owned(),
        fields,
    })
}

fn parse_fields(mut rest: &str) -> Option<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    while !rest.trim_start().is_empty() {
        let (key, after) = rest.trim_start().split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => parse_quoted(quoted)?,
            None => {
                let end = after.find(' ').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        fields.insert(key.to_owned(), value);
        rest = after;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-01-01T00:00:00.000001Z\tinfo\taccess\tconnection complete\t\
        src.addr=10.1.0.2:40000 src.workload=\"client \\\"0\\\"\" direction=\"outbound\" bytes_sent=11";

    #[test]
    fn quoted_and_bare_fields_are_read() {
        let lines = parse(&format!("noise\n{LINE}\n2026\tinfo\tother\tx\ta=1\n"));
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(
            (line.level.as_str(), line.message.as_str()),
            ("info", "connection complete")
        );
        assert_eq!(line.field("src.workload"), "client \"0\"");
        assert!(line.has(&[("src.addr", "10.1.0.2:40000"), ("bytes_sent", "11")]));
        assert!(!line.has(&[("bytes_sent", "12")]));
        assert_eq!(line.field("error"), "");
    }
}
