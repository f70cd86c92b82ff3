//! Tunnels end to end, in memory; raw frames where a library would not go.

mod abuse;
mod client_role;
mod flow;
pub(super) mod frames;
pub(super) mod harness;
mod lifecycle;
mod requests;
