//! Facts and policies → Permit or Denied (spec: authorization.md).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::identity::Identity;
use crate::model::policy::Policy;
use crate::model::workload::Workload;
use crate::snapshot::Snapshot;

/// What is known about a connection when it is authorized.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// Identity proven by TLS; none on plain text.
    pub identity: Option<Arc<Identity>>,
    /// TCP peer, canonical.
    pub source_ip: IpAddr,
    /// Local address, canonical.
    pub destination_ip: IpAddr,
    /// Resolved application port.
    pub destination_port: u16,
    /// The workload it is for, as the snapshot has it now.
    pub destination: Arc<Workload>,
}

/// Proof of authorization. Only [`authorize`] makes one.
#[derive(Debug)]
pub struct Permit(());

/// Why a connection was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A deny policy matches.
    Explicit {
        /// `namespace/name`.
        policy: Arc<str>,
    },
    /// Allow policies exist and none matches.
    NoneAllowed,
    /// The workload lists a policy that is not known. The caller waits for it up to 1 s.
    PolicyUnknown {
        /// `namespace/name`.
        policy: Arc<str>,
    },
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit { policy } => write!(f, "explicitly denied by: {policy}"),
            Self::NoneAllowed => f.write_str("allow policies exist, but none allowed"),
            Self::PolicyUnknown { policy } => {
                write!(
                    f,
                    "policy {policy} is attached to the workload but not known yet"
                )
            }
        }
    }
}

/// One line of what the evaluation saw, for logs and counters (authorization 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Fixed text, e.g. `dry-run: deny policy match`.
    pub text: &'static str,
    /// The policy meant, if one is.
    pub policy: Option<Arc<Policy>>,
}

/// Verdict and what was seen on the way.
#[derive(Debug)]
pub struct Decision {
    /// Permit, or why not.
    pub verdict: Result<Permit, Denied>,
    /// In the order of evaluation.
    pub notes: Vec<Note>,
}

/// Decides on one connection. SKELETON.
#[must_use]
pub fn authorize(_facts: &ConnectionFacts, _snapshot: &Snapshot) -> Decision {
    unimplemented!()
}
