//! Every documented variable is used, refused or warned about, by name.

use std::collections::BTreeSet;

use super::*;
use crate::config::schema::SETTINGS;
use crate::config::unbuilt;

/// What becomes of a variable.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Shown as the origin of a setting.
    Used,
    /// The start fails and names it.
    Refused,
    /// A warning names it.
    Warned,
}
use Fate::{Refused, Used, Warned};

/// The documented list, each with a text that differs from the default.
const DOCUMENTED: &[(&str, &str, Fate)] = &[
    ("PROXY_MODE", "dedicated", Used),
    ("PROXY_MODE", "shared", Refused),
    ("PROXY_WORKLOAD_INFO", "a/b/c", Used),
    ("ENABLE_PROXY", "true", Used),
    ("IPV6_ENABLED", "false", Used),
    ("NETWORK", "n", Used),
    ("NODE_NAME", "n", Used),
    ("CLUSTER_ID", "c", Used),
    ("CLUSTER_DOMAIN", "d", Used),
    ("TRUST_DOMAIN", "t", Used),
    ("POD_NAME", "p", Warned),
    ("POD_NAMESPACE", "p", Warned),
    ("SERVICE_ACCOUNT", "s", Warned),
    ("INSTANCE_IP", "10.0.0.1", Warned),
    ("INSTANCE_IPS", "10.0.0.1", Warned),
    ("XDS_ADDRESS", "https://istiod:15012", Refused),
    ("XDS_ROOT_CA", "SYSTEM", Warned),
    ("ALT_XDS_HOSTNAME", "h", Warned),
    ("XDS_HEADER_FOO", "foo", Warned),
    ("XDS_ON_DEMAND", "true", Warned),
    ("XDS_ON_DEMAND", "maybe", Refused),
    ("CA_ADDRESS", "https://ca", Refused),
    ("CA_ROOT_CA", "SYSTEM", Warned),
    ("ALT_CA_HOSTNAME", "h", Warned),
    ("CA_HEADER_FOO", "foo", Warned),
    ("AUTH_TOKEN", "secret", Warned),
    ("SECRET_TTL", "24h", Warned),
    ("FAKE_CA", "true", Refused),
    ("CRL_PATH", "/crl", Refused),
    ("ISTIO_META_CLUSTER_ID", "c", Used),
    ("ISTIO_META_SOMETHING", "x", Warned),
    ("ISTIO_META_DNS_CAPTURE", "true", Used),
    ("ISTIO_META_DNS_CAPTURE", "TRUE", Used),
    ("ISTIO_META_DNS_PROXY_ADDR", "not-an-address", Refused),
    ("ISTIO_META_DNS_PROXY_ADDR", "localhost:15053", Warned),
    ("ISTIO_METAJSON_LABELS", "{}", Warned),
    ("PREFERED_SERVICE_NAMESPACE", "n", Used),
    ("LOCAL_XDS_PATH", "p", Used),
    ("LOCAL_XDS", "{}", Refused),
    ("PROXY_CONFIG", "concurrency: 3", Refused),
    ("INPOD_UDS", "/sock", Warned),
    ("INPOD_PORT_REUSE", "false", Warned),
    ("PACKET_MARK", "1337", Used),
    ("ENABLE_ORIG_SRC", "true", Used),
    ("LOCALHOST_APP_TUNNEL", "false", Used),
    ("ENABLE_RESPONSE_BAGGAGE", "false", Used),
    ("UNSTABLE_ENABLE_SOCKS5", "true", Used),
    ("HTTP2_STREAM_WINDOW_SIZE", "65535", Used),
    ("HTTP2_CONNECTION_WINDOW_SIZE", "33554432", Used),
    ("HTTP2_FRAME_SIZE", "16384", Used),
    ("POOL_MAX_STREAMS_PER_CONNECTION", "1", Used),
    ("POOL_UNUSED_RELEASE_TIMEOUT", "0s", Used),
    ("KEEPALIVE_ENABLED", "false", Used),
    ("KEEPALIVE_TIME", "1", Used),
    ("KEEPALIVE_INTERVAL", "2s", Used),
    ("KEEPALIVE_RETRIES", "3", Used),
    ("USER_TIMEOUT_ENABLED", "true", Used),
    ("CONNECTION_TERMINATION_DEADLINE", "1m", Used),
    ("TERMINATION_GRACE_PERIOD_SECONDS", "60", Used),
    ("ZTUNNEL_WORKER_THREADS", "50%", Used),
    ("ZTUNNEL_CPU_LIMIT", "2", Used),
    ("ZTUNNEL_RESOURCE_CPU_LIMIT", "2", Used),
    ("ZTUNNEL_RESOURCE_CPU_REQUEST", "500m", Used),
    ("TLS12_ENABLED", "true", Used),
    ("COMPLIANCE_POLICY", "pqc", Used),
    ("COMPLIANCE_POLICY", "fips-140-2", Refused),
    ("AUTHZ_POLICY_INFO_LOGGING", "true", Used),
    ("RUST_LOG", "debug", Used),
    ("LOG_FORMAT", "json", Used),
    ("CORELANE_IDENTITY_DIR", "ids", Used),
    ("CORELANE_DRIVER", "epoll", Used),
    ("CORELANE_RING_ENTRIES", "64", Used),
    ("CORELANE_TLS_RECORDS", "rustls", Used),
    ("CORELANE_BALANCE", "false", Used),
    ("CORELANE_HBONE_ENGINE", "h2", Used),
    ("CORELANE_PIN", "false", Used),
    ("CORELANE_CONFIG", "absent.yaml", Refused),
];

