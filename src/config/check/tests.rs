//! From texts to a configuration: the reference's corner cases, origins, and what is refused.

mod broken;
mod dns;
mod docs;
mod node;
mod shared;
mod tuning;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::raw::{MESH_FILE, Sources};
use crate::config::{
    Forward, ForwardTarget, HboneEngine, LogFormat, Node, OriginalSource, ServiceAccountRef,
    TlsRecords,
};

/// The environment of the working node that the documentation shows.
const DEDICATED: &[(&str, &str)] = &[
    ("PROXY_MODE", "dedicated"),
    ("PROXY_WORKLOAD_INFO", "default/client/client"),
    ("XDS_ADDRESS", ""),
    ("LOCAL_XDS_PATH", "state.yaml"),
    ("CORELANE_IDENTITY_DIR", "ids"),
];

/// A host with 8 CPUs and IPv6, the given environment and files, and `--config` if `c.yaml` is one.
fn raw(env: &[(&str, &str)], files: &[(&str, &str)], set: &[(&str, &str)]) -> RawConfig {
    let contents: BTreeMap<&str, &str> = [("/proc/net/if_inet6", "")]
        .into_iter()
        .chain(files.iter().copied())
        .collect();
    let read_file = |path: &Path| match contents.get(path.to_str().unwrap()) {
        Some(text) => Ok((*text).to_owned()),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    RawConfig::read(&Sources {
        env: env.iter().map(own).collect(),
        read_file: &read_file,
        config_file: contents
            .keys()
            .find(|name| name.ends_with("c.yaml"))
            .map(PathBuf::from),
        overrides: set.iter().map(text).collect(),
        cpus: (0..8).collect(),
    })
}

fn with_env(extra: &[(&str, &str)]) -> Result<Checked, ConfigErrors> {
    // The last text of a name wins, so that a test can replace one of the base.
    check(raw(&[DEDICATED, extra].concat(), &[], &[]))
}

fn with_file(text: &str) -> Result<Checked, ConfigErrors> {
    check(raw(&[], &[("/etc/corelane/c.yaml", text)], &[]))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Value and origin of a setting, as shown.
fn shown(checked: &Checked, key: Key) -> (String, String) {
    let found = checked
        .settings
        .iter()
        .find(|setting| setting.name == key.name());
    let found = found.unwrap_or_else(|| panic!("{} is not shown", key.name()));
    (found.value.clone(), found.origin.to_string())
}

#[test]
fn the_documented_command_line_gives_a_working_node() {
    let checked = with_env(&[("ZTUNNEL_WORKER_THREADS", "2")]).unwrap();
    assert_eq!(checked.warnings, []);
    let config = checked.config;
    let NodeMode::Dedicated { workload } = &config.mode else {
        panic!("{:?}", config.mode)
    };
    assert_eq!(workload.to_string(), "client.default (client)");
    assert_eq!(config.shards.count, 2);
    assert!(!config.shards.pin);
    assert_eq!(
        config.local_state,
        Some(LocalStateSource::Path("state.yaml".into()))
    );
    assert_eq!(config.identity_dir, Some("ids".into()));
    let listeners = &config.listeners;
    assert_eq!(listeners.outbound, Some(address("[::]:15001")));
    assert_eq!(listeners.inbound_plaintext, Some(address("[::]:15006")));
    assert_eq!(listeners.inbound, Some(address("[::]:15008")));
    assert_eq!(listeners.socks5, None);
    assert_eq!(
        listeners.admin,
        [address("127.0.0.1:15000"), address("[::1]:15000")]
    );
    assert_eq!(listeners.stats, Some(address("[::]:15020")));
    assert_eq!(listeners.readiness, Some(address("[::]:15021")));
    assert_eq!(config.illegal_ports, [15_001, 15_006, 15_008]);
    assert_eq!(&*config.cluster_id, "Kubernetes");
    assert_eq!(&*config.istio_version, "unknown");
    assert_eq!(config.log.format, LogFormat::Plain);
    assert_eq!(
        (config.socket.packet_mark, config.node_name.as_deref()),
        (None, None)
    );
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = with_env(&[]).unwrap().config;
    assert_eq!(config.http2, crate::config::Http2::default());
    assert_eq!(
        (config.http2.stream_window, config.http2.frame_size),
        (4_194_304, 1_048_576)
    );
    assert_eq!(config.http2.connection_window, 16_777_216);
    assert_eq!(config.pool.max_streams_per_connection, 100);
    assert_eq!(config.pool.unused_release_timeout, Duration::from_mins(5));
    let keepalive = config.socket.keepalive.unwrap();
    assert_eq!(
        (keepalive.time.as_secs(), keepalive.interval.as_secs()),
        (180, 180)
    );
    assert_eq!(keepalive.retries, 9);
    assert_eq!(config.socket.user_timeout(), None);
    assert_eq!(config.timeouts, crate::config::Timeouts::default());
    assert_eq!(config.timeouts.drain, Duration::from_secs(5));
    assert_eq!(config.limits, crate::config::limits::Limits::default());
    assert!(config.localhost_app_tunnel && config.response_baggage);
    assert!(!config.tls.tls12 && !config.tls.pqc_only && !config.authz_info_logging);
    assert_eq!(config.tls.records, TlsRecords::InPlace);
    assert_eq!(config.http2.engine, HboneEngine::Own);
    assert_eq!(
        config.shards.count, 8,
        "one shard for each CPU when nothing is said"
    );
}

#[test]
fn user_timeout_follows_the_keepalive_settings() {
    let config = with_env(&[
        ("KEEPALIVE_TIME", "10s"),
        ("KEEPALIVE_INTERVAL", "5"),
        ("KEEPALIVE_RETRIES", "2"),
        ("USER_TIMEOUT_ENABLED", "true"),
    ]);
    assert_eq!(
        config.unwrap().config.socket.user_timeout(),
        Some(Duration::from_secs(20))
    );
    let off = with_env(&[
        ("USER_TIMEOUT_ENABLED", "true"),
        ("KEEPALIVE_ENABLED", "false"),
    ]);
    assert_eq!(off.unwrap().config.socket.user_timeout(), None);
}

#[test]
fn mesh_file_sets_ports_and_metadata() {
    let mesh = "defaultConfig:\n  statsPort: 15888\n  proxyAdminPort: 15099\n  unknown: [1]\n  \
                proxyMetadata:\n    ISTIO_META_FOO: foo\n";
    let raw = raw(DEDICATED, &[(MESH_FILE, mesh)], &[]);
    assert_eq!(raw.mesh.metadata["FOO"].text, "foo");
    let config = check(raw).unwrap().config;
    assert_eq!(config.listeners.stats, Some(address("[::]:15888")));
    assert_eq!(config.listeners.admin[0], address("127.0.0.1:15099"));
    assert_eq!(&*config.cluster_id, "Kubernetes");
}

#[test]
fn proxy_config_adds_metadata_and_the_environment_overrides_it() {
    let env = [
        (
            "PROXY_CONFIG",
            "discoveryAddress: istiod-rev0.istio-system-2:15012\nproxyMetadata:\n  \
          ISTIO_META_BAR: bar\n  NO_PREFIX: x\n  ISTIO_META_INCLUDE_THIS: old\n  NUMBER: 010\n",
        ),
        ("ISTIO_META_INCLUDE_THIS", "new"),
        ("NOT_INCLUDE", "not"),
        ("ISTIO_META_CLUSTER_ID", "test-cluster"),
        ("ISTIO_META_ISTIO_VERSION", "1.30"),
    ];
    let raw = raw(&[DEDICATED, &env].concat(), &[], &[]);
    assert_eq!(
        raw.mesh.discovery_address.as_ref().unwrap().text,
        "istiod-rev0.istio-system-2:15012"
    );
    let metadata: Vec<_> = raw
        .mesh
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.text.as_str()))
        .collect();
    assert_eq!(
        metadata,
        [
            ("BAR", "bar"),
            ("CLUSTER_ID", "test-cluster"),
            ("INCLUDE_THIS", "new"),
            ("ISTIO_VERSION", "1.30"),
            ("NO_PREFIX", "x"),
            ("NUMBER", "010"),
        ]
    );
    let config = check(raw).unwrap().config;
    assert_eq!(
        (&*config.cluster_id, &*config.istio_version),
        ("test-cluster", "1.30")
    );
}

