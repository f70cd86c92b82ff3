//! The seccomp profiles allow what the program needs and little else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::text;

/// For one host's node, and for a shared node in Kubernetes.
const PROFILES: [&str; 2] = [
    "packaging/seccomp-corelane.json",
    "packaging/kubernetes/seccomp-corelane-node.json",
];

fn read(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap()
}

fn profile() -> Value {
    read(PROFILES[0])
}

/// Calls that are allowed whatever their arguments.
fn allowed() -> BTreeSet<String> {
    let profile = profile();
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let unconditional =
        rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null());
    let names = unconditional.flat_map(|rule| rule["names"].as_array().unwrap().clone());
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_not_named_is_refused_and_not_fatal() {
    assert_eq!(profile()["defaultAction"], "SCMP_ACT_ERRNO");
}

#[test]
fn rings_sockets_pipes_and_pinning_are_allowed() {
    let allowed = allowed();
    let needed = [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "epoll_pwait",
        "eventfd2",
        "accept4",
        "connect",
        "setsockopt",
        "splice",
        "pipe2",
        "sched_setaffinity",
        "inotify_add_watch",
        "timerfd_settime",
        "prlimit64",
        "getrandom",
        "futex",
    ];
    for name in needed {
        assert!(allowed.contains(name), "{name}");
    }
}

#[test]
fn what_reaches_beyond_the_container_is_refused() {
    let allowed = allowed();
    let refused = [
        "bpf",
        "clone",
        "clone3",
        "delete_module",
        "init_module",
        "kexec_load",
        "keyctl",
        "mount",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "ptrace",
        "reboot",
        "setns",
        "swapon",
        "umount2",
        "unshare",
        "userfaultfd",
    ];
    for name in refused {
        assert!(!allowed.contains(name), "{name}");
    }
}

#[test]
fn new_namespaces_are_masked_out_of_clone() {
    /// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; see clone(2).
    const NEW_NAMESPACES: u64 = 0x7e02_0000;
    let profile = profile();
    let rules = profile["syscalls"].as_array().unwrap();
    let clone = rules
        .iter()
        .find(|rule| rule["names"] == serde_json::json!(["clone"]))
        .unwrap();
    let argument = &clone["args"][0];
    assert_eq!(
        (&argument["op"], &argument["index"]),
        (&"SCMP_CMP_MASKED_EQ".into(), &0.into())
    );
    assert_eq!(argument["value"].as_u64(), Some(NEW_NAMESPACES));
    assert_eq!(argument["valueTwo"], 0);
}

/// What stands in the sources, and the system call behind it.
const CALLS: &[(&str, &str)] = &[
    (
        "rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice}",
        "splice",
    ),
    ("pipe_with(", "pipe2"),
    ("eventfd(", "eventfd2"),
    ("acceptfrom_with(", "accept4"),
    ("rustix::net::recv(", "recvfrom"),
    ("rustix::net::send(", "sendto"),
    ("rustix::net::sendmsg(", "sendmsg"),
    ("libc::setsockopt(", "setsockopt"),
    ("sched_getaffinity(", "sched_getaffinity"),
    ("core_affinity::set_for_current(", "sched_setaffinity"),
    ("setrlimit(", "prlimit64"),
    ("libc::madvise(", "madvise"),
    ("fstatfs(", "fstatfs"),
    ("libc::signalfd(", "signalfd4"),
    ("kill_process(", "kill"),
];

#[test]
fn what_the_sources_call_is_allowed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys");
    let files = std::fs::read_dir(folder).unwrap();
    let sources: String = files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let allowed = allowed();
    for (source, call) in CALLS {
        assert!(sources.contains(source), "{source} is no longer there");
        assert!(allowed.contains(*call), "{call}");
    }
}

#[test]
fn the_profile_of_a_shared_node_allows_to_enter_network_namespaces_and_nothing_more() {
    /// See setns(2).
    const CLONE_NEWNET: u64 = 0x4000_0000;
    let (mut node, alone) = (read(PROFILES[1]), profile());
    let rules = node["syscalls"].as_array_mut().unwrap();
    let at = rules
        .iter()
        .position(|rule| rule["names"] == json!(["setns"]));
    let setns = rules.remove(at.unwrap());
    assert_eq!(setns["action"], "SCMP_ACT_ALLOW");
    let argument = &setns["args"][0];
    assert_eq!(
        (&argument["op"], &argument["index"]),
        (&"SCMP_CMP_EQ".into(), &1.into())
    );
    assert_eq!(argument["value"].as_u64(), Some(CLONE_NEWNET));
    assert_eq!(node, alone, "the rest is the same");
}
