//! Tests of labels and of finding series.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::model::baggage::Baggage;
use crate::telemetry::families::TRAFFIC_LABELS;
use crate::telemetry::flow::Party;
use crate::telemetry::testing::{identity, inbound, outbound, workload};

fn interner(series_max: usize) -> (Interner, Receiver<Arc<Series>>) {
    let (announce, announced) = channel();
    (Interner::new(announce, series_max), announced)
}

/// The label set as pairs.
fn labels(flow: &Flow) -> Vec<(String, String)> {
    let mut text = LabelText::default();
    text.fill(flow);
    let (before, after) = text.around_flag();
    let text = format!("{before}-{after}");
    text.split("\",")
        .map(|pair| pair.split_once("=\"").unwrap())
        .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect()
}

fn label(flow: &Flow, name: &str) -> String {
    let found = labels(flow).into_iter().find(|(label, _)| label == name);
    found.unwrap_or_else(|| panic!("no label {name}")).1
}

fn baggage() -> Arc<Baggage> {
    Arc::new(Baggage {
        cluster: Some("b-cluster".into()),
        namespace: Some("b-namespace".into()),
        workload_name: Some("b-workload".into()),
        workload_type: Some("deployment".into()),
        service_name: Some("b-service".into()),
        service_revision: Some("b-revision".into()),
        region: Some("b-region".into()),
        zone: Some("b-zone".into()),
    })
}

#[test]
fn labels_come_in_the_contract_s_order() {
    let names: Vec<_> = labels(&outbound())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, TRAFFIC_LABELS);
    let overflow = LabelText::overflow(Direction::Inbound);
    let (before, after) = overflow.around_flag();
    let text = format!("{before}-{after}");
    let names: Vec<_> = text
        .split("\",")
        .map(|pair| pair.split_once('=').unwrap().0)
        .collect();
    assert_eq!(names, TRAFFIC_LABELS);
}

