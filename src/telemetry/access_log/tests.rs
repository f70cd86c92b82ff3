//! Tests of access-log lines against the contract's wording.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::model::addr::Authority;
use crate::model::baggage::Baggage;
use crate::model::trace::TraceParent;
use crate::telemetry::flow::Party;
use crate::telemetry::testing::{identity, inbound, outbound, workload};

const TIME: &str = "2026-01-01T00:00:00.000001Z";

fn end(error: Option<&str>) -> End {
    End {
        to_server: 11,
        to_client: 22,
        duration: Duration::from_micros(3_999),
        error: error.map(str::to_owned),
        denied: None,
    }
}

fn plain(flow: Flow, end: Option<End>) -> String {
    pushed(flow, end, LineFormat::Plain)
}

fn pushed(flow: Flow, end: Option<End>, format: LineFormat) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_225_600_000_001);
    let mut out = String::new();
    Record::Flow(Box::new(FlowRecord { time, flow, end })).push(&mut out, format);
    out
}

#[test]
fn outbound_line_is_the_contract_s_example() {
    assert_eq!(
        plain(outbound(), Some(end(None))),
        format!(
            "{TIME}\tinfo\taccess\tconnection complete\tsrc.addr=10.1.0.2:40000 \
             src.workload=\"client-0\" src.namespace=\"a\" \
             src.identity=\"spiffe://cluster.local/ns/a/sa/client\" src.cluster=\"Kubernetes\" \
             dst.addr=10.1.0.3:15008 dst.hbone_addr=10.1.0.3:8080 \
             dst.service=\"s.a.svc.cluster.local\" dst.workload=\"server-0\" dst.namespace=\"a\" \
             dst.identity=\"spiffe://cluster.local/ns/a/sa/server\" dst.cluster=\"Kubernetes\" \
             direction=\"outbound\" bytes_sent=11 bytes_recv=22 duration=\"3ms\"\n"
        )
    );
}

#[test]
fn inbound_line_tells_bytes_from_the_server_s_side() {
    let line = plain(inbound(), Some(end(None)));
    assert!(line.ends_with("direction=\"inbound\" bytes_sent=22 bytes_recv=11 duration=\"3ms\"\n"));
}

#[test]
fn json_line_has_the_same_fields_in_the_same_order() {
    assert_eq!(
        pushed(
            outbound(),
            Some(end(Some("io error: refused"))),
            LineFormat::Json
        ),
        format!(
            "{{\"level\":\"error\",\"time\":\"{TIME}\",\"scope\":\"access\",\
             \"message\":\"connection complete\",\"src.addr\":\"10.1.0.2:40000\",\
             \"src.workload\":\"client-0\",\"src.namespace\":\"a\",\
             \"src.identity\":\"spiffe://cluster.local/ns/a/sa/client\",\
             \"src.cluster\":\"Kubernetes\",\"dst.addr\":\"10.1.0.3:15008\",\
             \"dst.hbone_addr\":\"10.1.0.3:8080\",\"dst.service\":\"s.a.svc.cluster.local\",\
             \"dst.workload\":\"server-0\",\"dst.namespace\":\"a\",\
             \"dst.identity\":\"spiffe://cluster.local/ns/a/sa/server\",\
             \"dst.cluster\":\"Kubernetes\",\"direction\":\"outbound\",\"bytes_sent\":11,\
             \"bytes_recv\":22,\"duration\":\"3ms\",\"error\":\"io error: refused\"}}\n"
        )
    );
}

#[test]
fn unknown_fields_are_left_out() {
    let flow = Flow {
        mutual_tls: false,
        source: Party::default(),
        destination: Party::default(),
        service: None,
        hbone_addr: None,
        ..outbound()
    };
    assert_eq!(
        plain(flow, Some(end(None))),
        format!(
            "{TIME}\tinfo\taccess\tconnection complete\tsrc.addr=10.1.0.2:40000 \
             dst.addr=10.1.0.3:15008 direction=\"outbound\" bytes_sent=11 bytes_recv=22 \
             duration=\"3ms\"\n"
        )
    );
}

#[test]
fn identities_are_shown_only_for_mutual_tls() {
    let flow = Flow {
        mutual_tls: false,
        hbone_addr: None,
        ..outbound()
    };
    let line = plain(flow, Some(end(None)));
    assert!(!line.contains("identity"), "{line}");
    assert!(line.contains("src.workload=\"client-0\""), "{line}");
}

#[test]
fn opened_line_ends_with_the_direction() {
    let line = plain(outbound(), None);
    assert!(line.starts_with(&format!(
        "{TIME}\tdebug\taccess\tconnection opened\tsrc.addr="
    )));
    assert!(line.ends_with("dst.cluster=\"Kubernetes\" direction=\"outbound\"\n"));
}

