//! The `corelane` program.

use std::process::ExitCode;

// A relay allocates and frees buffers of few sizes at a high rate: jemalloc keeps them per thread.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    corelane::cli::main()
}
