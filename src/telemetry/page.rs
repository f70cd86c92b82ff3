//! The text of a metrics page in the OpenMetrics format.

use std::time::Duration;

use super::families::{self, Family, Kind};
use super::histogram::Merged;
use super::line::push_display;

/// A page being written. A family without a sample leaves no trace.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// Writes the samples of one family.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

impl Page {
    /// Writes one family: its head, then the samples `write` adds. Without samples nothing stays.
    pub fn family(&mut self, family: &'static Family, write: impl FnOnce(&mut Samples<'_>)) {
        let start = self.text.len();
        self.head(family);
        let samples = self.text.len();
        write(&mut Samples {
            text: &mut self.text,
            family,
        });
        if self.text.len() == samples {
            self.text.truncate(start);
        }
    }

    fn head(&mut self, family: &Family) {
        let Family { name, help, .. } = family;
        let unstable = if family.stable { "" } else { " (unstable)" };
        push_display(
            &mut self.text,
            format_args!("# HELP {name} {help}{unstable}.\n"),
        );
        push_display(
            &mut self.text,
            format_args!("# TYPE {name} {}\n", family.kind.as_str()),
        );
        if let Some(unit) = family.unit {
            push_display(&mut self.text, format_args!("# UNIT {name} {unit}\n"));
        }
    }

    /// Writes a family whose samples are text already. Its head comes from the list of families; one
    /// that is not listed is still shown, without help.
    pub fn recorded(&mut self, name: &str, kind: &str, samples: &[&str]) {
        if samples.is_empty() {
            return;
        }
        if let Some(family) = families::by_name(name) {
            self.head(family);
        } else {
            push_display(
                &mut self.text,
                format_args!("# HELP {name} {name} (unstable).\n"),
            );
            push_display(&mut self.text, format_args!("# TYPE {name} {kind}\n"));
        }
        for sample in samples {
            self.text.push_str(sample);
            self.text.push('\n');
        }
    }

    /// The whole page, with its end mark.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }
}

impl Samples<'_> {
    fn name(&mut self) {
        self.text.push_str(self.family.name);
        if self.family.kind == Kind::Counter {
            self.text.push_str("_total");
        }
    }

    /// A sample with label values in the order of the family's label names.
    pub fn sample(&mut self, values: &[&str], value: impl std::fmt::Display) {
        self.name();
        self.labels(values, None);
        push_display(self.text, format_args!(" {value}\n"));
    }

    /// A sample whose label text is given in pieces, ready escaped.
    pub(super) fn ready(&mut self, labels: [&str; 3], value: u64) {
        self.name();
        self.text.push('{');
        for piece in labels {
            self.text.push_str(piece);
        }
        push_display(self.text, format_args!("}} {value}\n"));
    }

    /// A histogram with these bucket bounds, then its sum and count.
    pub fn histogram(&mut self, values: &[&str], merged: &Merged, bounds: &[Duration]) {
        let name = self.family.name;
        for (bound, count) in bounds.iter().zip(merged.cumulative(bounds)) {
            push_display(self.text, format_args!("{name}_bucket"));
            self.labels(values, Some(&bound.as_secs_f64().to_string()));
            push_display(self.text, format_args!(" {count}\n"));
        }
        let count = merged.count();
        push_display(self.text, format_args!("{name}_bucket"));
        self.labels(values, Some("+Inf"));
        push_display(self.text, format_args!(" {count}\n{name}_sum"));
        self.labels(values, None);
        push_display(
            self.text,
            format_args!(" {}\n{name}_count", merged.sum().as_secs_f64()),
        );
        self.labels(values, None);
        push_display(self.text, format_args!(" {count}\n"));
    }

    fn labels(&mut self, values: &[&str], le: Option<&str>) {
        assert_eq!(
            values.len(),
            self.family.labels.len(),
            "label count of {}",
            self.family.name
        );
        let pairs = self
            .family
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied());
        let mut separator = '{';
        for (name, value) in pairs.chain(le.map(|le| ("le", le))) {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(self.text, value);
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
    }
}

/// Appends a label value; `"`, `\` and line ends are escaped, other control characters replaced, so
/// that no value can break the page.
pub(super) fn push_escaped(out: &mut String, value: &str) {
    if !value
        .bytes()
        .any(|byte| byte == b'"' || byte == b'\\' || byte.is_ascii_control())
    {
        out.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_ascii_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
}
