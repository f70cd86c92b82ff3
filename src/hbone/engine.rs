//! Our own HTTP/2 engine for CONNECT streams.
//!
//! `connection` and its parts are pure: bytes and orders in, frames out. `driver` runs them over a
//! transport; `client`, `server` and `stream` are the handles. Deliberately absent: anything that a
//! CONNECT does not need, such as push, priorities, bodies with a length, or HPACK compression of what
//! we send.

mod batch;
pub(super) mod client;
mod commands;
mod connection;
mod control;
mod dispatch;
mod driver;
mod ends;
mod fields;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hpack;
mod parked;
mod receive;
mod send;
pub(super) mod server;
mod shape;
mod state;
pub(super) mod stream;
mod tunnel;

pub use parked::ParkedBudget;

#[cfg(test)]
mod tests;
