//! Sockets of a shared node: of both families, marked, and only with the privileges for it.

use std::net::SocketAddr;

use corelane_harness::apps::{self, Server};
use corelane_harness::hosts::{Family, Network};
use corelane_harness::node::{Driver, REPORT_LIMIT};
use corelane_harness::process::Process;
use corelane_harness::requirements::{self, has_netns};
use corelane_harness::shared::Shared;

use super::{PORT, options, who_calls};
use crate::CORELANE;

with_both_drivers!(pods_talk_by_ipv6_as_by_ipv4_and_every_tunnel_has_the_mark);

fn pods_talk_by_ipv6_as_by_ipv4_and_every_tunnel_has_the_mark(driver: Driver) {
    let shared = Shared::start(CORELANE, &options(driver, &["a", "b"]));
    // What the node sends from a pod and does not mark is lost there.
    shared.host("a").apply_nft(
        "table inet unmarked {
    chain out {
        type filter hook output priority 0; policy accept;
        tcp dport 15008 meta mark & 0xfff != 0x539 drop
    }
}
",
    );
    shared.serve(&["a", "b"]);
    let _app = Server::start(&shared.host("b"), PORT, who_calls);
    for family in [Family::V4, Family::V6] {
        let to = SocketAddr::new(shared.host("b").ip(family), PORT);
        let answer = shared.host("a").enter(|| apps::exchange(to, b"")).unwrap();
        let expected = shared.host("a").ip(family).to_string();
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
        let hbone = SocketAddr::new(to.ip(), 15_008).to_string();
        let fields = [("direction", "outbound"), ("dst.addr", &*hbone)];
        let line = shared.node.wait_access_line("connection complete", &fields);
        assert_eq!(line.field("error"), "", "{family:?}");
        let application = to.to_string();
        assert!(line.has(&[("dst.hbone_addr", &application)]), "{line:?}");
    }
}

#[test]
fn a_shared_node_without_the_privilege_to_enter_namespaces_says_so() {
    let test = "a_shared_node_without_the_privilege_to_enter_namespaces_says_so";
    if !has_netns(test) {
        return;
    }
    let network = Network::new(&["node"]);
    let dir = requirements::scratch_dir();
    for (privilege, expected) in [
        ("sys_admin", "mode `shared` cannot enter network namespaces"),
        ("net_admin,-net_raw", "mode `shared` cannot mark packets"),
    ] {
        let mut command = network.host("node").command("setpriv");
        command
            .arg(format!("--bounding-set=-{privilege}"))
            .args([CORELANE, "proxy"])
            .current_dir(dir.path())
            .env("PROXY_MODE", "shared")
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS", "{}")
            .env("CORELANE_IDENTITY_DIR", ".");
        let mut process = Process::start(privilege, command, dir.path());
        let status = process.wait_end(REPORT_LIMIT);
        assert!(!status.success());
        let output = process.output();
        assert!(output.contains(expected), "{privilege}: {output}");
        assert!(output.contains("it needs CAP_"), "{privilege}: {output}");
    }
}
