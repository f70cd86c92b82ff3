//! Who we tell the control plane to be (spec: xds.md 2.2).

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, NullValue, Struct, Value};

use crate::config::server::NodeFacts;
use crate::proto::discovery::Node;

/// Address named when none is known; the control plane wants one.
const INSTANCE_IP_UNKNOWN: &str = "1.1.1.1";

/// An entry of the metadata that is no JSON, and was left out.
#[derive(Debug, thiserror::Error)]
#[error("ISTIO_METAJSON_{key} is no JSON and is left out: {source}")]
pub struct BadMetadata {
    /// Its key.
    pub key: String,
    /// The parser's words.
    #[source]
    pub source: serde_json::Error,
}

/// The message, and what had to be left out of it.
#[must_use]
pub fn node(facts: &NodeFacts) -> (Node, Vec<BadMetadata>) {
    let ip = facts.instance_ip.as_deref().unwrap_or(INSTANCE_IP_UNKNOWN);
    let (name, namespace) = (&facts.pod_name, &facts.pod_namespace);
    let mut fields = BTreeMap::from([
        ("NAME".to_owned(), text(name)),
        ("NAMESPACE".to_owned(), text(namespace)),
        ("INSTANCE_IPS".to_owned(), text(ip)),
        ("NODE_NAME".to_owned(), text(&facts.node_name)),
    ]);
    let metadata = facts.metadata.iter();
    fields.extend(metadata.map(|(key, value)| (key.to_string(), text(value))));
    let mut bad = Vec::new();
    for (key, json) in &facts.metadata_json {
        match serde_json::from_str(json) {
            Ok(parsed) => {
                fields.insert(key.to_string(), value(parsed));
            }
            Err(source) => bad.push(BadMetadata {
                key: key.to_string(),
                source,
            }),
        }
    }
    let node = Node {
        id: format!("ztunnel~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(Struct { fields }),
        ..Node::default()
    };
    (node, bad)
}

fn text(text: &str) -> Value {
    kind(Kind::StringValue(text.to_owned()))
}

const fn kind(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn value(json: serde_json::Value) -> Value {
    kind(match json {
        serde_json::Value::Null => Kind::NullValue(NullValue::NullValue.into()),
        serde_json::Value::Bool(yes) => Kind::BoolValue(yes),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(list) => Kind::ListValue(ListValue {
            values: list.into_iter().map(value).collect(),
        }),
        serde_json::Value::Object(map) => Kind::StructValue(Struct {
            fields: map
                .into_iter()
                .map(|(key, json)| (key, value(json)))
                .collect(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(facts: &NodeFacts, key: &str) -> Option<Kind> {
        let fields = node(facts).0.metadata.unwrap().fields;
        fields.get(key).and_then(|value| value.kind.clone())
    }

    fn string(text: &str) -> Option<Kind> {
        Some(Kind::StringValue(text.into()))
    }

    #[test]
    fn identifier_has_all_parts_even_when_nothing_is_known() {
        let facts = NodeFacts::default();
        assert_eq!(node(&facts).0.id, "ztunnel~1.1.1.1~.~.svc.cluster.local");
        let facts = NodeFacts {
            instance_ip: Some("10.1.2.3".into()),
            pod_name: "zt-1".into(),
            pod_namespace: "istio-system".into(),
            ..facts
        };
        let expected = "ztunnel~10.1.2.3~zt-1.istio-system~istio-system.svc.cluster.local";
        assert_eq!(node(&facts).0.id, expected);
        assert_eq!(field(&facts, "INSTANCE_IPS"), string("10.1.2.3"));
    }

    #[test]
    fn later_metadata_wins() {
        let pair = |k: &str, v: &str| (k.into(), v.into());
        let facts = NodeFacts {
            pod_name: "pod".into(),
            metadata: vec![pair("FOO", "a"), pair("FOO", "b"), pair("NAME", "other")],
            metadata_json: vec![pair("BAR", "1")],
            ..NodeFacts::default()
        };
        assert_eq!(field(&facts, "FOO"), string("b"));
        assert_eq!(field(&facts, "NAME"), string("other"));
        assert_eq!(field(&facts, "BAR"), Some(Kind::NumberValue(1.0)));
    }

    #[test]
    fn json_becomes_the_matching_value_and_bad_json_is_left_out() {
        let of = |json: &str| NodeFacts {
            metadata_json: vec![("K".into(), json.into())],
            ..NodeFacts::default()
        };
        assert_eq!(field(&of("true"), "K"), Some(Kind::BoolValue(true)));
        assert_eq!(field(&of("1"), "K"), Some(Kind::NumberValue(1.0)));
        assert_eq!(field(&of("null"), "K"), Some(Kind::NullValue(0)));
        assert_eq!(field(&of("\"x\""), "K"), string("x"));
        let Some(Kind::ListValue(list)) = field(&of("[1, \"a\"]"), "K") else {
            panic!("no list");
        };
        assert_eq!(list.values.len(), 2);
        let Some(Kind::StructValue(object)) = field(&of("{\"a\": {\"b\": 1}}"), "K") else {
            panic!("no struct");
        };
        assert!(object.fields.contains_key("a"));
        let bad = of("{");
        assert_eq!(field(&bad, "K"), None);
        assert!(node(&bad).1[0].to_string().contains("ISTIO_METAJSON_K"));
    }
}
