//! The doctor on made-up hosts: each thing that is fine beside the same thing broken.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::finding::Group;
use super::host::{Refusal, Rings};
use super::tree::Tree;
use super::*;
use crate::config::tuning::Tuning;
use crate::config::{DriverChoice, OriginalSource};
use crate::sys::limits::Limit;

/// A host on which everything is fine.
const GOOD: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.18.1-generic\n"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet acpi_pm\n",
    ),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "performance\n",
    ),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    (
        "proc/self/status",
        "Name:\tcorelane\nCapEff:\t0000000000002000\nSeccomp:\t0\n",
    ),
    ("proc/sys/fs/nr_open", "2097152\n"),
    ("proc/sys/fs/file-nr", "1000\t0\t9000000\n"),
    ("proc/sys/fs/pipe-max-size", "1048576\n"),
    ("proc/sys/fs/pipe-user-pages-soft", "65536\n"),
    ("proc/sys/fs/pipe-user-pages-hard", "0\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "16384\t65535\n"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
    ("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "8192\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/tcp_migrate_req", "1\n"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "1\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "1048576\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "100\n"),
    ("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t65536\t33554432\n"),
    ("proc/sys/net/ipv4/tcp_mem", "100000\t200000\t300000\n"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n"),
    ("proc/sys/net/ipv4/tcp_mtu_probing", "1\n"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "131072\n"),
    ("proc/sys/net/core/rmem_max", "16777216\n"),
    ("proc/sys/net/core/netdev_max_backlog", "8192\n"),
    (
        "proc/net/sockstat",
        "sockets: used 9\nTCP: inuse 8 orphan 0 tw 1 alloc 9 mem 2\n",
    ),
    (
        "proc/net/if_inet6",
        "00000000000000000000000000000001 01 80 10 80 lo\n",
    ),
    (
        "proc/net/softnet_stat",
        "00001000 00000000 00000000\n00001000 00000000 00000000\n",
    ),
    ("sys/class/net/eth0/mtu", "1500\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "1\n"),
    ("sys/class/net/eth0/queues/tx-1/xps_cpus", "2\n"),
    ("sys/class/net/eth0/device/msi_irqs/40", ""),
    ("sys/class/net/eth0/device/msi_irqs/41", ""),
    ("proc/irq/40/eth0-rx-0/spurious", ""),
    ("proc/irq/40/effective_affinity_list", "0\n"),
    ("proc/irq/41/eth0-rx-1/spurious", ""),
    ("proc/irq/41/effective_affinity_list", "1\n"),
];

/// A host made of [`GOOD`] with some files replaced; an empty path text `-` takes the file away.
fn host(changes: &[(&str, &str)]) -> (TempDir, Host) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in GOOD.iter().chain(changes) {
        write(folder.path(), path, text);
    }
    let limit = |number| Limit {
        soft: Some(number),
        hard: Some(number),
    };
    let host = Host {
        tree: Tree::new(folder.path()),
        descriptors: limit(1_048_576),
        memlock: limit(64 << 20),
        page_bytes: 4_096,
        cpus: vec![0, 1],
        quota: None,
        rings: Rings::Best,
    };
    (folder, host)
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    if text == "-" {
        fs::remove_file(path).unwrap();
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn needs() -> Needs {
    Needs {
        shards: 2,
        ring_entries: 4_096,
        driver: DriverChoice::Auto,
        connections: None,
        ports: vec![15_001, 15_008],
        packet_mark: None,
        original_source: OriginalSource::Auto,
        reuse_port: false,
        ipv6: true,
        tuning: Tuning::default(),
    }
}

#[track_caller]
fn finding(findings: &[Finding], id: &str) -> Finding {
    let found = findings.iter().find(|finding| finding.id == id);
    found
        .unwrap_or_else(|| panic!("no {id} in {findings:#?}"))
        .clone()
}

#[test]
fn a_host_on_which_everything_is_fine_has_only_good_findings() {
    let (_folder, host) = host(&[]);
    for profile in [
        None,
        Some(Profile::Throughput),
        Some(Profile::ManyConnections),
    ] {
        let findings = examine(&host, &needs(), profile);
        let other: Vec<_> = findings.iter().filter(|f| f.level != Level::Ok).collect();
        assert!(other.is_empty(), "{other:#?}");
    }
}

/// Changed files, the finding they show in, its level, a part of what was found, of the command.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Level, &'a str, &'a str);

const CASES: &[Case<'_>] = &[
    (
        &[("proc/sys/kernel/osrelease", "5.15.0")],
        "kernel.version",
        Level::Note,
        "5.15.0",
        "",
    ),
    (
        &[("proc/sys/kernel/osrelease", "4.19.0")],
        "kernel.version",
        Level::Warning,
        "4.19.0",
        "",
    ),
    (
        &[(
            "sys/devices/system/clocksource/clocksource0/current_clocksource",
            "hpet",
        )],
        "kernel.clock",
        Level::Warning,
        "hpet",
        "echo tsc > /sys/",
    ),
    (
        &[(
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
        )],
        "kernel.hugepages",
        Level::Note,
        "always",
        "echo madvise",
    ),
    (
        &[(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "powersave",
        )],
        "cpu.governor",
        Level::Warning,
        "powersave",
        "cpupower",
    ),
    (
        &[("proc/sys/kernel/io_uring_disabled", "2")],
        "io_uring.permission",
        Level::Warning,
        "forbidden to all",
        "io_uring_disabled=0",
    ),
    (
        &[("proc/sys/kernel/io_uring_disabled", "1")],
        "io_uring.permission",
        Level::Note,
        "io_uring_group",
        "io_uring_disabled=0",
    ),
    (
        &[("proc/sys/fs/file-nr", "90\t0\t100")],
        "descriptors.files",
        Level::Warning,
        "90 open of 100",
        "fs.file-max=400",
    ),
    (
        &[("proc/sys/fs/pipe-max-size", "65536")],
        "pipes.size",
        Level::Warning,
        "64 KiB",
        "fs.pipe-max-size=1048576",
    ),
    (
        &[("proc/sys/fs/pipe-max-size", "524288")],
        "pipes.size",
        Level::Note,
        "512 KiB",
        "fs.pipe-max-size=1048576",
    ),
    (
        &[("proc/sys/fs/pipe-user-pages-soft", "8192")],
        "pipes.quota",
        Level::Note,
        "8,192 pages, 32 MiB",
        "pipe-user-pages-soft=16384",
    ),
    (
        &[("proc/sys/fs/pipe-user-pages-hard", "8192")],
        "pipes.hard_quota",
        Level::Note,
        "8,192 pages",
        "pipe-user-pages-hard=16384",
    ),
    (
        &[("proc/sys/net/ipv4/ip_local_port_range", "32768\t40000")],
        "ports.range",
        Level::Warning,
        "7,233",
        "ip_local_port_range=",
    ),
    (
        &[("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535")],
        "ports.reserved",
        Level::Warning,
        "15001,15008",
        "ip_local_reserved_ports=15001,15008",
    ),
    (
        &[("proc/sys/net/core/somaxconn", "64")],
        "ports.somaxconn",
        Level::Warning,
        "64; tuning.listenBacklog is 128",
        "somaxconn=128",
    ),
    (
        &[("proc/sys/net/ipv4/tcp_max_syn_backlog", "64")],
        "ports.syn_backlog",
        Level::Note,
        "64",
        "tcp_max_syn_backlog=128",
    ),
    (
        &[
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "64"),
            ("proc/sys/net/ipv4/tcp_syncookies", "0"),
        ],
        "ports.syn_backlog",
        Level::Warning,
        "no SYN cookies",
        "tcp_max_syn_backlog=128",
    ),
    (
        &[("proc/sys/net/netfilter/nf_conntrack_count", "1000000")],
        "conntrack.table",
        Level::Warning,
        "1,000,000 of 1,048,576",
        "nf_conntrack_max=4194304",
    ),
    (
        &[("proc/sys/net/ipv4/tcp_congestion_control", "bbr")],
        "tcp.congestion",
        Level::Note,
        "bbr",
        "cubic",
    ),
    (
        &[("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t212992")],
        "tcp.receive_buffer",
        Level::Warning,
        "208 KiB",
        "tcp_rmem=\"4096 131072 16777216\"",
    ),
    (
        &[("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t212992")],
        "tcp.send_buffer",
        Level::Warning,
        "208 KiB",
        "tcp_wmem=",
    ),
    (
        &[(
            "proc/net/sockstat",
            "TCP: inuse 8 orphan 0 tw 1 alloc 9 mem 250000\n",
        )],
        "tcp.memory",
        Level::Warning,
        "976.6 MiB in use",
        "tcp_mem=",
    ),
    (
        &[("proc/net/if_inet6", "-")],
        "tcp.ipv6",
        Level::Note,
        "not in this kernel",
        "",
    ),
    (
        &[("proc/net/if_inet6", "")],
        "tcp.ipv6",
        Level::Note,
        "no interface",
        "disable_ipv6=0",
    ),
    (
        &[("proc/irq/41/effective_affinity_list", "0")],
        "network.receive.eth0",
        Level::Warning,
        "2 queues on CPU 0, no RPS",
        "irqbalance",
    ),
    (
        &[
            ("sys/class/net/eth0/queues/tx-0/xps_cpus", "0"),
            ("sys/class/net/eth0/queues/tx-1/xps_cpus", "0"),
        ],
        "network.send.eth0",
        Level::Note,
        "no XPS",
        "xps_cpus",
    ),
    (
        &[("proc/net/softnet_stat", "00000100 00000080 00000000\n")],
        "network.backlog",
        Level::Warning,
        "128 of 256 packets",
        "netdev_max_backlog=32768",
    ),
    (
        &[("proc/net/softnet_stat", "10000000 00000001 00000000\n")],
        "network.backlog",
        Level::Note,
        "1 of 268,435,456 packets",
        "netdev_max_backlog=32768",
    ),
    (
        &[("sys/class/net/tun0/mtu", "1200")],
        "network.mtu.tun0",
        Level::Warning,
        "1200",
        "ip link set tun0 mtu 1500",
    ),
    (
        &[
            ("sys/class/net/vx0/mtu", "1500"),
            ("sys/class/net/vx0/uevent", "DEVTYPE=vxlan\nINTERFACE=vx0\n"),
        ],
        "network.mtu.vx0",
        Level::Warning,
        "1500 on a path of 1500",
        "mtu 1430",
    ),
    (
        &[(
            "proc/self/status",
            "CapEff:\t0000000000000000\nSeccomp:\t0\n",
        )],
        "privileges.source",
        Level::Note,
        "neither",
        "CAP_NET_RAW",
    ),
];

#[test]
fn each_file_that_is_wrong_shows_in_its_finding_with_a_command() {
    for (changes, id, level, found, command) in CASES {
        let (_folder, host) = host(changes);
        let finding = finding(&examine(&host, &needs(), None), id);
        assert_eq!(finding.level, *level, "{finding:#?}");
        assert!(finding.found.contains(found), "{finding:#?}");
        let told = finding.command.clone().unwrap_or_default();
        assert!(
            told.contains(command) && told.is_empty() == command.is_empty(),
            "{finding:#?}"
        );
        assert!(!finding.effect.is_empty());
    }
}

#[test]
fn a_card_with_one_queue_is_fine_with_rps_and_noted_without() {
    let one_queue = |rps: &'static str| {
        let (folder, host) = host(&[("sys/class/net/eth0/queues/rx-0/rps_cpus", rps)]);
        fs::remove_dir_all(folder.path().join("sys/class/net/eth0/queues/rx-1")).unwrap();
        finding(&examine(&host, &needs(), None), "network.receive.eth0")
    };
    let without = one_queue("00000000,00000000");
    assert_eq!(without.level, Level::Note);
    assert_eq!(
        without.command.unwrap(),
        "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"
    );
    let with = one_queue("3");
    assert_eq!(with.level, Level::Ok);
    assert!(
        with.found.contains("spread over CPUs 0-1 by RPS"),
        "{}",
        with.found
    );
}

#[test]
fn what_a_configuration_asks_for_and_the_host_refuses_is_a_problem() {
    let bare = [(
        "proc/self/status",
        "CapEff:\t0000000000000000\nSeccomp:\t2\n",
    )];
    type Change = fn(&mut Needs, &mut Host);
    let cases: [(&str, Change, &str); 7] = [
        (
            "descriptors.limit",
            |needs, _| needs.connections = Some(1_000_000),
            "2,000,064 needed",
        ),
        (
            "descriptors.nr_open",
            |needs, _| needs.connections = Some(4_000_000),
            "needed",
        ),
        (
            "ports.privileged",
            |needs, _| needs.ports = vec![443, 15_008],
            "443, without",
        ),
        (
            "privileges.mark",
            |needs, _| needs.packet_mark = Some(1_337),
            "1337: neither",
        ),
        (
            "privileges.source",
            |needs, _| needs.original_source = OriginalSource::Required,
            "neither",
        ),
        (
            "io_uring.trial",
            |needs, host| {
                needs.driver = DriverChoice::IoUring;
                host.rings = Rings::Refused(Refusal::Forbidden);
            },
            "seccomp",
        ),
        (
            "io_uring.trial",
            |needs, host| {
                needs.driver = DriverChoice::IoUring;
                host.rings = Rings::Refused(Refusal::NotBuilt);
            },
            "no io_uring",
        ),
    ];
    for (id, change, found) in cases {
        let (_folder, mut host) = host(&bare);
        let before = examine(&host, &needs(), None);
        assert_ne!(finding(&before, id).level, Level::Problem, "{id} before");
        let mut needs = needs();
        change(&mut needs, &mut host);
        let finding = finding(&examine(&host, &needs, None), id);
        assert_eq!(finding.level, Level::Problem, "{finding:#?}");
        assert!(finding.found.contains(found), "{finding:#?}");
    }
}

#[test]
fn a_capability_makes_up_for_what_only_unprivileged_users_miss() {
    // CAP_NET_BIND_SERVICE, CAP_IPC_LOCK, CAP_SYS_ADMIN and CAP_SYS_RESOURCE.
    let all = "CapEff:\t0000000001204400\nSeccomp:\t0\n";
    let (_folder, mut host) = host(&[
        ("proc/self/status", all),
        ("proc/sys/fs/pipe-max-size", "65536"),
        ("proc/sys/fs/pipe-user-pages-soft", "16"),
        ("proc/sys/kernel/io_uring_disabled", "1"),
    ]);
    host.memlock.soft = Some(65_536);
    let mut needs = needs();
    needs.ports = vec![443];
    let findings = examine(&host, &needs, None);
    for id in [
        "pipes.size",
        "pipes.quota",
        "io_uring.permission",
        "ports.privileged",
    ] {
        assert_eq!(finding(&findings, id).level, Level::Ok, "{id}");
    }
    assert_eq!(finding(&findings, "io_uring.memlock").level, Level::Note);
}

#[test]
fn rings_are_held_against_the_memlock_limit_where_the_kernel_does_so() {
    for (release, level) in [
        ("6.18.0", Level::Warning),
        ("6.14.0", Level::Warning),
        ("6.12.0", Level::Ok),
        ("5.10.0", Level::Warning),
    ] {
        let (_folder, mut host) = host(&[("proc/sys/kernel/osrelease", release)]);
        host.memlock.soft = Some(1 << 20);
        let finding = finding(&examine(&host, &needs(), None), "io_uring.memlock");
        assert_eq!(finding.level, level, "{release}: {finding:#?}");
        assert!(
            finding.found.starts_with("1 MiB; 1.1 MiB for 2 shards"),
            "{finding:#?}"
        );
    }
}

#[test]
fn shards_beyond_cpus_or_quota_are_warned_about() {
    let (_folder, mut host) = host(&[]);
    host.quota = Some(1);
    let findings = examine(&host, &needs(), None);
    assert_eq!(finding(&findings, "cpu.quota").level, Level::Warning);
    assert_eq!(finding(&findings, "cpu.shards").level, Level::Ok);
    host.quota = Some(4);
    let mut many = needs();
    many.shards = 3;
    let findings = examine(&host, &many, None);
    assert_eq!(finding(&findings, "cpu.quota").level, Level::Ok);
    let shards = finding(&findings, "cpu.shards");
    assert_eq!(
        (shards.level, shards.found.as_str()),
        (Level::Warning, "3 on CPUs 0-1")
    );
}

#[test]
fn expert_settings_that_the_host_cuts_are_warned_about() {
    let (_folder, host) = host(&[("proc/sys/net/core/rmem_max", "212992")]);
    let mut needs = needs();
    needs.tuning.receive_buffer_bytes = Some(4 << 20);
    let cut = finding(
        &examine(&host, &needs, None),
        "tcp.fixed_buffers.net.core.rmem_max",
    );
    assert_eq!(cut.level, Level::Warning);
    needs.tuning.receive_buffer_bytes = Some(65_536);
    let fits = finding(
        &examine(&host, &needs, None),
        "tcp.fixed_buffers.net.core.rmem_max",
    );
    assert_eq!(fits.level, Level::Ok);
    needs.tuning.pipe_bytes = None;
    let off = finding(&examine(&host, &needs, None), "pipes.size");
    assert!(off.found.contains("off"), "{off:?}");
}

#[test]
fn a_restart_that_shares_ports_wants_queued_connections_to_move() {
    let (_folder, host) = host(&[("proc/sys/net/ipv4/tcp_migrate_req", "0")]);
    let mut needs = needs();
    assert_eq!(
        finding(&examine(&host, &needs, None), "ports.migrate").level,
        Level::Ok
    );
    needs.reuse_port = true;
    assert_eq!(
        finding(&examine(&host, &needs, None), "ports.migrate").level,
        Level::Warning
    );
}

#[test]
fn differences_from_a_profile_are_notes_until_it_is_chosen() {
    let changes = [
        ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
    ];
    let (_folder, host) = host(&changes);
    let id = "profile.net.ipv4.tcp_notsent_lowat";
    let noted = finding(&examine(&host, &needs(), None), id);
    assert_eq!(
        (noted.level, noted.profiles.as_slice()),
        (Level::Note, &["latency"][..])
    );
    assert_eq!(noted.group, Group::Profiles);
    assert_eq!(noted.found, "4294967295; 131072 wanted");
    assert_eq!(
        noted.command.as_deref(),
        Some("sysctl -w net.ipv4.tcp_notsent_lowat=131072")
    );
    let chosen = finding(&examine(&host, &needs(), Some(Profile::Latency)), id);
    assert_eq!(chosen.level, Level::Warning);
    let other = examine(&host, &needs(), Some(Profile::Throughput));
    assert!(
        other.iter().all(|finding| finding.id != id),
        "not part of that profile"
    );
    let shared = "profile.net.ipv4.tcp_slow_start_after_idle";
    let shared = finding(&examine(&host, &needs(), None), shared);
    assert_eq!(shared.profiles, ["throughput", "latency"]);
}

#[test]
fn facts_that_cannot_be_read_are_told_and_judge_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_other, mut host) = host(&[]);
    host.tree = Tree::new(folder.path());
    let findings = examine(&host, &needs(), None);
    assert!(
        findings.iter().all(|finding| finding.level <= Level::Note),
        "{findings:#?}"
    );
    assert_eq!(finding(&findings, "kernel.version").found, "not there");
    assert_eq!(finding(&findings, "conntrack.table").found, "not loaded");
    // A text that is no number.
    write(folder.path(), "proc/sys/net/core/somaxconn", "plenty");
    let odd = finding(&examine(&host, &needs(), None), "ports.somaxconn");
    assert_eq!(
        (odd.level, odd.found.as_str()),
        (Level::Note, "not understood: `plenty`")
    );
}

#[test]
fn epoll_by_choice_asks_nothing_of_io_uring() {
    let (_folder, mut host) = host(&[("proc/sys/kernel/io_uring_disabled", "2")]);
    host.rings = Rings::Refused(Refusal::Forbidden);
    let mut needs = needs();
    needs.driver = DriverChoice::Epoll;
    let findings = examine(&host, &needs, None);
    let rings: Vec<_> = findings
        .iter()
        .filter(|f| f.group == Group::IoUring)
        .collect();
    assert_eq!((rings.len(), rings[0].level), (1, Level::Ok));
}

#[test]
fn this_host_is_examined_whoever_asks() {
    let mut host = Host::of_this_process();
    host.try_rings();
    let findings = examine(&host, &Needs::usual(&host), None);
    let ids: std::collections::BTreeSet<_> = findings.iter().map(|finding| &finding.id).collect();
    assert!(findings.len() > 25, "{findings:#?}");
    assert_eq!(ids.len(), findings.len(), "names are unique");
    assert!(host.kernel().is_some() && !host.cpus.is_empty());
}
