//! Discovery end to end: the built program, and the client of the library, against a control plane of
//! ours on loopback that does what it is told, good or bad. No privileges.
//!
//! Sizes from the environment: `DISCOVERY_WORKLOADS` (20000; the full run is 100000).

/// The program under test.
#[cfg(test)]
const CORELANE: &str = env!("CARGO_BIN_EXE_corelane");

#[cfg(test)]
mod authority;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod client;
#[cfg(test)]
mod demand;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod plane;
#[cfg(test)]
mod program;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod waypoint;
