//! Tunnels end to end, in memory; raw frames where a library would not go.

mod abuse;
mod client_role;
mod flow;
mod frames;
mod harness;
mod lifecycle;
mod requests;
