//! `corelane proxy`: checks the configuration and runs the node.

use std::process::ExitCode;

use super::{EXIT_START, SettingArguments, output};
use crate::app;
use crate::config::check::{Checked, check};
use crate::config::problem::ConfigErrors;
use crate::config::raw::{RawConfig, Sources};

/// Reads and checks the configuration of this process.
pub(super) fn configuration(settings: SettingArguments) -> Result<Checked, ConfigErrors> {
    check(RawConfig::read(&Sources::of_process(
        settings.config,
        settings.set,
    )))
}

pub(super) fn run(settings: SettingArguments) -> ExitCode {
    let checked = match configuration(settings) {
        Ok(checked) => checked,
        Err(errors) => {
            report(&errors);
            return ExitCode::from(EXIT_START);
        }
    };
    // The log does not run yet.
    for warning in &checked.warnings {
        output::error(&format!("warning: {warning}"));
    }
    match app::run(checked.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints why a configuration is refused.
pub(super) fn report(errors: &ConfigErrors) {
    for problem in &errors.0 {
        output::error(&format!("error: {problem}"));
    }
}
