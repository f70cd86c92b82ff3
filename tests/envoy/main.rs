//! Interop with a released Envoy. On loopback addresses, without privileges: Envoy opens tunnels to a
//! node, a node opens tunnels to Envoy, and (so that the Envoy side itself is above suspicion) Envoy
//! talks to Envoy. On captured hosts, as root: Envoy is the waypoint between nodes. Needs
//! `cargo xtask peers`; without it each test says "skipped", or fails if `REQUIRE_PEERS=1`.
//!
//! Sizes from the environment: `WAYPOINT_CHANGES` (12).

/// The program under test.
#[cfg(test)]
const CORELANE: &str = env!("CARGO_BIN_EXE_corelane");

#[cfg(test)]
mod alone;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod inbound;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod node;
#[cfg(test)]
mod outbound;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod waypoint;