#[test]
fn proxy_config_wins_over_the_mesh_file_field_by_field() {
    let mesh = "defaultConfig: {statsPort: 15888, proxyAdminPort: 15099, proxyMetadata: \
                {ISTIO_META_FOO: foo, ISTIO_META_FOOBAR: old}}";
    let over = "{\"proxyAdminPort\": 15999, \"proxyMetadata\": {\"ISTIO_META_FOOBAR\": \"new\"}}";
    let env = [DEDICATED, &[("PROXY_CONFIG", over)]].concat();
    let raw = raw(&env, &[(MESH_FILE, mesh)], &[]);
    assert_eq!(raw.mesh.metadata["FOO"].text, "foo");
    assert_eq!(raw.mesh.metadata["FOOBAR"].text, "new");
    let checked = check(raw).unwrap();
    assert_eq!(checked.config.listeners.admin[0].port(), 15_999);
    assert_eq!(checked.config.listeners.stats.unwrap().port(), 15_888);
    let admin = shown(&checked, Key::ListenAdmin);
    assert_eq!(
        admin,
        (
            "127.0.0.1:15999,[::1]:15999".into(),
            "PROXY_CONFIG:1:20".into()
        )
    );
    assert!(shown(&checked, Key::ListenStats).1.starts_with(MESH_FILE));
}

