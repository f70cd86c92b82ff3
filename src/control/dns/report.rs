//! What the log and the metrics say about queries and replies (spec: telemetry 2.4 and 3.4).

use std::sync::Arc;
use std::time::Duration;

use super::message::{self, Question};
use super::{Reply, Transport};
use crate::model::workload::Workload;

/// Logs the reply and puts it into bytes.
pub(super) fn finish(
    question: &Question,
    transport: Transport,
    workload: Option<&Workload>,
    reply: Reply,
) -> Option<Vec<u8>> {
    let known = |text: Option<&str>| {
        let text = text.filter(|text| !text.is_empty());
        text.unwrap_or(UNKNOWN).to_owned()
    };
    tracing::event!(target: "dns", tracing::Level::DEBUG, {
        src.workload = known(workload.map(|w| &*w.name)),
        src.namespace = known(workload.map(|w| &*w.namespace)),
        query = %question.record_type(),
        domain = question.name().to_lowercase().to_ascii(),
        result = reply.result,
        endpoints = reply.endpoints
    });
    let limit = match transport {
        Transport::Udp => question.udp_reply_bytes(),
        Transport::Tcp => u16::MAX,
    };
    message::encode(&question.reply(reply), limit)
}

/// Value of a label nobody knows.
pub(super) const UNKNOWN: &str = "unknown";

/// Labels of the four families of the contract (spec: telemetry 2.4).
fn labels(
    question: &Question,
    transport: Transport,
    workload: Option<&Workload>,
) -> Vec<metrics::Label> {
    let known = |text: Option<&Arc<str>>| {
        let text = text.filter(|text| !text.is_empty());
        text.map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
    };
    vec![
        metrics::Label::new("request_query_type", question.type_label()),
        metrics::Label::from_static_parts("request_protocol", transport.as_str()),
        metrics::Label::new(
            "source_canonical_service",
            known(workload.map(|w| &w.canonical_name)),
        ),
        metrics::Label::new(
            "source_canonical_revision",
            known(workload.map(|w| &w.canonical_revision)),
        ),
    ]
}

/// Counts a query in one of the contract's families.
pub(super) fn count(
    family: &'static str,
    question: &Question,
    transport: Transport,
    workload: Option<&Workload>,
) {
    let labels = labels(question, transport, workload);
    metrics::counter!(family, labels).increment(1);
}

/// Counts a limit that was reached.
pub(super) fn limit_hit(limit: &'static str) {
    metrics::counter!("corelane_dns_limits_hit", "limit" => limit).increment(1);
}

/// Records how long forwarding took.
pub(super) fn count_seconds(
    question: &Question,
    transport: Transport,
    workload: Option<&Workload>,
    took: Duration,
) {
    let labels = labels(question, transport, workload);
    metrics::histogram!("istio_dns_upstream_request_duration_seconds", labels).record(took);
}
