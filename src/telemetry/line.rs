//! Framing of one log line, plain or JSON (spec: telemetry 3.1). Shared by access and control logs.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use time::OffsetDateTime;

/// Shape of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineFormat {
    /// Fields separated by tabs.
    #[default]
    Plain,
    /// One JSON object.
    Json,
}

/// Severity of a line, or the most verbose severity let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    Off,
    /// Failures.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened.
    Info,
    /// What happened, in detail.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All, from silent to verbose.
    pub const ALL: [Self; 6] = [
        Self::Off,
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// Lower-case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A span around an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanText {
    /// Name.
    pub name: &'static str,
    /// Its fields, written by [`Fields`] in the shape of the line.
    pub fields: String,
}

/// Fields of an event or a span, in order, in one shape.
#[derive(Debug)]
pub struct Fields<'a> {
    out: &'a mut String,
    format: LineFormat,
    separator: bool,
}

impl<'a> Fields<'a> {
    /// Appends to `out`, which holds no field yet.
    #[must_use]
    pub const fn new(out: &'a mut String, format: LineFormat) -> Self {
        Self {
            out,
            format,
            separator: false,
        }
    }

    /// Appends to `out`, which may hold fields already.
    #[must_use]
    pub const fn more(out: &'a mut String, format: LineFormat) -> Self {
        let separator = !out.is_empty();
        Self {
            out,
            format,
            separator,
        }
    }

    fn key(&mut self, key: &str) {
        match self.format {
            LineFormat::Plain => {
                if self.separator {
                    self.out.push(' ');
                }
                self.out.push_str(key);
                self.out.push('=');
            }
            LineFormat::Json => {
                if self.separator {
                    self.out.push(',');
                }
                push_json_string(self.out, key);
                self.out.push(':');
            }
        }
        self.separator = true;
    }

    /// A string: quoted, with Rust's debug escapes in the plain shape.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        match self.format {
            LineFormat::Plain => push_display(self.out, format_args!("{value:?}")),
            LineFormat::Json => push_json_string(self.out, value),
        }
        self
    }

    /// A value with a text form of its own: bare in the plain shape unless that would break the line
    /// apart, a JSON string.
    pub fn bare(&mut self, key: &str, value: impl Display) -> &mut Self {
        let value = value.to_string();
        let breaks = |c: char| c.is_control() || c.is_whitespace() || c == '"';
        if self.format == LineFormat::Json || value.is_empty() || value.contains(breaks) {
            return self.text(key, &value);
        }
        self.key(key);
        self.out.push_str(&value);
        self
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: impl Display) -> &mut Self {
        self.key(key);
        push_display(self.out, value);
        self
    }

    /// Fields that were written before, in the same shape.
    pub fn written(&mut self, fields: &str) {
        if self.separator && !fields.is_empty() {
            self.out.push(match self.format {
                LineFormat::Plain => ' ',
                LineFormat::Json => ',',
            });
        }
        self.out.push_str(fields);
        self.separator |= !fields.is_empty();
    }

    fn json_span(&mut self, span: &SpanText) {
        self.key(span.name);
        self.out.push('{');
        self.out.push_str(&span.fields);
        self.out.push('}');
    }
}

/// Opening of a line: everything known before its fields.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// When.
    pub time: SystemTime,
    /// How severe.
    pub level: Level,
    /// Module or topic, e.g. `access`.
    pub target: &'a str,
    /// Spans around it, outermost first.
    pub spans: &'a [SpanText],
    /// What happened.
    pub message: Option<&'a str>,
}

/// Prefix of our own module paths, not printed in the plain shape.
const OWN_PREFIX: &str = concat!(env!("CARGO_PKG_NAME"), "::");

/// Appends one whole line, with its end, to `out`. `fields` is called once, unless `has_fields` is
/// false.
pub fn push_line(
    out: &mut String,
    format: LineFormat,
    head: &Head<'_>,
    has_fields: bool,
    fields: impl FnOnce(&mut Fields<'_>),
) {
    match format {
        LineFormat::Plain => {
            push_time(out, head.time);
            let scope = head.target.strip_prefix(OWN_PREFIX).unwrap_or(head.target);
            push_display(out, format_args!("\t{}\t{scope}", head.level.as_str()));
            for span in head.spans {
                push_display(out, format_args!(":{}", span.name));
                if !span.fields.is_empty() {
                    push_display(out, format_args!("{{{}}}", span.fields));
                }
            }
            if head.message.is_some() || has_fields {
                out.push('\t');
            }
            if let Some(message) = head.message {
                push_message(out, message);
                out.push('\t');
            }
            if has_fields {
                fields(&mut Fields::new(out, format));
            }
        }
        LineFormat::Json => {
            push_display(
                out,
                format_args!("{{\"level\":\"{}\",\"time\":\"", head.level.as_str()),
            );
            push_time(out, head.time);
            out.push_str("\",\"scope\":");
            push_json_string(out, head.target);
            let mut members = Fields::more(out, format);
            if let Some(message) = head.message {
                members.text("message", message);
            }
            if has_fields {
                fields(&mut members);
            }
            for span in head.spans {
                members.json_span(span);
            }
            out.push('}');
        }
    }
    out.push('\n');
}

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`, UTC.
fn push_time(out: &mut String, time: SystemTime) {
    let utc = OffsetDateTime::from(time);
    push_display(
        out,
        format_args!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            utc.year(),
            u8::from(utc.month()),
            utc.day(),
            utc.hour(),
            utc.minute(),
            utc.second(),
            utc.microsecond()
        ),
    );
}

/// Appends the text form of a value.
pub(super) fn push_display(out: &mut String, value: impl Display) {
    // Writing into a string cannot fail; a failing Display only shortens the value.
    let _ = write!(out, "{value}");
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => push_display(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends a message; control characters, which would break the line apart, are escaped.
fn push_message(out: &mut String, message: &str) {
    for c in message.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests;