#[test]
fn source_without_a_record_is_named_by_its_canonical_service() {
    let baggage = Baggage {
        service_name: Some("far".into()),
        workload_name: Some("deployment".into()),
        namespace: Some("b".into()),
        cluster: Some("c2".into()),
        ..Baggage::default()
    };
    let source = Party {
        workload: None,
        identity: Some(identity("far")),
        baggage: Some(Arc::new(baggage)),
    };
    let line = plain(
        Flow {
            source,
            ..inbound()
        },
        Some(end(None)),
    );
    let expected = "src.workload=\"far\" src.namespace=\"b\" \
                    src.identity=\"spiffe://cluster.local/ns/a/sa/far\" src.cluster=\"c2\"";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn destination_across_networks_is_named_by_the_inner_answer() {
    let answer = |workload: Option<&str>| Party {
        workload: Some(Arc::new(workload_gateway())),
        identity: Some(identity("far")),
        baggage: Some(Arc::new(Baggage {
            workload_name: workload.map(Into::into),
            service_name: Some("far-service".into()),
            ..Baggage::default()
        })),
    };
    let flow = |destination| Flow {
        destination,
        hbone_addr: Some(Authority::Hostname("s.a.svc".into(), 80)),
        ..outbound()
    };
    let line = plain(flow(answer(Some("far"))), Some(end(None)));
    assert!(line.contains("dst.hbone_addr=s.a.svc:80 "), "{line}");
    assert!(line.contains("dst.workload=\"far\" "), "{line}");
    assert!(
        line.contains("dst.identity=\"spiffe://cluster.local/ns/a/sa/far\""),
        "{line}"
    );
    let line = plain(flow(answer(None)), Some(end(None)));
    assert!(!line.contains("dst.workload"), "{line}");
}

fn workload_gateway() -> crate::model::workload::Workload {
    workload("gateway")
}

#[test]
fn denied_line_names_the_rule_and_both_identities_after_the_contract_s_fields() {
    let denied = End {
        error: Some("connection closed due to policy rejection: explicitly denied by: a/no".into()),
        denied: Some(Some("a/no".into())),
        ..end(None)
    };
    let line = plain(inbound(), Some(denied));
    assert!(line.contains("\terror\taccess\t"), "{line}");
    let tail = "duration=\"3ms\" \
                error=\"connection closed due to policy rejection: explicitly denied by: a/no\" \
                policy=\"a/no\" peer_identity=\"spiffe://cluster.local/ns/a/sa/client\" \
                local_identity=\"spiffe://cluster.local/ns/a/sa/server\"\n";
    assert!(line.ends_with(tail), "{line}");
}

#[test]
fn only_lines_with_an_error_carry_the_trace_id() {
    let traced = || Flow {
        trace_id: Some(TraceParent::random(&mut || 1)),
        ..outbound()
    };
    let line = plain(traced(), Some(end(Some("io error: x"))));
    assert!(
        line.ends_with("trace_id=\"00000000000000010000000000000001\"\n"),
        "{line}"
    );
    assert!(!plain(traced(), Some(end(None))).contains("trace_id"));
}

#[test]
fn failed_line_has_addresses_direction_and_error() {
    let record = |dst: Option<&str>| FailedRecord {
        time: SystemTime::UNIX_EPOCH,
        direction: Direction::Inbound,
        src: "10.0.0.1:5".parse().unwrap(),
        dst: dst.map(|dst| dst.parse().unwrap()),
        error: "tls handshake error: x".to_owned(),
        policy: None,
        peer_identity: None,
        local_identity: None,
    };
    let push = |record| {
        let mut out = String::new();
        Record::Failed(Box::new(record)).push(&mut out, LineFormat::Plain);
        out
    };
    assert_eq!(
        push(record(Some("10.0.0.2:15008"))),
        "1970-01-01T00:00:00.000000Z\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:5 \
         dst.addr=10.0.0.2:15008 direction=\"inbound\" error=\"tls handshake error: x\"\n"
    );
    assert!(!push(record(None)).contains("dst.addr"));
    let named = push(FailedRecord {
        policy: Some("a/no".to_owned()),
        peer_identity: Some("spiffe://peer".to_owned()),
        local_identity: Some("spiffe://own".to_owned()),
        ..record(None)
    });
    assert!(named.ends_with(
        "policy=\"a/no\" peer_identity=\"spiffe://peer\" local_identity=\"spiffe://own\"\n"
    ));
}

#[test]
fn values_of_a_peer_cannot_forge_a_line() {
    let baggage = Baggage {
        service_name: Some("x\" error=\"none\n2026".into()),
        ..Baggage::default()
    };
    let source = Party {
        baggage: Some(Arc::new(baggage)),
        ..Party::default()
    };
    let line = plain(
        Flow {
            source,
            ..inbound()
        },
        Some(end(None)),
    );
    assert_eq!(line.lines().count(), 1);
    assert!(
        line.contains(r#"src.workload="x\" error=\"none\n2026" "#),
        "{line}"
    );
}

#[test]
fn level_decides_what_is_wanted() {
    let level = AccessLevel::new(Level::Info);
    assert!(level.allows(Level::Info) && level.allows(Level::Error));
    assert!(!level.allows(Level::Debug));
    let shared = level.clone();
    shared.set(Level::Off);
    assert!(!level.allows(Level::Error));
    shared.set(Level::Trace);
    assert!(level.allows(Level::Debug));
}