#[test]
fn a_discovery_address_counts_unless_xds_is_switched_off() {
    let config = (
        "PROXY_CONFIG",
        "discoveryAddress: istiod:15012\nproxyMetadata: {}\n",
    );
    let off = with_env(&[config]).unwrap().config.discovery;
    assert_eq!(off, None, "XDS_ADDRESS is empty");
    let env: Vec<_> = DEDICATED
        .iter()
        .copied()
        .filter(|v| v.0 != "XDS_ADDRESS")
        .chain([config])
        .collect();
    let checked = check(raw(&env, &[], &[])).unwrap();
    let address = checked
        .config
        .discovery
        .as_ref()
        .unwrap()
        .address
        .to_string();
    assert_eq!(address, "https://istiod:15012");
    assert!(
        shown(&checked, Key::XdsAddress)
            .1
            .starts_with("PROXY_CONFIG:1:19")
    );
}

#[test]
fn the_environment_decides_the_number_of_shards() {
    for (env, count) in [
        (vec![("ZTUNNEL_WORKER_THREADS", "4")], 4),
        (
            vec![
                ("ZTUNNEL_WORKER_THREADS", "50%"),
                ("ZTUNNEL_CPU_LIMIT", "8"),
            ],
            4,
        ),
        (
            vec![
                ("ZTUNNEL_WORKER_THREADS", "30%"),
                ("ZTUNNEL_CPU_LIMIT", "16"),
            ],
            5,
        ),
        (
            vec![
                ("ZTUNNEL_WORKER_THREADS", "10%"),
                ("ZTUNNEL_CPU_LIMIT", "4"),
            ],
            1,
        ),
        (
            vec![("ZTUNNEL_WORKER_THREADS", "0"), ("ZTUNNEL_CPU_LIMIT", "6")],
            6,
        ),
        (vec![("ZTUNNEL_RESOURCE_CPU_LIMIT", "2500m")], 3),
        (vec![("ZTUNNEL_RESOURCE_CPU_LIMIT", "1.5")], 2),
        (vec![("ZTUNNEL_CPU_LIMIT", "32")], 8),
        (vec![("ZTUNNEL_RESOURCE_CPU_REQUEST", "8")], 8),
        (vec![("ZTUNNEL_RESOURCE_CPU_REQUEST", "1")], 2),
        (
            vec![
                ("ZTUNNEL_RESOURCE_CPU_LIMIT", "4"),
                ("ZTUNNEL_RESOURCE_CPU_REQUEST", "8"),
            ],
            8,
        ),
        (
            vec![
                ("PROXY_CONFIG", "{concurrency: 0, proxyMetadata: {}}"),
                ("ZTUNNEL_CPU_LIMIT", "6"),
            ],
            6,
        ),
        (
            vec![("PROXY_CONFIG", "{concurrency: 3, proxyMetadata: {}}")],
            3,
        ),
    ] {
        assert_eq!(
            with_env(&env).unwrap().config.shards.count,
            count,
            "{env:?}"
        );
    }
    let text = with_env(&[("ZTUNNEL_WORKER_THREADS", "9")]).unwrap();
    assert!(!text.config.shards.pin, "9 shards on 8 CPUs are not pinned");
    assert_eq!(text.warnings.len(), 1);
}

