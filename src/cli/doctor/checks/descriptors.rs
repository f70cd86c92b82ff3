//! Open files: of this process and of the host.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::{limit, number};
use crate::config::limits::CONNECTION_DESCRIPTOR_PARTS;

const LIMIT: Check = Check {
    id: "descriptors.limit",
    group: Group::Descriptors,
    subject: "of the process",
    effect: "a plain connection takes two, a tunnelled one takes one; half of the hard limit is what \
             connections may take, the rest are refused",
};

const NR_OPEN: Check = Check {
    id: "descriptors.nr_open",
    group: Group::Descriptors,
    subject: "fs.nr_open",
    effect: "no process gets a higher limit, whatever its unit or limits.conf says",
};

const FILES: Check = Check {
    id: "descriptors.files",
    group: Group::Descriptors,
    subject: "of the host",
    effect: "when the host has no file left every accept fails with ENFILE, for every process",
};

/// Below this a node serves fewer than 2,048 plain connections.
const LIMIT_LOW: u64 = 4_096;
/// Parts in 100 of the host's files that may be open.
const FILES_PERCENT_HIGH: u64 = 80;

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    out.push(of_process(host, needs));
    out.push(nr_open(host, needs));
    out.push(files(host));
}

fn of_process(host: &Host, needs: &Needs) -> Finding {
    let limits = host.descriptors;
    let hard = limits.hard.unwrap_or(u64::MAX);
    let found = format!("{} soft, {} hard", limit(limits.soft), limit(limits.hard));
    let command = |wanted: u64| {
        format!("raise nofile: LimitNOFILE={wanted} in the unit, `nofile {wanted}` in limits.conf")
    };
    match needs.descriptors() {
        Some(needed) if hard < needed => LIMIT
            .problem(
                format!("{found}; {} needed", number(needed)),
                command(needed),
            )
            .because("limits.connections cannot be reached: connections are refused before"),
        Some(needed) => LIMIT.ok(format!("{found}; {} needed", number(needed))),
        None if hard < LIMIT_LOW => LIMIT.warning(found, command(65_536)),
        None => {
            let connections = limits.hard.map(|hard| hard / CONNECTION_DESCRIPTOR_PARTS);
            LIMIT.ok(format!("{found}: {} connections", limit(connections)))
        }
    }
}

fn nr_open(host: &Host, needs: &Needs) -> Finding {
    match (host.tree.sysctl("fs.nr_open"), needs.descriptors()) {
        (Err(error), _) => NR_OPEN.unknown(&error),
        (Ok(most), Some(needed)) if most < needed => NR_OPEN.problem(
            format!("{}; {} needed", number(most), number(needed)),
            format!("sysctl -w fs.nr_open={}", needed.next_power_of_two()),
        ),
        (Ok(most), _) => NR_OPEN.ok(number(most)),
    }
}

fn files(host: &Host) -> Finding {
    // Allocated, free (always 0), and the most there may be.
    let numbers = match host.tree.numbers("proc/sys/fs/file-nr") {
        Ok(numbers) => numbers,
        Err(error) => return FILES.unknown(&error),
    };
    let (open, most) = (numbers[0], numbers.last().copied().unwrap_or(0));
    let found = format!("{} open of {}", number(open), number(most));
    if open >= most / 100 * FILES_PERCENT_HIGH {
        FILES.warning(
            found,
            format!("sysctl -w fs.file-max={}", most.saturating_mul(4)),
        )
    } else {
        FILES.ok(found)
    }
}
