//! Tests of the page, from the data plane's calls to its text.

use std::rc::Rc;
use std::time::Instant;

use super::*;
use crate::model::close::CloseReason;
use crate::telemetry::counters::DriverInfo;
use crate::telemetry::counters::{Limit, ListenerKind, Role};
use crate::telemetry::flow::{Flow, Party};
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::log_writer::LogWriter;
use crate::telemetry::testing::{Lines, inbound, outbound, workload, writer};

const IDLE: Duration = METRIC_SERIES_IDLE;

struct Rig {
    hub: Hub,
    writer: LogWriter,
    lines: Lines,
    start: Instant,
}

impl Rig {
    fn new(options: HubOptions) -> Self {
        let (writer, lines) = writer(LineFormat::Plain, Level::Debug);
        let hub = Hub::new(options, writer.sink());
        #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
        let start = Instant::now();
        Self {
            hub,
            writer,
            lines,
            start,
        }
    }

    fn page(&self, now: Instant) -> String {
        let mut page = Page::default();
        self.hub.render(&mut page, now);
        page.finish()
    }

    fn lines(self) -> Vec<String> {
        drop(self.hub);
        self.lines.all(self.writer)
    }
}

/// Sum of the samples of a name whose labels contain all of `labels`; none: `None`.
fn value(page: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let samples = page.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    let values: Vec<u64> = samples
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[test]
fn both_sides_of_a_connection_report_the_same_bytes() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    for flow in [outbound(), inbound()] {
        let open = shard.opened(flow, rig.start);
        open.to_server(11);
        open.to_client(20);
        open.to_client(2);
        open.finish(&CloseReason::Complete, rig.start + Duration::from_millis(3));
    }
    let page = rig.page(rig.start);
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        for (name, expected) in [
            ("istio_tcp_connections_opened_total", 1),
            ("istio_tcp_connections_closed_total", 1),
            ("istio_tcp_received_bytes_total", 11),
            ("istio_tcp_sent_bytes_total", 22),
        ] {
            let labels = [
                reporter,
                "response_flags=\"-\"",
                "destination_service_name=\"s\"",
            ];
            assert_eq!(
                value(&page, name, &labels),
                Some(expected),
                "{name} {reporter}\n{page}"
            );
        }
    }
    assert!(!page.contains("istio_tcp_connections_failed"));
    drop(shard);
    let lines = rig.lines();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].contains("\tdebug\taccess\tconnection opened\t"));
    assert!(
        lines[1].ends_with("direction=\"outbound\" bytes_sent=11 bytes_recv=22 duration=\"3ms\"")
    );
    assert!(
        lines[3].ends_with("direction=\"inbound\" bytes_sent=22 bytes_recv=11 duration=\"3ms\"")
    );
}

#[test]
fn fresh_process_has_no_traffic_families() {
    let rig = Rig::new(HubOptions::default());
    let _shard = rig.hub.shard(0);
    let page = rig.page(rig.start);
    assert!(!page.contains("istio_"), "{page}");
    assert!(
        page.contains("# TYPE corelane_shards gauge\ncorelane_shards 1\n"),
        "{page}"
    );
    assert!(page.ends_with("\n# EOF\n"));
}

#[test]
fn open_connection_is_opened_and_not_closed() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let open = shard.opened(outbound(), rig.start);
    let page = rig.page(rig.start);
    assert_eq!(
        value(&page, "istio_tcp_connections_opened_total", &[]),
        Some(1)
    );
    assert_eq!(
        value(&page, "istio_tcp_connections_closed_total", &[]),
        None
    );
    assert_eq!(value(&page, "istio_tcp_sent_bytes_total", &[]), Some(0));
    open.finish(&CloseReason::Complete, rig.start);
    assert_eq!(
        value(
            &rig.page(rig.start),
            "istio_tcp_connections_closed_total",
            &[]
        ),
        Some(1)
    );
}

#[test]
fn heads_follow_the_format() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let denied = CloseReason::Denied("x".to_owned());
    shard
        .opened(outbound(), rig.start)
        .finish(&denied, rig.start);
    let page = rig.page(rig.start);
    for head in [
        "# HELP istio_tcp_connections_opened Connections opened.\n\
         # TYPE istio_tcp_connections_opened counter\nistio_tcp_connections_opened_total{reporter=",
        "# HELP istio_tcp_connections_failed Connections closed with a response flag (unstable).\n\
         # TYPE istio_tcp_connections_failed counter\nistio_tcp_connections_failed_total{reporter=",
        "# TYPE corelane_relayed_bytes counter\n# UNIT corelane_relayed_bytes bytes\n\
         corelane_relayed_bytes_total 0\n",
    ] {
        assert!(page.contains(head), "{head}\n{page}");
    }
    for help in page.lines().filter(|line| line.starts_with("# HELP")) {
        assert!(help.ends_with('.'), "{help}");
    }
}

