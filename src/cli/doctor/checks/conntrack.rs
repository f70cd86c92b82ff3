//! Connection tracking, which capture by redirection uses for every connection.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::super::tree::Unknown;
use super::number;

const TABLE: Check = Check {
    id: "conntrack.table",
    group: Group::Conntrack,
    subject: "table",
    effect: "a full table drops the first packet of every new connection, also of those that are not \
             captured",
};

/// Parts in 100 of the table that may be in use.
const PERCENT_HIGH: u64 = 80;

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    let most = match host.tree.sysctl("net.netfilter.nf_conntrack_max") {
        Err(Unknown::Absent) => {
            out.push(TABLE.ok("not loaded"));
            return;
        }
        Err(error) => {
            out.push(TABLE.unknown(&error));
            return;
        }
        Ok(most) => most,
    };
    let count = host
        .tree
        .sysctl("net.netfilter.nf_conntrack_count")
        .unwrap_or(0);
    let found = format!("{} of {}", number(count), number(most));
    // The captured connection and the one the node makes for it.
    let needed = needs
        .connections
        .map(|connections| connections.saturating_mul(2));
    out.push(match needed {
        _ if count >= most / 100 * PERCENT_HIGH => TABLE.warning(
            found,
            format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                most.saturating_mul(4)
            ),
        ),
        Some(needed) if needed > most => TABLE.warning(
            format!("{found}; limits.connections needs {}", number(needed)),
            format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                needed.next_power_of_two()
            ),
        ),
        _ => TABLE.ok(found),
    });
}
