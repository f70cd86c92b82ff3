//! Nodes of ours with Istio's own discovery server and certificate authority, on loopback, without
//! privileges. Needs `cargo xtask istio`; without it each test says "skipped", or fails if
//! `REQUIRE_ISTIO=1`.

/// The program under test.
#[cfg(test)]
const CORELANE: &str = env!("CARGO_BIN_EXE_corelane");

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod objects;
