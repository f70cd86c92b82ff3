//! Labels of the traffic metrics, in the contract's order, with its filling rules
//! (spec: telemetry 2.2).
//!
//! The result is the text between the braces, cut in two where the response flag goes. Equal label
//! sets give equal texts, so the text is also the key under which a series is found again.

use std::borrow::Cow;

use super::families::TRAFFIC_LABELS;
use super::flow::{Direction, Flow, Party};
use super::page::push_escaped;
use crate::config::limits::METRIC_LABEL_BYTES_MAX;
use crate::model::baggage::Baggage;
use crate::model::identity::Identity;
use crate::model::workload::Workload;

/// A principal is proven by a certificate and longer than a name; it is cut all the same.
const PRINCIPAL_BYTES_MAX: usize = 4 * METRIC_LABEL_BYTES_MAX;

/// Value of a label nobody knows.
const UNKNOWN: &str = "unknown";

/// Value of every label of the series that takes what exceeds the cap.
const OVERFLOW: &str = "other";

/// Label text of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LabelText {
    text: String,
    flag_at: usize,
}

impl LabelText {
    /// The whole text without the value of `response_flags`: the key of the label set.
    pub(super) fn key(&self) -> &str {
        &self.text
    }

    /// Text before the value of `response_flags`, text after it.
    pub(super) fn around_flag(&self) -> (&str, &str) {
        self.text.split_at(self.flag_at)
    }

    /// Writes the labels of `flow`, reusing the memory of the text held before.
    pub(super) fn fill(&mut self, flow: &Flow) {
        let source = Facts::of_source(flow);
        let destination = Facts::of_destination(flow);
        self.start(flow.direction);
        self.party("source", &source);
        self.push(
            "source_principal",
            source.principal.as_deref(),
            PRINCIPAL_BYTES_MAX,
        );
        self.push_name("source_app", source.app);
        self.push_name("source_version", source.version);
        self.push_name("source_cluster", source.cluster);
        let service = flow.service.as_deref();
        self.push_name("destination_service", service.map(|s| &*s.hostname));
        self.push_name(
            "destination_service_namespace",
            service.map(|s| &*s.namespace),
        );
        self.push_name("destination_service_name", service.map(|s| &*s.name));
        self.party("destination", &destination);
        self.push(
            "destination_principal",
            destination.principal.as_deref(),
            PRINCIPAL_BYTES_MAX,
        );
        self.push_name("destination_app", destination.app);
        self.push_name("destination_version", destination.version);
        self.push_name("destination_cluster", destination.cluster);
        let security = if flow.mutual_tls {
            "mutual_tls"
        } else {
            UNKNOWN
        };
        self.finish(security);
        if known(&flow.source) || known(&flow.destination) {
            self.push_name("source_region", source.region);
            self.push_name("source_zone", source.zone);
            self.push_name("destination_region", destination.region);
            self.push_name("destination_zone", destination.zone);
        }
    }

    /// The labels of the series that takes what exceeds the cap. The reporter stays, so that sums
    /// by reporter stay right.
    pub(super) fn overflow(direction: Direction) -> Self {
        let mut labels = Self::default();
        for name in TRAFFIC_LABELS {
            match *name {
                "reporter" => labels.start(direction),
                "request_protocol" => labels.finish(OVERFLOW),
                // Written by `finish`.
                "response_flags" | "connection_security_policy" => {}
                name => labels.push_name(name, Some(OVERFLOW)),
            }
        }
        labels
    }

    fn start(&mut self, direction: Direction) {
        self.text.clear();
        self.push_name("reporter", Some(direction.reporter()));
    }

    /// The four labels that open both groups.
    fn party(&mut self, side: &str, facts: &Facts<'_>) {
        self.push_side(side, "workload", facts.workload);
        self.push_side(side, "canonical_service", facts.canonical_service);
        self.push_side(side, "canonical_revision", facts.version);
        self.push_side(side, "workload_namespace", facts.namespace);
    }

