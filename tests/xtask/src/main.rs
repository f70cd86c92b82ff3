//! `cargo xtask NAME`: tasks that need more than cargo itself.

use std::process::ExitCode;

mod istio;
mod peers;
mod proto;

const USAGE: &str = "usage: cargo xtask istio | peers | proto
  istio   builds the control plane of Istio that tests/istio talks to into the target folder; needs Go,
          and many minutes the first time
  peers   installs the Envoy that the interop tests talk to into the target folder
  proto   generates src/proto/generated from src/proto/schema";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match (arguments.next().as_deref(), arguments.next()) {
        (Some("istio"), None) => istio::build(),
        (Some("peers"), None) => peers::install(),
        (Some("proto"), None) => proto::write(),
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
