//! The control thread: keeps the mesh state and the certificates, and publishes them.

pub mod certs;
pub mod dump;
