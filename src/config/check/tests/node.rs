//! A node of many workloads: what tells them apart, and what is refused.

use super::*;

const NODE: &str = "mode: node\nlocalState: s\nidentityDir: i\n";

fn with_list(list: &str) -> Result<Checked, ConfigErrors> {
    with_file(&format!("{NODE}node:\n  workloads: {list}\n"))
}

fn problems(list: &str) -> Vec<String> {
    let errors = with_list(list).unwrap_err();
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn the_list_says_what_tells_workloads_apart() {
    let list = "[{name: web, namespace: shop, serviceAccount: w, cgroups: [/a.slice/web, /b], \
                uids: [0, 1000], addresses: [10.0.0.5, '::ffff:10.0.0.6'], ports: [80], \
                default: true}, {name: db, namespace: shop, serviceAccount: d, uids: 1001}]";
    let checked = with_list(list).unwrap();
    assert_eq!(checked.warnings, []);
    let node = checked.config.mode.node().unwrap();
    let [web, db] = node.workloads.all() else {
        panic!("{node:?}");
    };
    assert_eq!(web.info.to_string(), "w.shop (web)");
    assert_eq!(web.cgroups, ["/a.slice/web".into(), "/b".into()]);
    assert_eq!(web.uids, [0, 1_000]);
    let addresses = ["10.0.0.5", "10.0.0.6"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(web.addresses, addresses);
    assert_eq!((web.ports.as_slice(), web.is_default), (&[80][..], true));
    assert_eq!((db.uids.as_slice(), db.is_default), (&[1_001][..], false));
    assert_eq!(node.cgroup_root, None);
    let none = with_file(NODE).unwrap().config.mode;
    assert_eq!(none, NodeMode::Node(Node::default()));
}

#[test]
fn a_list_that_says_too_little_or_too_much_is_refused_with_its_place() {
    let with = |more: &str| format!("[{{name: a, namespace: n, serviceAccount: s{more}}}]");
    for (list, expected) in [
        (with(", uids: [-1]"), "an integer from 0 to 4294967294"),
        (with(", uids: [4294967295]"), "an integer from 0"),
        (with(", uids: [root]"), "an integer from 0"),
        (with(", cgroups: [web.service]"), "as in /proc/PID/cgroup"),
        (with(", cgroups: [/]"), "as in /proc/PID/cgroup"),
        (with(", cgroups: [/a/]"), "as in /proc/PID/cgroup"),
        (with(", cgroups: [/a/../b]"), "as in /proc/PID/cgroup"),
        (with(", addresses: [10.0.0.0/8]"), "an address of this host"),
        (with(", addresses: [0.0.0.0]"), "an address of this host"),
        (with(", uids: [1], ports: [0]"), "an integer from 1"),
        (with(", uids: [1], default: yes"), "`true` or `false`"),
        (with(", uids: {a: 1}"), "expected a single value"),
        (with(", uid: [1]"), "did you mean `uids`?"),
        (with(""), "has neither `cgroups`, `uids` nor `addresses`"),
        (
            "[{namespace: n, serviceAccount: s, uids: [1]}]".into(),
            "node.workloads.name",
        ),
        (
            "[{name: '', namespace: n, serviceAccount: s, uids: [1]}]".into(),
            "a text of up to",
        ),
        ("{}".into(), "a list of workloads"),
        ("[a]".into(), "a mapping that names a workload"),
    ] {
        let found = problems(&list);
        let [problem] = found.as_slice() else {
            panic!("{list}: {found:?}");
        };
        assert!(problem.contains(expected), "{list}: {problem}");
        assert!(
            problem.starts_with("/etc/corelane/c.yaml:5:"),
            "{list}: {problem}"
        );
    }
}

#[test]
fn workloads_that_could_be_mistaken_are_refused() {
    let found = problems(
        "[{name: a, namespace: n, serviceAccount: s, uids: [1]}, \
          {name: b, namespace: n, serviceAccount: s, uids: [1]}]",
    );
    let [problem] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(
        problem.contains("uid 1 belongs to both s.n (a) and s.n (b)"),
        "{problem}"
    );
}

#[test]
fn the_cgroup_root_counts_where_a_cgroup_tells_and_nowhere_else() {
    let root = "  cgroupRoot: /cg\n";
    let list = |how: &str| {
        let one = format!("{{name: a, namespace: n, serviceAccount: s, {how}}}");
        with_file(&format!("{NODE}node:\n{root}  workloads: [{one}]\n")).unwrap()
    };
    let told = list("cgroups: [/a]");
    let node = told.config.mode.node().unwrap();
    assert_eq!(node.cgroup_root.as_deref(), Some(Path::new("/cg")));
    assert_eq!(told.warnings, []);
    let untold = list("uids: [1]");
    assert_eq!(untold.warnings.len(), 1);
    let dedicated = with_file(&format!(
        "mode: dedicated\nworkload: n/a/s\nlocalState: s\nidentityDir: i\nnode:\n{root}  \
         workloads: [{{name: a}}]\n"
    ));
    let warnings = dedicated.unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for warning in warnings {
        assert!(warning.to_string().contains("only a node in mode `node`"));
    }
}
