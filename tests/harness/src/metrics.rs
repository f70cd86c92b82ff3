//! Reads a metrics page.

use std::collections::BTreeMap;

/// Samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

/// One sample line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Sample name, with its suffix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Metrics {
    /// Parses a page.
    ///
    /// # Panics
    /// If a line is not valid exposition text.
    #[must_use]
    pub fn parse(page: &str) -> Self {
        let lines = page
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| parse_sample(line).unwrap_or_else(|| panic!("not a sample: {line}")))
            .collect();
        Self { samples }
    }

    /// All samples of that name.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name)
    }

    /// Sum over the samples of that name which carry all of `labels`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).map(String::as_str) == Some(*value)
            };
            labels.iter().all(has)
        };
        self.samples(name)
            .filter(matches)
            .map(|sample| sample.value)
            .sum()
    }
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = parse_labels(rest)?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, BTreeMap::new(), rest)
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Parses up to and including the closing brace; returns what follows it.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(after)?;
        labels.insert(key.to_owned(), value);
        rest = after;
    }
}

/// Parses a quoted value whose opening quote has been read.
pub(crate) fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\",y=\"\"} 2\na_total{x=\"2\",y=\"q\\\"}\"} 3\nb 4\n# EOF\n";

    #[test]
    fn samples_are_summed_over_the_given_labels() {
        let metrics = Metrics::parse(PAGE);
        assert!((metrics.sum("a_total", &[]) - 5.0).abs() < 1e-9);
        assert!((metrics.sum("a_total", &[("x", "2")]) - 3.0).abs() < 1e-9);
        assert!((metrics.sum("b", &[]) - 4.0).abs() < 1e-9);
        assert!(metrics.sum("a_total", &[("x", "3")]).abs() < 1e-9);
    }

    #[test]
    fn escaped_label_values_are_read() {
        let metrics = Metrics::parse(PAGE);
        assert!(metrics.samples("a_total").any(|s| s.labels["y"] == "q\"}"));
    }

    #[test]
    #[should_panic(expected = "not a sample")]
    fn a_broken_line_fails_the_test() {
        let _ = Metrics::parse("a{x=\"1} 2\n");
    }
}
