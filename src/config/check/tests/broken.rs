//! Broken configurations, each with the position and the words of its error.

use super::*;

/// Three valid lines in front of each snippet, so that the fault is on line 4 unless said otherwise.
const BASE: &str = "mode: node\nlocalState: state.yaml\nidentityDir: ids\n";

/// Snippet, position, part of the message.
const FILES: &[(&str, &str, &str)] = &[
    // names
    ("netwrk: a", "4:1", "did you mean `network`?"),
    ("colour: red", "4:1", "unknown key"),
    ("Network: a", "4:1", "did you mean `network`?"),
    ("node_name: a", "4:1", "did you mean `nodeName`?"),
    ("frameSize: 65536", "4:1", "did you mean `http2.frameSize`?"),
    (
        "http2: {frame_size: 65536}",
        "4:9",
        "did you mean `frameSize`?",
    ),
    (
        "http2:\n  framSize: 65536",
        "5:3",
        "did you mean `frameSize`?",
    ),
    ("socket: {keepalive: {retry: 3}}", "4:22", "unknown key"),
    (
        "socket: {keepAlive: {retries: 3}}",
        "4:10",
        "did you mean `keepalive`?",
    ),
    ("forward: []", "4:1", "did you mean `forwards`?"),
    (
        "listeners: {outbond: off}",
        "4:13",
        "did you mean `outbound`?",
    ),
    ("listeners: {hbone: off}", "4:13", "unknown key"),
    (
        "limits: {conections: 5}",
        "4:10",
        "did you mean `connections`?",
    ),
    ("timeouts: {connect: 5s}", "4:12", "unknown key"),
    ("log: {level: info}", "4:7", "unknown key"),
    ("tls: {TLS12: true}", "4:7", "did you mean `tls12`?"),
    ("workloads: []", "4:1", "belongs into a local state file"),
    ("policies: []", "4:1", "belongs into a local state file"),
    ("? [a]\n: 1", "4:3", "a key must be a single value"),
    ("'': 1", "4:1", "unknown key"),
    ("<<: {network: a}", "4:1", "unknown key"),
    // shapes
    (
        "network: [a]",
        "4:10",
        "found a list, expected a single value",
    ),
    (
        "network: {a: b}",
        "4:10",
        "found a mapping, expected a single value",
    ),
    ("network:", "4:8", "found nothing, expected a single value"),
    (
        "network: ~",
        "4:10",
        "found nothing, expected a single value",
    ),
    (
        "http2: 5",
        "4:8",
        "http2: found a single value, expected a mapping",
    ),
    (
        "socket: {keepalive: true}",
        "4:21",
        "socket.keepalive: found a single value",
    ),
    ("http2: [1]", "4:8", "found a list, expected a mapping"),
    ("http2:", "4:6", "found nothing, expected a mapping"),
    (
        "listeners: {admin: [[127.0.0.1:1]]}",
        "4:21",
        "found a list, expected an address",
    ),
    (
        "listeners: {stats: [127.0.0.1:1]}",
        "4:20",
        "found a list, expected a single value",
    ),
    (
        "forwards: {listen: a}",
        "4:11",
        "found a mapping, expected a list",
    ),
    (
        "forwards: [a]",
        "4:12",
        "found a single value, expected a mapping",
    ),
    (
        "forwards: [{listen: [a]}]",
        "4:21",
        "forwards.listen: found a list",
    ),
    // syntax
    ("network: [a", "", ""),
    ("network: \"a", "", ""),
    ("network: a\n\tnodeName: b", "", ""),
    ("network: a\n  nodeName: b", "5:11", ""),
    ("network: a\nnetwork: b", "5:1", "network: given twice"),
    (
        "http2: {frameSize: 65536, frameSize: 65536}",
        "4:27",
        "frameSize: given twice",
    ),
    ("mode: dedicated", "4:1", "mode: given twice"),
    ("network: !!str a", "", "a tag has no meaning here"),
    ("network: *a", "4:10", ""),
    ("--- \nnetwork: a", "4:1", "a second document"),
    // booleans
    ("enableProxy: yes", "4:14", "`yes` is not `true` or `false`"),
    ("ipv6Enabled: 1", "4:14", "`1` is not `true` or `false`"),
    (
        "shards: {pin: auto}",
        "4:15",
        "`auto` is not `true` or `false`",
    ),
    ("tls: {tls12: True}", "4:14", "did you mean `true`?"),
    ("hbone: {engine: own2}", "4:17", "did you mean `own`?"),
    (
        "tls: {records: inplace}",
        "4:16",
        "did you mean `in-place`?",
    ),
    (
        "socket: {userTimeoutEnabled: on}",
        "4:30",
        "is not `true` or `false`",
    ),
    (
        "socket: {keepalive: {enabled: 'no'}}",
        "4:31",
        "is not `true` or `false`",
    ),
    ("localhostAppTunnel: treu", "4:21", "did you mean `true`?"),
    ("responseBaggage: ''", "4:18", "`` is not `true` or `false`"),
    ("authzInfoLogging: 2", "4:19", "is not `true` or `false`"),
    ("socket: {reusePort: y}", "4:21", "is not `true` or `false`"),
    // words
    ("driver: iouring", "4:9", "did you mean `io_uring`?"),
    (
        "driver: kqueue",
        "4:9",
        "one of `auto`, `io_uring`, `epoll`",
    ),
    ("log: {format: jsn}", "4:15", "did you mean `json`?"),
    (
        "tls: {compliancePolicy: fips}",
        "4:25",
        "one of `pqc`, `off`",
    ),
    (
        "socket: {originalSource: maybe}",
        "4:26",
        "one of `auto`, `required`",
    ),
    // numbers
    (
        "http2: {streamWindow: 0}",
        "4:23",
        "an integer from 1 to 2147483647",
    ),
    (
        "http2: {streamWindow: 2147483648}",
        "4:23",
        "an integer from 1 to 2147483647",
    ),
    (
        "http2: {connectionWindow: 65534}",
        "4:27",
        "an integer from 65535",
    ),
    (
        "http2: {frameSize: 16383}",
        "4:20",
        "an integer from 16384 to 16777215",
    ),
    (
        "http2: {frameSize: 16777216}",
        "4:20",
        "an integer from 16384 to 16777215",
    ),
    (
        "http2: {frameSize: 1MiB}",
        "4:20",
        "`1MiB` is not an integer",
    ),
    ("http2: {frameSize: -1}", "4:20", "`-1` is not an integer"),
    (
        "pool: {maxStreamsPerConnection: 0}",
        "4:33",
        "an integer from 1 to 65535",
    ),
    (
        "pool: {maxStreamsPerConnection: 65536}",
        "4:33",
        "an integer from 1 to 65535",
    ),
    ("shards: {count: -1}", "4:17", "a number of threads from 0"),
    (
        "shards: {count: 101%}",
        "4:17",
        "a percentage from `1%` to `100%`",
    ),
    (
        "shards: {count: 4096}",
        "4:17",
        "a number of threads from 0 to 1024",
    ),
    ("shards: {cpuLimit: 0}", "4:20", "an integer from 1 to 1024"),
    (
        "shards: {cpuLimit: 1.5}",
        "4:20",
        "an integer from 1 to 1024",
    ),
    (
        "ringEntries: 1000",
        "4:14",
        "a power of two from 64 to 32768",
    ),
    ("ringEntries: 32", "4:14", "a power of two from 64 to 32768"),
    (
        "socket: {keepalive: {retries: 128}}",
        "4:31",
        "an integer from 1 to 127",
    ),
    ("socket: {packetMark: 4294967296}", "4:22", "or `none`"),
    (
        "socket: {packetMark: 0x10}",
        "4:22",
        "`0x10` is not an integer",
    ),
    (
        "limits: {connections: 0}",
        "4:23",
        "an integer from 1 to 100000000 or `auto`",
    ),
    (
        "limits: {streamsPerTunnel: many}",
        "4:28",
        "`many` is not an integer",
    ),
    (
        "limits: {headerListBytes: 10}",
        "4:27",
        "an integer from 1024",
    ),
    ("limits: {headers: 1}", "4:19", "an integer from 8"),
    (
        "limits: {authorityBytes: 1e3}",
        "4:26",
        "`1e3` is not an integer",
    ),
    (
        "limits: {streamSendBufferBytes: 1}",
        "4:33",
        "an integer from 16384",
    ),
    ("limits: {metricSeries: 0}", "4:24", "an integer from 10"),
    // durations
    ("timeouts: {dial: 0}", "4:18", "from 1ms to"),
    (
        "timeouts: {dial: 5 minutes ago}",
        "4:18",
        "`5 minutes ago` is not a duration",
    ),
    (
        "timeouts: {handshake: -5s}",
        "4:23",
        "`-5s` is not a duration",
    ),
    (
        "timeouts: {policyWait: 1.5}",
        "4:24",
        "`1.5` is not a duration",
    ),
    ("timeouts: {drain: 2years}", "4:19", "is not a duration"),
    (
        "pool: {unusedReleaseTimeout: never}",
        "4:30",
        "`never` is not a duration",
    ),
    (
        "socket: {keepalive: {time: 10h}}",
        "4:28",
        "from 1s to 9h 6m 7s",
    ),
    ("socket: {keepalive: {interval: 1ms}}", "4:32", "from 1s to"),
    // addresses
    (
        "listeners: {inbound: 127.0.0.1}",
        "4:22",
        "an address with a port",
    ),
    (
        "listeners: {inbound: localhost:15008}",
        "4:22",
        "`localhost:15008` is not an address",
    ),
    (
        "listeners: {inbound: 15008}",
        "4:22",
        "an address with a port",
    ),
    (
        "listeners: {inbound: 127.0.0.1:99999}",
        "4:22",
        "an address with a port",
    ),
    ("listeners: {inbound: 'Off'}", "4:22", "or `off`"),
    (
        "listeners: {admin: [127.0.0.1:1, b]}",
        "4:20",
        "addresses with ports",
    ),
    (
        "listeners: {stats: 127.0.0.1:15008, inbound: 127.0.0.1:15008}",
        "4:20",
        "is taken by",
    ),
    (
        "listeners: {readiness: 127.0.0.5:15008}",
        "4:24",
        "is taken by listeners.inbound",
    ),
    (
        "listeners: {admin: [127.0.0.1:7, 127.0.0.1:7]}",
        "4:20",
        "is taken by listeners.admin",
    ),
    // forwards
    (
        "forwards: [{to: 'a:1', as: a/b}]",
        "4:12",
        "forwards.listen: missing",
    ),
    (
        "forwards: [{listen: '127.0.0.1:1', as: a/b}]",
        "4:12",
        "forwards.to: missing",
    ),
    (
        "forwards: [{listen: '127.0.0.1:1', to: 'a:1'}]",
        "4:12",
        "forwards.as: missing",
    ),
    (
        "forwards: [{listen: 'a:1', to: 'a:1', as: a/b}]",
        "4:21",
        "`a:1` is not an address",
    ),
    (
        "forwards: [{listen: '127.0.0.1:1', to: 'a:0', as: a/b}]",
        "4:40",
        "a destination such as",
    ),
    (
        "forwards: [{listen: '127.0.0.1:1', to: a, as: a/b}]",
        "4:40",
        "a destination such as",
    ),
    (
        "forwards: [{listen: '127.0.0.1:1', to: 'a:1', as: b}]",
        "4:51",
        "NAMESPACE/SERVICEACCOUNT",
    ),
    (
        "forwards: [{listen: '127.0.0.1:1', to: 'a:1', ass: a/b}]",
        "4:47",
        "did you mean `as`?",
    ),
    // texts
    (
        "network: \"a\\u0007\"",
        "4:10",
        "without control characters",
    ),
    ("log: {filter: 'a=b=c'}", "4:15", "LEVEL or TARGET=LEVEL"),
    (
        "localStateInline: '{}'",
        "2:13",
        "localState: contradicts localStateInline",
    ),
    (
        "workload: a/b/c",
        "4:11",
        "mode `node` speaks for all local ones",
    ),
    ("workload: a/b", "4:11", "NAMESPACE/NAME/SERVICEACCOUNT"),
];

