//! Spans of connections: where they go and how many there are.

use std::sync::Arc;

use super::server::{RootSource, ServerAddress};

/// Name that spans go under by default.
pub const SPAN_SERVICE_NAME: &str = "corelane";

/// Where spans of connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// The collector, OTLP over gRPC.
    pub collector: ServerAddress,
    /// Who is believed to be it.
    pub roots: RootSource,
    /// Name they go under.
    pub service_name: Arc<str>,
    /// Connections of a million that have one.
    pub sampled_per_million: u32,
}
