//! Reads what a node logged in its plain form: time, level, scope, message and fields between tabs.

/// One line of a node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) scope: String,
    pub(super) message: String,
    fields: Vec<(String, String)>,
}

impl Line {
    /// Takes a line apart; `None` for anything that is no log line, such as a panic's text.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(5, '\t');
        let (_time, _level) = (parts.next()?, parts.next()?);
        let (scope, message) = (parts.next()?, parts.next()?);
        Some(Self {
            scope: scope.to_owned(),
            message: message.to_owned(),
            fields: fields(parts.next().unwrap_or_default()),
        })
    }

    /// Value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the field has that value.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.field(name) == Some(value)
    }
}

/// Splits `a=1 b="two words"`.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(' ').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        fields.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    fields
}

/// Reads up to the closing quote, undoing Rust's escapes; returns what follows the quote too.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other)) => value.push(other),
                None => {}
            },
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-01-01T00:00:00.000001Z\tinfo\taccess\tconnection complete\t\
        src.addr=127.0.0.1:40000 src.identity=\"spiffe://cluster.local/ns/a/sa/c\" bytes_sent=11 \
        error=\"a \\\"quoted\\\" word\" duration=\"3ms\"";

    #[test]
    fn an_access_line_is_taken_apart() {
        let line = Line::parse(LINE).unwrap();
        assert_eq!(
            (line.scope.as_str(), line.message.as_str()),
            ("access", "connection complete")
        );
        assert_eq!(line.field("src.addr"), Some("127.0.0.1:40000"));
        assert!(line.has("src.identity", "spiffe://cluster.local/ns/a/sa/c"));
        assert_eq!(line.field("error"), Some("a \"quoted\" word"));
        assert_eq!(line.field("duration"), Some("3ms"));
        assert_eq!(line.field("bytes_recv"), None);
    }

    #[test]
    fn lines_without_fields_and_foreign_text_are_told_apart() {
        let bare = Line::parse("t\tinfo\tapp\tready\t").unwrap();
        assert_eq!((bare.message.as_str(), bare.field("a")), ("ready", None));
        assert_eq!(Line::parse("thread 'main' panicked at src/x.rs"), None);
        assert_eq!(Line::parse(""), None);
    }
}
