//! Pipes of splice: their size and the quota of unprivileged users.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::{bytes, number};
use crate::config::limits::RELAY_PIPE_BYTES_MIN;

const SIZE: Check = Check {
    id: "pipes.size",
    group: Group::Pipes,
    subject: "fs.pipe-max-size",
    effect: "a smaller pipe moves less at a time: 0.30 CPU seconds for each GiB with 64 KiB, 0.20 with \
             1 MiB; below 256 KiB bulk is copied instead, at 0.44",
};

const QUOTA: Check = Check {
    id: "pipes.quota",
    group: Group::Pipes,
    subject: "fs.pipe-user-pages-soft",
    effect: "past the quota a user's pipes are too small to be used, and further bulk connections are \
             copied at twice the CPU",
};

const HARD_QUOTA: Check = Check {
    id: "pipes.hard_quota",
    group: Group::Pipes,
    subject: "fs.pipe-user-pages-hard",
    effect: "past this quota a user gets no pipe at all, and further bulk connections are copied",
};

/// Either exempts from size and quota (pipe(7)).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    let Some(wanted) = needs.tuning.pipe_bytes else {
        out.push(SIZE.ok("not used: tuning.pipeBytes is off"));
        return;
    };
    let exempt = host.has_any(&[CAP_SYS_ADMIN, CAP_SYS_RESOURCE]);
    out.push(size(host, wanted as u64, exempt));
    let soft = ("fs.pipe-user-pages-soft", QUOTA);
    let hard = ("fs.pipe-user-pages-hard", HARD_QUOTA);
    for (name, about) in [soft, hard] {
        out.push(quota(host, needs, name, about, exempt));
    }
}

fn size(host: &Host, wanted: u64, exempt: bool) -> Finding {
    let command = format!("sysctl -w fs.pipe-max-size={wanted}");
    match host.tree.sysctl("fs.pipe-max-size") {
        Err(error) => SIZE.unknown(&error),
        Ok(most) if most >= wanted => SIZE.ok(bytes(most)),
        Ok(most) if exempt => SIZE.ok(format!(
            "{}; a capability exempts this process",
            bytes(most)
        )),
        Ok(most) if most < RELAY_PIPE_BYTES_MIN as u64 => SIZE
            .warning(bytes(most), command)
            .because("pipes would be too small to pay: bulk is copied, at twice the CPU"),
        Ok(most) => SIZE.note(bytes(most), command),
    }
}

fn quota(host: &Host, needs: &Needs, name: &str, about: Check, exempt: bool) -> Finding {
    let pages = match host.tree.sysctl(name) {
        Ok(pages) => pages,
        Err(error) => return about.unknown(&error),
    };
    let needed = needs.pipe_bytes().div_ceil(host.page_bytes);
    if pages == 0 {
        return about.ok("0: unlimited");
    }
    let allowed = bytes(pages.saturating_mul(host.page_bytes));
    let found = format!(
        "{} pages, {allowed}; all shards keep up to {}",
        number(pages),
        bytes(needs.pipe_bytes())
    );
    if pages >= needed {
        about.ok(found)
    } else if exempt {
        about.ok(format!("{found}; a capability exempts this process"))
    } else {
        about.note(
            found,
            format!("sysctl -w {name}={}", needed.next_power_of_two()),
        )
    }
}
