//! HBONE on the `h2` crate: selectable, and the oracle our own engine is compared with.
//!
//! `h2` types stop here. What `h2` does not bound is bounded around it: by the guard, which walks the
//! frames that pass (`io`), and by taking small frames out of it (`parking`).

pub(super) mod client;
mod io;
mod parking;
pub(super) mod server;
pub(super) mod stream;
mod tunnel;
