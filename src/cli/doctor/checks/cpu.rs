//! Shards against the CPUs and the quota they run on.

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::super::tree::Unknown;
use super::cpu_list;

const SHARDS: Check = Check {
    id: "cpu.shards",
    group: Group::Cpu,
    subject: "shards",
    effect: "shards that share a CPU take turns: each connection waits for the others of its CPU",
};

const QUOTA: Check = Check {
    id: "cpu.quota",
    group: Group::Cpu,
    subject: "quota",
    effect: "a control group that has spent its quota stops all shards until its next period, up to \
             100 ms",
};

const GOVERNOR: Check = Check {
    id: "cpu.governor",
    group: Group::Cpu,
    subject: "frequency governor",
    effect: "a CPU that clocks down between packets answers the first of them late",
};

const GOVERNOR_FILE: &str = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
const GOVERNOR_DRIVER_FILE: &str = "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver";

pub(super) fn check(host: &Host, needs: &Needs, out: &mut Vec<Finding>) {
    out.push(shards(host, needs));
    out.push(quota(host, needs));
    out.push(governor(host));
}

fn shards(host: &Host, needs: &Needs) -> Finding {
    if host.cpus.is_empty() {
        return SHARDS.unknown(&Unknown::Absent);
    }
    let cpus = host.cpus.len();
    let found = format!(
        "{} on CPUs {}",
        needs.shards,
        cpu_list(host.cpus.iter().copied())
    );
    if needs.shards > cpus {
        SHARDS.warning(
            found,
            format!("set shards.count to {cpus} in the configuration"),
        )
    } else {
        SHARDS.ok(found)
    }
}

fn quota(host: &Host, needs: &Needs) -> Finding {
    match host.quota {
        None => QUOTA.ok("none"),
        Some(quota) if needs.shards > quota => QUOTA.warning(
            format!("{quota} CPUs for {} shards", needs.shards),
            format!("set shards.count to {quota}, or raise cpu.max of the control group"),
        ),
        Some(quota) => QUOTA.ok(format!("{quota} CPUs")),
    }
}

fn governor(host: &Host) -> Finding {
    let governor = match host.tree.text(GOVERNOR_FILE) {
        Ok(governor) => governor,
        Err(Unknown::Absent) => return GOVERNOR.ok("none: the CPU or its hypervisor decides"),
        Err(error) => return GOVERNOR.unknown(&error),
    };
    let driver = host.tree.text(GOVERNOR_DRIVER_FILE).unwrap_or_default();
    // These drivers scale by themselves; their `powersave` means "as needed".
    let adapts = ["intel_pstate", "amd-pstate-epp"].contains(&driver.as_str());
    match governor.as_str() {
        "powersave" if !adapts => {
            GOVERNOR.warning(governor, "cpupower frequency-set -g performance")
        }
        "powersave" | "conservative" | "ondemand" => {
            GOVERNOR.note(governor, "cpupower frequency-set -g performance")
        }
        _ => GOVERNOR.ok(governor),
    }
}
