//! The operators' documentation lists exactly what the program reads.

use super::*;
use crate::config::schema::SETTINGS;
use crate::config::unbuilt::{Rule, VARIABLES};

const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

/// Rows of the two tables of the documentation.
fn rows() -> Vec<String> {
    let file = "mode: node\nlocalState: s\nidentityDir: i\nshards: {count: 1, pin: false}";
    let defaults = with_file(file).unwrap().settings;
    let settings = SETTINGS
        .iter()
        .filter(|s| !s.path.is_empty() || !s.env.is_empty())
        .map(|s| {
            let code = |text: &str| {
                if text.is_empty() {
                    String::new()
                } else {
                    format!("`{text}`")
                }
            };
            let default = defaults.iter().find(|d| d.name == s.key.name());
            let default = default
                .filter(|d| d.origin == Origin::Default)
                .map_or("", |d| &d.value);
            let env: Vec<_> = s.env.iter().map(|name| code(name)).collect();
            format!(
                "| {} | {} | {} | {} |",
                code(s.path),
                env.join(", "),
                code(default),
                s.about
            )
        });
    let unbuilt = VARIABLES.iter().map(|v| {
        let star = if v.name.ends_with('_') { "*" } else { "" };
        let (when, fate) = match v.rule {
            Rule::RefuseTrue => ("`true`", "refused"),
            Rule::Warn => ("set", "warning"),
        };
        format!("| `{}{star}` | {when} | {fate} | {} |", v.name, v.what)
    });
    settings.chain(unbuilt).collect()
}

#[test]
fn every_setting_and_every_unbuilt_variable_has_its_row() {
    let listed: Vec<_> = DOCUMENTATION
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let listed_without_path = DOCUMENTATION
        .lines()
        .filter(|line| line.starts_with("|  |"));
    let missing: Vec<_> = rows()
        .into_iter()
        .filter(|row| !DOCUMENTATION.lines().any(|line| line == row))
        .collect();
    assert!(missing.is_empty(), "rows to add:\n{}", missing.join("\n"));
    let count = listed.len() + listed_without_path.count();
    assert_eq!(count, rows().len(), "no other rows");
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let example = DOCUMENTATION
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let checked = with_file(example.unwrap()).unwrap();
    assert_eq!(checked.warnings, []);
    assert_eq!(checked.config.listeners.forwards.len(), 1);
}
