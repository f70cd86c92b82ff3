//! System calls that no safe interface covers, and the only place where `unsafe` may stand.
//!
//! Imports nothing from this crate. Everything here is non-blocking.

pub mod affinity;
pub mod cgroups;
pub mod event;
pub mod fds;
#[cfg(test)]
pub(crate) mod heap;
#[cfg(feature = "pprof")]
pub mod heap_profile;
pub mod limits;
pub mod netns;
pub mod owner;
pub mod packets;
pub mod pipe;
pub mod process;
pub mod program;
pub mod ring;
pub mod socket;
pub mod steering;
