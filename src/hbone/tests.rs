//! Tunnels end to end, in memory; raw frames where a library would not go.

mod abuse;
mod answers;
mod client_role;
mod crowd;
mod errors;
mod flow;
pub(super) mod frames;
pub(super) mod harness;
mod lifecycle;
mod requests;
mod wire;
