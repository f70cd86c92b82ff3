//! What only a shared node has: its agent, and perhaps a workload of its own.

use std::path::PathBuf;

use super::super::Shared;
use super::super::problem::ProblemKind;
use super::super::schema::Key;
use super::super::unbuilt::{NO_OWN_WORKLOAD, NO_SHARED};
use super::super::value::{Bool, Name, PathText};
use super::discovery::check;
use super::resolver::Resolver;
use crate::model::workload::WorkloadInfo;

/// Where the reference's agent listens.
const AGENT_SOCKET: &str = "/var/run/ztunnel/ztunnel.sock";

pub(super) fn shared(r: &mut Resolver) -> Shared {
    let agent = r.get(Key::AgentSocket, PathBuf::from(AGENT_SOCKET), &PathText);
    let port_reuse = r.get(Key::InpodPortReuse, true, &Bool);
    let own = [Key::PodName, Key::PodNamespace, Key::PodAccount]
        .map(|key| r.optional(key, &Name).filter(|text| !text.is_empty()));
    let own = match own {
        [Some(name), Some(namespace), Some(service_account)] => Some(WorkloadInfo {
            name,
            namespace,
            service_account,
        }),
        _ => None,
    };
    Shared {
        agent,
        port_reuse,
        own,
    }
}

/// In another mode what only concerns a shared node has no effect.
pub(super) fn without(r: &mut Resolver) {
    check(r, Key::AgentSocket, &PathText, NO_SHARED);
    if let Some((_, origin)) = r.winner(Key::InpodPortReuse, &Bool) {
        r.warn(
            origin,
            Key::InpodPortReuse,
            ProblemKind::NoEffect(NO_SHARED),
        );
    }
    check(r, Key::PodAccount, &Name, NO_OWN_WORKLOAD);
}
