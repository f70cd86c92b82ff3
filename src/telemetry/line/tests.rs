//! Tests of line framing.

use std::time::{Duration, SystemTime};

use super::*;

fn line(format: LineFormat, head: &Head<'_>, fields: impl FnOnce(&mut Fields<'_>)) -> String {
    let mut out = String::new();
    push_line(&mut out, format, head, true, fields);
    out
}

fn head<'a>(target: &'a str, spans: &'a [SpanText], message: Option<&'a str>) -> Head<'a> {
    Head {
        time: SystemTime::UNIX_EPOCH + Duration::from_nanos(1_767_225_600_000_001_999),
        level: Level::Info,
        target,
        spans,
        message,
    }
}

#[test]
fn plain_line_has_time_level_scope_message_and_fields_between_tabs() {
    let head = head("corelane::control::xds", &[], Some("hello"));
    let found = line(LineFormat::Plain, &head, |fields| {
        fields
            .text("name", "a \"b\"\n")
            .number("n", -3)
            .bare("addr", "[::1]:80");
    });
    assert_eq!(
        found,
        "2026-01-01T00:00:00.000001Z\tinfo\tcontrol::xds\thello\tname=\"a \\\"b\\\"\\n\" n=-3 addr=[::1]:80\n"
    );
}

#[test]
fn message_is_followed_by_a_tab_even_without_fields() {
    let mut out = String::new();
    push_line(
        &mut out,
        LineFormat::Plain,
        &head("t", &[], Some("m")),
        false,
        |_| {},
    );
    assert_eq!(out, "2026-01-01T00:00:00.000001Z\tinfo\tt\tm\t\n");
}

#[test]
fn empty_event_ends_after_its_scope() {
    let mut out = String::new();
    push_line(
        &mut out,
        LineFormat::Plain,
        &head("t", &[], None),
        false,
        |_| {},
    );
    assert_eq!(out, "2026-01-01T00:00:00.000001Z\tinfo\tt\n");
}

#[test]
fn event_without_message_has_its_fields_after_the_scope() {
    let found = line(LineFormat::Plain, &head("dns", &[], None), |fields| {
        fields.text("query", "A");
    });
    assert_eq!(
        found,
        "2026-01-01T00:00:00.000001Z\tinfo\tdns\tquery=\"A\"\n"
    );
}

#[test]
fn spans_follow_the_scope_outermost_first() {
    let outer = SpanText {
        name: "xds",
        fields: "id=7".to_owned(),
    };
    let inner = SpanText {
        name: "ack",
        fields: String::new(),
    };
    let found = line(
        LineFormat::Plain,
        &head("t", &[outer, inner], Some("m")),
        |_| {},
    );
    assert_eq!(
        found,
        "2026-01-01T00:00:00.000001Z\tinfo\tt:xds{id=7}:ack\tm\t\n"
    );
}

#[test]
fn json_line_is_one_object_with_the_full_target_and_a_member_for_each_span() {
    let span = SpanText {
        name: "xds",
        fields: "\"id\":7".to_owned(),
    };
    let found = line(
        LineFormat::Json,
        &head("corelane::x", &[span], Some("h\"i\u{1}")),
        |fields| {
            fields
                .text("k", "v\t")
                .number("n", 5)
                .bare("addr", "1.2.3.4:5");
        },
    );
    assert_eq!(
        found,
        "{\"level\":\"info\",\"time\":\"2026-01-01T00:00:00.000001Z\",\"scope\":\"corelane::x\",\
         \"message\":\"h\\\"i\\u0001\",\"k\":\"v\\t\",\"n\":5,\"addr\":\"1.2.3.4:5\",\"xds\":{\"id\":7}}\n"
    );
    let parsed: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(parsed["message"], "h\"i\u{1}");
}

#[test]
fn no_value_can_break_a_plain_line_apart() {
    let found = line(
        LineFormat::Plain,
        &head("t", &[], Some("a\nb\tc")),
        |fields| {
            fields
                .bare("host", "evil\n2026 error")
                .bare("quote", "a\"b")
                .bare("empty", "");
        },
    );
    assert_eq!(
        found,
        "2026-01-01T00:00:00.000001Z\tinfo\tt\ta\\nb\\tc\t\
         host=\"evil\\n2026 error\" quote=\"a\\\"b\" empty=\"\"\n"
    );
}
