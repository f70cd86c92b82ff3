//! Name, type, labels and help of every metric: the one list that pages are written from and that
//! `docs/metrics.md` is checked against.
//!
//! Names are family names; a counter's samples add `_total`. Only families outside the contract's
//! stable set are marked `(unstable)`, which includes all of ours.

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

impl Kind {
    /// Word of the TYPE line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric family.
#[derive(Debug)]
pub struct Family {
    /// Name without `_total`.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Unit, when it is stated on a line of its own; the name ends with it.
    pub unit: Option<&'static str>,
    /// In the contract's stable set.
    pub stable: bool,
    /// Label names in order.
    pub labels: &'static [&'static str],
    /// What it counts, without the final full stop.
    pub help: &'static str,
}

/// Labels of the traffic families in the contract's order (spec: telemetry 2.2).
pub const TRAFFIC_LABELS: &[&str] = &[
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
];

/// Labels of the DNS proxy's families (spec: telemetry 2.4).
const DNS_LABELS: &[&str] = &[
    "request_query_type",
    "request_protocol",
    "source_canonical_service",
    "source_canonical_revision",
];

macro_rules! families {
    ($($id:ident = $stable:ident $kind:ident $name:literal $(in $unit:literal)? $labels:expr, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
                unit: families!(@unit $($unit)?),
                stable: families!(@stable $stable),
                labels: $labels,
                help: $help,
            };
        )+

        /// Every family.
        pub static ALL: &[&Family] = &[$(&$id,)+];
    };
    (@unit) => { None };
    (@unit $unit:literal) => { Some($unit) };
    (@stable stable) => { true };
    (@stable unstable) => { false };
}

