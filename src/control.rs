//! The control thread: keeps the mesh state and the certificates, and publishes them.

pub mod dump;
pub mod local_state;
mod spelling;
pub mod watch;
