//! Each workload that is told is told by the best evidence, and nobody else is.

use super::*;

fn info(name: &str) -> Arc<WorkloadInfo> {
    Arc::new(WorkloadInfo {
        name: name.into(),
        namespace: "default".into(),
        service_account: name.into(),
    })
}

fn workload(name: &str) -> LocalWorkload {
    LocalWorkload {
        info: info(name),
        cgroups: Vec::new(),
        uids: Vec::new(),
        addresses: Vec::new(),
        ports: Vec::new(),
        is_default: false,
    }
}

fn with_cgroup(name: &str, path: &str) -> LocalWorkload {
    LocalWorkload {
        cgroups: vec![path.into()],
        ..workload(name)
    }
}

fn with_uid(name: &str, uid: u32) -> LocalWorkload {
    LocalWorkload {
        uids: vec![uid],
        ..workload(name)
    }
}

fn with_address(name: &str, address: &str) -> LocalWorkload {
    LocalWorkload {
        addresses: vec![ip(address)],
        ..workload(name)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(found: Option<&Arc<WorkloadInfo>>) -> &str {
    found.map_or("", |info| &info.name)
}

#[test]
fn a_process_is_told_by_its_innermost_cgroup_then_by_its_user() {
    let local = LocalWorkloads::new(vec![
        with_cgroup("slice", "/web.slice"),
        with_cgroup("unit", "/web.slice/a.service"),
        with_uid("user", 1_000),
    ])
    .unwrap();
    for (uid, cgroup, expected) in [
        (0, Some("/web.slice"), "slice"),
        (1_000, Some("/web.slice"), "slice"),
        (0, Some("/web.slice/b.service"), "slice"),
        (0, Some("/web.slice/a.service"), "unit"),
        (1_000, Some("/web.slice/a.service/worker"), "unit"),
        (1_000, Some("/other.slice"), "user"),
        (1_000, Some("/"), "user"),
        (1_000, None, "user"),
        // Denied: a prefix of the text alone, a cgroup above, another user.
        (0, Some("/web.slices"), ""),
        (0, Some("/x/web.slice"), ""),
        (0, Some("/"), ""),
        (0, Some(""), ""),
        (1_001, None, ""),
    ] {
        let found = local.of_process(uid, cgroup);
        assert_eq!(name(found), expected, "{uid} {cgroup:?}");
    }
}

#[test]
fn an_address_tells_only_a_workload_that_is_told_by_nothing_else() {
    let local = LocalWorkloads::new(vec![
        with_address("alone", "10.0.0.1"),
        LocalWorkload {
            addresses: vec![ip("10.0.0.2")],
            ..with_uid("process", 1_000)
        },
        LocalWorkload {
            addresses: vec![ip("10.0.0.3")],
            is_default: true,
            ..with_cgroup("both", "/both")
        },
        with_address("rest", "10.0.0.3"),
    ])
    .unwrap();
    assert_eq!(
        local.of_client(ip("10.0.0.1")),
        ByAddress::Workload(&info("alone"))
    );
    assert_eq!(local.of_client(ip("10.0.0.2")), ByAddress::ProcessesOnly);
    assert_eq!(
        local.of_client(ip("10.0.0.3")),
        ByAddress::Workload(&info("rest"))
    );
    assert_eq!(local.of_client(ip("10.0.0.4")), ByAddress::Unlisted);
    assert!(local.is_told_by_process(&info("process")));
    assert!(!local.is_told_by_process(&info("alone")));
    assert!(!local.is_told_by_process(&info("stranger")));
}

#[test]
fn of_several_told_by_one_address_the_default_connects_from_it() {
    let ports = |name: &str, port, is_default| LocalWorkload {
        ports: vec![port],
        is_default,
        ..with_address(name, "10.0.0.1")
    };
    let local = LocalWorkloads::new(vec![ports("a", 80, false), ports("b", 81, true)]).unwrap();
    assert_eq!(
        local.of_client(ip("10.0.0.1")),
        ByAddress::Workload(&info("b"))
    );
}

#[test]
fn a_shared_address_is_divided_by_ports() {
    let at = |name: &str, ports: &[u16], is_default| LocalWorkload {
        addresses: vec![ip("10.0.0.1"), ip("fd00::1")],
        ports: ports.to_vec(),
        is_default,
        ..with_cgroup(name, &format!("/{name}"))
    };
    let local = LocalWorkloads::new(vec![
        at("web", &[80, 443], false),
        at("db", &[5_432], false),
        at("rest", &[], true),
        LocalWorkload {
            ports: vec![80],
            ..with_address("alone", "10.0.0.9")
        },
    ])
    .unwrap();
    for (to, expected) in [
        ("10.0.0.1:80", "web"),
        ("[fd00::1]:443", "web"),
        ("10.0.0.1:5432", "db"),
        ("10.0.0.1:15008", "rest"),
        ("10.0.0.1:81", "rest"),
        ("10.0.0.9:80", "alone"),
        ("10.0.0.9:15008", "alone"),
        ("10.0.0.2:80", ""),
    ] {
        assert_eq!(name(local.at(to.parse().unwrap())), expected, "{to}");
    }
}

#[test]
fn what_could_be_mistaken_is_refused() {
    let refused = |all: Vec<LocalWorkload>| -> Vec<String> {
        let errors = LocalWorkloads::new(all).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        refused(vec![with_uid("a", 1), with_uid("b", 1)]),
        ["uid 1 belongs to both a.default (a) and b.default (b)"]
    );
    assert_eq!(
        refused(vec![with_cgroup("a", "/x"), with_cgroup("b", "/x")]),
        ["cgroup /x belongs to both a.default (a) and b.default (b)"]
    );
    assert_eq!(
        refused(vec![with_uid("a", 1), with_uid("a", 2)]),
        ["a.default (a) is listed twice"]
    );
    assert_eq!(
        refused(vec![workload("a")]),
        ["a.default (a) has neither `cgroups`, `uids` nor `addresses`"]
    );
    let shared = [("a", true), ("b", true)].map(|(name, is_default)| LocalWorkload {
        ports: vec![80],
        is_default,
        ..with_address(name, "10.0.0.1")
    });
    assert_eq!(
        refused(shared.to_vec()),
        [
            "port 80 of 10.0.0.1 belongs to both a.default (a) and b.default (b)",
            "address 10.0.0.1 is shared: exactly one of its workloads needs `default: true`",
        ]
    );
    let twice = LocalWorkload {
        uids: vec![1, 1],
        addresses: vec![ip("::1"), ip("::1")],
        ports: vec![80],
        ..workload("a")
    };
    assert!(LocalWorkloads::new(vec![twice]).is_ok(), "with itself");
}
