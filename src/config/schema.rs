//! The list of settings: name in the configuration file, environment variables, meaning.
//!
//! One list, so that nothing can be read that is not documented, nor documented and not read.

/// One setting that takes a single value.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which.
    pub key: Key,
    /// Dotted path in the configuration file, also for `--set`; empty: not settable there.
    pub path: &'static str,
    /// Environment variables, the first one that is set wins.
    pub env: &'static [&'static str],
    /// Meaning, one line.
    pub about: &'static str,
}

macro_rules! settings {
    ($($key:ident $path:literal [$($env:literal),*] $about:literal;)*) => {
        /// Names a setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Key {
            $(#[doc = $about] $key,)*
        }

        /// Every setting, in the order of [`Key`].
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: Key::$key, path: $path, env: &[$($env),*], about: $about },)*
        ];
    };
}

settings! {
    Mode "mode" ["PROXY_MODE"] "whom the node speaks for: `shared` (the default: the workloads its agent names), `dedicated` (one workload) or `node` (all local ones)";
    Workload "workload" ["PROXY_WORKLOAD_INFO"] "the workload of a dedicated node: NAMESPACE/NAME/SERVICEACCOUNT";
    CgroupRoot "node.cgroupRoot" ["CORELANE_CGROUP_ROOT"] "where cgroup v2 is mounted, for the `cgroups` of `node.workloads`; else where the kernel says";
    Network "network" ["NETWORK"] "own network";
    NodeName "nodeName" ["NODE_NAME"] "own node; restricts which workloads are local";
    ClusterId "clusterId" ["ISTIO_META_CLUSTER_ID", "CLUSTER_ID"] "own cluster";
    ClusterDomain "clusterDomain" ["CLUSTER_DOMAIN"] "DNS domain of the cluster, for the DNS proxy";
    TrustDomain "trustDomain" ["TRUST_DOMAIN"] "own trust domain, for logs and forwards";
    EnableProxy "enableProxy" ["ENABLE_PROXY"] "run the capturing listeners, HBONE and SOCKS5";
    Ipv6Enabled "ipv6Enabled" ["IPV6_ENABLED"] "use IPv6 where the kernel has it";
    ShardCount "shards.count" ["ZTUNNEL_WORKER_THREADS"] "data-plane threads: a number, 0 for the CPU count, or a percentage of it";
    ShardPin "shards.pin" ["CORELANE_PIN"] "pin each shard to a CPU";
    ShardBalance "shards.balance" ["CORELANE_BALANCE"] "hand fresh connections to a clearly less busy shard";
    CpuLimit "shards.cpuLimit" ["ZTUNNEL_CPU_LIMIT"] "CPU count to reckon with";
    CpuResourceLimit "" ["ZTUNNEL_RESOURCE_CPU_LIMIT"] "CPU limit of the container";
    CpuResourceRequest "" ["ZTUNNEL_RESOURCE_CPU_REQUEST"] "CPU request of the container";
    Concurrency "" [] "worker threads by ProxyConfig `concurrency`";
    Driver "driver" ["CORELANE_DRIVER"] "how shards wait: `auto`, `io_uring` or `epoll`";
    RingEntries "ringEntries" ["CORELANE_RING_ENTRIES"] "size of a shard's ring";
    ListenOutbound "listeners.outbound" [] "captured connections leaving a workload";
    ListenInboundPlaintext "listeners.inboundPlaintext" [] "captured plain text arriving at a workload";
    ListenInbound "listeners.inbound" [] "HBONE";
    ListenSocks5 "listeners.socks5" [] "SOCKS5";
    EnableSocks5 "" ["UNSTABLE_ENABLE_SOCKS5"] "run SOCKS5";
    ListenDns "listeners.dns" [] "DNS proxy, UDP and TCP, one or more addresses";
    DnsCapture "" ["ISTIO_META_DNS_CAPTURE"] "run the DNS proxy";
    DnsProxyAddr "" ["ISTIO_META_DNS_PROXY_ADDR"] "address of the DNS proxy: IP:PORT, or `localhost:PORT` for both families";
    ListenAdmin "listeners.admin" [] "admin endpoint, one or more addresses";
    AdminPort "" [] "port of the admin endpoint by ProxyConfig `proxyAdminPort`";
    ListenStats "listeners.stats" [] "metrics endpoint";
    StatsPort "" [] "port of the metrics endpoint by ProxyConfig `statsPort`";
    ListenReadiness "listeners.readiness" [] "readiness endpoint";
    LocalState "localState" ["LOCAL_XDS_PATH"] "file with workloads, services and policies";
    LocalStateInline "localStateInline" ["LOCAL_XDS"] "the same as text";
    XdsAddress "xds.address" ["XDS_ADDRESS"] "control plane: `https://HOST:PORT`, `http://HOST:PORT`, `unix:PATH`; empty: none. In Kubernetes `https://istiod.istio-system.svc:15012`, elsewhere none";
    XdsRootCa "xds.rootCa" ["XDS_ROOT_CA"] "roots of the control plane: a PEM file, PEM text or `SYSTEM`; else `./var/run/secrets/istio/root-cert.pem`";
    XdsAltHostname "xds.altHostname" ["ALT_XDS_HOSTNAME"] "name the control plane's certificate may have instead of its host's";
    XdsHeaders "xds.headers" [] "extra headers of each stream, a list of `NAME=VALUE`; see also `XDS_HEADER_*`";
    XdsOnDemand "xds.onDemand" ["XDS_ON_DEMAND"] "ask for addresses when they are needed instead of subscribing to all; default `false`";
    XdsCacheDir "xds.cacheDir" ["CORELANE_XDS_CACHE_DIR"] "folder that keeps the last accepted resources, for a start without the control plane; none: nothing is kept";
    AuthToken "authToken" ["AUTH_TOKEN"] "token shown to the control plane: a file or the token itself; else `./var/run/secrets/tokens/istio-token`, if it exists";
    InstanceIp "instance.ip" ["INSTANCE_IP"] "own address, as told to the control plane";
    InstanceIps "instance.ips" ["INSTANCE_IPS"] "own addresses, as told to the control plane";
    PodName "instance.podName" ["POD_NAME"] "own pod, as told to the control plane";
    PodNamespace "instance.podNamespace" ["POD_NAMESPACE"] "namespace of that pod";
    PodAccount "instance.serviceAccount" ["SERVICE_ACCOUNT"] "service account of that pod; with the other two, a shared node is a workload itself";
    AgentSocket "inpod.socket" ["INPOD_UDS"] "socket of a shared node's agent";
    InpodPortReuse "inpod.portReuse" ["INPOD_PORT_REUSE"] "another process may hold the same ports in the workloads' namespaces during an upgrade";
    IdentityDir "identityDir" ["CORELANE_IDENTITY_DIR"] "folder with ns/NAMESPACE/sa/SERVICEACCOUNT/{tls.crt,tls.key,ca.crt}";
    CaAddress "ca.address" ["CA_ADDRESS"] "certificate authority, instead of `identityDir`: `https://HOST:PORT`, `http://HOST:PORT`, `unix:PATH`; empty: none. In Kubernetes, without `identityDir`, `https://istiod.istio-system.svc:15012`, elsewhere none";
    CaRootCa "ca.rootCa" ["CA_ROOT_CA"] "roots the authority is checked by: a PEM file, PEM text or `SYSTEM`; else `./var/run/secrets/istio/root-cert.pem`";
    CaAltHostname "ca.altHostname" ["ALT_CA_HOSTNAME"] "name the authority's certificate may have instead of its host's";
    CaHeaders "ca.headers" [] "extra headers of each request, a list of `NAME=VALUE`; see also `CA_HEADER_*`";
    SecretTtl "ca.secretTtl" ["SECRET_TTL"] "life of certificates that is asked for; default `24h`";
    CaRenewWithCertificate "ca.renewWithCertificate" ["CORELANE_CA_RENEW_WITH_CERTIFICATE"] "renew with the certificate in use as credential, where the token is given once (VM); default `false`";
    CrlPath "crlPath" ["CRL_PATH"] "file of revocation lists that peers are checked against, read again when it changes";
    Tls12 "tls.tls12" ["TLS12_ENABLED"] "take TLS 1.2 besides 1.3";
    CompliancePolicy "tls.compliancePolicy" ["COMPLIANCE_POLICY"] "`pqc`: X25519MLKEM768 only";
    TlsRecords "tls.records" ["CORELANE_TLS_RECORDS"] "who moves TLS records: `in-place` (our record layer) or `rustls`; always `rustls` with TLS 1.2";
    Http2StreamWindow "http2.streamWindow" ["HTTP2_STREAM_WINDOW_SIZE"] "bytes a peer may send ahead in a stream";
    Http2ConnectionWindow "http2.connectionWindow" ["HTTP2_CONNECTION_WINDOW_SIZE"] "bytes a peer may send ahead in a tunnel";
    Http2FrameSize "http2.frameSize" ["HTTP2_FRAME_SIZE"] "largest frame we take";
    HboneEngine "hbone.engine" ["CORELANE_HBONE_ENGINE"] "who speaks HTTP/2 in tunnels: `own` (our frame engine) or `h2` (the crate)";
    PoolStreams "pool.maxStreamsPerConnection" ["POOL_MAX_STREAMS_PER_CONNECTION"] "streams in a tunnel before we open another";
    PoolIdle "pool.unusedReleaseTimeout" ["POOL_UNUSED_RELEASE_TIMEOUT"] "how long an unused tunnel stays open";
    KeepaliveEnabled "socket.keepalive.enabled" ["KEEPALIVE_ENABLED"] "TCP keepalive";
    KeepaliveTime "socket.keepalive.time" ["KEEPALIVE_TIME"] "idle time before the first probe";
    KeepaliveInterval "socket.keepalive.interval" ["KEEPALIVE_INTERVAL"] "time between probes";
    KeepaliveRetries "socket.keepalive.retries" ["KEEPALIVE_RETRIES"] "unanswered probes that end a connection";
    UserTimeout "socket.userTimeoutEnabled" ["USER_TIMEOUT_ENABLED"] "set TCP_USER_TIMEOUT from the keepalive settings";
    PacketMark "socket.packetMark" ["PACKET_MARK"] "SO_MARK of dialled sockets";
    OriginalSource "socket.originalSource" ["ENABLE_ORIG_SRC"] "applications see the client's address: `auto` (the default in mode `dedicated`), `required` or `never`";
    ReusePort "socket.reusePort" [] "another process may hold the same ports during a restart";
    TimeoutHandshake "timeouts.handshake" [] "TLS, from accept to Finished";
    TimeoutPreface "timeouts.http2Preface" [] "HTTP/2 preface and first SETTINGS";
    TimeoutSettingsAck "timeouts.http2SettingsAck" [] "acknowledgement of our SETTINGS";
    TimeoutHeaderBlock "timeouts.http2HeaderBlock" [] "a header block, from its first frame to its last";
    TimeoutConnectAnswer "timeouts.connectAnswer" [] "answer to our CONNECT";
    TimeoutDial "timeouts.dial" [] "TCP connect";
    TimeoutWorkload "timeouts.workloadWait" [] "for the local workload to become known";
    TimeoutPolicy "timeouts.policyWait" [] "for a policy that a workload names to become known";
    PingInterval "timeouts.pingInterval" [] "between PINGs on a tunnel";
    TimeoutPing "timeouts.ping" [] "for the answer to a PING";
    TimeoutDrain "timeouts.drain" ["CONNECTION_TERMINATION_DEADLINE"] "for open connections to end when the node stops";
    GracePeriod "" ["TERMINATION_GRACE_PERIOD_SECONDS"] "seconds the orchestrator waits; the drain deadline is a little less";
    LimitConnections "limits.connections" [] "connections and tunnel streams at once; `auto`: half of the descriptors";
    LimitUnauthenticated "limits.unauthenticated" [] "connections without a verified peer; `auto`: a quarter of the descriptors";
    LimitUnauthenticatedPerSource "limits.unauthenticatedPerSource" [] "the same from one address";
    LimitStreams "limits.streamsPerTunnel" [] "streams a peer may have open in a tunnel";
    LimitHeaderList "limits.headerListBytes" [] "bytes of a header list";
    LimitHeaders "limits.headers" [] "fields in a header list";
    LimitAuthority "limits.authorityBytes" [] "bytes of `:authority`";
    LimitErrorResets "limits.localErrorResets" [] "resets we send for a peer's errors before the tunnel is closed";
    LimitPendingResets "limits.pendingAcceptResets" [] "streams a peer resets before we accepted them";
    LimitPeerResets "limits.peerResets" [] "resets by the peer in 10 s";
    LimitControlFrames "limits.controlFrames" [] "control frames a peer may send ahead";
    LimitSendBuffer "limits.streamSendBufferBytes" [] "bytes a stream may have queued for sending once its tunnel has 2 MiB queued; before that, 256 KiB if that is more";
    LimitAccessLog "limits.accessLogLines" [] "access-log lines a shard may queue";
    LimitSeries "limits.metricSeries" [] "series per metric family";
    TuneRingFlags "tuning.ringFlags" [] "flags of rings: `best`, `coop` or `plain`";
    TunePipe "tuning.pipeBytes" [] "pipe of a spliced direction; `off`: bulk is copied too";
    TunePromote "tuning.promoteReads" [] "full buffers in a row before a direction is spliced";
    TuneBuffer "tuning.relayBufferBytes" [] "buffer a shard lends to a relay";
    TuneReceiveBuffer "tuning.receiveBufferBytes" [] "SO_RCVBUF; `auto`: the kernel adapts it";
    TuneSendBuffer "tuning.sendBufferBytes" [] "SO_SNDBUF; `auto`: the kernel adapts it";
    TuneNotsent "tuning.notsentLowatBytes" [] "TCP_NOTSENT_LOWAT of tunnels; `auto`: the host's";
    TuneBusyPoll "tuning.busyPollMicros" [] "SO_BUSY_POLL; `auto`: the host's";
    TuneBacklog "tuning.listenBacklog" [] "connections that may wait for a listener of a shard";
    TuneSteering "tuning.steering" [] "shard of a new connection: by `hash`, or by the `cpu` that received it";
    ResolvConf "dns.resolvConf" [] "file with the name servers that are asked for what is not in the mesh";
    PreferredServiceNamespace "dns.preferredServiceNamespace" ["PREFERED_SERVICE_NAMESPACE"] "namespace whose service wins where several have the name that is asked for";
    LocalhostAppTunnel "localhostAppTunnel" ["LOCALHOST_APP_TUNNEL"] "dial application tunnels with PROXY protocol on loopback";
    ResponseBaggage "responseBaggage" ["ENABLE_RESPONSE_BAGGAGE"] "send baggage in responses and use that of requests";
    AuthzInfoLogging "authzInfoLogging" ["AUTHZ_POLICY_INFO_LOGGING"] "log policy decisions at info";
    LogFilter "log.filter" ["RUST_LOG"] "log levels: LEVEL or TARGET=LEVEL, separated by commas";
    LogFormat "log.format" ["LOG_FORMAT"] "`plain` or `json`";
    OtlpEndpoint "otlp.endpoint" ["OTEL_EXPORTER_OTLP_ENDPOINT"] "collector of spans (OTLP over gRPC, feature `otlp`): `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH`; none: no spans";
    OtlpRootCa "otlp.rootCa" ["OTEL_EXPORTER_OTLP_CERTIFICATE"] "roots the collector is checked by: a PEM file, PEM text or `SYSTEM`, the default";
    OtlpServiceName "otlp.serviceName" ["OTEL_SERVICE_NAME"] "name that spans go under; default `corelane`";
    OtlpRatio "otlp.ratio" ["OTEL_TRACES_SAMPLER_ARG"] "share of the connections that have a span, from 0 to 1; default 1";
}

