//! What end-to-end tests are made of: hosts (network namespaces), capture rules, node processes,
//! applications that talk through them, certificates, local state files, and readers of metrics and
//! access logs. Everything a value here creates on the machine is removed when it is dropped.
//!
//! Functions panic when the test has to fail: their message is what the developer reads.

pub mod access_log;
pub mod agent;
pub mod apps;
pub mod capture;
pub mod clock;
pub mod conversation;
pub mod fleet;
pub mod hosts;
pub mod http;
pub mod loopback;
pub mod metrics;
pub mod node;
pub mod pair;
pub mod pki;
pub mod process;
pub mod requirements;
pub mod shared;
pub mod state;
pub mod wire;
