//! When the DNS proxy runs, where, and what it goes by (spec: dns-socks.md A1).

use super::*;

fn on(env: &[(&str, &str)]) -> Vec<String> {
    let checked = with_env(env).unwrap();
    let addresses = checked.config.listeners.dns.iter();
    addresses.map(ToString::to_string).collect()
}

const BOTH: [&str; 2] = ["127.0.0.1:15053", "[::1]:15053"];

#[test]
fn the_proxy_runs_when_capture_asks_for_it_in_any_case_and_by_itself_in_mode_shared() {
    assert_eq!(on(&[]), Vec::<String>::new());
    for (text, runs) in [
        ("true", true),
        ("True", true),
        ("TRUE", true),
        ("false", false),
        ("", false),
        ("yes", false),
    ] {
        let addresses = on(&[("ISTIO_META_DNS_CAPTURE", text)]);
        let expected: &[&str] = if runs { &BOTH } else { &[] };
        assert_eq!(addresses, expected, "{text}");
    }
    let shared = ("PROXY_MODE", "shared");
    let shared_off = [shared, ("ISTIO_META_DNS_CAPTURE", "false")];
    for (env, expected) in [(&[shared][..], &BOTH[..]), (&shared_off, &[])] {
        let given = [
            &[("LOCAL_XDS_PATH", "s"), ("CORELANE_IDENTITY_DIR", "i")],
            env,
        ]
        .concat();
        let checked = check(raw(&given, &[], &[])).unwrap();
        let addresses = checked.config.listeners.dns.iter().map(ToString::to_string);
        assert_eq!(addresses.collect::<Vec<_>>(), expected, "{env:?}");
    }
    let odd = with_env(&[("ISTIO_META_DNS_CAPTURE", "yes")]).unwrap();
    assert_eq!(odd.warnings.len(), 1);
}

#[test]
fn capture_in_a_proxy_config_counts_and_the_environment_wins_over_it() {
    let proxy = ("PROXY_CONFIG", "proxyMetadata: {DNS_CAPTURE: 'true'}");
    assert_eq!(on(&[proxy]), BOTH);
    let prefixed = (
        "PROXY_CONFIG",
        "proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}",
    );
    assert_eq!(on(&[prefixed]), BOTH);
    assert!(on(&[proxy, ("ISTIO_META_DNS_CAPTURE", "false")]).is_empty());
}

#[test]
fn the_address_is_localhost_in_both_families_or_exactly_what_is_said() {
    let capture = ("ISTIO_META_DNS_CAPTURE", "true");
    let at = |text| on(&[capture, ("ISTIO_META_DNS_PROXY_ADDR", text)]);
    assert_eq!(at("localhost:53"), ["127.0.0.1:53", "[::1]:53"]);
    assert_eq!(at("10.0.0.1:5353"), ["10.0.0.1:5353"]);
    assert_eq!(at("[fd00::1]:53"), ["[fd00::1]:53"]);
    let without_ipv6 = [capture, ("IPV6_ENABLED", "false")];
    assert_eq!(on(&without_ipv6), ["127.0.0.1:15053"]);
    let files = [("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1\n")];
    let checked = check(raw(&[DEDICATED, &[capture]].concat(), &files, &[])).unwrap();
    assert_eq!(checked.config.listeners.dns, [address("127.0.0.1:15053")]);
}

#[test]
fn an_address_without_capture_has_no_effect_and_is_pointed_out() {
    let checked = with_env(&[("ISTIO_META_DNS_PROXY_ADDR", "127.0.0.1:53")]).unwrap();
    assert_eq!(checked.config.listeners.dns, []);
    let [warning] = checked.warnings.as_slice() else {
        panic!("{:?}", checked.warnings)
    };
    assert_eq!(warning.kind, ProblemKind::NoEffect("the DNS proxy is off"));
}

#[test]
fn the_file_may_name_addresses_and_the_environment_may_switch_them_off() {
    let base = "mode: node\nlocalState: s\nidentityDir: i\n";
    let text = format!("{base}listeners: {{dns: \"127.0.0.1:53,[::1]:53\"}}");
    let dns = |env: &[(&str, &str)], text: &str| {
        let files = [("/etc/corelane/c.yaml", text)];
        check(raw(env, &files, &[])).unwrap().config.listeners.dns
    };
    let given = [address("127.0.0.1:53"), address("[::1]:53")];
    assert_eq!(dns(&[], &text), given);
    assert_eq!(dns(&[("ISTIO_META_DNS_CAPTURE", "true")], &text), given);
    assert_eq!(dns(&[("ISTIO_META_DNS_CAPTURE", "false")], &text), []);
    let off = format!("{base}listeners: {{dns: off}}");
    assert_eq!(dns(&[], &off), []);
    let both = [address(BOTH[0]), address(BOTH[1])];
    assert_eq!(dns(&[("ISTIO_META_DNS_CAPTURE", "true")], &off), both);
}

#[test]
fn names_of_other_settings_are_taken_over() {
    let config = with_env(&[("PREFERED_SERVICE_NAMESPACE", "gateways")]).unwrap();
    let dns = config.config.dns;
    assert_eq!(dns.preferred_service_namespace.as_deref(), Some("gateways"));
    assert_eq!(dns.resolv_conf, Path::new("/etc/resolv.conf"));
    let dns = with_env(&[("PREFERED_SERVICE_NAMESPACE", "")]).unwrap();
    assert_eq!(dns.config.dns.preferred_service_namespace, None);
    let file = "mode: node\nlocalState: s\nidentityDir: i\ndns: {resolvConf: r.conf}";
    let dns = with_file(file).unwrap().config.dns;
    assert_eq!(dns.resolv_conf, Path::new("/etc/corelane/r.conf"));
}

#[test]
fn the_proxy_alone_is_enough_to_run_for_but_must_not_take_another_listeners_port() {
    let alone = [
        ("ENABLE_PROXY", "false"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
    ];
    assert!(with_env(&alone).is_ok());
    assert!(with_env(&alone[..1]).is_err());
    let clash = [
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("ISTIO_META_DNS_PROXY_ADDR", "127.0.0.1:15008"),
    ];
    let errors = with_env(&clash).unwrap_err().to_string();
    assert!(errors.contains("is taken by listeners.inbound"), "{errors}");
}

#[test]
fn names_cannot_be_answered_from_a_mesh_that_comes_on_demand() {
    let on_demand = [
        ("XDS_ADDRESS", "https://control:15012"),
        ("XDS_ON_DEMAND", "true"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
    ];
    let errors = with_env(&on_demand).unwrap_err().to_string();
    assert!(
        errors.contains("XDS_ON_DEMAND") && errors.contains("DNS proxy"),
        "{errors}"
    );
    assert!(with_env(&on_demand[..2]).is_ok());
}