#[test]
fn every_documented_variable_has_the_fate_it_should_have() {
    for &(name, text, fate) in DOCUMENTED {
        let from_it = |problem: &Problem| {
            let own = problem.origin == Origin::Env(name.to_owned());
            own || matches!(problem.origin, Origin::ProxyConfig(_)) && name == "PROXY_CONFIG"
                || matches!(problem.origin, Origin::File(..)) && name == "CORELANE_CONFIG"
        };
        match with_env(&[(name, text)]) {
            Ok(checked) => {
                let used = checked
                    .settings
                    .iter()
                    .any(|s| s.origin == Origin::Env(name.to_owned()));
                let warned = checked.warnings.iter().any(from_it);
                assert_eq!(
                    (used, warned),
                    (fate == Used, fate == Warned),
                    "{name}={text}"
                );
            }
            Err(errors) => {
                assert_eq!(fate, Refused, "{name}={text}: {errors}");
                let named = errors.0.iter().any(from_it) || name == "LOCAL_XDS";
                assert!(named, "{name}={text}: {errors}");
            }
        }
    }
}

#[test]
fn no_variable_of_the_program_is_missing_from_the_list() {
    let listed: BTreeSet<_> = DOCUMENTED.iter().map(|(name, _, _)| *name).collect();
    let known = SETTINGS
        .iter()
        .flat_map(|setting| setting.env.iter().copied())
        .chain(unbuilt::VARIABLES.iter().map(|variable| variable.name));
    for name in known {
        let family = name.ends_with('_') && listed.iter().any(|listed| listed.starts_with(name));
        assert!(
            family || listed.contains(name) || name == "KUBERNETES_SERVICE_HOST",
            "{name}"
        );
    }
}

#[test]
fn harmless_values_of_unbuilt_parts_pass_without_a_word() {
    for (name, text) in [
        ("XDS_ADDRESS", ""),
        ("CRL_PATH", ""),
        ("FAKE_CA", "false"),
        ("XDS_ON_DEMAND", "false"),
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ] {
        assert_eq!(
            with_env(&[(name, text)]).unwrap().warnings,
            [],
            "{name}={text}"
        );
    }
}

#[test]
fn in_a_cluster_an_unset_control_plane_address_is_pointed_out() {
    let env: Vec<_> = DEDICATED
        .iter()
        .copied()
        .filter(|variable| variable.0 != "XDS_ADDRESS")
        .chain([("KUBERNETES_SERVICE_HOST", "10.0.0.1")])
        .collect();
    assert_eq!(check(raw(&env, &[], &[])).unwrap().warnings.len(), 1);
}

#[test]
fn unknown_variables_of_our_families_get_one_warning_with_the_nearest_name() {
    for (name, nearest) in [
        ("ZTUNNEL_WORKER_THREAD", Some("ZTUNNEL_WORKER_THREADS")),
        ("CORELANE_IDENTITIES_DIR", Some("CORELANE_IDENTITY_DIR")),
        ("XDS_ADRESS", Some("XDS_ADDRESS")),
        (
            "POOL_MAX_STREAMS_PER_CONN",
            Some("POOL_MAX_STREAMS_PER_CONNECTION"),
        ),
        ("HTTP2_FRAMESIZE", Some("HTTP2_FRAME_SIZE")),
        ("KEEPALIVE_RETRY", Some("KEEPALIVE_RETRIES")),
        ("KEEPALIVE_COLOUR_OF_PROBES", None),
        ("LOCAL_XDS_PTAH", Some("LOCAL_XDS_PATH")),
    ] {
        let warnings = with_env(&[(name, "1")]).unwrap().warnings;
        let [warning] = warnings.as_slice() else {
            panic!("{name}: {warnings:?}")
        };
        let kind = ProblemKind::UnknownVariable {
            nearest: nearest.map(str::to_owned),
        };
        assert_eq!(
            (&warning.origin, &warning.kind),
            (&Origin::Env(name.to_owned()), &kind)
        );
    }
}

#[test]
#[cfg(unix)]
fn a_setting_that_is_not_text_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt as _;
    let sources = Sources {
        env: [("NETWORK".to_owned(), OsString::from_vec(vec![0xff]))].into(),
        read_file: &|_| Err(io::ErrorKind::NotFound.into()),
        config_file: None,
        overrides: Vec::new(),
        cpus: vec![0],
    };
    let text = check(RawConfig::read(&sources)).unwrap_err().to_string();
    assert!(text.starts_with("NETWORK: is not UTF-8 text"), "{text}");
}
