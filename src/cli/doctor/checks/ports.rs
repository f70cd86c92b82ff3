//! Local ports, and the queues new connections wait in.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::number;

const RANGE: Check = Check {
    id: "ports.range",
    group: Group::Ports,
    subject: "local ports",
    effect: "each connection to one destination takes one; without a free one dials fail with \
             EADDRNOTAVAIL",
};

const RESERVED: Check = Check {
    id: "ports.reserved",
    group: Group::Ports,
    subject: "listeners",
    effect: "a port inside the range of local ports may be taken by an outgoing connection, and the \
             node then fails to start",
};

const PRIVILEGED: Check = Check {
    id: "ports.privileged",
    group: Group::Ports,
    subject: "privileged ports",
    effect: "binding fails with EACCES and the node does not start",
};

const BACKLOG: Check = Check {
    id: "ports.somaxconn",
    group: Group::Ports,
    subject: "net.core.somaxconn",
    effect: "caps the queue of accepted connections; when it is full handshakes are dropped and \
             clients try again after a second",
};

const SYN_BACKLOG: Check = Check {
    id: "ports.syn_backlog",
    group: Group::Ports,
    subject: "net.ipv4.tcp_max_syn_backlog",
    effect: "half-open connections beyond it are dropped unless SYN cookies are on, and cookies lose \
             TCP options",
};

const MIGRATE: Check = Check {
    id: "ports.migrate",
    group: Group::Ports,
    subject: "net.ipv4.tcp_migrate_req",
    effect: "without it connections in the queue of a closing listener are reset when another process \
             or shard shares the port: 31 of 4,000 in a trial",
};

/// Fewer local ports than this are few for one busy destination.
const RANGE_LOW: u64 = 16_384;
/// CAP_NET_BIND_SERVICE.
const CAP_NET_BIND_SERVICE: u32 = 10;

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    range(host, needs, out);
    out.push(privileged(host, needs));
    let backlog = u64::from(needs.tuning.listen_backlog.unsigned_abs());
    let sysctl = |name: &str| host.tree.sysctl(name);
    out.push(match sysctl("net.core.somaxconn") {
        Err(error) => BACKLOG.unknown(&error),
        Ok(most) if most < backlog => BACKLOG.warning(
            format!(
                "{}; tuning.listenBacklog is {}",
                number(most),
                number(backlog)
            ),
            format!(
                "sysctl -w net.core.somaxconn={}",
                backlog.next_power_of_two()
            ),
        ),
        Ok(most) => BACKLOG.ok(number(most)),
    });
    out.push(match sysctl("net.ipv4.tcp_max_syn_backlog") {
        Err(error) => SYN_BACKLOG.unknown(&error),
        Ok(most) if most < backlog => {
            let command = format!(
                "sysctl -w net.ipv4.tcp_max_syn_backlog={}",
                backlog.next_power_of_two()
            );
            if sysctl("net.ipv4.tcp_syncookies") == Ok(0) {
                SYN_BACKLOG.warning(format!("{}, and no SYN cookies", number(most)), command)
            } else {
                SYN_BACKLOG.note(number(most), command)
            }
        }
        Ok(most) => SYN_BACKLOG.ok(number(most)),
    });
    out.push(match sysctl("net.ipv4.tcp_migrate_req") {
        Err(error) => MIGRATE.unknown(&error),
        Ok(0) if needs.reuse_port => MIGRATE.warning(
            "0, and socket.reusePort is on",
            "sysctl -w net.ipv4.tcp_migrate_req=1",
        ),
        Ok(0) => MIGRATE.ok("0; socket.reusePort is off"),
        Ok(_) => MIGRATE.ok("1"),
    });
}

fn range(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    let numbers = host.tree.numbers("proc/sys/net/ipv4/ip_local_port_range");
    let (first, last) = match numbers.as_deref() {
        Ok([first, last]) => (*first, *last),
        Ok(_) => return,
        Err(error) => {
            out.push(RANGE.unknown(error));
            return;
        }
    };
    let count = (last + 1).saturating_sub(first);
    let found = format!("{} ({first} to {last})", number(count));
    out.push(if count < RANGE_LOW {
        RANGE.warning(
            found,
            "sysctl -w net.ipv4.ip_local_port_range=\"16384 65535\"",
        )
    } else {
        RANGE.ok(found)
    });
    let reserved = host.tree.text("proc/sys/net/ipv4/ip_local_reserved_ports");
    let reserved = super::super::tree::cpus_of_list(&reserved.unwrap_or_default());
    let reserved = reserved.unwrap_or_default();
    let at_risk: Vec<String> = needs
        .ports
        .iter()
        .filter(|port| (first..=last).contains(&u64::from(**port)))
        .filter(|port| !reserved.contains(&usize::from(**port)))
        .map(ToString::to_string)
        .collect();
    out.push(if at_risk.is_empty() {
        RESERVED.ok("outside the range of local ports, or reserved")
    } else {
        let ports = at_risk.join(",");
        RESERVED.warning(
            format!("inside the range of local ports: {ports}"),
            format!("sysctl -w net.ipv4.ip_local_reserved_ports={ports}"),
        )
    });
}

fn privileged(host: &Host, needs: &Needs) -> Finding {
    let first_free = host
        .tree
        .sysctl("net.ipv4.ip_unprivileged_port_start")
        .unwrap_or(1_024);
    let low: Vec<String> = needs
        .ports
        .iter()
        .filter(|port| u64::from(**port) < first_free)
        .map(ToString::to_string)
        .collect();
    if low.is_empty() {
        return PRIVILEGED.ok("none listened on");
    }
    let ports = low.join(", ");
    if host.has_any(&[CAP_NET_BIND_SERVICE]) {
        PRIVILEGED.ok(format!("{ports}; CAP_NET_BIND_SERVICE is there"))
    } else {
        PRIVILEGED.problem(
            format!("{ports}, without CAP_NET_BIND_SERVICE"),
            "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit",
        )
    }
}
