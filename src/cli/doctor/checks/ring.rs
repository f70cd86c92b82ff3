//! io_uring: whether this process may use it, how well, and the memory it locks.

use super::super::finding::{Check, Finding, Group};
use super::super::host::{Host, Refusal, Rings};
use super::super::needs::Needs;
use super::{bytes, number};
use crate::config::DriverChoice;

const PERMISSION: Check = Check {
    id: "io_uring.permission",
    group: Group::IoUring,
    subject: "kernel.io_uring_disabled",
    effect: "where it forbids rings, shards run on epoll: about 10 % more CPU for each small message",
};

const TRIAL: Check = Check {
    id: "io_uring.trial",
    group: Group::IoUring,
    subject: "trial ring",
    effect: "without a ring shards run on epoll: about 10 % more CPU for each small message",
};

const MEMLOCK: Check = Check {
    id: "io_uring.memlock",
    group: Group::IoUring,
    subject: "locked memory",
    effect: "rings that do not fit shrink, and then give way to epoll",
};

/// CAP_IPC_LOCK exempts from the memlock limit, CAP_SYS_ADMIN from `io_uring_disabled` = 1.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    if needs.driver == DriverChoice::Epoll {
        out.push(TRIAL.ok("not used: the configuration chooses epoll"));
        return;
    }
    out.push(permission(host));
    out.push(trial(host, needs));
    out.push(memlock(host, needs));
}

fn permission(host: &Host) -> Finding {
    const ALLOW: &str = "sysctl -w kernel.io_uring_disabled=0";
    match host.tree.sysctl("kernel.io_uring_disabled") {
        Ok(0) => PERMISSION.ok("0: allowed"),
        Ok(1) if host.has_any(&[CAP_SYS_ADMIN]) => {
            PERMISSION.ok("1: allowed to CAP_SYS_ADMIN, which this process has")
        }
        Ok(1) => PERMISSION.note("1: only for CAP_SYS_ADMIN and kernel.io_uring_group", ALLOW),
        Ok(other) => PERMISSION.warning(format!("{other}: forbidden to all"), ALLOW),
        // Older kernels have no such switch.
        Err(super::super::tree::Unknown::Absent) => PERMISSION.ok("no such switch: allowed"),
        Err(error) => PERMISSION.unknown(&error),
    }
}

fn trial(host: &Host, needs: &Needs) -> Finding {
    let refusal = match &host.rings {
        Rings::Best => return TRIAL.ok("works, with SINGLE_ISSUER and DEFER_TASKRUN"),
        Rings::Coop(why) => {
            return TRIAL
                .note(format!("works with COOP_TASKRUN only ({why})"), "")
                .because("more CPU for each small message than with DEFER_TASKRUN (kernel 6.1)");
        }
        Rings::Refused(refusal) => refusal,
    };
    let (found, command) = match refusal {
        Refusal::Forbidden if host.is_filtered() => (
            "forbidden, probably by a seccomp filter".to_owned(),
            "run the container with --security-opt seccomp=packaging/seccomp-corelane.json",
        ),
        Refusal::Forbidden => (
            "forbidden".to_owned(),
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        Refusal::NotBuilt => ("the kernel has no io_uring".to_owned(), ""),
        Refusal::NoMemory => (
            "no memory: the memlock limit".to_owned(),
            "raise memlock: LimitMEMLOCK= of the unit, or tuning/profiles/*/limits.conf",
        ),
        Refusal::Other(why) => (why.clone(), ""),
    };
    if needs.driver == DriverChoice::IoUring {
        TRIAL
            .problem(found, command)
            .because("the configuration demands io_uring: the node does not start")
    } else {
        TRIAL.warning(found, command)
    }
}

fn memlock(host: &Host, needs: &Needs) -> Finding {
    let needed = needs.ring_bytes(host.page_bytes);
    let of = format!(
        "{} shards of {} entries",
        needs.shards,
        number(u64::from(needs.ring_entries))
    );
    let Some(limit) = host.memlock.soft else {
        return MEMLOCK.ok(format!("unlimited; {} for {of}", bytes(needed)));
    };
    let found = format!("{}; {} for {of}", bytes(limit), bytes(needed));
    // Kernels 5.12 to 6.13 charge rings to the memory control group instead.
    let counts = host
        .kernel()
        .is_none_or(|version| !((5, 12)..(6, 14)).contains(&version));
    if needed <= limit || !counts {
        return MEMLOCK.ok(found);
    }
    if host.has_any(&[CAP_IPC_LOCK]) {
        return MEMLOCK.note(
            format!("{found}; CAP_IPC_LOCK exempts this process"),
            command(needed),
        );
    }
    if needs.driver == DriverChoice::IoUring {
        MEMLOCK.warning(found, command(needed))
    } else {
        MEMLOCK
            .warning(found, command(needed))
            .because("rings shrink until they fit, below 256 entries epoll takes their place")
    }
}

fn command(needed: u64) -> String {
    let mib = needed.div_ceil(1 << 20).next_power_of_two().max(8);
    format!(
        "raise memlock: LimitMEMLOCK={mib}M in the unit, `memlock {}` in limits.conf",
        mib << 10
    )
}
