//! Corelane, a zero-trust node tunnel: captures a node's TCP traffic, gives every workload a SPIFFE
//! identity, carries it in HBONE (HTTP/2 CONNECT over mutual TLS 1.3) and authorizes at L4.
//!
//! Modules in the order data flows: [`config`] is read once; [`control`] keeps the mesh state and
//! the certificates and publishes them through [`snapshot`]; shards in [`dataplane`] accept,
//! authorize and route with the pure functions of [`decision`], dial through [`hbone`] and [`tls`]
//! over a [`transport`], relay, and report to [`telemetry`].

pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod decision;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod hbone;
pub mod model;
pub mod snapshot;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod transport;
