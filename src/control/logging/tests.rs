//! Tests of log levels: the contract's table, and their effect on lines.

use tracing::subscriber::with_default;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::line::{Level, LineFormat};
use crate::telemetry::log_writer::LogWriter;
use crate::telemetry::testing::{Lines, writer};

fn rig(rust_log: Option<&str>) -> (Logging, LogWriter, Lines) {
    rig_in(rust_log, LineFormat::Plain)
}

fn rig_in(rust_log: Option<&str>, format: LineFormat) -> (Logging, LogWriter, Lines) {
    let filter = Filter::at_start(rust_log).unwrap();
    let (writer, lines) = writer(format, Level::Off);
    (Logging::new(filter, writer.sink()), writer, lines)
}

/// Runs `work` with the layer in place, and returns the lines without their times.
fn logged(rust_log: &str, work: impl FnOnce(&Logging)) -> Vec<String> {
    let (logging, writer, lines) = rig(Some(rust_log));
    let subscriber = tracing_subscriber::registry().with(logging.layer());
    with_default(subscriber, || work(&logging));
    drop(logging);
    let lines = lines.all(writer);
    lines
        .iter()
        .map(|line| line.split_once('\t').unwrap().1.to_owned())
        .collect()
}

#[test]
fn start_filter_puts_what_is_asked_behind_what_always_applies() {
    for (rust_log, expected) in [
        (None, "hickory_server::server=off,info"),
        (Some(""), "hickory_server::server=off,info"),
        (Some("debug"), "hickory_server::server=off,debug"),
        (Some("WARN"), "hickory_server::server=off,warn"),
        (
            Some("access=debug, info"),
            "hickory_server::server=off,access=debug,info",
        ),
        (
            Some("access=DEBUG"),
            "hickory_server::server=off,access=debug",
        ),
        (
            Some("hickory_server::server=info,off"),
            "hickory_server::server=info,off",
        ),
        (
            Some("a=info,bb=warn,cc=off,a=debug"),
            "hickory_server::server=off,bb=warn,cc=off,a=debug",
        ),
    ] {
        assert_eq!(
            Filter::at_start(rust_log).unwrap().to_string(),
            expected,
            "{rust_log:?}"
        );
    }
}

#[test]
fn malformed_start_filter_is_refused_by_name() {
    for (rust_log, culprit) in [
        ("loud", "loud"),
        ("info,access", "access"),
        ("access:debug", "access:debug"),
        ("access=loud", "access=loud"),
        ("=info", "=info"),
        ("a=b=info", "a=b=info"),
        ("info,,warn", ""),
        ("a[span]=info", "a[span]=info"),
    ] {
        let refused = Filter::at_start(Some(rust_log)).unwrap_err();
        assert_eq!(
            refused,
            FilterError::Directive(culprit.to_owned()),
            "{rust_log}"
        );
    }
}

/// Admin 4, last table, in its order.
#[test]
fn changes_follow_the_contract_s_table() {
    let (logging, _writer, _lines) = rig(None);
    let off = |rest: &str| format!("hickory_server::server=off,{rest}");
    assert_eq!(logging.current(), off("info"));
    logging.change("", true).unwrap();
    assert_eq!(logging.current(), off("info"));
    assert!(logging.change("invalid_level", true).is_err());
    assert_eq!(
        logging.current(),
        off("info"),
        "a refused change changes nothing"
    );
    for (level, expected) in [
        ("debug", "debug"),
        ("access=debug,info", "access=debug,info"),
        ("warn", "warn"),
        ("error", "error"),
        ("trace", "trace"),
        ("info", "info"),
        ("off", "off"),
    ] {
        logging.change(level, true).unwrap();
        assert_eq!(logging.current(), off(expected));
    }
}

#[test]
fn change_without_reset_adds_to_what_is_in_force() {
    let (logging, _writer, _lines) = rig(Some("warn"));
    logging.change("access=debug", false).unwrap();
    logging.change("error", false).unwrap();
    assert_eq!(
        logging.current(),
        "hickory_server::server=off,access=debug,error"
    );
    logging.change("access=INFO", false).unwrap();
    assert_eq!(
        logging.current(),
        "hickory_server::server=off,access=info,error"
    );
    logging.change("trace", true).unwrap();
    assert_eq!(logging.current(), "hickory_server::server=off,trace");
}

#[test]
fn run_time_directives_are_stricter_than_those_at_start() {
    let (logging, _writer, _lines) = rig(None);
    for refused in [
        "INFO",
        "access:debug",
        "access",
        "info,",
        "info, warn",
        "=debug",
        "a=",
        "verbose",
    ] {
        assert!(logging.change(refused, false).is_err(), "{refused}");
    }
    assert_eq!(logging.current(), "hickory_server::server=off,info");
}

