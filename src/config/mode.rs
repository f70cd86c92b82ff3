//! Whom a node speaks for, and how it knows.

use std::path::PathBuf;

use crate::model::local::LocalWorkloads;
use crate::model::workload::WorkloadInfo;

/// Whom a node speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeMode {
    /// One workload, named by the operator.
    Dedicated {
        /// That workload.
        workload: WorkloadInfo,
    },
    /// The workloads listed, and all whose `node` is ours, told apart by process, by address or by the
    /// forward they use.
    Node(Node),
    /// The workloads that the node's agent names, each served in its own network namespace.
    Shared(Shared),
}

/// How a shared node learns of its workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Socket of the node's agent.
    pub agent: PathBuf,
    /// Another process may hold the same ports in the workloads' namespaces while one replaces the
    /// other.
    pub port_reuse: bool,
    /// The workload that this process itself is, served on the HBONE port of its own namespace.
    pub own: Option<WorkloadInfo>,
}

/// How a node of many workloads tells them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Those that are told by more than the address of their record.
    pub workloads: LocalWorkloads,
    /// Where cgroup v2 is mounted; `None`: where the kernel says.
    pub cgroup_root: Option<PathBuf>,
}

impl NodeMode {
    /// How a node of many workloads tells them apart.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        match self {
            Self::Node(node) => Some(node),
            Self::Dedicated { .. } | Self::Shared(_) => None,
        }
    }

    /// How a shared node learns of its workloads.
    #[must_use]
    pub const fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Shared(shared) => Some(shared),
            Self::Dedicated { .. } | Self::Node(_) => None,
        }
    }

    /// The one workload of a dedicated node.
    #[must_use]
    pub const fn workload(&self) -> Option<&WorkloadInfo> {
        match self {
            Self::Dedicated { workload } => Some(workload),
            Self::Node(_) | Self::Shared(_) => None,
        }
    }
}
