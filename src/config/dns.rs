//! What a node knows of names beyond its listeners.

use std::path::PathBuf;
use std::sync::Arc;

/// Port of the DNS proxy.
pub const DNS_PORT: u16 = 15_053;

/// Where names come from that are not in the mesh, and which of several services a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// File with the name servers of the host (resolv.conf(5)).
    pub resolv_conf: PathBuf,
    /// Namespace whose service wins where nothing else decides.
    pub preferred_service_namespace: Option<Arc<str>>,
}