#[test]
fn each_failure_counts_under_its_flag() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let text = || "x".to_owned();
    let ends = [
        (CloseReason::Denied(text()), "DENY", true),
        (CloseReason::Dial(text()), "CONNECT", true),
        (CloseReason::ConnectTimeout(text()), "NETWORK_POLICY", true),
        (CloseReason::Identity(text()), "IDENTITY_ERROR", true),
        (CloseReason::Http2(text()), "H2_HANDSHAKE_FAILURE", true),
        (CloseReason::Drain, "-", false),
    ];
    for (reason, _, _) in &ends {
        shard
            .opened(outbound(), rig.start)
            .finish(reason, rig.start);
    }
    let page = rig.page(rig.start);
    for (reason, flag, failed) in &ends {
        let label = format!("response_flags=\"{flag}\"");
        let labels = [label.as_str()];
        assert_eq!(
            value(&page, "istio_tcp_connections_closed_total", &labels),
            Some(1),
            "{reason:?}"
        );
        let expected = failed.then_some(1);
        assert_eq!(
            value(&page, "istio_tcp_connections_failed_total", &labels),
            expected,
            "{reason:?}"
        );
    }
    let all = Some(ends.len() as u64);
    assert_eq!(
        value(
            &page,
            "istio_tcp_connections_opened_total",
            &["response_flags=\"-\""]
        ),
        all
    );
}

#[test]
fn connection_dropped_without_an_end_counts_as_drained() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    drop(shard.opened(outbound(), rig.start));
    let page = rig.page(rig.start);
    let labels = ["response_flags=\"-\""];
    assert_eq!(
        value(&page, "istio_tcp_connections_closed_total", &labels),
        Some(1)
    );
    assert!(!page.contains("istio_tcp_connections_failed"));
    drop(shard);
    let lines = rig.lines();
    assert!(
        lines[1].contains("error=\"connection closed due to connection drain\""),
        "{lines:?}"
    );
}

#[test]
fn denied_connection_names_its_policy() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let open = shard.opened(inbound(), rig.start);
    open.set_policy("a/no".into());
    open.finish(
        &CloseReason::Denied("explicitly denied by: a/no".to_owned()),
        rig.start,
    );
    drop(shard);
    let lines = rig.lines();
    assert!(
        lines[1].contains("\terror\taccess\tconnection complete\t"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains(" policy=\"a/no\" peer_identity=\"spiffe://"),
        "{lines:?}"
    );
}

#[test]
fn early_refusal_touches_the_log_only() {
    let rig = Rig::new(HubOptions::default());
    let shard = rig.hub.shard(0);
    let src = "10.0.0.1:5".parse().unwrap();
    shard.refused(Direction::Inbound, src, None, &"tls handshake error: x");
    let page = rig.page(rig.start);
    assert!(!page.contains("istio_tcp_connections"), "{page}");
    drop(shard);
    let lines = rig.lines();
    assert!(
        lines[0].contains("\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:5 "),
        "{lines:?}"
    );
}

#[test]
fn access_level_is_honoured_at_run_time() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let level = rig.writer.sink().access_level().clone();
    let connection = || shard.opened(outbound(), rig.start);
    let failed = CloseReason::Relay("x".to_owned());
    level.set(Level::Info);
    connection().finish(&CloseReason::Complete, rig.start);
    level.set(Level::Error);
    connection().finish(&CloseReason::Complete, rig.start);
    connection().finish(&failed, rig.start);
    let src = "10.0.0.1:5".parse().unwrap();
    shard.refused(Direction::Inbound, src, None, &"not logged");
    level.set(Level::Off);
    connection().finish(&failed, rig.start);
    drop(shard);
    let lines = rig.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("\tinfo\t") && lines[1].contains("\terror\t"));
}

