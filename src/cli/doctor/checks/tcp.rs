//! TCP: congestion control, buffers, IPv6.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::super::tree::Unknown;
use super::bytes;

const CONGESTION: Check = Check {
    id: "tcp.congestion",
    group: Group::Tcp,
    subject: "congestion control",
    effect: "one that paces, such as bbr, is slow between namespaces of one host",
};

const RECEIVE: Check = Check {
    id: "tcp.receive_buffer",
    group: Group::Tcp,
    subject: "net.ipv4.tcp_rmem",
    effect: "caps what one connection may have in flight: bandwidth times round trip must fit, twice",
};

const SEND: Check = Check {
    id: "tcp.send_buffer",
    group: Group::Tcp,
    subject: "net.ipv4.tcp_wmem",
    effect: "caps what one connection may have sent and unacknowledged: bandwidth times round trip",
};

const FIXED: Check = Check {
    id: "tcp.fixed_buffers",
    group: Group::Tcp,
    subject: "fixed buffers",
    effect: "SO_RCVBUF and SO_SNDBUF are silently cut to net.core.rmem_max and wmem_max",
};

const MEMORY: Check = Check {
    id: "tcp.memory",
    group: Group::Tcp,
    subject: "memory of all sockets",
    effect: "past the pressure mark the kernel shrinks windows of every connection on the host",
};

const IPV6: Check = Check {
    id: "tcp.ipv6",
    group: Group::Tcp,
    subject: "IPv6",
    effect: "without it listeners bind 0.0.0.0 and IPv6 clients are not served",
};

/// Less than this is 1 Gbit/s over 8 ms.
const BUFFER_LOW: u64 = 1024 * 1024;

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    out.push(
        match host.tree.text("proc/sys/net/ipv4/tcp_congestion_control") {
            Err(error) => CONGESTION.unknown(&error),
            Ok(name) if name.starts_with("bbr") => {
                CONGESTION.note(name, "sysctl -w net.ipv4.tcp_congestion_control=cubic")
            }
            Ok(name) => CONGESTION.ok(name),
        },
    );
    out.push(buffer(host, "net.ipv4.tcp_rmem", RECEIVE));
    out.push(buffer(host, "net.ipv4.tcp_wmem", SEND));
    fixed(host, needs, out);
    out.push(memory(host));
    out.push(ipv6(host, needs));
}

fn buffer(host: &Host, name: &str, about: Check) -> Finding {
    match host
        .tree
        .numbers(&super::super::tree::sysctl_path(name))
        .as_deref()
    {
        Err(error) => about.unknown(error),
        Ok([least, usual, most]) if *most < BUFFER_LOW => about.warning(
            format!("at most {}", bytes(*most)),
            format!("sysctl -w {name}=\"{least} {usual} 16777216\""),
        ),
        Ok(numbers) => {
            let most = numbers.last().copied().unwrap_or(0);
            about.ok(format!("at most {}", bytes(most)))
        }
    }
}

fn fixed(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    let wanted = [
        (needs.tuning.receive_buffer_bytes, "net.core.rmem_max"),
        (needs.tuning.send_buffer_bytes, "net.core.wmem_max"),
    ];
    for (wanted, name) in wanted {
        let Some(wanted) = wanted.map(|bytes| bytes as u64) else {
            continue;
        };
        let finding = match host.tree.sysctl(name) {
            Err(error) => FIXED.unknown(&error),
            Ok(most) if most < wanted => FIXED.warning(
                format!("{} of {name} for {}", bytes(most), bytes(wanted)),
                format!("sysctl -w {name}={wanted}"),
            ),
            Ok(most) => FIXED.ok(format!("{} of {name} for {}", bytes(most), bytes(wanted))),
        };
        out.push(finding.of(name));
    }
}

fn memory(host: &Host) -> Finding {
    let marks = match host.tree.numbers("proc/sys/net/ipv4/tcp_mem") {
        Ok(marks) => marks,
        Err(error) => return MEMORY.unknown(&error),
    };
    let (Some(pressure), used) = (marks.get(1).copied(), used_pages(host)) else {
        return MEMORY.unknown(&Unknown::Odd(format!("{marks:?}")));
    };
    let size = |pages: u64| bytes(pages.saturating_mul(host.page_bytes));
    let found = format!("{} in use, pressure from {}", size(used), size(pressure));
    if used >= pressure {
        let [low, mid, high] = [2, 3, 4].map(|factor| pressure.saturating_mul(factor));
        MEMORY.warning(
            found,
            format!("sysctl -w net.ipv4.tcp_mem=\"{low} {mid} {high}\""),
        )
    } else {
        MEMORY.ok(found)
    }
}

/// `TCP: inuse 8 orphan 0 tw 1 alloc 9 mem 2` of sockstat.
fn used_pages(host: &Host) -> u64 {
    let text = host.tree.text("proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"));
    let mut words = line.unwrap_or_default().split_whitespace();
    let mem = words
        .by_ref()
        .find(|word| *word == "mem")
        .and_then(|_| words.next());
    mem.and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

fn ipv6(host: &Host, needs: &Needs) -> Finding {
    if !needs.ipv6 {
        return IPV6.ok("not wanted");
    }
    match host.tree.text("proc/net/if_inet6") {
        Err(Unknown::Absent) => IPV6.note("not in this kernel", ""),
        Err(error) => IPV6.unknown(&error),
        Ok(addresses) if addresses.is_empty() => IPV6.note(
            "no interface has an address",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0",
        ),
        Ok(_) => IPV6.ok("there"),
    }
}
