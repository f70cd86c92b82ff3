//! The control thread: keeps the mesh state and the certificates, and publishes them.

pub mod admin;
pub mod exposition;
pub mod http;
pub mod logging;
pub mod readiness;