/// Name of the list of forwards, which is not a single value.
pub const FORWARDS: &str = "forwards";
/// Keys of a forward.
pub const FORWARD_KEYS: [&str; 3] = ["listen", "to", "as"];
/// Name of the list of workloads that a node of many tells apart.
pub const LOCAL_WORKLOADS: &str = "node.workloads";
/// Keys of such a workload.
pub const LOCAL_WORKLOAD_KEYS: [&str; 8] = [
    "name",
    "namespace",
    "serviceAccount",
    "cgroups",
    "uids",
    "addresses",
    "ports",
    "default",
];
/// Variable that names the configuration file, as `--config` does.
pub const CONFIG_VARIABLE: &str = "CORELANE_CONFIG";

impl Key {
    /// Its row of the list.
    #[must_use]
    pub const fn setting(self) -> &'static Setting {
        &SETTINGS[self as usize]
    }

    /// The name shown to operators: path in the file, else variable, else ProxyConfig field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        if matches!(self, Self::Concurrency) {
            return "concurrency";
        }
        if matches!(self, Self::AdminPort) {
            return "proxyAdminPort";
        }
        if matches!(self, Self::StatsPort) {
            return "statsPort";
        }
        let setting = self.setting();
        match setting.env {
            [first, ..] if setting.path.is_empty() => first,
            _ => setting.path,
        }
    }

    /// Whether an empty variable means that it is not set. Elsewhere an empty text is a value.
    #[must_use]
    pub const fn empty_is_unset(self) -> bool {
        matches!(
            self,
            Self::NodeName
                // As the files of `istioctl x workload entry configure` have it.
                | Self::TrustDomain
                | Self::LocalState
                | Self::LocalStateInline
                | Self::IdentityDir
                | Self::XdsRootCa
                | Self::XdsAltHostname
                | Self::XdsCacheDir
                | Self::AuthToken
                | Self::CaRootCa
                | Self::CrlPath
                | Self::CaAltHostname
                | Self::SecretTtl
                | Self::CaRenewWithCertificate
                | Self::InstanceIp
                | Self::InstanceIps
                | Self::PodName
                | Self::PodNamespace
                | Self::PodAccount
                | Self::CompliancePolicy
                | Self::LogFilter
                | Self::LogFormat
                | Self::OtlpEndpoint
                | Self::OtlpRootCa
                | Self::OtlpServiceName
                | Self::OtlpRatio
                | Self::Driver
                | Self::TlsRecords
                | Self::HboneEngine
                | Self::PreferredServiceNamespace
        )
    }
}

/// The setting with this dotted path.
#[must_use]
pub fn by_path(path: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.path == path && !path.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_row_stands_where_its_key_points() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert_eq!(setting.key as usize, index);
            assert_eq!(setting.key.setting().about, setting.about);
            assert!(!setting.key.name().is_empty(), "{:?}", setting.key);
        }
    }

    #[test]
    fn no_path_and_no_variable_is_used_twice() {
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            for name in setting
                .env
                .iter()
                .chain([&setting.path])
                .filter(|name| !name.is_empty())
            {
                assert!(seen.insert(name), "{name}");
            }
        }
        assert_eq!(
            by_path("http2.frameSize").map(|s| s.key),
            Some(Key::Http2FrameSize)
        );
        assert!(by_path("").is_none());
    }
}
