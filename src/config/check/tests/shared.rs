//! Mode `shared`, the default, and what only it reads.

use super::*;
use crate::config::Shared;

fn shared(extra: &[(&str, &str)]) -> Checked {
    let base: &[(&str, &str)] = &[("LOCAL_XDS_PATH", "state.yaml"), ("XDS_ADDRESS", "")];
    let ids: &[(&str, &str)] = &[("CORELANE_IDENTITY_DIR", "ids")];
    check(raw(&[base, ids, extra].concat(), &[], &[])).unwrap()
}

fn of(checked: &Checked) -> &Shared {
    let NodeMode::Shared(shared) = &checked.config.mode else {
        panic!("{:?}", checked.config.mode);
    };
    shared
}

#[test]
fn a_node_that_says_nothing_else_is_a_shared_one() {
    for env in [&[][..], &[("PROXY_MODE", "shared")]] {
        let checked = shared(env);
        assert_eq!(checked.warnings, []);
        let expected = Shared {
            agent: "/var/run/ztunnel/ztunnel.sock".into(),
            port_reuse: true,
            own: None,
        };
        assert_eq!(of(&checked), &expected);
        let socket = &checked.config.socket;
        assert_eq!(socket.packet_mark, Some(0x539));
        assert_eq!(socket.original_source, OriginalSource::Auto);
    }
}

#[test]
fn what_only_a_shared_node_reads_is_read() {
    let checked = shared(&[
        ("INPOD_UDS", "/run/agent.sock"),
        ("INPOD_PORT_REUSE", "false"),
        ("PACKET_MARK", "123"),
        ("POD_NAME", "zt"),
        ("POD_NAMESPACE", "mesh"),
        ("SERVICE_ACCOUNT", "tunnel"),
    ]);
    assert_eq!(checked.warnings, []);
    let shared = of(&checked);
    assert_eq!(shared.agent, PathBuf::from("/run/agent.sock"));
    assert!(!shared.port_reuse);
    let own = shared.own.as_ref().map(ToString::to_string);
    assert_eq!(own.as_deref(), Some("tunnel.mesh (zt)"));
    assert_eq!(checked.config.socket.packet_mark, Some(123));
}

#[test]
fn a_shared_node_is_a_workload_itself_only_if_it_knows_all_of_who_it_is() {
    let all = [
        ("POD_NAME", "zt"),
        ("POD_NAMESPACE", "mesh"),
        ("SERVICE_ACCOUNT", "tunnel"),
    ];
    for missing in 0..all.len() {
        let mut some = all.to_vec();
        some.remove(missing);
        assert_eq!(of(&shared(&some)).own, None, "{some:?}");
        some.push((all[missing].0, ""));
        assert_eq!(of(&shared(&some)).own, None, "{some:?}");
    }
    assert!(of(&shared(&all)).own.is_some());
}

#[test]
fn a_shared_node_is_told_its_workloads_by_nobody_else() {
    let errors = with_env(&[("PROXY_MODE", "shared")])
        .unwrap_err()
        .to_string();
    assert!(
        errors.contains("the node's agent names those of a shared node"),
        "{errors}"
    );
}

#[test]
fn names_are_answered_at_both_loopbacks_of_each_workload() {
    let both = ["127.0.0.1:15053", "[::1]:15053"].map(address);
    let capture = ("ISTIO_META_DNS_CAPTURE", "true");
    assert_eq!(shared(&[capture]).config.listeners.dns, both);
    let v4 = shared(&[capture, ("IPV6_ENABLED", "false")]);
    assert_eq!(v4.config.listeners.dns, both[..1]);
    let off = ("ISTIO_META_DNS_CAPTURE", "false");
    assert_eq!(shared(&[off]).config.listeners.dns, []);
}
