//! Metrics and logs: what shards count and record, and how the control thread prints it.
//!
//! A shard writes into cells it owns ([`counters`], [`series`]) and hands records, not text, to the
//! log writer's thread ([`access_log`], [`log_writer`]); it takes no lock, formats nothing and never
//! waits. [`hub::Hub`] sums the shards' cells when somebody scrapes. [`families`] names every metric.

pub mod access_log;
pub mod counters;
pub mod families;
pub mod flow;
pub mod histogram;
pub mod hub;
mod labels;
pub mod line;
pub mod log_limit;
pub mod log_writer;
pub mod open;
pub mod page;
pub mod series;
pub mod shard;
#[cfg(feature = "otlp")]
pub mod spans;
#[cfg(test)]
pub(crate) mod testing;

pub use counters::{Counter, DriverInfo, Gauge, Limit, ListenerKind, Role, ShardCounters};
pub use flow::{Direction, Ends, Flow, Party, Refusal};
pub use histogram::Histogram;
pub use hub::{Hub, HubOptions};
pub use log_writer::{LogSink, LogWriter};
pub use shard::{OpenFlow, ShardTelemetry};