families! {
    ISTIO_BUILD = stable Gauge "istio_build" &["component", "tag"],
        "Version of the mesh release this node belongs to";
    CONNECTIONS_OPENED = stable Counter "istio_tcp_connections_opened" TRAFFIC_LABELS,
        "Connections opened";
    CONNECTIONS_CLOSED = stable Counter "istio_tcp_connections_closed" TRAFFIC_LABELS,
        "Connections closed";
    RECEIVED_BYTES = stable Counter "istio_tcp_received_bytes" TRAFFIC_LABELS,
        "Payload bytes sent from clients to servers";
    SENT_BYTES = stable Counter "istio_tcp_sent_bytes" TRAFFIC_LABELS,
        "Payload bytes sent from servers to clients";
    CONNECTIONS_FAILED = unstable Counter "istio_tcp_connections_failed" TRAFFIC_LABELS,
        "Connections closed with a response flag";
    SOCKETS_OPEN = unstable Gauge "istio_tcp_sockets_open" &["reporter"],
        "Accepted sockets whose task has not ended";
    OPEN_FDS = stable Gauge "process_open_fds" &[],
        "Open file descriptors";
    MAX_FDS = stable Gauge "process_max_fds" &[],
        "Limit of open file descriptors";
    BUILD = unstable Gauge "corelane_build" &["version"],
        "Version of this program";
    SHARDS = unstable Gauge "corelane_shards" &[],
        "Shards of the data plane";
    DRIVER = unstable Gauge "corelane_driver_info" &["shard", "driver", "fallback"],
        "I/O driver of each shard, and why it is not the first choice";
    SHARD_CONNECTIONS = unstable Gauge "corelane_shard_connections_open" &["shard"],
        "Connections in the table of each shard";
    SHARD_HEARTBEATS = unstable Counter "corelane_shard_heartbeats" &["shard"],
        "Questions of the watchdog that each shard has answered";
    ACCEPTED = unstable Counter "corelane_connections_accepted" &["listener"],
        "Connections accepted";
    HANDED_OVER = unstable Counter "corelane_connections_handed_over" &[],
        "Accepted connections that were handed to a less busy shard";
    ACCEPT_ERRORS = unstable Counter "corelane_accept_errors" &[],
        "Failed accept calls";
    RELAYS_OPEN = unstable Gauge "corelane_relays_open" &[],
        "Relays that move bytes now";
    RELAYED_BYTES = unstable Counter "corelane_relayed_bytes" in "bytes" &[],
        "Payload bytes relayed in both directions";
    TUNNELS_OPEN = unstable Gauge "corelane_tunnels_open" &["role"],
        "HBONE tunnels open";
    TUNNELS_OPENED = unstable Counter "corelane_tunnels_opened" &["role"],
        "HBONE tunnels that came up";
    TUNNELS_FAILED = unstable Counter "corelane_tunnels_failed" &["role"],
        "HBONE tunnels that did not come up";
    STREAMS_OPENED = unstable Counter "corelane_streams_opened" &["role"],
        "CONNECT streams opened in tunnels";
    HANDSHAKES = unstable Counter "corelane_handshakes" &["role", "result"],
        "TLS handshakes";
    HANDSHAKE_SECONDS = unstable Histogram "corelane_handshake_seconds" in "seconds" &["role"],
        "Duration of TLS handshakes that completed";
    ADDED_LATENCY_SECONDS = unstable Histogram "corelane_added_latency_seconds" in "seconds" &[],
        "Time from accept until the first byte could flow";
    DIAL_SECONDS = unstable Histogram "corelane_dial_seconds" in "seconds" &[],
        "Duration of TCP connects";
    LIMITS_HIT = unstable Counter "corelane_limits_hit" &["limit"],
        "How often each limit was reached";
    LOG_LINES_DROPPED = unstable Counter "corelane_log_lines_dropped" &["queue"],
        "Log lines dropped because their queue was full";
    LOG_WRITE_FAILURES = unstable Counter "corelane_log_write_failures" &[],
        "Batches of log lines the output refused";
    SPANS_DROPPED = unstable Counter "corelane_spans_dropped" &[],
        "Spans dropped because their queue was full";
    SPANS_EXPORTED = unstable Counter "corelane_spans_exported" &["result"],
        "Spans sent to the collector, taken or lost";
    PANICS = unstable Counter "corelane_panics" &[],
        "Panics contained in the task of one connection";
    POLICY_DRY_RUN = unstable Counter "corelane_policy_dry_run" &["result"],
        "Verdicts of dry-run policies, none of them enforced";
    POLICY_RECHECKS = unstable Counter "corelane_policy_rechecks" &[],
        "Open connections authorized again after a change";
    CRL_REJECTIONS = unstable Counter "istio_crl_policy_rejections" &["reporter"],
        "Handshakes refused and tunnels ended because the peer is revoked";
    POLICY_CLOSED = unstable Counter "corelane_policy_closed" &[],
        "Open connections closed because a change withdrew their permit";
    METRIC_SERIES = unstable Gauge "corelane_metric_series" &[],
        "Label sets of the traffic metrics";
    CERTIFICATE_SECONDS_LEFT = unstable Gauge "corelane_certificate_expiry_seconds" in "seconds" &["identity"],
        "Time until each certificate expires, negative once it has";
    HTTP_REQUESTS = unstable Counter "corelane_http_requests" &["server", "code"],
        "Requests answered by the admin, metrics and readiness servers";
    STATE_RELOADS = unstable Counter "corelane_local_state_reloads" &[],
        "Changed state files that were taken over";
    STATE_RELOAD_FAILURES = unstable Counter "corelane_local_state_reload_failures" &[],
        "Changed state files that were refused; the previous state stays in force";
    XDS_ENDS = unstable Counter "istio_xds_connection_terminations" &["reason"],
        "Ends of the stream to the control plane";
    XDS_MESSAGES = unstable Counter "istio_xds_message" &["url"],
        "Responses of the control plane";
    XDS_MESSAGE_BYTES = unstable Counter "istio_xds_message_bytes" in "bytes" &["url"],
        "Bytes of the resources in responses of the control plane";
    XDS_CONNECTED = unstable Gauge "corelane_xds_connected" &[],
        "Whether there is a stream to the control plane";
    XDS_REJECTED = unstable Counter "corelane_xds_rejected_resources" &[],
        "Resources of the control plane that were refused";
    XDS_CACHE_FAILURES = unstable Counter "corelane_xds_cache_failures" &[],
        "Failed attempts to keep the state of the control plane on disk";
    AGENT_ACTIVE = unstable Gauge "workload_manager_active_proxy_count" &[],
        "Workloads of the node agent that are served";
    AGENT_PENDING = unstable Gauge "workload_manager_pending_proxy_count" &[],
        "Workloads of the node agent whose listeners could not be made yet";
    AGENT_STARTED = unstable Counter "workload_manager_proxies_started" &[],
        "Workloads of the node agent that were started";
    AGENT_STOPPED = unstable Counter "workload_manager_proxies_stopped" &[],
        "Workloads of the node agent that were stopped";
    ON_DEMAND_DNS = unstable Counter "istio_on_demand_dns" &[
        "source_workload", "source_canonical_service", "source_canonical_revision",
        "source_workload_namespace", "source_principal", "source_app", "source_version",
        "source_cluster", "hostname",
    ],
        "Connections to workloads known by hostname only, whether or not its addresses were known already";
    DNS_REQUESTS = unstable Counter "istio_dns_requests" DNS_LABELS,
        "Queries the DNS proxy looked up";
    DNS_FORWARDED = unstable Counter "istio_dns_upstream_requests" DNS_LABELS,
        "Queries the DNS proxy forwarded to a name server";
    DNS_FORWARD_FAILURES = unstable Counter "istio_dns_upstream_failures" DNS_LABELS,
        "Forwarded queries without records in answer, those for names that do not exist among them";
    DNS_FORWARD_SECONDS = unstable Histogram "istio_dns_upstream_request_duration_seconds" in "seconds" DNS_LABELS,
        "Duration of forwarded queries";
    DNS_LIMITS_HIT = unstable Counter "corelane_dns_limits_hit" &["limit"],
        "How often each limit of the DNS proxy was reached";
    SCRAPE_SECONDS = unstable Histogram "corelane_scrape_seconds" in "seconds" &[],
        "Time to write the page of metrics";
}

