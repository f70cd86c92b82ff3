//! `corelane-perf`: see `perf/README.md`. Started by `perf/run` and `perf/ab`.

use std::process::ExitCode;

fn main() -> ExitCode {
    corelane_perf::cli::main()
}
