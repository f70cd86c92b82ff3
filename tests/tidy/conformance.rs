//! The conformance document names a test that exists for each of its rows.

use std::fs;
use std::path::Path;

const DOCUMENT: &str = "docs/conformance.md";

const HEAD: [&str; 3] = ["Feature", "Proof", "State"];

/// Lines above a function among which its attributes are looked for.
const ATTRIBUTE_LINES: usize = 6;

/// What is wrong with the tables of `document`; `read` gives the text of a file of the package.
fn problems(document: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (index, line) in document.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            continue;
        };
        let cells: Vec<&str> = row
            .trim_end()
            .trim_end_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let is_rule = cells.iter().all(|cell| cell.chars().all(|c| c == '-'));
        if is_rule || cells == HEAD {
            continue;
        }
        let number = index + 1;
        let found = problems_of_row(&cells, &read);
        wrong.extend(
            found
                .into_iter()
                .map(|what| format!("{DOCUMENT}:{number}: {what}")),
        );
    }
    wrong
}

fn problems_of_row(cells: &[&str], read: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let [feature, proof, state] = cells else {
        return vec![format!("{} cells instead of {}", cells.len(), HEAD.len())];
    };
    let mut wrong = Vec::new();
    if feature.is_empty() {
        wrong.push("no feature".to_owned());
    }
    let reason = state.strip_prefix("differs: ");
    if *state != "done" && reason.is_none_or(str::is_empty) {
        wrong.push(format!("`{state}` is no state"));
    }
    // What stands between backticks: each second piece.
    let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
    if named.is_empty() {
        wrong.push("a row without a test".to_owned());
    }
    wrong.extend(named.into_iter().filter_map(|test| missing(test, read)));
    wrong
}

/// Why `path::function` is not the name of a test.
fn missing(test: &str, read: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let Some((path, function)) = test.split_once("::") else {
        return Some(format!("`{test}` is not file::function"));
    };
    let Some(text) = read(path) else {
        return Some(format!("there is no file {path}"));
    };
    (!is_test(&text, function)).then(|| format!("{path} has no test {function}"))
}

/// Whether `text` declares a function of that name as a test, by an attribute or for both drivers.
fn is_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declaration = format!("fn {function}(");
    let declared = lines
        .iter()
        .position(|line| line.trim_start_matches("async ").starts_with(&declaration));
    let Some(at) = declared else { return false };
    let above = lines[..at].iter().rev().take(ATTRIBUTE_LINES);
    let mut above = above.take_while(|line| !line.is_empty() && **line != "}");
    let attribute = |line: &&str| *line == "#[test]" || line.starts_with("#[tokio::test");
    above.any(attribute) || both_drivers(text).any(|listed| listed == function)
}

/// The functions that `with_both_drivers!` makes tests of.
fn both_drivers(text: &str) -> impl Iterator<Item = &str> {
    let list = text.split_once("with_both_drivers!(");
    let list = list.and_then(|(_, rest)| rest.split_once(");"));
    list.map_or("", |(list, _)| list).split(',').map(str::trim)
}

#[test]
fn every_row_of_the_conformance_document_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join(DOCUMENT)).unwrap();
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| "))
        .count();
    assert!(rows > 100, "{rows} rows: the tables were not found");
    let wrong = problems(&document, |path| fs::read_to_string(root.join(path)).ok());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rows_without_a_real_test_are_found() {
    let file = "\
#[test]
fn plain() {}

#[tokio::test(start_paused = true)]
async fn waiting() {}

fn no_test() {}

with_both_drivers!(
    driven,
);
fn driven(driver: Driver) {}
";
    let read = |path: &str| (path == "a.rs").then(|| file.to_owned());
    for (row, complaint) in [
        ("| Feature | Proof | State |", None),
        ("|---|---|---|", None),
        (
            "| a | `a.rs::plain`, `a.rs::waiting`, `a.rs::driven` | done |",
            None,
        ),
        ("| a | `a.rs::plain` | differs: because |", None),
        ("| a | `a.rs::plain` | planned |", Some("is no state")),
        ("| a | `a.rs::plain` | differs: |", Some("is no state")),
        ("| a | by hand | done |", Some("a row without a test")),
        ("| a | `a.rs::plai` | done |", Some("a.rs has no test plai")),
        (
            "| a | `a.rs::no_test` | done |",
            Some("a.rs has no test no_test"),
        ),
        (
            "| a | `b.rs::plain` | done |",
            Some("there is no file b.rs"),
        ),
        ("| a | `plain` | done |", Some("is not file::function")),
        ("| a | done |", Some("2 cells instead of 3")),
        ("|  | `a.rs::plain` | done |", Some("no feature")),
    ] {
        let wrong = problems(row, read);
        match complaint {
            None => assert!(wrong.is_empty(), "{row}: {wrong:?}"),
            Some(text) => assert!(
                wrong.len() == 1 && wrong[0].contains(text),
                "{row}: {wrong:?}"
            ),
        }
    }
}
