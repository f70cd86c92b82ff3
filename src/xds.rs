//! Discovery: mesh state from a control plane by incremental xDS (spec: xds.md).
//!
//! [`convert`] turns resources into model values or says why not; [`client`] knows the rules of the
//! conversation without doing any I/O, [`conversation`] runs it, [`node`] says who we are. What cannot
//! be read is refused whole, so that no policy is ever weaker than written, and the state already
//! taken stays in force.

pub mod cache;
pub mod client;
pub mod conversation;
pub mod convert;
pub mod node;
pub mod reconnect;
pub mod resource;
