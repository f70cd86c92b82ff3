//! The control thread: keeps the mesh state and the certificates, and publishes them.

pub mod admin;
pub mod certs;
pub mod dns;
pub mod dump;
pub mod exposition;
pub mod grpc;
pub mod http;
pub mod local_state;
pub mod logging;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod readiness;
pub mod revocation;
mod spelling;
pub mod supervisor;
pub mod watch;
pub mod zds;
