//! The effective configuration in the dump's camelCase form (spec: admin.md 3.7).
//!
//! Members the reference does not have are ours. Values of headers may be credentials, so they are
//! shown as their length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::limits::RESOLV_CONF_BYTES_MAX;
use crate::config::raw::read_bounded;
use crate::config::server::{Discovery, Header, RootSource};
use crate::config::{Config, NodeMode, OriginalSource, ServiceAccountRef};
use crate::control::dns::NameServers;
use crate::model::identity::Identity;
use crate::model::workload::WorkloadInfo;

/// The `config` member. Holds no secret: neither keys nor inline state. `words` are the words of the
/// command line.
#[must_use]
pub fn config(config: &Config, words: &[String]) -> Value {
    let listeners = &config.listeners;
    let workload = config.mode.workload();
    let shared = config.mode.shared();
    let own = shared.and_then(|shared| shared.own.as_ref());
    let mut members = json!({
        "proxy": config.enable_proxy,
        "dnsProxy": !listeners.dns.is_empty(),
        "windowSize": config.http2.stream_window,
        "connectionWindowSize": config.http2.connection_window,
        "frameSize": config.http2.frame_size,
        "poolMaxStreamsPerConn": config.pool.max_streams_per_connection,
        "poolUnusedReleaseTimeout": duration(config.pool.unused_release_timeout),
        "socks5Addr": listeners.socks5.map(address),
        "adminAddr": addresses(&listeners.admin),
        "statsAddr": listeners.stats.map(address),
        "readinessAddr": listeners.readiness.map(address),
        "inboundAddr": listeners.inbound,
        "inboundPlaintextAddr": listeners.inbound_plaintext,
        "outboundAddr": listeners.outbound,
        "dnsProxyAddr": addresses(&listeners.dns),
        "dnsResolvConf": config.dns.resolv_conf.display().to_string(),
        "preferedServiceNamespace": config.dns.preferred_service_namespace.as_deref(),
        "forwards": forwards(config),
        "illegalPorts": config.illegal_ports,
        "network": &*config.network,
        "localNode": config.node_name.as_deref(),
        "proxyMode": match config.mode {
            NodeMode::Dedicated { .. } => "Dedicated",
            NodeMode::Node(_) => "Node",
            NodeMode::Shared(_) => "Shared",
        },
        "proxyWorkloadInformation": workload.map(who),
        "ztunnelWorkload": own.map(who),
        "ztunnelIdentity": own.map(|info| {
            Identity::new(&*config.trust_domain, &*info.namespace, &*info.service_account)
                .to_string()
        }),
        "proxyArgs": words.join(" "),
        // Both exist only for the reference's own tests; here certificates are never made up.
        "fakeCa": false,
        "fakeSelfInbound": false,
        "clusterId": &*config.cluster_id,
        "clusterDomain": &*config.cluster_domain,
        "identityDir": config.identity_dir.as_ref().map(|dir| dir.display().to_string()),
        "selfTerminationDeadline": duration(config.timeouts.drain),
        "numWorkerThreads": config.shards.count,
        "requireOriginalSource": match config.socket.original_source {
            OriginalSource::Auto => Value::Null,
            OriginalSource::Required => json!(true),
            OriginalSource::Never => json!(false),
        },
        "packetMark": config.socket.packet_mark,
        "inpodUds": shared.map(|shared| shared.agent.display().to_string()),
        "inpodPortReuse": shared.map_or(config.socket.reuse_port, |shared| shared.port_reuse),
        "socketConfig": socket(config),
        "localhostAppTunnel": config.localhost_app_tunnel,
        "ipv6Enabled": config.ipv6_enabled,
        "enableEnhancedBaggage": config.response_baggage,
    });
    for more in [control_plane(config), authority(config), resolver(config)] {
        if let (Value::Object(all), Value::Object(more)) = (&mut members, more) {
            all.extend(more);
        }
    }
    members
}

fn who(info: &WorkloadInfo) -> Value {
    json!({
        "name": &*info.name,
        "namespace": &*info.namespace,
        "serviceAccount": &*info.service_account,
    })
}

