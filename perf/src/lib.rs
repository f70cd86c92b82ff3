//! The perf lab: two nodes in network namespaces, Corelane and its peers in turn between them, the
//! same work for all, and what it cost. `perf/README.md` explains every number.
//!
//! Also a library: whoever wants to vary a knob makes a [`peers::Peer`] with other settings and hands
//! it to [`run::run`].

pub mod ab;
pub mod apps;
pub mod benches;
pub mod cipher;
pub mod cli;
pub mod error;
pub mod experiment;
pub mod iperf;
pub mod lab;
pub mod machine;
pub mod peers;
pub mod procfs;
pub mod profile;
pub mod relay;
pub mod report;
pub mod results;
pub mod run;
pub mod stats;
pub mod stop;
pub mod targets;
pub mod tool;
pub mod work;
pub mod wrk;
