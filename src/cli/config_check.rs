//! `corelane config check` and `corelane config show`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::{EXIT_FINDINGS, EXIT_START, SettingArguments, output, proxy};
use crate::config::Forward;
use crate::config::check::{Checked, check as check_config};
use crate::config::limits::{CONFIG_FILE_BYTES_MAX, LOCAL_STATE_BYTES_MAX};
use crate::config::problem::Origin;
use crate::config::raw::{IPV6_FILE, RawConfig, Sources, is_local_state, read_bounded};
use crate::control::local_state;

/// Checks one file; what is found goes to standard output, one line each.
pub(super) fn check(path: &Path) -> ExitCode {
    let text = match read_bounded(path, LOCAL_STATE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => {
            output::error(&format!(
                "error: {}: cannot be read: {error}",
                path.display()
            ));
            return ExitCode::from(EXIT_START);
        }
    };
    let findings = findings(path, &text);
    for line in &findings.errors {
        output::line(line);
    }
    for line in &findings.warnings {
        output::line(&format!("warning: {line}"));
    }
    if findings.errors.is_empty() {
        output::line(&format!("{}: ok", path.display()));
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FINDINGS)
    }
}

/// What a check found, as lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

fn findings(path: &Path, text: &str) -> Findings {
    if is_local_state(text) {
        state_findings(path, text)
    } else {
        config_findings(path, text)
    }
}

fn state_findings(path: &Path, text: &str) -> Findings {
    match local_state::parse(text, &path.display().to_string()) {
        Ok(state) => Findings {
            errors: Vec::new(),
            warnings: lines(&state.warnings),
        },
        Err(error) => Findings {
            errors: vec![error.to_string()],
            warnings: Vec::new(),
        },
    }
}

fn config_findings(path: &Path, text: &str) -> Findings {
    let read_file = |wanted: &Path| alone(wanted, path, text);
    let sources = Sources::of_file(path.to_owned(), &read_file);
    match check_config(RawConfig::read(&sources)) {
        Ok(checked) => Findings {
            errors: Vec::new(),
            warnings: lines(&checked.warnings),
        },
        Err(errors) => Findings {
            errors: lines(&errors.0),
            warnings: Vec::new(),
        },
    }
}

fn lines(problems: &[impl ToString]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Reads as on a host with IPv6 and no other file: `text` stands at `path`.
fn alone(wanted: &Path, path: &Path, text: &str) -> io::Result<String> {
    if wanted == path && text.len() > CONFIG_FILE_BYTES_MAX {
        let message = format!("longer than {CONFIG_FILE_BYTES_MAX} bytes");
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    } else if wanted == path {
        Ok(text.to_owned())
    } else if wanted == Path::new(IPV6_FILE) {
        Ok(String::new())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Shows the settings the node would start with.
pub(super) fn show(settings: SettingArguments, origin: bool) -> ExitCode {
    match proxy::configuration(settings) {
        Ok(checked) => {
            for warning in &checked.warnings {
                output::error(&format!("warning: {warning}"));
            }
            for line in table(&checked, origin) {
                output::line(&line);
            }
            ExitCode::SUCCESS
        }
        Err(errors) => {
            proxy::report(&errors);
            ExitCode::from(EXIT_START)
        }
    }
}

/// Name, value and, if wanted, origin of every setting, in columns.
fn table(checked: &Checked, origin: bool) -> Vec<String> {
    let settings = checked.settings.iter().map(|setting| {
        (
            setting.name.to_owned(),
            setting.value.clone(),
            origin_text(&setting.origin),
        )
    });
    let forwards = checked
        .config
        .listeners
        .forwards
        .iter()
        .enumerate()
        .map(|(index, forward)| {
            (
                format!("forwards[{index}]"),
                forward_text(forward),
                "file".to_owned(),
            )
        });
    let rows: Vec<_> = settings.chain(forwards).collect();
    let width = |column: fn(&(String, String, String)) -> &String| {
        rows.iter()
            .map(|row| column(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (names, values) = (width(|row| &row.0), width(|row| &row.1));
    let line = |(name, value, from): &(String, String, String)| {
        let from = if origin { from.as_str() } else { "" };
        let line = format!("{name:names$}  {value:values$}  {from}");
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::Env(name) => format!("environment {name}"),
        Origin::Flag(_) | Origin::ProxyConfig(_) | Origin::File(..) | Origin::MeshFile(..) => {
            origin.to_string()
        }
    }
}

fn forward_text(forward: &Forward) -> String {
    let account = forward.as_workload.as_ref();
    let account = account.map_or_else(String::new, |account| format!(" as {account}"));
    format!("{} to {}{account}", forward.listen, forward.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "mode: node\nlocalState: s.yaml\nidentityDir: ids\nforwards:\n\
                        - {listen: '127.0.0.1:1', to: 'db:5432', as: default/client}\n";

    #[test]
    fn a_good_file_has_no_findings_on_any_host() {
        assert_eq!(findings(Path::new("c.yaml"), GOOD), Findings::default());
    }

    #[test]
    fn findings_name_file_line_and_column() {
        let found = findings(Path::new("dir/c.yaml"), &format!("{GOOD}netwrk: a\n"));
        assert_eq!(
            found.errors,
            ["dir/c.yaml:6:1: netwrk: unknown key, did you mean `network`?"]
        );
        let found = findings(Path::new("c.yaml"), "mode: node\nlocalState: s.yaml\n");
        assert_eq!((found.errors.len(), found.warnings.len()), (0, 1));
        let found = findings(
            Path::new("c.yaml"),
            &format!("{GOOD}listeners: {{stats: '[::1]:1'}}"),
        );
        assert_eq!(found, Findings::default(), "IPv6 is fine somewhere");
        let long = format!("{GOOD}# {}", "x".repeat(CONFIG_FILE_BYTES_MAX));
        let found = findings(Path::new("c.yaml"), &long);
        assert!(
            found.errors[0].contains("longer than"),
            "{:?}",
            found.errors
        );
    }

    #[test]
    fn a_local_state_file_is_checked_as_one() {
        let good = "workloads: []\n";
        let path = Path::new("state.yaml");
        assert_eq!(findings(path, good), Findings::default());
        let found = findings(path, "services: []\npolicies:\n- {nme: a}\n");
        assert_eq!(found.errors.len(), 1);
        assert!(found.errors[0].starts_with("state.yaml:3:"), "{found:?}");
        assert!(found.errors[0].contains("name"), "{found:?}");
    }

    #[test]
    fn the_table_lines_up_and_shows_origins_on_demand() {
        let path = Path::new("c.yaml");
        let read_file = |wanted: &Path| alone(wanted, path, GOOD);
        let raw = RawConfig::read(&Sources::of_file(path.to_owned(), &read_file));
        let checked = check_config(raw).unwrap();
        let lines = table(&checked, true);
        let value_column = lines[0].find("node");
        assert!(value_column.is_some());
        let network = lines
            .iter()
            .find(|line| line.starts_with("clusterId "))
            .unwrap();
        assert_eq!(network.find("Kubernetes"), value_column);
        assert!(
            lines[0].starts_with("mode ") && lines[0].ends_with("c.yaml:1:7"),
            "{}",
            lines[0]
        );
        assert!(lines.iter().any(|line| line.ends_with("default")));
        let last = lines.last().unwrap();
        assert!(
            last.contains("127.0.0.1:1 to db:5432 as default/client"),
            "{last}"
        );
        assert!(table(&checked, false)[0].ends_with("node"));
    }
}