#[test]
fn the_quota_of_the_container_limits_the_shards() {
    let files = [
        ("/proc/self/cgroup", "0::/\n"),
        ("/sys/fs/cgroup/cpu.max", "250000 100000\n"),
    ];
    let config = check(raw(DEDICATED, &files, &[])).unwrap().config;
    assert_eq!((config.shards.count, config.shards.pin), (3, false));
    assert_eq!(config.shards.cpus.len(), 8);
}

#[test]
fn without_ipv6_everything_binds_ipv4() {
    let off = with_env(&[("IPV6_ENABLED", "false")]).unwrap().config;
    let mut absent = raw(DEDICATED, &[], &[]);
    absent.host.ipv6 = false;
    for config in [off, check(absent).unwrap().config] {
        assert!(!config.ipv6_enabled);
        assert_eq!(config.listeners.outbound, Some(address("0.0.0.0:15001")));
        assert_eq!(config.listeners.readiness, Some(address("0.0.0.0:15021")));
        assert_eq!(config.listeners.admin, [address("127.0.0.1:15000")]);
    }
}

#[test]
fn socks5_is_switched_by_variable_or_address() {
    let on = with_env(&[("UNSTABLE_ENABLE_SOCKS5", "true")])
        .unwrap()
        .config;
    assert_eq!(on.listeners.socks5, Some(address("127.0.0.1:15080")));
    assert_eq!(on.illegal_ports, [15_001, 15_006, 15_008, 15_080]);
    let file = ("c.yaml", "listeners: {socks5: '127.0.0.3:1080'}");
    let both = |switch| {
        let env = [DEDICATED, &[("UNSTABLE_ENABLE_SOCKS5", switch)]].concat();
        check(raw(&env, &[file], &[]))
            .unwrap()
            .config
            .listeners
            .socks5
    };
    assert_eq!(both("true"), Some(address("127.0.0.3:1080")));
    assert_eq!(both("false"), None, "the environment wins over the file");
    let only_file = check(raw(DEDICATED, &[file], &[])).unwrap().config;
    assert_eq!(only_file.listeners.socks5, Some(address("127.0.0.3:1080")));
    assert!(only_file.illegal_ports.contains(&1080));
}