/// Name servers as the host's resolver configuration has them now; null if it cannot be read.
fn resolver(config: &Config) -> Value {
    let text = read_bounded(&config.dns.resolv_conf, RESOLV_CONF_BYTES_MAX);
    let parsed = text.ok().and_then(|text| NameServers::parse(&text).ok());
    let Some(parsed) = parsed else {
        return json!({ "dnsResolverCfg": null, "dnsResolverOpts": null });
    };
    let search = parsed.search();
    let (servers, options) = parsed.parts();
    let servers: Vec<_> = servers.name_servers().iter().map(|s| s.ip).collect();
    json!({
        "dnsResolverCfg": {
            "search": search.iter().map(|domain| &**domain).collect::<Vec<_>>(),
            "nameServers": servers,
        },
        "dnsResolverOpts": {
            "ndots": options.ndots,
            "timeout": duration(options.timeout),
            "attempts": options.attempts,
            "edns0": options.edns0,
        },
    })
}

fn control_plane(config: &Config) -> Value {
    let discovery = config.discovery.as_ref();
    json!({
        "xdsAddress": discovery.map(|d| d.address.to_string()),
        "xdsRootCert": discovery.map(|d| roots(&d.roots)),
        "altXdsHostname": discovery.and_then(|d| d.alt_hostname.as_deref()),
        "xdsHeaders": discovery.map(|d| headers(&d.headers)).unwrap_or_default(),
        "xdsOnDemand": discovery.is_some_and(|d| d.on_demand),
        "xdsCacheDir": discovery
            .and_then(|d| d.cache_dir.as_ref())
            .map(|dir| dir.display().to_string()),
        "proxyMetadata": discovery.map(metadata).unwrap_or_default(),
    })
}

fn authority(config: &Config) -> Value {
    let authority = config.authority.as_ref();
    json!({
        "crlPath": config.crl_path.as_ref().map(|path| path.display().to_string()),
        "caAddress": authority.map(|ca| ca.address.to_string()),
        "caRootCert": authority.map(|ca| roots(&ca.roots)),
        "altCaHostname": authority.and_then(|ca| ca.alt_hostname.as_deref()),
        "caHeaders": authority.map(|ca| headers(&ca.headers)).unwrap_or_default(),
        "secretTtl": authority.map(|ca| duration(ca.ttl)),
        "caRenewWithCertificate": authority.is_some_and(|ca| ca.renew_with_certificate),
    })
}

fn roots(roots: &RootSource) -> Value {
    match roots {
        RootSource::File(path) => json!({ "File": path.display().to_string() }),
        RootSource::Pem(_) => json!("Static"),
        RootSource::System => json!("Default"),
    }
}

/// Values may be credentials: only their names and lengths are shown.
fn headers(headers: &[Header]) -> Vec<Value> {
    headers
        .iter()
        .map(|header| json!([&*header.name, format!("{:?}", header.value)]))
        .collect()
}

fn metadata(discovery: &Discovery) -> serde_json::Map<String, Value> {
    let metadata = discovery.node.metadata.iter();
    metadata
        .map(|(key, value)| (key.to_string(), json!(&**value)))
        .collect()
}

fn forwards(config: &Config) -> Vec<Value> {
    let account =
        |account: &ServiceAccountRef| format!("{}/{}", account.namespace, account.service_account);
    let forwards = config.listeners.forwards.iter();
    forwards
        .map(|forward| {
            let to = match &forward.to {
                crate::config::ForwardTarget::Address(addr) => addr.to_string(),
                crate::config::ForwardTarget::Hostname(host, port) => format!("{host}:{port}"),
            };
            let account = forward.as_workload.as_ref().map(account);
            json!({ "listen": forward.listen, "to": to, "as": account })
        })
        .collect()
}

fn socket(config: &Config) -> Value {
    let keepalive = config.socket.keepalive;
    json!({
        "keepaliveTime": keepalive.map(|keepalive| duration(keepalive.time)),
        "keepaliveInterval": keepalive.map(|keepalive| duration(keepalive.interval)),
        "keepaliveRetries": keepalive.map(|keepalive| keepalive.retries),
        "keepaliveEnabled": keepalive.is_some(),
        "userTimeoutEnabled": config.socket.user_timeout_enabled,
    })
}

fn duration(duration: Duration) -> Value {
    json!({ "secs": duration.as_secs(), "nanos": duration.subsec_nanos() })
}

/// Null when off; both families of loopback with one port are `Localhost`.
fn addresses(addresses: &[SocketAddr]) -> Value {
    let localhost = |addr: &SocketAddr| {
        let plain = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ];
        plain.contains(&addr.ip()) && addr.port() == addresses[0].port()
    };
    match addresses {
        [] => Value::Null,
        all if all[0].is_ipv4() && all.iter().all(localhost) => {
            json!({ "Localhost": [all.iter().any(SocketAddr::is_ipv6), all[0].port()] })
        }
        [one] => address(*one),
        several => several.iter().copied().map(address).collect(),
    }
}

