//! The effective configuration in the dump's camelCase form (spec: admin.md 3.7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::server::{Discovery, Header, RootSource};
use crate::config::{Config, NodeMode, OriginalSource, ServiceAccountRef};

/// The `config` member. Holds no secret: neither keys nor inline state.
#[must_use]
pub fn config(config: &Config) -> Value {
    let listeners = &config.listeners;
    let workload = config.mode.workload();
    let shared = config.mode.shared();
    let mut members = json!({
        "proxy": config.enable_proxy,
        "dnsProxy": !listeners.dns.is_empty(),
        "windowSize": config.http2.stream_window,
        "connectionWindowSize": config.http2.connection_window,
        "frameSize": config.http2.frame_size,
        "poolMaxStreamsPerConn": config.pool.max_streams_per_connection,
        "poolUnusedReleaseTimeout": duration(config.pool.unused_release_timeout),
        "socks5Addr": listeners.socks5.map(address),
        "adminAddr": listeners.admin.iter().copied().map(address).collect::<Vec<_>>(),
        "statsAddr": listeners.stats.map(address),
        "readinessAddr": listeners.readiness.map(address),
        "inboundAddr": listeners.inbound,
        "inboundPlaintextAddr": listeners.inbound_plaintext,
        "outboundAddr": listeners.outbound,
        "dnsProxyAddr": dns_address(&listeners.dns),
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
        "proxyWorkloadInformation": workload.map(|info| json!({
            "name": &*info.name,
            "namespace": &*info.namespace,
            "serviceAccount": &*info.service_account,
        })),
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
    for more in [control_plane(config), authority(config)] {
        if let (Value::Object(all), Value::Object(more)) = (&mut members, more) {
            all.extend(more);
        }
    }
    members
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
        RootSource::System => json!("System"),
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
fn dns_address(addresses: &[SocketAddr]) -> Value {
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
    use super::*;

    #[test]
    fn the_address_of_the_dns_proxy_is_shown_as_it_was_meant() {
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
            assert_eq!(dns_address(&parsed), expected, "{addresses:?}");
        }
    }
}
