//! Network cards: which CPUs handle their packets, dropped packets, MTU.

use std::collections::BTreeSet;

use super::super::finding::{Check, Finding, Group};
use super::super::host::Host;
use super::super::needs::Needs;
use super::super::tree::{cpus_of_list, cpus_of_mask, mask_of};
use super::{cpu_list, number};

const RECEIVE: Check = Check {
    id: "network.receive",
    group: Group::Network,
    subject: "receive",
    effect: "the CPU that takes a card's packets does all their work in the kernel; when it is full, \
             shards on other CPUs wait for packets",
};

const SEND: Check = Check {
    id: "network.send",
    group: Group::Network,
    subject: "send",
    effect: "without a queue for each CPU, shards wait for each other's lock when they send",
};

const DROPS: Check = Check {
    id: "network.backlog",
    group: Group::Network,
    subject: "net.core.netdev_max_backlog",
    effect: "packets that find a CPU's backlog full are dropped and sent again after a timeout",
};

const MTU: Check = Check {
    id: "network.mtu",
    group: Group::Network,
    subject: "MTU",
    effect: "HBONE is TCP and takes the MTU as it is, but a tunnel device that promises more than its \
             path carries makes full-size segments vanish or fragment",
};

/// Smallest MTU of IPv6 (RFC 8200 §5).
const MTU_LOW: u64 = 1_280;
/// Packets dropped since boot, one in this many, that are worth a warning.
const DROPS_PARTS: u64 = 10_000;
/// Kinds of device that put packets into packets (DEVTYPE in uevent).
const TUNNEL_KINDS: [&str; 6] = ["vxlan", "geneve", "wireguard", "gre", "ipip", "sit"];
/// Bytes the widest of them adds: VXLAN over IPv6.
const TUNNEL_OVERHEAD: u64 = 70;

const NET: &str = "sys/class/net";

pub(super) fn check(host: &Host, _: &Needs, out: &mut Vec<Finding>) {
    let devices = host.tree.names(NET);
    for device in devices.iter().filter(|device| is_card(host, device)) {
        out.push(receive(host, device).of(device));
        out.extend(send(host, device).map(|finding| finding.of(device)));
    }
    out.push(drops(host));
    mtu(host, &devices, out);
}

fn is_card(host: &Host, device: &str) -> bool {
    host.tree.exists(&format!("{NET}/{device}/device"))
}

fn queues(host: &Host, device: &str, kind: &str) -> Vec<String> {
    let mut names = host.tree.names(&format!("{NET}/{device}/queues"));
    names.retain(|name| name.starts_with(kind));
    names
}

/// CPUs that the masks of the queues of a device name.
fn masked(host: &Host, device: &str, queues: &[String], file: &str) -> BTreeSet<usize> {
    let mask = |queue: &String| {
        let text = host
            .tree
            .text(&format!("{NET}/{device}/queues/{queue}/{file}"))
            .ok()?;
        cpus_of_mask(&text)
    };
    queues.iter().filter_map(mask).flatten().collect()
}

fn receive(host: &Host, device: &str) -> Finding {
    let queues = queues(host, device, "rx-");
    let rps = masked(host, device, &queues, "rps_cpus");
    let irqs = interrupt_cpus(host, device);
    let count = match queues.len() {
        1 => "1 queue".to_owned(),
        count => format!("{count} queues"),
    };
    let on = match irqs.len() {
        0 => String::new(),
        1 => format!(" on CPU {}", cpu_list(irqs.iter().copied())),
        _ => format!(" on CPUs {}", cpu_list(irqs.iter().copied())),
    };
    if rps.len() > 1 {
        let cpus = cpu_list(rps.iter().copied());
        return RECEIVE.ok(format!("{count}{on}, spread over CPUs {cpus} by RPS"));
    }
    let spread = queues.len().min(host.cpus.len());
    let found = format!("{count}{on}, no RPS");
    if host.cpus.len() < 2 {
        RECEIVE.ok(found)
    } else if queues.len() < 2 {
        let mask = mask_of(host.cpus.iter().copied());
        RECEIVE.note(
            found,
            format!("echo {mask} > /{NET}/{device}/queues/rx-0/rps_cpus"),
        )
    } else if irqs.len() >= spread {
        RECEIVE.ok(found)
    } else if irqs.is_empty() {
        RECEIVE.note(format!("{found}; its interrupts are not known"), "")
    } else {
        RECEIVE.warning(
            found,
            "systemctl enable --now irqbalance, or write a CPU of its own to \
                                /proc/irq/N/smp_affinity_list of each queue",
        )
    }
}