/// The family of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| family.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each family is a row `| name | type | labels | help |` of the document.
    #[test]
    fn every_family_is_documented_as_it_is() {
        let document = include_str!("../../docs/metrics.md");
        for family in ALL {
            let labels = match family.labels {
                [] => "–".to_owned(),
                labels if labels == TRAFFIC_LABELS => "traffic".to_owned(),
                labels => labels
                    .iter()
                    .map(|label| format!("`{label}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            let suffix = if family.kind == Kind::Counter {
                "_total"
            } else {
                ""
            };
            let kind = family.kind.as_str();
            let row = format!(
                "| `{}{suffix}` | {kind} | {labels} | {} |",
                family.name, family.help
            );
            assert!(
                document.contains(&row),
                "docs/metrics.md lacks the row\n{row}"
            );
        }
        for label in TRAFFIC_LABELS {
            assert!(document.contains(&format!("`{label}`")), "{label}");
        }
    }

    #[test]
    fn every_documented_metric_exists() {
        let document = include_str!("../../docs/metrics.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut seen = 0;
        for name in rows.filter_map(|row| row.split('`').next()) {
            let family = name.strip_suffix("_total").unwrap_or(name);
            assert!(
                by_name(family).is_some(),
                "{name} is documented and does not exist"
            );
            seen += 1;
        }
        assert_eq!(seen, ALL.len());
    }

    #[test]
    fn names_and_helps_keep_the_format() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len(), "a name is used twice");
        for family in ALL {
            assert!(!family.name.ends_with("_total"), "{}", family.name);
            assert!(!family.help.ends_with('.'), "{}", family.name);
            if let Some(unit) = family.unit {
                assert!(family.name.ends_with(unit), "{}", family.name);
            }
            assert_eq!(
                family.name.starts_with("corelane_"),
                !family.stable
                    && !family.name.starts_with("istio_")
                    && !family.name.starts_with("workload_manager_"),
                "{}: ours are unstable, theirs mostly not",
                family.name
            );
        }
    }

    #[test]
    fn stable_set_is_the_contract_s() {
        let stable: Vec<_> = ALL.iter().filter(|f| f.stable).map(|f| f.name).collect();
        assert_eq!(
            stable,
            [
                "istio_build",
                "istio_tcp_connections_opened",
                "istio_tcp_connections_closed",
                "istio_tcp_received_bytes",
                "istio_tcp_sent_bytes",
                "process_open_fds",
                "process_max_fds",
            ]
        );
    }
}
