//! Open connections as JSON: beside the workload they belong to, or in a list of their own
//! (spec: admin.md 3.6).

use serde_json::{Map, Value, json};

use crate::telemetry::Direction;
use crate::telemetry::open::{OpenConnection, OpenConnections, Original};

/// Puts each connection beside the workload of `workload_state` that it belongs to, where that one is
/// served. Returns those that belong to none of them.
pub fn attach(workload_state: &mut Value, open: OpenConnections) -> OpenConnections {
    let Value::Object(workloads) = workload_state else {
        return open;
    };
    let OpenConnections { list, left_out } = open;
    let mut rest = list;
    for entry in workloads.values_mut() {
        let Some(entry) = entry.as_object_mut() else {
            continue;
        };
        if entry.get("state").and_then(Value::as_str) != Some("Up") {
            continue;
        }
        let (own, others) = rest
            .into_iter()
            .partition(|open: &OpenConnection| belongs(open, entry));
        rest = others;
        entry.insert("connections".to_owned(), lists(&own));
    }
    OpenConnections {
        list: rest,
        left_out,
    }
}

/// A list of their own, with the number of those that were too many to be listed.
#[must_use]
pub fn alone(open: &OpenConnections) -> Value {
    let mut lists = lists(&open.list);
    lists["leftOut"] = open.left_out.into();
    lists
}

/// Whether a connection's local end is the workload of this entry.
fn belongs(open: &OpenConnection, entry: &Map<String, Value>) -> bool {
    let Some(local) = &open.local else {
        return false;
    };
    let names = [
        ("name", &local.name),
        ("namespace", &local.namespace),
        ("serviceAccount", &local.service_account),
    ];
    let info = entry.get("info").unwrap_or(&Value::Null);
    names
        .iter()
        .all(|(key, value)| info[*key].as_str() == Some(value))
}

fn lists(open: &[OpenConnection]) -> Value {
    let of = |direction| {
        let mut entries: Vec<_> = open
            .iter()
            .filter(|open| open.direction == direction)
            .map(|open| {
                (
                    open.src,
                    text(open.original.as_ref()),
                    open.actual,
                    protocol(open),
                )
            })
            .collect();
        entries.sort_unstable();
        if direction == Direction::Inbound {
            // Streams of one tunnel to one place are one entry (spec: authorization.md 6).
            entries.dedup();
        }
        entries
            .into_iter()
            .map(|(src, original, actual, protocol)| {
                json!({
                    "src": src, "originalDst": original, "actualDst": actual, "protocol": protocol,
                })
            })
            .collect::<Vec<_>>()
    };
    json!({ "inbound": of(Direction::Inbound), "outbound": of(Direction::Outbound) })
}

fn text(original: Option<&Original>) -> Option<String> {
    original.map(|original| match original {
        Original::Address(addr) => addr.to_string(),
        Original::Host(host, None) => host.to_string(),
        Original::Host(host, Some(port)) => format!("{host}:{port}"),
    })
}

const fn protocol(open: &OpenConnection) -> &'static str {
    let tunnelled = match open.direction {
        Direction::Inbound => open.identified,
        Direction::Outbound => open.mutual_tls,
    };
    match (tunnelled, open.double) {
        (true, true) => "DOUBLEHBONE",
        (true, false) => "HBONE",
        (false, _) => "TCP",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::workload::Workload;

    fn open(direction: Direction, name: &str, src: &str) -> OpenConnection {
        let local = Workload {
            name: name.into(),
            namespace: "ns".into(),
            service_account: "sa".into(),
            ..Workload::default()
        };
        OpenConnection {
            direction,
            mutual_tls: true,
            double: false,
            identified: true,
            local: Some(Arc::new(local)),
            src: src.parse().unwrap(),
            original: Some(Original::Address("10.0.0.9:80".parse().unwrap())),
            actual: "10.0.0.2:8080".parse().unwrap(),
        }
    }

    fn state(state: &str, name: &str) -> Value {
        let info = json!({ "name": name, "namespace": "ns", "serviceAccount": "sa" });
        json!({ "state": state, "info": info })
    }

    #[test]
    fn connections_stand_beside_their_workload_and_the_others_remain() {
        let mut workloads = json!({
            "uid-a": state("Up", "a"), "uid-b": state("Up", "b"), "uid-c": state("Pending", "c"),
        });
        let list = vec![
            open(Direction::Outbound, "a", "10.0.0.1:2"),
            open(Direction::Outbound, "a", "10.0.0.1:1"),
            open(Direction::Inbound, "b", "10.0.0.3:1"),
            open(Direction::Inbound, "c", "10.0.0.3:2"),
            open(Direction::Inbound, "elsewhere", "10.0.0.3:3"),
        ];
        let rest = attach(&mut workloads, OpenConnections { list, left_out: 7 });
        let outbound = |src: &str| {
            json!({
                "src": src, "originalDst": "10.0.0.9:80", "actualDst": "10.0.0.2:8080",
                "protocol": "HBONE",
            })
        };
        assert_eq!(
            workloads["uid-a"]["connections"],
            json!({ "inbound": [], "outbound": [outbound("10.0.0.1:1"), outbound("10.0.0.1:2")] })
        );
        assert_eq!(
            workloads["uid-b"]["connections"]["inbound"][0]["src"],
            "10.0.0.3:1"
        );
        assert!(
            workloads["uid-c"].get("connections").is_none(),
            "absent while pending"
        );
        assert_eq!((rest.list.len(), rest.left_out), (2, 7));
        assert_eq!(alone(&rest)["leftOut"], 7);
        assert_eq!(alone(&rest)["inbound"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn inbound_streams_of_one_tunnel_to_one_place_are_shown_once() {
        let twice = |direction| vec![open(direction, "a", "10.0.0.1:1"); 2];
        let count = |direction: Direction, list: &str| {
            lists(&twice(direction))[list].as_array().unwrap().len()
        };
        assert_eq!(count(Direction::Inbound, "inbound"), 1);
        assert_eq!(count(Direction::Outbound, "outbound"), 2);
    }

    #[test]
    fn each_kind_of_connection_has_its_words() {
        let shown = |change: fn(&mut OpenConnection)| {
            let mut one = open(Direction::Inbound, "a", "10.0.0.1:1");
            change(&mut one);
            let list = if one.direction == Direction::Inbound {
                "inbound"
            } else {
                "outbound"
            };
            lists(&[one])[list][0].clone()
        };
        let nothing = shown(|open| open.original = None);
        assert_eq!(
            (&nothing["originalDst"], &nothing["protocol"]),
            (&Value::Null, &json!("HBONE"))
        );
        let named = shown(|open| open.original = Some(Original::Host("s.ns.svc".into(), None)));
        assert_eq!(named["originalDst"], "s.ns.svc");
        let forward = shown(|open| {
            open.direction = Direction::Outbound;
            open.original = Some(Original::Host("s.ns.svc".into(), Some(80)));
        });
        assert_eq!(forward["originalDst"], "s.ns.svc:80");
        assert_eq!(shown(|open| open.identified = false)["protocol"], "TCP");
        let double = shown(|open| {
            open.direction = Direction::Outbound;
            open.double = true;
        });
        assert_eq!(double["protocol"], "DOUBLEHBONE");
        let plain = shown(|open| {
            open.direction = Direction::Outbound;
            open.mutual_tls = false;
        });
        assert_eq!(plain["protocol"], "TCP");
    }
}