#[test]
fn the_drain_deadline_comes_from_the_grace_period_unless_given() {
    for (grace, seconds) in [
        ("30", 25),
        ("11", 6),
        ("10", 9),
        ("5", 4),
        ("2", 1),
        ("0", 1),
    ] {
        let config = with_env(&[("TERMINATION_GRACE_PERIOD_SECONDS", grace)])
            .unwrap()
            .config;
        assert_eq!(
            config.timeouts.drain,
            Duration::from_secs(seconds),
            "{grace}"
        );
    }
    let both = [
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
        ("CONNECTION_TERMINATION_DEADLINE", "500ms"),
    ];
    assert_eq!(
        with_env(&both).unwrap().config.timeouts.drain,
        Duration::from_millis(500)
    );
}

const TWO_NODES: &str = "\
# the second of two nodes on one host
mode: node
network: lab
nodeName: b
driver: epoll
ringEntries: 256
shards: {count: 1, pin: false}
listeners:
  outbound: off
  inboundPlaintext: off
  inbound: 127.0.2.1:15008
  admin: [127.0.2.1:0, '[::1]:0']
  stats: 127.0.2.1:0
  readiness: off
forwards:
- listen: 127.0.0.1:5432
  to: db.default.example:5432
  as: default/client
- {listen: '127.0.0.1:5433', to: '10.0.0.9:5432', as: default/other}
localState: state.yaml
identityDir: /etc/ids
tls: {tls12: true, compliancePolicy: pqc, records: rustls}
http2: {streamWindow: 1048576, frameSize: 65536}
hbone: {engine: h2}
pool: {unusedReleaseTimeout: 1m30s}
socket: {packetMark: 7, originalSource: required, reusePort: true, keepalive: {time: 1500ms}}
timeouts: {dial: 3, policyWait: 250ms}
limits: {connections: 1000, headers: 64}
log: {filter: 'info,access=off', format: json}
";

#[test]
fn a_node_of_many_workloads_dials_from_its_own_address_unless_asked() {
    let source = |file: &str| with_file(file).unwrap().config.socket.original_source;
    let node = "mode: node\nlocalState: s\nidentityDir: i\n";
    assert_eq!(source(node), OriginalSource::Never);
    let asked = format!("{node}socket: {{originalSource: auto}}\n");
    assert_eq!(source(&asked), OriginalSource::Auto);
    let dedicated =
        "mode: dedicated\nworkload: default/client/client\nlocalState: s\nidentityDir: i\n";
    assert_eq!(source(dedicated), OriginalSource::Auto);
}

