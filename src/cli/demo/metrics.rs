//! Reads samples from a node's metrics page.

/// One sample of a page in the Prometheus or OpenMetrics text format.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: u64,
}

/// Sum of all whole-numbered samples called `name` whose labels have these values.
pub(super) fn sum(page: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let matching = page.lines().filter_map(parse).filter(|sample| {
        sample.name == name
            && labels.iter().all(|(label, value)| {
                sample
                    .labels
                    .iter()
                    .any(|(own, text)| own == label && text == value)
            })
    });
    matching.map(|sample| sample.value).sum()
}

/// The first value of `label` in a sample called `name`.
pub(super) fn label(page: &str, name: &str, label: &str) -> Option<String> {
    let mut samples = page
        .lines()
        .filter_map(parse)
        .filter(|sample| sample.name == name);
    samples.find_map(|sample| {
        sample
            .labels
            .into_iter()
            .find(|(own, _)| *own == label)
            .map(|(_, text)| text)
    })
}

/// Number of samples on a page.
pub(super) fn count(page: &str) -> usize {
    page.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .count()
}

fn parse(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = parse_labels(rest)?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, Vec::new(), rest)
        }
    };
    let value = rest.split_whitespace().next()?;
    // Counts are printed as whole numbers; what is not (a duration) is of no use here.
    let value = value.strip_suffix(".0").unwrap_or(value).parse().ok()?;
    Some(Sample {
        name,
        labels,
        value,
    })
}

/// Reads `a="1",b="2"} 3` up to the brace.
fn parse_labels(mut text: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches(',');
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name, value));
        text = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP x Bytes.\n# TYPE x counter\n\
        x_total{reporter=\"source\",who=\"a\"} 5\n\
        x_total{reporter=\"source\",who=\"b, \\\"c\\\"\"} 7\n\
        x_total{reporter=\"destination\",who=\"a\"} 100 1700000000.5\n\
        up 1\nempty{} 2.0\n# EOF\n";

    #[test]
    fn samples_are_summed_by_their_labels() {
        assert_eq!(sum(PAGE, "x_total", &[("reporter", "source")]), 12);
        assert_eq!(sum(PAGE, "x_total", &[("who", "a")]), 105);
        assert_eq!(sum(PAGE, "x_total", &[("who", "b, \"c\"")]), 7);
        assert_eq!(sum(PAGE, "x_total", &[("who", "d")]), 0);
        assert_eq!(sum(PAGE, "up", &[]), 1);
        assert_eq!(sum(PAGE, "empty", &[]), 2);
        assert_eq!(count(PAGE), 5);
    }

    #[test]
    fn a_label_of_a_sample_is_found() {
        assert_eq!(
            label(PAGE, "x_total", "reporter").as_deref(),
            Some("source")
        );
        assert_eq!(label(PAGE, "x_total", "nobody"), None);
    }

    #[test]
    fn damaged_lines_count_as_nothing() {
        for line in ["x{a=\"1} 2", "x{a=1} 2", "x", "x y", "x 0.25", "x{a=\"1\"}"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