#[test]
fn full_access_queue_drops_lines_and_counts_them() {
    let (reader, pipe) = std::io::pipe().unwrap();
    let writer = LogWriter::start(crate::telemetry::log_writer::WriterOptions {
        out: Box::new(pipe),
        format: LineFormat::Plain,
        access_level: Level::Info,
    })
    .unwrap();
    let options = HubOptions {
        access_log_lines: 8,
        ..HubOptions::default()
    };
    let hub = Hub::new(options, writer.sink());
    let shard = Rc::new(hub.shard(0));
    #[expect(clippy::disallowed_methods, reason = "a test's origin of time")]
    let start = Instant::now();
    for _ in 0..5_000 {
        shard
            .opened(outbound(), start)
            .finish(&CloseReason::Complete, start);
    }
    let dropped = shard.counters().log_lines_dropped.get();
    assert!(dropped > 0);
    assert_eq!(shard.counters().limit(Limit::LogQueue).get(), dropped);
    let mut page = Page::default();
    hub.render(&mut page, start);
    let page = page.finish();
    let access = ["queue=\"access\""];
    assert_eq!(
        value(&page, "corelane_log_lines_dropped_total", &access),
        Some(dropped)
    );
    assert_eq!(
        value(&page, "istio_tcp_connections_closed_total", &[]),
        Some(5_000),
        "counts stay exact"
    );
    drop(reader);
    assert!(writer.stop(Duration::from_secs(10)));
}

#[test]
fn later_destination_carries_what_is_counted_later() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let mut open = shard.opened(outbound(), rig.start);
    let far = Party {
        workload: Some(Arc::new(workload("far"))),
        ..Party::default()
    };
    open.set_destination(far);
    open.to_server(5);
    open.finish(&CloseReason::Complete, rig.start);
    let page = rig.page(rig.start);
    let (near, far) = (
        ["destination_workload=\"server\""],
        ["destination_workload=\"far\""],
    );
    assert_eq!(
        value(&page, "istio_tcp_connections_opened_total", &near),
        Some(1)
    );
    assert_eq!(
        value(&page, "istio_tcp_connections_opened_total", &far),
        None
    );
    assert_eq!(
        value(&page, "istio_tcp_received_bytes_total", &far),
        Some(5)
    );
    assert_eq!(
        value(&page, "istio_tcp_connections_closed_total", &far),
        Some(1)
    );
    assert!(
        !rig.page(rig.start + IDLE).contains("istio_tcp"),
        "both series were let go"
    );
}

#[test]
fn sockets_are_counted_by_reporter() {
    let rig = Rig::new(HubOptions::default());
    let (first, second) = (rig.hub.shard(0), rig.hub.shard(1));
    first.socket_opened(Direction::Outbound);
    second.socket_opened(Direction::Outbound);
    second.socket_closed(Direction::Outbound);
    let page = rig.page(rig.start);
    assert!(
        page.contains("\nistio_tcp_sockets_open{reporter=\"source\"} 1\n"),
        "{page}"
    );
    assert!(!page.contains("reporter=\"destination\""), "{page}");
    first.socket_closed(Direction::Outbound);
    let page = rig.page(rig.start);
    assert!(
        page.contains("\nistio_tcp_sockets_open{reporter=\"source\"} 0\n"),
        "{page}"
    );
}

#[test]
fn shards_are_summed_and_sums_never_go_down_while_the_labels_live() {
    let rig = Rig::new(HubOptions::default());
    let (first, second) = (Rc::new(rig.hub.shard(0)), Rc::new(rig.hub.shard(1)));
    let opened = |page: &str| value(page, "istio_tcp_connections_opened_total", &[]);
    first
        .opened(outbound(), rig.start)
        .finish(&CloseReason::Complete, rig.start);
    let held = second.opened(outbound(), rig.start);
    let page = rig.page(rig.start);
    assert_eq!(opened(&page), Some(2));
    assert_eq!(
        page.matches("istio_tcp_connections_opened_total{").count(),
        1,
        "{page}"
    );
    // The first shard's series ends, the second's is held.
    assert_eq!(opened(&rig.page(rig.start + IDLE)), Some(2));
    assert_eq!(opened(&rig.page(rig.start + IDLE * 2)), Some(2));
    first
        .opened(outbound(), rig.start)
        .finish(&CloseReason::Complete, rig.start);
    assert_eq!(opened(&rig.page(rig.start + IDLE * 2)), Some(3));
    held.finish(&CloseReason::Complete, rig.start);
    assert_eq!(opened(&rig.page(rig.start + IDLE * 3)), Some(3));
    assert_eq!(
        opened(&rig.page(rig.start + IDLE * 4)),
        None,
        "everybody let go long ago"
    );
}

#[test]
fn idle_label_set_leaves_the_page_and_comes_back_at_one() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let flow = outbound();
    let opened = |page: &str| value(page, "istio_tcp_connections_opened_total", &[]);
    shard
        .opened(flow.clone(), rig.start)
        .finish(&CloseReason::Complete, rig.start);
    assert_eq!(opened(&rig.page(rig.start)), Some(1));
    let almost = IDLE - Duration::from_secs(1);
    assert_eq!(opened(&rig.page(rig.start + almost)), Some(1));
    assert_eq!(opened(&rig.page(rig.start + IDLE)), None);
    shard
        .opened(flow, rig.start)
        .finish(&CloseReason::Complete, rig.start);
    assert_eq!(opened(&rig.page(rig.start + IDLE)), Some(1));
}

