//! `cargo xtask NAME`: tasks that need more than cargo itself.

use std::process::ExitCode;

mod peers;

const USAGE: &str = "usage: cargo xtask peers
  peers   installs the Envoy that the interop tests talk to into the target folder";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match (arguments.next().as_deref(), arguments.next()) {
        (Some("peers"), None) => peers::install(),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
