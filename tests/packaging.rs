//! Files for packagers: the seccomp profile allows what the program needs and little else.

#[cfg(test)]
mod seccomp {
    use std::collections::BTreeSet;

    use serde_json::Value;

    fn profile() -> Value {
        serde_json::from_str(include_str!("../packaging/seccomp-corelane.json")).unwrap()
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
}
