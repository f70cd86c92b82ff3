//! Kernel release, clock source, huge pages.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;

const VERSION: Check = Check {
    id: "kernel.version",
    group: Group::Kernel,
    subject: "release",
    effect: "from 6.1 on, rings deliver completions in batches: 11 us a round trip of 64 B instead of \
             25 to 31",
};

const CLOCK: Check = Check {
    id: "kernel.clock",
    group: Group::Kernel,
    subject: "clock source",
    effect: "a clock that cannot be read in user space makes each reading a system call, several of \
             them for each connection",
};

const HUGE_PAGES: Check = Check {
    id: "kernel.hugepages",
    group: Group::Kernel,
    subject: "huge pages",
    effect: "with `always` the allocator's idle pages stay resident and the kernel pauses threads to \
             compact memory",
};

const CLOCK_FILE: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
const CLOCKS_FILE: &str = "sys/devices/system/clocksource/clocksource0/available_clocksource";
const HUGE_FILE: &str = "sys/kernel/mm/transparent_hugepage/enabled";

/// Clocks that the vDSO reads without a system call.
const FAST_CLOCKS: [&str; 5] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "riscv_clocksource",
];

pub(super) fn check(host: &Host, _: &Needs, out: &mut Vec<Finding>) {
    out.push(version(host));
    out.push(clock(host));
    out.push(huge_pages(host));
}

fn version(host: &Host) -> Finding {
    let release = match host.tree.text("proc/sys/kernel/osrelease") {
        Ok(release) => release,
        Err(error) => return VERSION.unknown(&error),
    };
    match host.kernel() {
        Some(version) if version >= (6, 1) => VERSION.ok(release),
        Some(version) if version >= (5, 6) => VERSION.note(release, "").because(
            "before 6.1 rings lack DEFER_TASKRUN: more CPU for each small message, all else works",
        ),
        Some(_) => VERSION
            .warning(release, "")
            .because("before 5.6 io_uring lacks what a node uses: shards run on epoll"),
        None => VERSION.note(release, ""),
    }
}

fn clock(host: &Host) -> Finding {
    let clock = match host.tree.text(CLOCK_FILE) {
        Ok(clock) => clock,
        Err(error) => return CLOCK.unknown(&error),
    };
    if FAST_CLOCKS.contains(&clock.as_str()) {
        return CLOCK.ok(clock);
    }
    let available = host.tree.text(CLOCKS_FILE).unwrap_or_default();
    let better = FAST_CLOCKS
        .into_iter()
        .find(|fast| available.split_whitespace().any(|name| name == *fast));
    let command = better.map_or_else(String::new, |better| {
        format!("echo {better} > /{CLOCK_FILE}")
    });
    CLOCK.warning(clock, command)
}

fn huge_pages(host: &Host) -> Finding {
    match host.tree.text(HUGE_FILE) {
        Err(error) => HUGE_PAGES.unknown(&error),
        Ok(text) if text.contains("[always]") => {
            HUGE_PAGES.note("always", format!("echo madvise > /{HUGE_FILE}"))
        }
        Ok(text) => {
            let chosen = text.split(['[', ']']).nth(1).unwrap_or(&text);
            HUGE_PAGES.ok(chosen)
        }
    }
}
