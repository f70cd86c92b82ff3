//! Messages of the control plane, generated from the schemas in `proto/schema` by `cargo xtask proto`.
//!
//! Their types stop in `xds`, in the client of the certificate authority and in that of the node's agent;
//! nothing else names them.

/// Discovery service: requests, responses, resources in their envelopes.
#[rustfmt::skip]
#[path = "proto/generated/discovery.rs"]
pub mod discovery;
/// Authorization policies.
#[rustfmt::skip]
#[path = "proto/generated/istio_security.rs"]
pub mod security;
/// Certificate signing.
#[rustfmt::skip]
#[path = "proto/generated/istio_ca.rs"]
pub mod ca;
/// Workloads and services.
#[rustfmt::skip]
#[path = "proto/generated/istio_workload.rs"]
pub mod workload;
/// Workloads of this node, by its agent.
#[rustfmt::skip]
#[path = "proto/generated/istio_workload_zds.rs"]
pub mod zds;