#[test]
fn held_label_set_stays_however_idle() {
    let rig = Rig::new(HubOptions::default());
    let shard = Rc::new(rig.hub.shard(0));
    let open = shard.opened(outbound(), rig.start);
    for n in 0..5 {
        let page = rig.page(rig.start + IDLE * n);
        assert_eq!(
            value(&page, "istio_tcp_connections_opened_total", &[]),
            Some(1)
        );
    }
    open.finish(&CloseReason::Complete, rig.start);
}

fn distinct(n: usize) -> Flow {
    let mut flow = inbound();
    flow.source.workload = Some(Arc::new(workload(&format!("client{n}"))));
    flow
}

#[test]
fn label_sets_over_the_cap_share_the_overflow_series_over_all_shards() {
    let rig = Rig::new(HubOptions {
        series_max: 3,
        ..HubOptions::default()
    });
    let (first, second) = (Rc::new(rig.hub.shard(0)), Rc::new(rig.hub.shard(1)));
    for n in 0..5 {
        first
            .opened(distinct(n), rig.start)
            .finish(&CloseReason::Complete, rig.start);
    }
    for n in 5..8 {
        // Within the second shard's own cap, over the node's.
        second
            .opened(distinct(n), rig.start)
            .finish(&CloseReason::Complete, rig.start);
    }
    let page = rig.page(rig.start);
    let name = "istio_tcp_connections_opened_total";
    let overflow = ["reporter=\"destination\"", "source_workload=\"other\""];
    assert_eq!(value(&page, name, &overflow), Some(5));
    assert_eq!(value(&page, name, &[]), Some(8));
    assert_eq!(page.matches(&format!("{name}{{")).count(), 4, "{page}");
    assert_eq!(value(&page, "corelane_metric_series", &[]), Some(3));
    assert_eq!(
        value(&page, "corelane_limits_hit_total", &["metric_series"]),
        Some(2)
    );
    let later = rig.page(rig.start + IDLE);
    assert_eq!(
        value(&later, name, &overflow),
        Some(5),
        "what overflowed is not forgotten"
    );
    assert_eq!(value(&later, name, &[]), Some(5));
}

#[test]
fn own_families_sum_the_shards() {
    let rig = Rig::new(HubOptions::default());
    let shards = [rig.hub.shard(0), rig.hub.shard(1)];
    for shard in &shards {
        let counters = shard.counters();
        counters.accepted(ListenerKind::Inbound).add(2);
        counters.tunnels_server_open.add(1);
        counters.handshakes_failed(Role::Server).add(3);
        counters
            .handshake_seconds(Role::Server)
            .record(Duration::from_millis(2));
        counters.limit(Limit::DialTimeout).add(1);
        counters.policy_dry_run_deny.add(4);
        counters.relayed_bytes.add(100);
    }
    shards[1].counters().set_driver(DriverInfo {
        name: "epoll",
        fallback: "no \"rings\"".to_owned(),
    });
    let page = rig.page(rig.start);
    for line in [
        "corelane_connections_accepted_total{listener=\"inbound\"} 4",
        "corelane_tunnels_open{role=\"server\"} 2",
        "corelane_handshakes_total{role=\"server\",result=\"failed\"} 6",
        "corelane_handshake_seconds_bucket{role=\"server\",le=\"0.001\"} 0",
        "corelane_handshake_seconds_bucket{role=\"server\",le=\"0.0025\"} 2",
        "corelane_handshake_seconds_bucket{role=\"server\",le=\"+Inf\"} 2",
        "corelane_handshake_seconds_sum{role=\"server\"} 0.004",
        "corelane_handshake_seconds_count{role=\"server\"} 2",
        "corelane_limits_hit_total{limit=\"dial_timeout\"} 2",
        "corelane_policy_dry_run_total{result=\"deny\"} 8",
        "corelane_relayed_bytes_total 200",
        "corelane_driver_info{shard=\"1\",driver=\"epoll\",fallback=\"no \\\"rings\\\"\"} 1",
        "corelane_shards 2",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    let status = rig.hub.shards();
    assert_eq!(status.len(), 2);
    assert_eq!(
        (status[0].driver.as_str(), status[1].driver.as_str()),
        ("", "epoll")
    );
    assert_eq!(status[0].tunnels_inbound, 1);
}
