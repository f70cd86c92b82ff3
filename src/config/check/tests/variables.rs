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

/// Spans need a feature of the build.
const SPANS: Fate = if cfg!(feature = "otlp") {
    Used
} else {
    Refused
};
const WITHOUT_COLLECTOR: Fate = if cfg!(feature = "otlp") {
    Warned
} else {
    Refused
};

/// The documented list, each with a text that differs from the default.
const DOCUMENTED: &[(&str, &str, Fate)] = &[
    ("PROXY_MODE", "dedicated", Used),
    ("PROXY_WORKLOAD_INFO", "a/b/c", Used),
    ("CORELANE_CGROUP_ROOT", "/cg", Warned),
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
    ("XDS_ADDRESS", "https://istiod:15012", Used),
    ("XDS_ADDRESS", "ftp://istiod", Refused),
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
    ("CORELANE_CA_RENEW_WITH_CERTIFICATE", "true", Warned),
    ("FAKE_CA", "true", Refused),
    ("INPOD_ENABLED", "true", Warned),
    ("CRL_PATH", "/crl", Used),
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
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://collector:4317",
        SPANS,
    ),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere://", Refused),
    (
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "SYSTEM",
        WITHOUT_COLLECTOR,
    ),
    ("OTEL_SERVICE_NAME", "n", WITHOUT_COLLECTOR),
    ("OTEL_TRACES_SAMPLER_ARG", "0.1", WITHOUT_COLLECTOR),
    ("OTEL_TRACES_SAMPLER_ARG", "1.5", Refused),
    ("CORELANE_IDENTITY_DIR", "ids", Used),
    ("CORELANE_XDS_CACHE_DIR", "cache", Warned),
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
        ("TRUST_DOMAIN", ""),
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

/// Variables that have an effect once there is a control plane.
const WITH_CONTROL_PLANE: &[(&str, &str, Fate)] = &[
    ("POD_NAME", "p", Used),
    ("POD_NAMESPACE", "p", Used),
    ("INSTANCE_IP", "10.0.0.1", Used),
    ("INSTANCE_IPS", "10.0.0.1,fd00::1", Used),
    ("XDS_ROOT_CA", "SYSTEM", Used),
    ("ALT_XDS_HOSTNAME", "h", Used),
    ("XDS_ON_DEMAND", "true", Used),
    ("AUTH_TOKEN", "secret", Used),
    ("CORELANE_XDS_CACHE_DIR", "cache", Used),
    ("XDS_ADDRESS", "http://127.0.0.1:15010", Warned),
    ("XDS_HEADER_TE", "x", Refused),
    ("ISTIO_METAJSON_LABELS", "{", Warned),
];

#[test]
fn what_concerns_a_control_plane_is_used_when_there_is_one() {
    for &(name, text, fate) in WITH_CONTROL_PLANE {
        let env = [("XDS_ADDRESS", "https://istiod:15012"), (name, text)];
        let own = Origin::Env(name.to_owned());
        match with_env(&env) {
            Ok(checked) => {
                let used = checked.settings.iter().any(|s| s.origin == own);
                let warned = checked.warnings.iter().any(|p| p.origin == own);
                assert_eq!(warned, fate == Warned, "{name}={text}");
                assert!(used || warned, "{name}={text}");
            }
            Err(errors) => {
                assert_eq!(fate, Refused, "{name}={text}: {errors}");
                assert!(errors.0.iter().any(|problem| problem.origin == own));
            }
        }
    }
}

#[test]
fn facts_of_the_node_headers_and_token_reach_the_configuration() {
    let env = [
        ("XDS_ADDRESS", "istiod:15012"),
        ("XDS_HEADER_HEADER_FOO", "foo"),
        ("ISTIO_META_ZONE", "a"),
        ("ISTIO_METAJSON_LABELS", "{\"a\": 1}"),
        ("POD_NAME", "zt"),
        ("POD_NAMESPACE", "istio-system"),
        ("INSTANCE_IP", "10.0.0.1"),
        ("NODE_NAME", "n1"),
        ("AUTH_TOKEN", "hunter2"),
    ];
    let checked = with_env(&env).unwrap();
    assert_eq!(checked.warnings, []);
    let discovery = checked.config.discovery.clone().unwrap();
    assert_eq!(discovery.address.to_string(), "https://istiod:15012");
    let [header] = discovery.headers.as_slice() else {
        panic!("{:?}", discovery.headers);
    };
    assert_eq!(
        (&*header.name, header.value.reveal()),
        ("header_foo", "foo")
    );
    let node = &discovery.node;
    assert_eq!((&*node.node_name, &*node.pod_name), ("n1", "zt"));
    assert_eq!(node.metadata, [("ZONE".into(), "a".into())]);
    assert_eq!(node.metadata_json[0].0, "LABELS".into());
    let shown = format!("{:?} {:?}", checked.config, checked.settings);
    assert!(!shown.contains("hunter2"), "a token is never shown");
}

/// Variables that have an effect once there is a certificate authority.
const WITH_AUTHORITY: &[(&str, &str, Fate)] = &[
    ("CA_ROOT_CA", "SYSTEM", Used),
    ("ALT_CA_HOSTNAME", "h", Used),
    ("SECRET_TTL", "1h", Used),
    ("SECRET_TTL", "0s", Refused),
    ("AUTH_TOKEN", "secret", Used),
    ("CORELANE_CA_RENEW_WITH_CERTIFICATE", "true", Used),
    ("CA_ADDRESS", "http://127.0.0.1:15010", Warned),
    ("CA_HEADER_TE", "x", Refused),
];

