//! The stages of a connection, in order: accept, capture, authorize, route, dial, relay.

pub mod rt;