fn address(addr: SocketAddr) -> Value {
    json!({ "SocketAddr": addr })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::*;
    use crate::config::raw::{RawConfig, Sources};

    /// Every member the contract names.
    const MEMBERS: &str = "proxy dnsProxy windowSize connectionWindowSize frameSize \
        poolMaxStreamsPerConn poolUnusedReleaseTimeout socks5Addr adminAddr statsAddr readinessAddr \
        inboundAddr inboundPlaintextAddr outboundAddr dnsProxyAddr illegalPorts network localNode \
        proxyMode proxyWorkloadInformation clusterId clusterDomain caAddress caRootCert \
        altCaHostname xdsAddress xdsRootCert altXdsHostname preferedServiceNamespace secretTtl \
        xdsOnDemand fakeCa fakeSelfInbound selfTerminationDeadline proxyMetadata numWorkerThreads \
        requireOriginalSource proxyArgs dnsResolverCfg dnsResolverOpts inpodUds inpodPortReuse \
        packetMark socketConfig xdsHeaders caHeaders localhostAppTunnel ztunnelIdentity \
        ztunnelWorkload ipv6Enabled crlPath enableEnhancedBaggage";

    fn shown(env: &[(&str, &str)]) -> Value {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(*value));
        let nothing = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let raw = RawConfig::read(&Sources {
            env: env.iter().map(own).collect(),
            read_file: &nothing,
            config_file: None,
            overrides: Vec::new(),
            cpus: vec![0],
        });
        let words = ["proxy", "ztunnel"].map(str::to_owned);
        config(&Config::try_from(raw).unwrap(), &words)
    }

    #[test]
    fn every_member_of_the_contract_is_there() {
        let dump = shown(&[("XDS_ADDRESS", "https://istiod:15012")]);
        for member in MEMBERS.split_whitespace() {
            assert!(dump.get(member).is_some(), "{member}");
        }
        assert_eq!(dump["proxyArgs"], "proxy ztunnel");
        assert_eq!(dump["proxyMode"], "Shared");
        let keys = [
            "keepaliveTime",
            "keepaliveInterval",
            "keepaliveRetries",
            "keepaliveEnabled",
        ];
        for key in keys.iter().chain(&["userTimeoutEnabled"]) {
            assert!(dump["socketConfig"].get(key).is_some(), "{key}");
        }
        let seconds = |secs: u64| json!({ "secs": secs, "nanos": 0 });
        assert_eq!(dump["poolUnusedReleaseTimeout"], seconds(300));
        assert_eq!(dump["adminAddr"], json!({ "Localhost": [false, 15_000] }));
    }

    #[test]
    fn secrets_keep_their_place_and_not_their_text() {
        let dump = shown(&[
            ("XDS_ADDRESS", "https://istiod:15012"),
            ("CA_ADDRESS", "https://istiod:15012"),
            ("XDS_ROOT_CA", "SYSTEM"),
            ("XDS_HEADER_X_KEY", "hunter2"),
            ("AUTH_TOKEN", "hunter3"),
        ]);
        assert_eq!(dump["xdsHeaders"], json!([["x_key", "(7 bytes)"]]));
        assert_eq!(dump["xdsRootCert"], "Default");
        assert_eq!(dump["secretTtl"], json!({ "secs": 86_400, "nanos": 0 }));
        assert!(!dump.to_string().contains("hunter"));
    }

    #[test]
    fn addresses_are_shown_as_they_were_meant() {
        for (addresses, expected) in [
            (vec![], json!(null)),
            (vec!["127.0.0.1:53"], json!({"Localhost": [false, 53]})),
            (
                vec!["127.0.0.1:53", "[::1]:53"],
                json!({"Localhost": [true, 53]}),
            ),
            (vec!["10.0.0.1:53"], json!({"SocketAddr": "10.0.0.1:53"})),
            (
                vec!["127.0.0.1:53", "[::1]:54"],
                json!([{"SocketAddr": "127.0.0.1:53"}, {"SocketAddr": "[::1]:54"}]),
            ),
        ] {
            let parsed: Vec<SocketAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(super::addresses(&parsed), expected, "{addresses:?}");
        }
    }
}
