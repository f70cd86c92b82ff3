//! Vocabulary shared by the control thread and the shards: plain values, no I/O.
//!
//! Values are immutable once published and cheap to clone (`Arc` inside). Nothing here names a
//! runtime, a socket, a clock or a random source.

pub mod addr;
pub mod baggage;
pub mod close;
pub mod gateway;
pub mod identity;
pub mod local;
pub mod policy;
pub mod service;
pub mod trace;
pub mod workload;