    /// Protocol, place of the flag, security policy.
    fn finish(&mut self, security: &str) {
        self.push_name("request_protocol", Some("tcp"));
        self.text.push_str(",response_flags=\"");
        self.flag_at = self.text.len();
        self.text.push('"');
        self.push_name("connection_security_policy", Some(security));
    }

    fn push_side(&mut self, side: &str, name: &str, value: Option<&str>) {
        self.separate();
        self.text.push_str(side);
        self.text.push('_');
        self.push_rest(name, value, METRIC_LABEL_BYTES_MAX);
    }

    fn push_name(&mut self, name: &str, value: Option<&str>) {
        self.push(name, value, METRIC_LABEL_BYTES_MAX);
    }

    fn push(&mut self, name: &str, value: Option<&str>, bytes_max: usize) {
        self.separate();
        self.push_rest(name, value, bytes_max);
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
    }

    fn push_rest(&mut self, name: &str, value: Option<&str>, bytes_max: usize) {
        self.text.push_str(name);
        self.text.push_str("=\"");
        let value = value.filter(|value| !value.is_empty()).unwrap_or(UNKNOWN);
        push_escaped(
            &mut self.text,
            &value[..value.floor_char_boundary(bytes_max)],
        );
        self.text.push('"');
    }
}

fn known(party: &Party) -> bool {
    party.workload.is_some() || party.identity.is_some() || party.baggage.is_some()
}

/// What the labels (and log fields) of one side are taken from; unset and empty mean unknown.
#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) workload: Option<&'a str>,
    pub(super) canonical_service: Option<&'a str>,
    /// Canonical revision, also printed as version.
    pub(super) version: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) principal: Option<Cow<'a, str>>,
    pub(super) app: Option<&'a str>,
    pub(super) cluster: Option<&'a str>,
    region: Option<&'a str>,
    zone: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// The record replaces every field of the baggage, empty ones included; only the principal
    /// stays the derived one.
    pub(super) fn of_source(flow: &'a Flow) -> Self {
        let party = &flow.source;
        let mut facts = match (&party.workload, &party.baggage) {
            (Some(workload), _) => Self::of_record(workload),
            (None, Some(baggage)) => Self::of_baggage(baggage),
            (None, None) => Self::default(),
        };
        if flow.mutual_tls {
            facts.principal = party.identity.as_deref().map(principal);
        }
        facts
    }

    /// The record, with its own identity even for plain text; baggage of an inner answer wins.
    pub(super) fn of_destination(flow: &'a Flow) -> Self {
        let party = &flow.destination;
        let mut facts = match (&party.baggage, &party.workload) {
            (Some(baggage), _) => Self::of_baggage(baggage),
            (None, Some(workload)) => Self::of_record(workload),
            (None, None) => Self::default(),
        };
        facts.principal = match (&party.identity, &party.workload) {
            (Some(identity), _) => Some(principal(identity)),
            (None, Some(workload)) => Some(principal(&workload.identity())),
            (None, None) => None,
        };
        facts
    }

    fn of_record(workload: &'a Workload) -> Self {
        Self {
            workload: Some(&workload.workload_name),
            canonical_service: Some(&workload.canonical_name),
            version: Some(&workload.canonical_revision),
            namespace: Some(&workload.namespace),
            principal: None,
            app: Some(&workload.canonical_name),
            cluster: Some(&workload.cluster_id),
            region: Some(&workload.locality.region),
            zone: Some(&workload.locality.zone),
        }
    }

    fn of_baggage(baggage: &'a Baggage) -> Self {
        Self {
            workload: baggage.workload_name.as_deref(),
            canonical_service: baggage.service_name.as_deref(),
            version: baggage.service_revision.as_deref(),
            namespace: baggage.namespace.as_deref(),
            principal: None,
            app: baggage.workload_name.as_deref(),
            cluster: baggage.cluster.as_deref(),
            region: baggage.region.as_deref(),
            zone: baggage.zone.as_deref(),
        }
    }
}

fn principal<'a>(identity: &Identity) -> Cow<'a, str> {
    Cow::Owned(identity.to_string())
}