#[test]
fn an_own_file_describes_a_whole_node() {
    let checked = with_file(TWO_NODES).unwrap();
    assert_eq!(checked.warnings, []);
    let config = checked.config;
    assert_eq!(config.mode, NodeMode::Node(Node::default()));
    assert_eq!(
        (&*config.network, config.node_name.as_deref()),
        ("lab", Some("b"))
    );
    assert_eq!(
        (config.driver, config.ring_entries),
        (DriverChoice::Epoll, 256)
    );
    assert_eq!((config.shards.count, config.shards.pin), (1, false));
    assert_eq!(config.listeners.outbound, None);
    assert_eq!(config.listeners.inbound, Some(address("127.0.2.1:15008")));
    assert_eq!(
        config.listeners.admin,
        [address("127.0.2.1:0"), address("[::1]:0")]
    );
    assert_eq!(config.listeners.readiness, None);
    let account = |name: &str| ServiceAccountRef {
        namespace: "default".into(),
        service_account: name.into(),
    };
    assert_eq!(
        config.listeners.forwards,
        [
            Forward {
                listen: address("127.0.0.1:5432"),
                to: ForwardTarget::Hostname("db.default.example".into(), 5432),
                as_workload: Some(account("client")),
            },
            Forward {
                listen: address("127.0.0.1:5433"),
                to: ForwardTarget::Address(address("10.0.0.9:5432")),
                as_workload: Some(account("other")),
            },
        ]
    );
    let state = LocalStateSource::Path("/etc/corelane/state.yaml".into());
    assert_eq!(config.local_state, Some(state), "relative to the file");
    assert_eq!(config.identity_dir, Some("/etc/ids".into()));
    assert!(config.tls.tls12 && config.tls.pqc_only);
    assert_eq!(config.tls.records, TlsRecords::Rustls);
    assert_eq!(config.http2.engine, HboneEngine::H2);
    assert_eq!(
        (config.http2.stream_window, config.http2.frame_size),
        (1_048_576, 65_536)
    );
    assert_eq!(
        config.socket.keepalive.unwrap().time,
        Duration::from_secs(2),
        "rounded up"
    );
    assert_eq!(config.socket.packet_mark, Some(7));
    assert_eq!(config.socket.original_source, OriginalSource::Required);
    assert!(config.socket.reuse_port);
    assert_eq!(config.timeouts.dial, Duration::from_secs(3));
    assert_eq!(config.timeouts.policy_wait, Duration::from_millis(250));
    assert_eq!(config.limits.connections_max(50), 1_000);
    assert_eq!(config.limits.unauthenticated_max(50), 12);
    assert_eq!(
        (&*config.log.filter, config.log.format),
        ("info,access=off", LogFormat::Json)
    );
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = (
        "c.yaml",
        "network: from-file\nclusterDomain: file.domain\ntrustDomain: td\n",
    );
    let env = [
        DEDICATED,
        &[("NETWORK", "from-env"), ("CLUSTER_DOMAIN", "env.domain")],
    ]
    .concat();
    let set = [("network", "lost"), ("network", "from-flag")];
    let checked = check(raw(&env, &[file], &set)).unwrap();
    let expected = [
        (Key::Network, "from-flag", "--set network"),
        (Key::ClusterDomain, "env.domain", "CLUSTER_DOMAIN"),
        (Key::TrustDomain, "td", "c.yaml:3:14"),
        (Key::ClusterId, "Kubernetes", "configuration"),
    ];
    for (key, value, origin) in expected {
        assert_eq!(shown(&checked, key), (value.to_owned(), origin.to_owned()));
    }
    assert_eq!(&*checked.config.network, "from-flag");
    assert_eq!(
        checked.settings.last().unwrap().name,
        "log.format",
        "in the order of the list"
    );
}

#[test]
fn the_variable_names_the_file_as_the_flag_does() {
    let files = [("other.yaml", "network: lab")];
    let env = [DEDICATED, &[("CORELANE_CONFIG", "other.yaml")]].concat();
    assert_eq!(
        &*check(raw(&env, &files, &[])).unwrap().config.network,
        "lab"
    );
    let missing = [DEDICATED, &[("CORELANE_CONFIG", "absent.yaml")]].concat();
    let text = check(raw(&missing, &files, &[])).unwrap_err().to_string();
    assert!(
        text.starts_with("absent.yaml:1:1: cannot be read"),
        "{text}"
    );
}

