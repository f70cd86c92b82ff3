//! sys
pub mod affinity;
