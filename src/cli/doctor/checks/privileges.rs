//! Capabilities that packet marks and original source addresses take.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::super::tree::Unknown;
use crate::config::OriginalSource;

const MARK: Check = Check {
    id: "privileges.mark",
    group: Group::Privileges,
    subject: "packet mark",
    effect: "SO_MARK is refused, so every dial fails",
};

const SOURCE: Check = Check {
    id: "privileges.source",
    group: Group::Privileges,
    subject: "original source",
    effect: "IP_TRANSPARENT is refused, so applications see the node's address instead of the client's",
};

/// Either is enough for both options.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const GRANT: &str = "AmbientCapabilities=CAP_NET_RAW in the unit";

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    if host.capabilities().is_none() {
        out.push(SOURCE.unknown(&Unknown::Unreadable("/proc/self/status".to_owned())));
        return;
    }
    let granted = host.has_any(&[CAP_NET_ADMIN, CAP_NET_RAW]);
    let which = if granted {
        "allowed here"
    } else {
        "neither CAP_NET_RAW nor CAP_NET_ADMIN"
    };
    out.push(match needs.packet_mark {
        None => MARK.ok("not used"),
        Some(mark) if granted => MARK.ok(format!("{mark}: {which}")),
        Some(mark) => MARK.problem(format!("{mark}: {which}"), GRANT),
    });
    out.push(match needs.original_source {
        OriginalSource::Never => SOURCE.ok("not used"),
        OriginalSource::Auto | OriginalSource::Required if granted => SOURCE.ok(which),
        OriginalSource::Auto => SOURCE.note(which, GRANT),
        OriginalSource::Required => SOURCE
            .problem(which, GRANT)
            .because("IP_TRANSPARENT is required and refused: the node does not start"),
    });
}