#[test]
fn records_of_both_sides_fill_the_labels() {
    let expected = [
        ("reporter", "source"),
        ("source_workload", "client"),
        ("source_canonical_service", "client-app"),
        ("source_canonical_revision", "v1"),
        ("source_workload_namespace", "a"),
        ("source_principal", "spiffe://cluster.local/ns/a/sa/client"),
        ("source_app", "client-app"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_service", "s.a.svc.cluster.local"),
        ("destination_service_namespace", "a"),
        ("destination_service_name", "s"),
        ("destination_workload", "server"),
        ("destination_canonical_service", "server-app"),
        ("destination_canonical_revision", "v1"),
        ("destination_workload_namespace", "a"),
        (
            "destination_principal",
            "spiffe://cluster.local/ns/a/sa/server",
        ),
        ("destination_app", "server-app"),
        ("destination_version", "v1"),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
        ("source_region", "r"),
        ("source_zone", "z"),
        ("destination_region", "r"),
        ("destination_zone", "z"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(labels(&outbound()), expected);
    assert_eq!(label(&inbound(), "reporter"), "destination");
}

#[test]
fn nothing_known_means_unknown_and_no_locality() {
    let flow = Flow {
        mutual_tls: false,
        source: Party::default(),
        destination: Party::default(),
        service: None,
        ..outbound()
    };
    let found = labels(&flow);
    assert_eq!(found.len(), TRAFFIC_LABELS.len() - 4);
    for (name, value) in found {
        let expected = match name.as_str() {
            "reporter" => "source",
            "request_protocol" => "tcp",
            "response_flags" => "-",
            _ => "unknown",
        };
        assert_eq!(value, expected, "{name}");
    }
}

#[test]
fn plain_text_has_a_destination_principal_but_no_source_principal() {
    let flow = Flow {
        mutual_tls: false,
        ..outbound()
    };
    assert_eq!(label(&flow, "source_principal"), "unknown");
    let principal = label(&flow, "destination_principal");
    assert_eq!(principal, "spiffe://cluster.local/ns/a/sa/server");
    assert_eq!(label(&flow, "connection_security_policy"), "unknown");
}

#[test]
fn request_baggage_counts_only_without_a_record() {
    let mut flow = inbound();
    flow.source.baggage = Some(baggage());
    assert_eq!(label(&flow, "source_workload"), "client");
    assert_eq!(label(&flow, "source_app"), "client-app");
    flow.source.workload = None;
    for (name, expected) in [
        ("source_workload", "b-workload"),
        ("source_canonical_service", "b-service"),
        ("source_canonical_revision", "b-revision"),
        ("source_workload_namespace", "b-namespace"),
        ("source_app", "b-workload"),
        ("source_version", "b-revision"),
        ("source_cluster", "b-cluster"),
        ("source_region", "b-region"),
        ("source_zone", "b-zone"),
        ("source_principal", "spiffe://cluster.local/ns/a/sa/client"),
    ] {
        assert_eq!(label(&flow, name), expected, "{name}");
    }
}

#[test]
fn record_overrides_baggage_even_with_empty_fields() {
    let mut flow = inbound();
    flow.source.baggage = Some(baggage());
    flow.source.workload = Some(Arc::default());
    assert_eq!(label(&flow, "source_workload"), "unknown");
    assert_eq!(label(&flow, "source_region"), "unknown");
    assert_eq!(
        label(&flow, "source_principal"),
        "spiffe://cluster.local/ns/a/sa/client"
    );
}

#[test]
fn answer_from_another_network_overrides_the_gateway_s_record() {
    let mut flow = outbound();
    flow.destination.baggage = Some(baggage());
    flow.destination.identity = Some(identity("far"));
    assert_eq!(label(&flow, "destination_workload"), "b-workload");
    assert_eq!(label(&flow, "destination_app"), "b-workload");
    let principal = label(&flow, "destination_principal");
    assert_eq!(principal, "spiffe://cluster.local/ns/a/sa/far");
    flow.destination.baggage = Some(Arc::default());
    assert_eq!(
        label(&flow, "destination_workload"),
        "unknown",
        "no baggage blanks"
    );
}

#[test]
fn label_values_of_a_peer_are_escaped_and_cut() {
    let mut flow = inbound();
    flow.source.workload = None;
    flow.source.baggage = Some(Arc::new(Baggage {
        namespace: Some("a\"b\\c\nd\re".into()),
        // The cut must not split a character.
        cluster: Some("ä".repeat(2_000).into()),
        ..Baggage::default()
    }));
    let mut text = LabelText::default();
    text.fill(&flow);
    let key = text.key();
    assert!(
        key.contains("source_workload_namespace=\"a\\\"b\\\\c\\nd\u{fffd}e\","),
        "{key}"
    );
    assert!(
        key.contains(&format!("source_cluster=\"{}\",", "ä".repeat(128))),
        "{key}"
    );
    assert_eq!(key.lines().count(), 1);
}

#[test]
fn each_response_flag_has_the_cell_of_its_place() {
    let series = Series::new(LabelText::default(), Direction::Inbound);
    for (place, flag) in FLAGS.into_iter().enumerate() {
        series.closed(flag);
        assert_eq!(series.closed_counts()[place], 1, "{flag:?}");
    }
    assert_eq!(series.closed_counts(), [1; FLAGS.len()]);
}

#[test]
fn connections_with_the_same_labels_share_a_series() {
    let (mut interner, announced) = interner(10);
    let counters = ShardCounters::default();
    let flow = outbound();
    let first = interner.hold(&flow, &counters).0;
    let cached = interner.hold(&flow, &counters).0;
    // Published again: other records, equal contents.
    let again = interner.hold(&outbound(), &counters).0;
    assert!(Arc::ptr_eq(&first, &cached) && Arc::ptr_eq(&first, &again));
    assert_eq!(announced.try_iter().count(), 1);
    let other = interner.hold(&inbound(), &counters).0;
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(announced.try_iter().count(), 1);
}

#[test]
fn cache_tells_apart_everything_the_labels_show() {
    let (mut interner, _announced) = interner(100);
    let counters = ShardCounters::default();
    let base = outbound();
    let mut flows = vec![
        base.clone(),
        Flow {
            direction: Direction::Inbound,
            ..base.clone()
        },
    ];
    flows.push(Flow {
        mutual_tls: false,
        ..base.clone()
    });
    flows.push(Flow {
        service: None,
        ..base.clone()
    });
    let mut flow = base.clone();
    flow.source.workload = Some(Arc::new(workload("other")));
    flows.push(flow);
    let mut flow = base.clone();
    flow.source.identity = Some(identity("other"));
    flows.push(flow);
    let mut flow = base.clone();
    flow.destination.workload = None;
    flows.push(flow);
    let mut flow = base;
    flow.destination.identity = Some(identity("other"));
    flows.push(flow);
    for _ in 0..2 {
        for flow in &flows {
            let mut expected = LabelText::default();
            expected.fill(flow);
            assert_eq!(*interner.hold(flow, &counters).0.labels(), expected);
        }
    }
    assert_eq!(interner.by_labels.len(), flows.len());
}

fn distinct(n: usize) -> Flow {
    let mut flow = inbound();
    flow.source.workload = None;
    flow.source.baggage = Some(Arc::new(Baggage {
        cluster: Some(n.to_string().into()),
        ..Baggage::default()
    }));
    flow
}

#[test]
fn what_exceeds_the_cap_shares_one_series_and_is_counted() {
    let (mut interner, announced) = interner(3);
    let counters = ShardCounters::default();
    for n in 0..3 {
        interner.hold(&distinct(n), &counters);
    }
    assert_eq!(counters.limit(Limit::MetricSeries).get(), 0);
    let fourth = interner.hold(&distinct(3), &counters).0;
    let fifth = interner.hold(&distinct(4), &counters).0;
    assert!(Arc::ptr_eq(&fourth, &fifth));
    assert_eq!(*fourth.labels(), LabelText::overflow(Direction::Inbound));
    assert_eq!(counters.limit(Limit::MetricSeries).get(), 2);
    let known = interner.hold(&distinct(1), &counters).0;
    assert!(
        !Arc::ptr_eq(&known, &fourth),
        "a known label set keeps its series"
    );
    assert_eq!(announced.try_iter().count(), 4);
}

#[test]
fn ended_series_make_room_again() {
    let (mut interner, announced) = interner(3);
    let counters = ShardCounters::default();
    for n in 0..3 {
        interner.hold(&distinct(n), &counters).0.release();
    }
    for series in announced.try_iter() {
        assert!(series.end());
    }
    let overflow = LabelText::overflow(Direction::Inbound);
    let found = (3..3 + SWEEP_MISSES_MIN).find(|n| {
        let series = interner.hold(&distinct(*n), &counters).0;
        *series.labels() != overflow
    });
    assert!(
        found.is_some(),
        "a sweep comes after {SWEEP_MISSES_MIN} misses at the latest"
    );
}

#[test]
fn held_series_cannot_end_and_ended_series_is_not_used_again() {
    let (mut interner, _announced) = interner(10);
    let counters = ShardCounters::default();
    let flow = outbound();
    let first = interner.hold(&flow, &counters).0;
    assert!(!first.end(), "held");
    first.release();
    assert!(first.end());
    assert!(!first.hold());
    let second = interner.hold(&flow, &counters).0;
    assert!(
        !Arc::ptr_eq(&first, &second),
        "a new series takes its place"
    );
    assert!(second.is_held());
}

#[test]
fn no_count_is_lost_between_a_shard_that_holds_and_a_hub_that_ends() {
    const CONNECTIONS: u64 = 20_000;
    let (mut interner, announced) = interner(10);
    let ended = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let hub = std::thread::spawn({
        let (ended, stop) = (Arc::clone(&ended), Arc::clone(&stop));
        move || {
            let mut series: Vec<Arc<Series>> = Vec::new();
            let mut total = 0;
            while !stop.load(Ordering::Acquire) {
                series.extend(announced.try_iter());
                series.retain(|series| {
                    if !series.end() {
                        return true;
                    }
                    total += series.opened.get();
                    ended.fetch_add(1, Ordering::Relaxed);
                    false
                });
            }
            series.extend(announced.try_iter());
            total + series.iter().map(|series| series.opened.get()).sum::<u64>()
        }
    });
    let counters = ShardCounters::default();
    let flow = outbound();
    for _ in 0..CONNECTIONS {
        let series = interner.hold(&flow, &counters).0;
        series.opened.add(1);
        series.release();
    }
    stop.store(true, Ordering::Release);
    assert_eq!(hub.join().unwrap(), CONNECTIONS);
}