#[test]
fn longest_target_decides() {
    let filter = Filter::at_start(Some("a=warn,a::b=debug,error")).unwrap();
    assert_eq!(filter.level("a::b::c"), Level::Debug);
    assert_eq!(filter.level("a::c"), Level::Warn);
    assert_eq!(filter.level("b"), Level::Error);
    assert_eq!(filter.level("hickory_server::server"), Level::Off);
    assert_eq!(filter.max(), Level::Debug);
    let none = Filter::at_start(Some("a=warn")).unwrap();
    assert_eq!(none.level("b"), Level::Off, "no default");
}

#[test]
fn access_level_follows_the_filter() {
    let (logging, writer, _lines) = rig(None);
    let level = writer.sink().access_level().clone();
    assert!(level.allows(Level::Info) && !level.allows(Level::Debug));
    logging.change("access=debug", false).unwrap();
    assert!(level.allows(Level::Debug));
    logging.change("off", true).unwrap();
    assert!(!level.allows(Level::Error));
}

#[test]
fn events_become_lines() {
    let lines = logged("debug", |_| {
        tracing::info!("plain message");
        tracing::warn!(target: "other", addr = %"1.2.3.4:5", name = "n m", count = 3, ok = true, "with fields");
        tracing::debug!(n = -1);
        let outer = tracing::info_span!("xds", id = 7, later = tracing::field::Empty);
        outer.record("later", "now");
        let _outer = outer.enter();
        tracing::info_span!("bare")
            .in_scope(|| tracing::error!(error = %"io error: gone", "inside"));
    });
    assert_eq!(
        lines,
        [
            "info\tcontrol::logging::tests\tplain message\t",
            "warn\tother\twith fields\taddr=1.2.3.4:5 name=\"n m\" count=3 ok=true",
            "debug\tcontrol::logging::tests\tn=-1",
            "error\tcontrol::logging::tests:xds{id=7 later=\"now\"}:bare\tinside\terror=\"io error: gone\"",
        ]
    );
}

#[test]
fn filter_drops_events_and_changes_at_run_time() {
    let work = |logging: &Logging| {
        let both = |n: u32| {
            tracing::info!(target: "one", n, "one");
            tracing::info!(target: "two", n, "two");
        };
        both(1);
        logging.change("one=off,two=info", false).unwrap();
        both(2);
        logging.change("", true).unwrap();
        both(3);
    };
    let lines = logged("two=off,info", work);
    assert_eq!(
        lines,
        [
            "info\tone\tone\tn=1",
            "info\ttwo\ttwo\tn=2",
            "info\tone\tone\tn=3"
        ]
    );
}

#[test]
fn json_events_are_objects_with_a_member_for_each_span() {
    let (logging, writer, lines) = rig_in(None, LineFormat::Json);
    with_default(tracing_subscriber::registry().with(logging.layer()), || {
        let _span = tracing::info_span!("xds", id = 7).entered();
        tracing::info!(target: "t", f = 0.5, nan = f64::NAN, addr = %"[::1]:5", "m");
    });
    drop(logging);
    let lines = lines.all(writer);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["scope"], "t");
    assert_eq!(line["f"], 0.5);
    assert_eq!(line["nan"], "NaN");
    assert_eq!(line["addr"], "[::1]:5");
    assert_eq!(line["xds"]["id"], 7);
}

#[test]
fn repeated_line_of_one_place_is_limited() {
    let lines = logged("info", |_| {
        for n in 0..100 {
            crate::telemetry::log_limit::warn!(n, "peer did it again");
        }
    });
    assert!((10..=20).contains(&lines.len()), "{}", lines.len());
    assert_eq!(
        lines[0],
        "warn\tcontrol::logging::tests\tpeer did it again\tn=0"
    );
}

#[test]
fn warnings_of_the_dns_library_are_limited_and_what_was_asked_for_is_not() {
    let lines = logged("info,hickory_net=debug", |_| {
        for n in 0..1_000 {
            tracing::warn!(target: "hickory_net::udp", n, "ignoring a forged reply");
        }
        for n in 0..50 {
            tracing::debug!(target: "hickory_net::udp", n, "received");
        }
    });
    let count = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
    // A slow machine may earn a few more in the meantime.
    assert!((10..20).contains(&count("warn")), "{}", count("warn"));
    assert_eq!(count("debug"), 50);
}