/// [`DEDICATED`] with an authority instead of the directory.
fn with_authority(extra: &[(&'static str, &'static str)]) -> Result<Checked, ConfigErrors> {
    let env: Vec<_> = DEDICATED
        .iter()
        .copied()
        .filter(|variable| variable.0 != "CORELANE_IDENTITY_DIR")
        .chain([("CA_ADDRESS", "https://istiod:15012")])
        .chain(extra.iter().copied())
        .collect();
    check(raw(&env, &[], &[]))
}

#[test]
fn what_concerns_an_authority_is_used_when_there_is_one() {
    for &(name, text, fate) in WITH_AUTHORITY {
        let own = Origin::Env(name.to_owned());
        match with_authority(&[(name, text)]) {
            Ok(checked) => {
                let used = checked.settings.iter().any(|s| s.origin == own);
                let warned = checked.warnings.iter().any(|p| p.origin == own);
                assert_eq!(warned, fate == Warned, "{name}={text}");
                assert!(used, "{name}={text}");
            }
            Err(errors) => {
                assert_eq!(fate, Refused, "{name}={text}: {errors}");
                assert!(errors.0.iter().any(|problem| problem.origin == own));
            }
        }
    }
}

#[test]
fn an_authority_reaches_the_configuration_with_its_headers_and_defaults() {
    let checked = with_authority(&[("CA_HEADER_HEADER_BAZ", "baz")]).unwrap();
    assert_eq!(checked.warnings, []);
    assert_eq!(checked.config.identity_dir, None);
    let authority = checked.config.authority.unwrap();
    assert_eq!(authority.address.to_string(), "https://istiod:15012");
    let [header] = authority.headers.as_slice() else {
        panic!("{:?}", authority.headers);
    };
    assert_eq!(
        (&*header.name, header.value.reveal()),
        ("header_baz", "baz")
    );
    assert_eq!(authority.ttl, Duration::from_hours(24));
    assert!(!authority.renew_with_certificate);
}

#[test]
fn the_file_says_all_about_an_authority_that_variables_say() {
    let text = "mode: node\nlocalState: s\nca: {address: 'unix:/run/ca', rootCa: SYSTEM, altHostname: h, \
                headers: [A=1, B=2], secretTtl: 90m, renewWithCertificate: true}\ncrlPath: crl.pem\n\
                shards: {count: 1}";
    let checked = with_file(text).unwrap();
    assert_eq!(checked.warnings, []);
    let crl_path = checked.config.crl_path.unwrap();
    assert_eq!(crl_path.to_str(), Some("/etc/corelane/crl.pem"));
    let authority = checked.config.authority.unwrap();
    assert_eq!(authority.address.to_string(), "unix:/run/ca");
    let names: Vec<_> = authority.headers.iter().map(|h| &*h.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(authority.ttl, Duration::from_mins(90));
    assert_eq!(authority.alt_hostname.as_deref(), Some("h"));
    assert!(authority.renew_with_certificate);
}

#[test]
fn certificates_come_from_the_directory_or_the_authority_never_from_both() {
    let error = with_env(&[("CA_ADDRESS", "https://istiod:15012")]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("CA_ADDRESS: contradicts identityDir"),
        "{text}"
    );
    // In a cluster, where the authority is only a default, a directory is what counts.
    let checked = with_env(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
    assert!(checked.config.identity_dir.is_some() && checked.config.authority.is_none());
    let checked = with_authority(&[("CA_ADDRESS", ""), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(checked.unwrap().config.authority, None, "switched off");
}

#[test]
fn the_file_knows_the_control_plane_too() {
    let file = "mode: node\nidentityDir: i\nshards: {count: 1}\nxds: {address: 'unix:/run/xds', \
                headers: [A=1, B=2], onDemand: true, cacheDir: kept}\nauthToken: t\n\
                instance: {ip: 10.0.0.1}\n";
    let checked = with_file(file).unwrap();
    let discovery = checked.config.discovery.unwrap();
    assert_eq!(discovery.address.to_string(), "unix:/run/xds");
    assert_eq!(discovery.headers.len(), 2);
    assert!(discovery.on_demand);
    let kept = discovery.cache_dir.unwrap();
    assert_eq!(kept, PathBuf::from("/etc/corelane/kept"), "beside the file");
}

#[test]
fn in_a_cluster_the_control_plane_of_the_mesh_is_the_default() {
    let env: Vec<_> = DEDICATED
        .iter()
        .copied()
        .filter(|variable| !["XDS_ADDRESS", "LOCAL_XDS_PATH"].contains(&variable.0))
        .chain([("KUBERNETES_SERVICE_HOST", "10.0.0.1")])
        .collect();
    let config = check(raw(&env, &[], &[])).unwrap().config;
    let discovery = config.discovery;
    let address = discovery.unwrap().address.to_string();
    assert_eq!(address, "https://istiod.istio-system.svc:15012");
    let error = check(raw(&env[..3], &[], &[])).unwrap_err().to_string();
    assert!(
        error.contains("XDS_ADDRESS"),
        "neither file nor control plane: {error}"
    );
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
