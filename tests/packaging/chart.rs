//! Istio's chart for ztunnel with our image: what it gives the container is understood.
//!
//! Variables, arguments, mounts and capabilities are those of manifests/charts/ztunnel in Istio 1.29,
//! with its default values and what the kubelet fills in.

use std::fs;
use std::process::Command;
use std::time::Duration;

use corelane_harness::clock;
use corelane_harness::hosts::Network;
use corelane_harness::http;
use corelane_harness::process::Process;
use corelane_harness::requirements::has_netns;
use rustix::process::Signal;

use crate::{config_show, run};

pub(crate) const ARGUMENTS: [&str; 2] = ["proxy", "ztunnel"];
pub(crate) const CAPABILITIES: [&str; 3] = ["NET_ADMIN", "SYS_ADMIN", "NET_RAW"];
const ENVIRONMENT: &[(&str, &str)] = &[
    ("CA_ADDRESS", "istiod.istio-system.svc:15012"),
    ("XDS_ADDRESS", "istiod.istio-system.svc:15012"),
    ("RUST_LOG", "info"),
    ("RUST_BACKTRACE", "1"),
    ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
    ("INPOD_ENABLED", "true"),
    ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
    ("POD_NAME", "ztunnel-x7k2p"),
    ("POD_NAMESPACE", "istio-system"),
    ("NODE_NAME", "node-1"),
    ("INSTANCE_IP", "10.244.1.7"),
    ("SERVICE_ACCOUNT", "ztunnel"),
    ("ZTUNNEL_CPU_LIMIT", "16"),
    // Of every pod.
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
    ("HOSTNAME", "ztunnel-x7k2p"),
    ("PATH", "/usr/bin:/bin"),
];
/// Set by some values of the chart only.
const BY_VALUES: &[(&str, &str)] = &[
    ("LOG_FORMAT", "json"),
    ("NETWORK", "network1"),
    // proxyMetadata of the mesh, and `env`, which may hold anything.
    ("ISTIO_META_DNS_CAPTURE", "true"),
    ("PROXY_CONFIG_XDS_AGENT", "true"),
    ("ENABLE_CLUSTER_TRUST_BUNDLE_API", "false"),
    ("SECRET_TTL", "12h"),
    ("IPV6_ENABLED", "false"),
];

#[test]
fn everything_the_chart_sets_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let shown = config_show(&[], ENVIRONMENT, dir.path());
    assert!(shown.succeeded, "{}", shown.err);
    let istiod = Some("https://istiod.istio-system.svc:15012");
    for (setting, value) in [
        ("mode", Some("shared")),
        ("nodeName", Some("node-1")),
        ("clusterId", Some("Kubernetes")),
        ("xds.address", istiod),
        ("ca.address", istiod),
        ("instance.ip", Some("10.244.1.7")),
        ("instance.podName", Some("ztunnel-x7k2p")),
        ("instance.podNamespace", Some("istio-system")),
        ("instance.serviceAccount", Some("ztunnel")),
        ("inpod.socket", Some("/var/run/ztunnel/ztunnel.sock")),
        ("socket.packetMark", Some("1337")),
        ("shards.count", Some("4")),
        ("timeouts.drain", Some("25s")),
        ("listeners.readiness", Some("[::]:15021")),
        ("listeners.stats", Some("[::]:15020")),
        ("log.filter", Some("info")),
    ] {
        assert_eq!(shown.value(setting), value, "{setting}");
    }
    let warnings: Vec<_> = shown.err.lines().collect();
    let [warning] = warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("INPOD_ENABLED"), "{warning}");
}

#[test]
fn variables_of_the_charts_values_are_never_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let all = [ENVIRONMENT, BY_VALUES].concat();
    let shown = config_show(&[], &all, dir.path());
    assert!(shown.succeeded, "{}", shown.err);
    assert_eq!(shown.err.lines().count(), 1, "{}", shown.err);
    assert_eq!(shown.value("network"), Some("network1"));
    assert_eq!(shown.value("log.format"), Some("json"));
    assert_eq!(shown.value("ca.secretTtl"), Some("12h"));
}

#[test]
fn a_wrong_variable_is_still_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = [ENVIRONMENT, &[("PROXY_MODE", "ztunnel")]].concat();
    let shown = config_show(&[], &wrong, dir.path());
    assert!(
        !shown.succeeded && shown.err.contains("PROXY_MODE"),
        "{}",
        shown.err
    );
}

#[test]
fn the_charts_arguments_run_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(&[&ARGUMENTS[..], &["--help"]].concat(), &[], dir.path());
    assert!(
        help.succeeded && help.out.contains("Run the node"),
        "{help:?}"
    );
}

/// Without a control plane in reach, with the capabilities and the user of the chart, and with the
/// mounts of the chart below the working directory.
#[test]
fn the_container_of_the_chart_starts_waits_for_its_control_plane_and_ends_in_order() {
    if !has_netns("the_container_of_the_chart_starts") {
        return;
    }
    let network = Network::new(&["node"]);
    let host = network.host("node");
    let dir = tempfile::tempdir().unwrap();
    for (mount, name) in [("istio", "root-cert.pem"), ("tokens", "istio-token")] {
        let folder = dir.path().join("var/run/secrets").join(mount);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), "not looked at before istiod answers\n").unwrap();
    }
    let added = CAPABILITIES.map(|name| format!("+{}", name.to_lowercase()));
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set=-all,{}", added.join(",")))
        .args([
            "--inh-caps=-all",
            "--regid=1337",
            "--clear-groups",
            "--no-new-privs",
        ])
        .arg(env!("CARGO_BIN_EXE_corelane"))
        .args(ARGUMENTS)
        .env_clear()
        .envs(ENVIRONMENT.iter().copied())
        .current_dir(dir.path());
    let mut node = host.enter(|| Process::start("chart", command, dir.path()));
    let limit = Duration::from_secs(20);
    node.wait_output("node started", limit);
    let readiness = ([127, 0, 0, 1], 15_021).into();
    let answer = clock::wait_for("the readiness endpoint", limit, || {
        host.enter(|| http::request("GET", readiness, "/healthz/ready"))
            .ok()
    });
    assert_eq!(answer.status, 500, "nothing was received yet");
    assert!(answer.body.contains("state manager"), "{}", answer.body);
    node.signal(Signal::TERM);
    assert_eq!(node.wait_end(limit).code(), Some(0), "{}", node.output());
}
