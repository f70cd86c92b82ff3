//! How findings are printed: aligned text for people, one JSON object for programs.

use serde_json::{Value, json};

use super::finding::{Finding, Level};
use super::profile::Profile;

/// Grows when a member of the JSON object changes its meaning or goes away.
const FORMAT: u32 = 1;

/// Select Graphic Rendition parameters (ECMA-48 8.3.117).
const fn colour(level: Level) -> &'static str {
    match level {
        Level::Ok => "32",
        Level::Note => "36",
        Level::Warning => "33",
        Level::Problem => "31",
    }
}

/// Lines for people: a heading for each group, below it a line for each finding, below those that
/// want a change its effect and its command.
pub(super) fn text(findings: &[Finding], coloured: bool) -> Vec<String> {
    let paint = |code: &str, text: &str| {
        if coloured {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    };
    let subjects = findings
        .iter()
        .map(|finding| finding.subject.chars().count());
    let width = subjects.max().unwrap_or(0);
    let indent = " ".repeat(2 + 7 + 2);
    let mut lines = Vec::new();
    let mut group = None;
    for finding in findings {
        if group != Some(finding.group) {
            group = Some(finding.group);
            lines.push(paint("1", finding.group.as_str()));
        }
        // Padded before it is painted: escapes have no width.
        let level = paint(
            colour(finding.level),
            &format!("{:7}", finding.level.as_str()),
        );
        let wanted_by = match finding.profiles.as_slice() {
            [] => String::new(),
            profiles => format!(" ({})", profiles.join(", ")),
        };
        lines.push(format!(
            "  {level}  {:width$}  {}{wanted_by}",
            finding.subject, finding.found
        ));
        if finding.level != Level::Ok {
            lines.push(format!("{indent}{}", finding.effect));
            if let Some(command) = &finding.command {
                lines.push(format!("{indent}> {command}"));
            }
        }
    }
    lines.push(String::new());
    lines.push(summary(findings));
    lines
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings
        .iter()
        .filter(|finding| finding.level == level)
        .count()
}

fn summary(findings: &[Finding]) -> String {
    let plural = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}, {}, {}, {} ok",
        plural(count(findings, Level::Problem), "problem"),
        plural(count(findings, Level::Warning), "warning"),
        plural(count(findings, Level::Note), "note"),
        count(findings, Level::Ok),
    )
}

/// One JSON object; its members are documented in `docs/configuration.md`.
pub(super) fn json(findings: &[Finding], profile: Option<Profile>) -> String {
    let list: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "id": finding.id,
                "group": finding.group.as_str(),
                "level": finding.level.as_str(),
                "subject": finding.subject,
                "found": finding.found,
                "effect": finding.effect,
                "command": finding.command,
                "profiles": finding.profiles,
            })
        })
        .collect();
    let object = json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "profile": profile.map(Profile::as_str),
        "summary": {
            "ok": count(findings, Level::Ok),
            "note": count(findings, Level::Note),
            "warning": count(findings, Level::Warning),
            "problem": count(findings, Level::Problem),
        },
        "findings": list,
    });
    format!("{object:#}")
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Check, Group};
    use super::*;

    fn findings() -> Vec<Finding> {
        let about = |id, subject| Check {
            id,
            group: Group::Tcp,
            subject,
            effect: "it is slow",
        };
        let mut wanted = about("profile.a", "long subject").note("1; 2 wanted", "sysctl -w a=2");
        wanted.profiles = vec!["latency", "throughput"];
        vec![about("tcp.a", "short").ok("fine"), wanted]
    }

    #[test]
    fn the_report_lines_up_and_tells_effect_and_command_of_what_is_not_ok() {
        assert_eq!(
            text(&findings(), false),
            [
                "tcp",
                "  ok       short         fine",
                "  note     long subject  1; 2 wanted (latency, throughput)",
                "           it is slow",
                "           > sysctl -w a=2",
                "",
                "0 problems, 0 warnings, 1 note, 1 ok",
            ]
        );
        let coloured = text(&findings(), true);
        assert_eq!(
            coloured[1],
            "  \u{1b}[32mok     \u{1b}[0m  short         fine"
        );
    }

    #[test]
    fn the_object_has_the_documented_members() {
        let value: Value =
            serde_json::from_str(&json(&findings(), Some(Profile::Latency))).unwrap();
        assert_eq!(value["format"], 1);
        assert_eq!(value["profile"], "latency");
        assert_eq!(
            value["summary"],
            json!({"ok": 1, "note": 1, "warning": 0, "problem": 0})
        );
        assert_eq!(
            value["findings"][1],
            json!({
                "id": "profile.a", "group": "tcp", "level": "note", "subject": "long subject",
                "found": "1; 2 wanted", "effect": "it is slow", "command": "sysctl -w a=2",
                "profiles": ["latency", "throughput"],
            })
        );
        assert_eq!(value["findings"][0]["command"], Value::Null);
    }
}