#[test]
fn the_stronger_of_two_local_states_wins_and_equals_contradict() {
    let inline = "{workloads: []}";
    let file = ("c.yaml", "mode: node\nlocalState: a.yaml");
    let state = |env: &[(&str, &str)], file| {
        check(raw(env, &[file], &[])).map(|checked| checked.config.local_state)
    };
    let text = LocalStateSource::Inline(inline.into());
    assert_eq!(state(&[("LOCAL_XDS", inline)], file).unwrap(), Some(text));
    let both = [("LOCAL_XDS", inline), ("LOCAL_XDS_PATH", "a")];
    let error = state(&both, ("c.yaml", "mode: node"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("LOCAL_XDS_PATH: contradicts localStateInline"),
        "{error}"
    );
}

#[test]
fn an_empty_document_is_valid_and_empty_variables_are_unset() {
    for text in ["", "# only a comment\n", "---\n"] {
        assert!(
            check(raw(DEDICATED, &[("c.yaml", text)], &[])).is_ok(),
            "{text:?}"
        );
    }
    let empty = [
        ("RUST_LOG", ""),
        ("COMPLIANCE_POLICY", ""),
        ("CRL_PATH", ""),
        ("NODE_NAME", ""),
    ];
    let config = with_env(&empty).unwrap().config;
    assert_eq!((&*config.log.filter, config.node_name), ("info", None));
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_reading() {
    let file = (
        "c.yaml",
        "mode: node\nnetwrk: x\nhttp2:\n  frameSize: 5\n  streamWindow: big\n",
    );
    let errors = check(raw(&[("KEEPALIVE_TIME", "soon")], &[file], &[("x", "y")])).unwrap_err();
    let lines: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert_eq!(lines[0], "--set x: unknown key");
    assert_eq!(
        lines[1],
        "c.yaml:2:1: netwrk: unknown key, did you mean `network`?"
    );
    assert!(
        lines[2].starts_with("configuration: localState: missing"),
        "{}",
        lines[2]
    );
    assert!(lines[3].starts_with("c.yaml:5:17: http2.streamWindow: `big` is not an integer"));
    assert!(lines[4].starts_with("c.yaml:4:14: http2.frameSize: `5` is not an integer from 16384"));
    assert!(
        lines[5].starts_with("KEEPALIVE_TIME: `soon` is not a duration"),
        "{}",
        lines[5]
    );
}

#[test]
fn a_wrong_value_is_reported_even_when_a_better_source_hides_it() {
    let file = ("c.yaml", "enableProxy: maybe");
    let env = [DEDICATED, &[("ENABLE_PROXY", "true")]].concat();
    let text = check(raw(&env, &[file], &[])).unwrap_err().to_string();
    assert_eq!(
        text,
        "c.yaml:1:14: enableProxy: `maybe` is not `true` or `false`"
    );
}

#[test]
fn consequences_that_surprise_are_warned_about() {
    for (file, fragment) in [
        ("mode: node\nlocalState: s\n", "HBONE is refused"),
        (
            "mode: node\nlocalState: s\nidentityDir: i\nlisteners: {admin: '0.0.0.0:1'}",
            "not loopback",
        ),
        (
            "mode: node\nlocalState: s\nidentityDir: i\nhttp2: {connectionWindow: 4194304}",
            "stream windows",
        ),
    ] {
        let warnings = with_file(file).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].to_string().contains(fragment),
            "{}",
            warnings[0]
        );
    }
    let odd = with_env(&[("TLS12_ENABLED", "True"), ("LOG_FORMAT", "xml")]).unwrap();
    assert!(!odd.config.tls.tls12);
    assert_eq!(odd.warnings.len(), 2);
}

#[test]
fn a_limit_left_to_us_follows_the_descriptor_limit() {
    let limits = with_env(&[]).unwrap().config.limits;
    assert_eq!(
        (
            limits.connections_max(20_000),
            limits.unauthenticated_max(20_000)
        ),
        (10_000, 5_000)
    );
    assert_eq!(limits.connections_max(0), 1);
}

#[test]
fn the_first_key_known_to_either_decides_what_a_document_is() {
    use crate::config::raw::is_local_state;
    for text in [
        "workloads: []",
        "{services: []}",
        "x: 1\npolicies:\n- !Exact a\n",
    ] {
        assert!(is_local_state(text), "{text}");
    }
    for text in [
        "mode: node\nworkloads: []",
        "http2: {a: 1}\nservices: []",
        "forwards: []",
        "",
        "a",
    ] {
        assert!(!is_local_state(text), "{text}");
    }
}

#[test]
fn a_file_that_is_too_long_or_not_text_is_not_read() {
    use crate::config::raw::read_bounded;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    std::fs::write(&path, "network: a").unwrap();
    assert_eq!(read_bounded(&path, 10).unwrap(), "network: a");
    assert_eq!(
        read_bounded(&path, 9).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(
        read_bounded(&path, 10).unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    assert!(read_bounded(dir.path(), 10).is_err());
}
