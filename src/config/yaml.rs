//! YAML text → tree of texts with their positions. What a text means is for the reader to say.
//!
//! One document; scalars keep their spelling, so that `1.10` stays `1.10` and a value reads the same
//! in a file and in the environment. Tags are refused, aliases are copied, size and depth are bounded.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::problem::Position;

/// Nodes of a document, copies by alias included: stops documents that explode by aliases.
const NODES_MAX: usize = 100_000;
/// Nesting; bounds the recursion that drops a tree.
const DEPTH_MAX: usize = 64;

/// A node and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// `~`, `null` or nothing.
    Null,
    /// Any other scalar, as spelled.
    Text(String),
    List(Vec<Node>),
    /// Keys are unique.
    Map(Vec<(Name, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) at: Position,
    pub(super) text: String,
}

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct YamlError {
    pub(super) at: Position,
    pub(super) message: String,
}

impl Value {
    /// For messages.
    pub(super) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Parses one document; `None` when there is none.
///
/// # Errors
/// The first syntax error, or every duplicate key.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Vec<YamlError>> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| {
            vec![YamlError {
                at: position(*error.marker()),
                message: error.info(),
            }]
        })?;
        builder
            .event(event, position(span.start))
            .map_err(|error| vec![error])?;
    }
    if builder.duplicates.is_empty() {
        Ok(builder.root)
    } else {
        Err(builder.duplicates)
    }
}

/// The first key at the top of `text` that `wanted` likes, whatever stands below the keys.
pub(super) fn find_top_level_key(text: &str, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut depth = 0_usize;
    let mut is_key = true;
    for event in Parser::new_from_str(text)
        .map_while(Result::ok)
        .map(|(event, _)| event)
    {
        if matches!(event, Event::MappingStart(..) | Event::SequenceStart(..)) {
            depth += 1;
        } else if matches!(event, Event::MappingEnd | Event::SequenceEnd) {
            depth = depth.saturating_sub(1);
            is_key = true;
        } else if let Event::Scalar(text, ..) = event
            && depth == 1
        {
            if is_key && wanted(&text) {
                return Some(text.into_owned());
            }
            is_key = !is_key;
        }
    }
    None
}