#[test]
fn at_least_a_hundred_broken_files_are_tried() {
    assert!(FILES.len() >= 100, "{}", FILES.len());
}

#[test]
fn each_broken_file_is_refused_at_the_right_place_with_the_right_words() {
    let mut wrong = Vec::new();
    for (snippet, position, fragment) in FILES {
        let file = format!("{BASE}{snippet}\n");
        let Err(errors) = with_file(&file) else {
            wrong.push(format!("{snippet:?}: taken"));
            continue;
        };
        let at = format!("/etc/corelane/c.yaml:{position}");
        let found = errors.0.iter().any(|problem| {
            let text = problem.to_string();
            let rest = text.strip_prefix(&at);
            let placed = rest.is_some_and(|rest| position.is_empty() || rest.starts_with(':'));
            placed && text.contains(fragment)
        });
        if !found {
            wrong.push(format!(
                "{snippet:?} at {position}, {fragment:?}:\n{errors}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn each_fault_is_reported_once() {
    for (snippet, _, _) in FILES.iter().filter(|(_, position, _)| !position.is_empty()) {
        let errors = with_file(&format!("{BASE}{snippet}\n")).unwrap_err();
        // A forward that cannot be read may lack several things; all others have one fault.
        let allowed = if snippet.starts_with("forwards") {
            4
        } else {
            1
        };
        assert!(errors.0.len() <= allowed, "{snippet:?}:\n{errors}");
    }
}

/// Variable, text, part of the message.
const VARIABLES: &[(&str, &str, &str)] = &[
    (
        "PROXY_MODE",
        "sidecar",
        "one of `dedicated`, `node`, `shared`",
    ),
    ("PROXY_MODE", "Dedicated", "did you mean `dedicated`?"),
    (
        "PROXY_WORKLOAD_INFO",
        "default/client",
        "is not NAMESPACE/NAME/SERVICEACCOUNT",
    ),
    (
        "PROXY_WORKLOAD_INFO",
        "default//client",
        "is not NAMESPACE/NAME/SERVICEACCOUNT",
    ),
    (
        "PROXY_WORKLOAD_INFO",
        "",
        "is not NAMESPACE/NAME/SERVICEACCOUNT",
    ),
    ("ENABLE_PROXY", "false", "nothing would run"),
    ("ENABLE_PROXY", "no", "`no` is not `true` or `false`"),
    ("IPV6_ENABLED", "", "`` is not `true` or `false`"),
    (
        "PACKET_MARK",
        "-1",
        "is not an integer from 0 to 4294967295",
    ),
    ("ENABLE_ORIG_SRC", "sometimes", "one of `auto`"),
    ("LOCALHOST_APP_TUNNEL", "TRUE", "did you mean `true`?"),
    ("ENABLE_RESPONSE_BAGGAGE", "1", "is not `true` or `false`"),
    ("UNSTABLE_ENABLE_SOCKS5", "1", "is not `true` or `false`"),
    ("HTTP2_STREAM_WINDOW_SIZE", "4MiB", "is not an integer"),
    (
        "HTTP2_CONNECTION_WINDOW_SIZE",
        "1",
        "is not an integer from 65535",
    ),
    ("HTTP2_FRAME_SIZE", "16383", "from 16384 to 16777215"),
    (
        "POOL_MAX_STREAMS_PER_CONNECTION",
        "70000",
        "from 1 to 65535",
    ),
    ("POOL_UNUSED_RELEASE_TIMEOUT", "soon", "is not a duration"),
    ("KEEPALIVE_ENABLED", "on", "is not `true` or `false`"),
    ("KEEPALIVE_TIME", "0s", "from 1s to"),
    ("KEEPALIVE_INTERVAL", "1 fortnight", "is not a duration"),
    ("KEEPALIVE_RETRIES", "200", "from 1 to 127"),
    ("USER_TIMEOUT_ENABLED", "yes", "is not `true` or `false`"),
    (
        "CONNECTION_TERMINATION_DEADLINE",
        "-1s",
        "is not a duration",
    ),
    (
        "TERMINATION_GRACE_PERIOD_SECONDS",
        "30s",
        "is not an integer",
    ),
    ("ZTUNNEL_WORKER_THREADS", "0%", "a number of threads"),
    ("ZTUNNEL_WORKER_THREADS", "two", "a number of threads"),
    ("ZTUNNEL_CPU_LIMIT", "0", "is not an integer from 1"),
    (
        "ZTUNNEL_RESOURCE_CPU_LIMIT",
        "-1",
        "a number of CPUs such as",
    ),
    (
        "ZTUNNEL_RESOURCE_CPU_LIMIT",
        "inf",
        "a number of CPUs such as",
    ),
    (
        "ZTUNNEL_RESOURCE_CPU_REQUEST",
        "0",
        "a number of CPUs such as",
    ),
    ("COMPLIANCE_POLICY", "fips-140-2", "one of `pqc`"),
    ("RUST_LOG", "access=loud=x", "LEVEL or TARGET=LEVEL"),
    (
        "CORELANE_DRIVER",
        "uring",
        "one of `auto`, `io_uring`, `epoll`",
    ),
    ("CORELANE_RING_ENTRIES", "100", "a power of two"),
    ("CORELANE_PIN", "cpu0", "is not `true` or `false`"),
    (
        "XDS_ADDRESS",
        "istiod:0",
        "`https://HOST:PORT`, `http://HOST:PORT`, `unix:PATH`, or empty for none",
    ),
    (
        "CA_ADDRESS",
        "istiod:15012",
        "contradicts identityDir: certificates come from one place",
    ),
    ("SECRET_TTL", "a day", "a duration such as"),
    ("FAKE_CA", "true", "corelane dev pki"),
    ("FAKE_CA", "maybe", "is not `true` or `false`"),
    (
        "ISTIO_META_DNS_PROXY_ADDR",
        "not-an-address",
        "failed to parse DNS_PROXY_ADDR: not-an-address",
    ),
    (
        "ISTIO_META_DNS_PROXY_ADDR",
        "localhost:port",
        "failed to parse DNS_PROXY_ADDR",
    ),
];

#[test]
fn each_broken_variable_is_refused_by_name() {
    for (name, text, fragment) in VARIABLES {
        let errors = with_env(&[(name, text)]).unwrap_err();
        let [problem] = errors.0.as_slice() else {
            panic!("{name}={text}:\n{errors}")
        };
        let line = problem.to_string();
        assert!(line.starts_with(&format!("{name}: ")), "{line}");
        assert!(line.contains(fragment), "{line}");
    }
}

/// Text of PROXY_CONFIG, position, part of the message.
const PROXY_CONFIGS: &[(&str, &str, &str)] = &[
    ("concurrency: 3", "1:1", "proxyMetadata: missing"),
    ("{}", "1:1", "proxyMetadata: missing"),
    ("[]", "1:1", "found a list, expected a mapping"),
    (
        "proxyMetadata: 5",
        "1:16",
        "proxyMetadata: found a single value",
    ),
    ("proxyMetadata: {a: [1]}", "1:20", "a: found a list"),
    (
        "proxyMetadata: {}\nconcurrency: many",
        "2:14",
        "concurrency: `many` is not an integer",
    ),
    (
        "proxyMetadata: {}\nproxyAdminPort: 0",
        "2:17",
        "proxyAdminPort: `0` is not an integer",
    ),
    (
        "proxyMetadata: {}\nstatsPort: 70000",
        "2:12",
        "statsPort: `70000` is not an integer",
    ),
    (
        "proxyMetadata: {}\nstatsPort: {a: b}",
        "2:12",
        "statsPort: found a mapping",
    ),
    (
        "proxyMetadata: {DNS_PROXY_ADDR: 'not-an-address'}",
        "1:33",
        "failed to parse DNS_PROXY_ADDR: not-an-address",
    ),
    ("proxyMetadata: {", "", ""),
];

#[test]
fn each_broken_proxy_config_is_refused_in_both_places() {
    for (text, position, fragment) in PROXY_CONFIGS {
        let lines = with_env(&[("PROXY_CONFIG", text)]).unwrap_err().to_string();
        let at = format!("PROXY_CONFIG:{position}");
        assert!(
            lines.starts_with(&at) && lines.contains(fragment),
            "{text}: {lines}"
        );
        let indented = text.replace('\n', "\n  ");
        let mesh = format!("defaultConfig:\n  {indented}\n");
        let lines = check(raw(DEDICATED, &[(MESH_FILE, &mesh)], &[]))
            .unwrap_err()
            .to_string();
        assert!(
            lines.starts_with(MESH_FILE) && lines.contains(fragment),
            "{text}: {lines}"
        );
    }
}

#[test]
fn what_is_missing_is_named_with_file_key_and_variable() {
    let lines = with_file("").unwrap_err().to_string();
    assert!(
        lines.contains("configuration: localState: missing"),
        "{lines}"
    );
    let lines = with_file("mode: dedicated\nlocalState: s")
        .unwrap_err()
        .to_string();
    assert!(lines.contains("workload: missing"), "{lines}");
    assert!(lines.contains("(variable PROXY_WORKLOAD_INFO)"), "{lines}");
}

#[test]
fn a_dedicated_node_forwards_for_its_own_workload_only() {
    let file = |account: &str| {
        format!(
            "mode: dedicated\nworkload: default/client/client\nlocalState: s\nidentityDir: i\n\
             forwards: [{{listen: '127.0.0.1:1', to: 'a:1'{account}}}]\n"
        )
    };
    assert!(with_file(&file("")).is_ok());
    assert!(with_file(&file(", as: default/client")).is_ok());
    let line = with_file(&file(", as: default/other"))
        .unwrap_err()
        .to_string();
    assert!(
        line.contains("5:51: forwards.as: a dedicated node speaks for"),
        "{line}"
    );
}

#[test]
fn too_many_forwards_are_refused() {
    let one = "{listen: '127.0.0.1:0', to: 'a:1', as: a/b}, ";
    let file = |count| format!("{BASE}forwards: [{}]\n", one.repeat(count));
    assert!(with_file(&file(256)).is_ok());
    assert!(
        with_file(&file(257))
            .unwrap_err()
            .to_string()
            .contains("more than 256 forwards")
    );
}

#[test]
fn an_address_the_kernel_cannot_bind_is_refused() {
    let mut raw = raw(
        DEDICATED,
        &[("c.yaml", "listeners: {inbound: '[::1]:1'}")],
        &[],
    );
    raw.host.ipv6 = false;
    let line = check(raw).unwrap_err().to_string();
    assert!(
        line.starts_with("c.yaml:1:22: listeners.inbound: [::1]:1 cannot be bound"),
        "{line}"
    );
}

#[test]
fn no_text_makes_the_reader_panic_and_every_refusal_has_a_reason() {
    let mut random = fastrand::Rng::with_seed(7);
    let alphabet: Vec<char> = "{}[]:,#-&*!|>'\"%@`~ \n\t0a\u{0}\u{e9}".chars().collect();
    for _ in 0..3_000 {
        let mut text: Vec<char> = TWO_NODES.chars().collect();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..text.len());
            match random.u8(..3) {
                0 => text[at] = alphabet[random.usize(..alphabet.len())],
                1 => text.insert(at, alphabet[random.usize(..alphabet.len())]),
                _ => drop(text.drain(at..(at + random.usize(1..20)).min(text.len()))),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = with_file(&text) {
            assert!(!errors.0.is_empty(), "{text}");
        }
        let env = [
            ("PROXY_CONFIG", text.as_str()),
            ("RUST_LOG", text.lines().next().unwrap_or_default()),
        ];
        if let Err(errors) = with_env(&env) {
            assert!(!errors.0.is_empty(), "{text}");
        }
    }
}
