//! The stages of a connection, in order: accept, capture, authorize, route, dial, relay.
//!
//! | stage | module | consumes → makes |
//! |---|---|---|
//! | accept | `listener` | descriptor → `Accepted` |
//! | capture | `capture` | `Accepted` → `Captured` |
//! | authorize, route | `crate::decision` | facts → `Permit`, `Route` |
//! | dial | `dial`, `pool` | `Route` → open server side |
//! | relay | `relay` | both sides and the `Permit` → `Relayed` |
//!
//! Everything here runs on a shard, a thread of its own that shares nothing: `Rc` and `Cell` only.
//! Deliberately absent: HTTP beyond CONNECT, retries of application requests, any lock.

mod admission;
pub mod balance;
mod capture;
pub mod demand;
mod dial;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
pub mod hostnames;
mod inbound;
mod listener;
pub mod local;
mod notes;
mod outbound;
mod passthrough;
mod permission;
mod pool;
mod proxy_protocol;
mod recheck;
mod relay;
mod revocation;
pub mod rt;
pub mod shard;
mod slot;
mod socket_options;
mod socks;
mod table;
#[cfg(test)]
mod tests;
mod tunnel_life;
mod tunnel_settings;
