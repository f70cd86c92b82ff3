//! The types of resource we subscribe to.

/// Longest name of a resource that is taken, in bytes. Real ones stay below 400.
pub const RESOURCE_NAME_BYTES_MAX: usize = 2 * 1024;

/// A type of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceType {
    /// Workloads and services.
    Address,
    /// Authorization policies.
    Authorization,
}

impl ResourceType {
    /// All, in the order in which they are subscribed to.
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    /// Its name on the wire.
    #[must_use]
    pub const fn url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}
