//! Printing for people: whole lines to standard output or standard error.

use std::io::{self, Write as _};

/// A reader that went away (`corelane config show | head`) is no failure of ours, and there is
/// nowhere left to report another one.
pub(super) fn ignore_closed(_: io::Result<()>) {}

/// Prints a line to standard output.
pub(super) fn line(text: &str) {
    ignore_closed(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints a line to standard error.
pub(super) fn error(text: &str) {
    ignore_closed(writeln!(io::stderr().lock(), "{text}"));
}
