//! The systemd units, their user, folders and capture rules.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use corelane::config::{
    INBOUND_PLAINTEXT_PORT, INBOUND_PORT, OUTBOUND_PORT, READINESS_PORT, STATS_PORT, limits,
};
use corelane_harness::hosts::Network;
use corelane_harness::requirements::has_netns;

use crate::{config_show, run, text};

const UNITS: [&str; 2] = ["corelane.service", "corelane-capture.service"];
/// Highest exposure that `systemd-analyze security` may find, times ten.
const EXPOSURE_MAX: &str = "25";

fn unit(name: &str) -> String {
    text(&format!("packaging/systemd/{name}"))
}

/// Values of a directive, in order.
fn values<'u>(unit: &'u str, directive: &str) -> Vec<&'u str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| *name == directive)
        .map(|(_, value)| value)
        .collect()
}

fn value<'u>(unit: &'u str, directive: &str) -> &'u str {
    let [value] = values(unit, directive)[..] else {
        panic!("{directive}: {:?}", values(unit, directive))
    };
    value
}

/// The units in a folder of their own, with the program under test where they look for it.
fn installed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in UNITS {
        let text = unit(name).replace("/usr/bin/corelane", env!("CARGO_BIN_EXE_corelane"));
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// Says so past the capture of test output.
fn skipped(test: &str) {
    let line = format!("skipped: {test}: needs systemd-analyze\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Runs `systemd-analyze`; nothing where there is none.
fn analyze(test: &str, arguments: &[&str], dir: &Path) -> Option<(bool, String)> {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .args(UNITS.map(|name| dir.join(name)))
        .env("SYSTEMD_PAGER", "")
        .output();
    let Ok(output) = output else {
        skipped(test);
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

#[test]
fn systemd_finds_little_exposure() {
    let dir = installed();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    for name in UNITS {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", &threshold])
            .arg(dir.path().join(name))
            .output();
        let Ok(output) = output else {
            skipped("systemd_finds_little_exposure");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Overall exposure level"), "{text}");
        assert!(output.status.success(), "{name}\n{text}");
    }
}

#[test]
fn systemd_understands_every_line() {
    let dir = installed();
    let arguments = ["verify", "--recursive-errors=no", "--man=no"];
    if let Some((verified, text)) =
        analyze("systemd_understands_every_line", &arguments, dir.path())
    {
        // Programs that this machine does not have are no fault of the unit.
        let faults = text
            .lines()
            .filter(|line| !line.contains("is not executable"));
        assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
        assert!(verified || text.contains("is not executable"), "{text}");
    }
}

#[test]
fn the_service_is_run_as_the_program_expects() {
    let service = unit("corelane.service");
    assert_eq!(value(&service, "Type"), "notify");
    assert_eq!(value(&service, "ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(value(&service, "WorkingDirectory"), "/");
    let watchdog: u64 = value(&service, "WatchdogSec")
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(
        watchdog > 2 * limits::SHARD_STUCK_AFTER.as_secs(),
        "the node's own watchdog, which says more, comes first"
    );
    // Nothing is handed over between processes.
    assert!(values(&service, "FileDescriptorStoreMax").is_empty());
    let command = value(&service, "ExecStart")
        .strip_prefix("/usr/bin/corelane ")
        .unwrap();
    let arguments: Vec<_> = command.split(' ').chain(["--help"]).collect();
    let dir = tempfile::tempdir().unwrap();
    assert!(run(&arguments, &[], dir.path()).succeeded, "{command}");
    let variables: Vec<_> = values(&service, "Environment")
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let shown = config_show(
        &["--set", "mode=node", "--set", "xds.address=https://a:1"],
        &variables,
        dir.path(),
    );
    assert!(shown.succeeded, "{}", shown.err);
    let cache = Path::new(shown.value("xds.cacheDir").unwrap());
    assert_eq!(
        cache,
        Path::new("/var/cache").join(value(&service, "CacheDirectory"))
    );
}

#[test]
fn the_service_has_one_capability_and_the_calls_it_needs() {
    let service = unit("corelane.service");
    assert_eq!(value(&service, "AmbientCapabilities"), "CAP_NET_RAW");
    assert_eq!(value(&service, "CapabilityBoundingSet"), "CAP_NET_RAW");
    let filters = values(&service, "SystemCallFilter");
    let allowed = |call: &str| {
        let after = filters
            .iter()
            .rposition(|line| line.starts_with('~'))
            .unwrap();
        let last = filters[after..]
            .iter()
            .any(|line| line.split(' ').any(|c| c == call));
        last || (call.starts_with("io_uring") && filters.iter().any(|f| f.contains(call)))
    };
    for call in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "sched_setaffinity",
        "prlimit64",
    ] {
        assert!(allowed(call), "{call}");
    }
    assert_eq!(value(&service, "LimitNOFILE"), "1048576");
    assert_eq!(value(&service, "LimitMEMLOCK"), "64M");
}

#[test]
fn user_folders_and_units_belong_together() {
    let service = unit("corelane.service");
    let users = text("packaging/systemd/corelane.sysusers");
    let user = users.lines().find_map(|line| line.strip_prefix("u "));
    let user = user.unwrap().split(' ').next().unwrap();
    assert_eq!(value(&service, "User"), user);
    assert_eq!(value(&service, "Group"), user);
    let folders = text("packaging/systemd/corelane.tmpfiles");
    assert!(folders.contains(&format!("d /etc/corelane 0750 root {user} -")));
    let rules = text("packaging/config/capture.nft");
    assert!(
        rules.contains(&format!("meta skuid \"{user}\" return")),
        "its own traffic is exempt"
    );
    let preset = text("packaging/systemd/90-corelane.preset");
    for unit in UNITS {
        assert!(
            preset.contains(&format!("disable {unit}\n")),
            "{unit} is enabled by nobody"
        );
    }
    let capture = unit("corelane-capture.service");
    assert!(values(&capture, "Requires").is_empty() && values(&capture, "BindsTo").is_empty());
    assert_eq!(value(&capture, "CapabilityBoundingSet"), "CAP_NET_ADMIN");
    assert!(value(&capture, "ExecStart").ends_with(value(&capture, "ConditionPathExists")));
}

#[test]
fn the_example_configurations_are_valid() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["corelane.yaml", "corelane-istio.yaml"] {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/config/");
        let file = format!("{file}{name}");
        let checked = run(&["config", "check", &file], &[], dir.path());
        assert!(checked.succeeded, "{}", checked.out);
        assert!(!checked.out.contains("warning"), "{}", checked.out);
    }
}

/// What `istioctl x workload entry configure` writes, as the unit reads it.
const CLUSTER_ENV: &[(&str, &str)] = &[
    ("CANONICAL_REVISION", "latest"),
    ("CANONICAL_SERVICE", "billing"),
    ("CA_ADDR", "istiod.istio-system.svc:15012"),
    ("ISTIO_INBOUND_PORTS", "*"),
    ("ISTIO_LOCAL_EXCLUDE_PORTS", "22,15090,15021,15020"),
    ("ISTIO_METAJSON_LABELS", "{\"app\":\"billing\"}"),
    ("ISTIO_META_AUTO_REGISTER_GROUP", "billing"),
    ("ISTIO_META_CLUSTER_ID", "cluster-7"),
    ("ISTIO_META_DNS_CAPTURE", "true"),
    ("ISTIO_META_MESH_ID", ""),
    ("ISTIO_META_NETWORK", ""),
    ("ISTIO_META_WORKLOAD_NAME", "billing"),
    ("ISTIO_NAMESPACE", "vms"),
    ("ISTIO_SERVICE", "billing.vms"),
    ("ISTIO_SERVICE_CIDR", "*"),
    ("POD_NAMESPACE", "vms"),
    ("SERVICE_ACCOUNT", "billing"),
    ("TRUST_DOMAIN", ""),
];
const MESH_YAML: &str = "defaultConfig:
  discoveryAddress: istiod-canary.istio-system.svc:15012
  proxyMetadata:
    ISTIO_META_CLUSTER_ID: other
    ISTIO_META_NETWORK: \"\"
    TRUST_DOMAIN: \"\"
  readinessProbe:
    httpGet:
      port: 8080
";

#[test]
fn the_files_istioctl_writes_for_a_host_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = dir.path().join("etc/istio/config");
    std::fs::create_dir_all(&mesh).unwrap();
    std::fs::write(mesh.join("mesh"), MESH_YAML).unwrap();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/config/corelane-istio.yaml"
    );
    let shown = config_show(&["--config", file], CLUSTER_ENV, dir.path());
    assert!(shown.succeeded, "{}", shown.err);
    for (setting, value) in [
        ("mode", "dedicated"),
        ("workload", "vms/billing-1/billing"),
        ("clusterId", "cluster-7"),
        ("trustDomain", "cluster.local"),
        ("listeners.dns", "127.0.0.1:15053,[::1]:15053"),
        ("xds.address", "https://istiod.istio-system.svc:15012"),
        ("instance.podNamespace", "vms"),
        ("ca.renewWithCertificate", "true"),
    ] {
        assert_eq!(shown.value(setting), Some(value), "{setting}");
    }
    let warnings: Vec<_> = shown.err.lines().collect();
    assert!(
        matches!(warnings[..], [one] if one.contains("SERVICE_ACCOUNT")),
        "{warnings:?}"
    );
    // Without an address in the file, that of mesh.yaml counts.
    let own = [
        "--set",
        "mode=dedicated",
        "--set",
        "workload=a/b/c",
        "--set",
        "identityDir=i",
    ];
    let shown = config_show(&own, CLUSTER_ENV, dir.path());
    let address = Some("https://istiod-canary.istio-system.svc:15012");
    assert_eq!(shown.value("xds.address"), address, "{}", shown.err);
}

#[test]
fn capture_rules_name_the_programs_ports_and_never_ssh() {
    let rules = text("packaging/config/capture.nft");
    for rule in [
        format!("redirect to :{OUTBOUND_PORT}"),
        format!("redirect to :{INBOUND_PLAINTEXT_PORT}"),
        format!("elements = {{ 22, {INBOUND_PORT}, {STATS_PORT}, {READINESS_PORT} }}"),
        "meta mark 1337 return".to_owned(),
        "fib daddr type != local return".to_owned(),
        "delete table inet corelane".to_owned(),
    ] {
        assert!(rules.contains(&rule), "{rule}");
    }
    assert!(
        !rules.contains("flush ruleset"),
        "other tables are not ours"
    );
}

#[test]
fn capture_rules_load_twice_and_go_away() {
    if !has_netns("capture_rules_load_twice_and_go_away") {
        return;
    }
    let network = Network::new(&["host"]);
    let host = network.host("host");
    // The user need not exist on the machine that runs the tests.
    let rules = text("packaging/config/capture.nft").replace("\"corelane\"", "65533");
    let list = || {
        let output = host.enter(|| Command::new("nft").args(["list", "ruleset"]).output());
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    host.apply_nft(&rules);
    let once = list();
    assert!(
        once.contains("chain inbound") && once.contains("chain outbound"),
        "{once}"
    );
    host.apply_nft(&rules);
    assert_eq!(list(), once, "a second load replaces the first");
    host.apply_nft("delete table inet corelane\n");
    assert_eq!(list().trim(), "");
}