/// CPUs that take the receive interrupts of a device.
fn interrupt_cpus(host: &Host, device: &str) -> BTreeSet<usize> {
    // A virtio device has its interrupts at the PCI function above it.
    let folders = ["device/msi_irqs", "device/../msi_irqs"];
    let numbers = folders
        .iter()
        .map(|folder| host.tree.names(&format!("{NET}/{device}/{folder}")))
        .find(|numbers| !numbers.is_empty())
        .unwrap_or_default();
    let receives = |number: &&String| {
        let names = host
            .tree
            .names(&format!("proc/irq/{number}"))
            .join(" ")
            .to_lowercase();
        let other = ["-output", "-config", "-event", "-control"]
            .iter()
            .any(|part| names.contains(part));
        !other && (names.contains("rx") || names.contains("input") || !names.contains("tx"))
    };
    numbers
        .iter()
        .filter(receives)
        .filter_map(|number| {
            let effective = host
                .tree
                .text(&format!("proc/irq/{number}/effective_affinity_list"));
            let allowed = || {
                host.tree
                    .text(&format!("proc/irq/{number}/smp_affinity_list"))
            };
            cpus_of_list(&effective.or_else(|_| allowed()).ok()?)
        })
        .flatten()
        .collect()
}

fn send(host: &Host, device: &str) -> Option<Finding> {
    let queues = queues(host, device, "tx-");
    if queues.len() < 2 || host.cpus.len() < 2 {
        return None;
    }
    let xps = masked(host, device, &queues, "xps_cpus");
    let found = format!("{} queues", queues.len());
    Some(if xps.is_empty() {
        let command = format!("for each N: echo MASK > /{NET}/{device}/queues/tx-N/xps_cpus");
        SEND.note(format!("{found}, no XPS"), command)
    } else {
        SEND.ok(format!("{found}, XPS for CPUs {}", cpu_list(xps)))
    })
}

/// Packets processed and dropped since boot, one line of hexadecimal columns for each CPU.
fn drops(host: &Host) -> Finding {
    let text = match host.tree.text("proc/net/softnet_stat") {
        Ok(text) => text,
        Err(error) => return DROPS.unknown(&error),
    };
    let column = |index: usize| -> u64 {
        let value = |line: &str| u64::from_str_radix(line.split_whitespace().nth(index)?, 16).ok();
        text.lines().filter_map(value).sum()
    };
    let (processed, dropped) = (column(0), column(1));
    let most = host
        .tree
        .sysctl("net.core.netdev_max_backlog")
        .unwrap_or(1_000);
    let found = format!(
        "{}; {} of {} packets dropped",
        number(most),
        number(dropped),
        number(processed)
    );
    let command = format!(
        "sysctl -w net.core.netdev_max_backlog={}",
        most.saturating_mul(4)
    );
    match dropped {
        0 => DROPS.ok(found),
        _ if dropped < processed / DROPS_PARTS => DROPS.note(found, command),
        _ => DROPS.warning(found, command),
    }
}

fn mtu(host: &Host, devices: &[String], out: &mut Vec<Finding>) {
    let mtu_of = |device: &String| host.tree.number(&format!("{NET}/{device}/mtu")).ok();
    let cards: Vec<(&String, u64)> = devices
        .iter()
        .filter(|device| is_card(host, device))
        .filter_map(|device| Some((device, mtu_of(device)?)))
        .collect();
    let path = cards.iter().map(|(_, mtu)| *mtu).max();
    let before = out.len();
    for device in devices.iter().filter(|device| *device != "lo") {
        let Some(mtu) = mtu_of(device) else { continue };
        if mtu < MTU_LOW {
            let command = format!("ip link set {device} mtu 1500");
            let finding = MTU
                .warning(mtu.to_string(), command)
                .because("IPv6 does not work below 1,280, and each packet carries little");
            out.push(finding.of(device));
        } else if let Some(path) = path.filter(|path| mtu >= *path && is_tunnel(host, device)) {
            let command = format!(
                "ip link set {device} mtu {}",
                path.saturating_sub(TUNNEL_OVERHEAD)
            );
            let found = format!("{mtu} on a path of {path}");
            out.push(MTU.warning(found, command).of(device));
        }
    }
    if out.len() == before {
        let texts: Vec<String> = cards
            .iter()
            .map(|(name, mtu)| format!("{name} {mtu}"))
            .collect();
        let found = if texts.is_empty() {
            "no card".to_owned()
        } else {
            texts.join(", ")
        };
        out.push(MTU.ok(found));
    }
}

fn is_tunnel(host: &Host, device: &str) -> bool {
    let uevent = host
        .tree
        .text(&format!("{NET}/{device}/uevent"))
        .unwrap_or_default();
    let kind = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVTYPE="));
    kind.is_some_and(|kind| TUNNEL_KINDS.contains(&kind))
}