fn position(mark: Marker) -> Position {
    Position {
        line: mark.line(),
        column: mark.col() + 1,
    }
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    name: Option<Name>,
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    documents: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    duplicates: Vec<YamlError>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), YamlError> {
        let fail = |message: &str| {
            Err(YamlError {
                at,
                message: message.to_owned(),
            })
        };
        if event.tag().is_some() {
            return fail("a tag has no meaning here");
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null {
                    Value::Null
                } else {
                    Value::Text(text.into_owned())
                };
                self.complete(Node { at, value }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Value::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.begin(Value::Map(Vec::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    let nodes = count(&open.node);
                    self.complete(open.node, open.anchor, nodes)
                }
                None => fail("the document ends twice"),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, nodes)) => {
                    self.nodes += nodes;
                    self.complete(Node { at, ..node }, 0, 1)
                }
                None => fail("an alias inside what it stands for"),
            },
            Event::UnresolvedAlias(_) => fail("an alias without an anchor"),
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    fail("a second document")
                } else {
                    Ok(())
                }
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..) => Ok(()),
            // The parser may learn events that are not values.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, value: Value, anchor: usize, at: Position) -> Result<(), YamlError> {
        if self.open.len() == DEPTH_MAX {
            return Err(YamlError {
                at,
                message: format!("more than {DEPTH_MAX} levels deep"),
            });
        }
        if let Some(Open {
            node: Node {
                value: Value::Map(_),
                ..
            },
            name: None,
            ..
        }) = self.open.last()
        {
            return Err(YamlError {
                at,
                message: "a key must be a single value".to_owned(),
            });
        }
        self.open.push(Open {
            node: Node { at, value },
            anchor,
            name: None,
        });
        Ok(())
    }

    /// Gives a finished node to the collection it belongs to.
    fn complete(&mut self, node: Node, anchor: usize, nodes: usize) -> Result<(), YamlError> {
        let at = node.at;
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(YamlError {
                at,
                message: format!("more than {NODES_MAX} values"),
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match (open.name.take(), node.value) {
                (Some(name), value) => {
                    if entries.iter().any(|(other, _)| other.text == name.text) {
                        let message = format!("{}: given twice", name.text);
                        self.duplicates.push(YamlError {
                            at: name.at,
                            message,
                        });
                    }
                    entries.push((name, Node { at, value }));
                }
                (None, Value::Text(text)) => open.name = Some(Name { at, text }),
                (None, Value::Null) => {
                    open.name = Some(Name {
                        at,
                        text: String::new(),
                    })
                }
                (None, Value::List(_) | Value::Map(_)) => {
                    let message = "a key must be a single value".to_owned();
                    return Err(YamlError { at, message });
                }
            },
            Value::Null | Value::Text(_) => {}
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Text(_) => 1,
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => {
            1 + entries
                .iter()
                .map(|(_, node)| 1 + count(node))
                .sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(Name, Node)> {
        let Value::Map(entries) = parse(text).unwrap().unwrap().value else {
            panic!("not a mapping: {text}")
        };
        entries
    }

    #[test]
    fn spelling_and_positions_are_kept() {
        let entries = entries("a: 1.10\nbb:\n  - 0x1F\n  - 'true'\n");
        assert_eq!(entries[0].0.at, Position { line: 1, column: 1 });
        assert_eq!(entries[0].1.at, Position { line: 1, column: 4 });
        assert_eq!(entries[0].1.value, Value::Text("1.10".into()));
        let Value::List(items) = &entries[1].1.value else {
            panic!("not a list")
        };
        assert_eq!(items[1].value, Value::Text("true".into()));
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
    }

    #[test]
    fn null_is_told_from_an_empty_text() {
        let entries = entries("a:\nb: ''\nc: ~");
        let values: Vec<_> = entries.into_iter().map(|(_, node)| node.value).collect();
        assert_eq!(
            values,
            [Value::Null, Value::Text(String::new()), Value::Null]
        );
    }

    #[test]
    fn every_duplicate_key_is_reported() {
        let errors = parse("a: 1\nb: 1\na: 2\nb: 2\n").unwrap_err();
        let lines: Vec<_> = errors.iter().map(|error| error.at.line).collect();
        assert_eq!(lines, [3, 4]);
    }

    #[test]
    fn documents_that_explode_by_aliases_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        let errors = parse(&text).unwrap_err();
        assert!(
            errors[0].message.contains("more than 100000 values"),
            "{errors:?}"
        );
    }

    #[test]
    fn keys_at_the_top_are_found_whatever_stands_below() {
        let text = "workloads:\n- {services: x}\npolicies: [[!Exact a]]\nmode: node\n";
        let find = |text, wanted| find_top_level_key(text, |key| key == wanted);
        assert!(find(text, "workloads").is_some() && find(text, "mode").is_some());
        assert!(find(text, "services").is_none() && find(text, "node").is_none());
        assert!(find("{\"services\": []}", "services").is_some());
        assert!(find("services", "services").is_none());
    }

    #[test]
    fn an_alias_copies_what_it_stands_for() {
        let entries = entries("a: &x {b: 1}\nc: *x\n");
        let Value::Map(inner) = &entries[1].1.value else {
            panic!("not a map")
        };
        assert_eq!(inner[0].1.value, Value::Text("1".into()));
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        for (text, fragment, line) in [
            ("a: [1", "", 1),
            ("a: !!int 1", "tag", 1),
            ("a: 1\n---\nb: 2\n", "second document", 2),
            ("[a]: 1", "key must be", 1),
            ("a: *b", "", 1),
            ("a: &x [*x]", "inside", 1),
            ("a: \"\\q\"", "", 1),
            ("a:\n\tb: 1", "", 2),
        ] {
            let errors = parse(text).unwrap_err();
            assert!(errors[0].message.contains(fragment), "{text}: {errors:?}");
            assert_eq!(errors[0].at.line, line, "{text}");
        }
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(&deep).unwrap_err()[0].message.contains("levels"));
        assert_eq!(parse("# nothing\n"), Ok(None));
    }
}
