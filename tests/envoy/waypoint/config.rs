//! An Envoy as a waypoint: takes tunnels, looks at what is in them, opens tunnels to destinations.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use corelane_harness::fleet::Fleet;
use corelane_harness::pki::{Leaf, spiffe};

use crate::mesh::HBONE_PORT;
use crate::peer::{Envoy, TYPE, address};

const ADMIN_PORT: u16 = 9_901;

/// What the two access logs of a waypoint say: one line for a tunnel's stream, one for a request.
const STREAM_LOG: &str = "stream %RESPONSE_CODE% from=%DOWNSTREAM_PEER_URI_SAN% \
                          authority=%REQ(:AUTHORITY)% forwarded=%REQ(FORWARDED)%";
const REQUEST_LOG: &str = "request %REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% \
                           to=%UPSTREAM_CLUSTER% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%";

/// A configuration in the making, of an Envoy on one host.
#[derive(Debug)]
pub(super) struct Waypoint<'a> {
    fleet: &'a Fleet,
    host: &'a str,
    listeners: Vec<String>,
    clusters: Vec<String>,
}

impl<'a> Waypoint<'a> {
    pub(super) const fn new(fleet: &'a Fleet, host: &'a str) -> Self {
        Self {
            fleet,
            host,
            listeners: Vec::new(),
            clusters: Vec::new(),
        }
    }

    /// Takes tunnels of the mesh's identities at `ip` as `account`; the bytes of each of their
    /// streams go to the cluster `to`.
    pub(super) fn tunnels(mut self, ip: Ipv4Addr, account: &str, to: &str) -> Self {
        let at = address(SocketAddr::new(IpAddr::V4(ip), HBONE_PORT));
        let tls = self.tls(account, "prefix: \"spiffe://cluster.local/\"");
        let log = self.access_log(&format!("{STREAM_LOG} as={account}"));
        self.listeners.push(format!(
            "
  - name: tunnels-{account}
    address: {at}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context: {tls}
      filters:
      - name: tunnels
        typed_config:
          \"@type\": {HTTP}
          stat_prefix: tunnels-{account}
          codec_type: HTTP2
          http2_protocol_options: {{allow_connect: true}}
          upgrade_configs: [{{upgrade_type: CONNECT}}]
          access_log: {log}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route:
                  cluster: {to}
                  timeout: 0s
                  upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]
          http_filters: [{ROUTER}]"
        ));
        self
    }

    /// A cluster of this name that looks at HTTP: `routes` and `filters` in flow style.
    pub(super) fn http(mut self, name: &str, routes: &[String], filters: &[String]) -> Self {
        self.clusters.push(inside(name));
        let http = self.http_filter(name, routes, filters);
        self.listeners.push(format!(
            "
  - name: {name}
    internal_listener: {{}}
    filter_chains: [{{filters: [{http}]}}]"
        ));
        self
    }

    /// A connection manager that looks at HTTP, in flow style.
    pub(super) fn http_filter(&self, name: &str, routes: &[String], filters: &[String]) -> String {
        let log = self.access_log(REQUEST_LOG);
        let filters: String = filters.iter().map(|filter| format!("{filter}, ")).collect();
        format!(
            "{{name: http, typed_config: {{\"@type\": {HTTP}, stat_prefix: {name}, access_log: {log}, \
             route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{}]}}]}}, \
             http_filters: [{filters}{ROUTER}]}}}}",
            routes.join(", ")
        )
    }

    /// A cluster of this name whose connections are streams of tunnels opened as `account`, to
    /// `destination` and nobody but `peer` there.
    pub(super) fn tunnel_to(
        mut self,
        name: &str,
        destination: SocketAddr,
        account: &str,
        peer: &str,
    ) -> Self {
        let expected = spiffe("cluster.local", peer);
        let tls = self.tls(account, &format!("exact: \"{expected}\""));
        let hbone = address(SocketAddr::new(destination.ip(), HBONE_PORT));
        self.clusters.push(inside(name));
        self.listeners.push(format!(
            "
  - name: {name}
    internal_listener: {{}}
    filter_chains:
    - filters:
      - name: stream
        typed_config:
          \"@type\": {TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: {name}
          cluster: {name}-tunnel
          tunneling_config: {{hostname: \"{destination}\"}}"
        ));
        self.clusters.push(format!(
            "
  - name: {name}-tunnel
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}-tunnel, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {hbone}}}}}]}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": {TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    transport_socket:
      name: tls
      typed_config:
        \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {tls}"
        ));
        self
    }

    /// A cluster of this name that connects to `destination` in plain TCP.
    pub(super) fn plain_to(mut self, name: &str, destination: SocketAddr) -> Self {
        let destination = address(destination);
        self.clusters.push(format!(
            "
  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {destination}}}}}]}}]}}"
        ));
        self
    }

    /// One more listener, in block style.
    pub(super) fn listener(mut self, listener: String) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Starts it.
    pub(super) fn start(self, envoy: &Path) -> Envoy {
        let config = format!(
            "bootstrap_extensions:
- name: envoy.bootstrap.internal_listener
  typed_config: {{\"@type\": {TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener}}
static_resources:
  listeners:{}
  clusters:{}",
            self.listeners.concat(),
            self.clusters.concat()
        );
        let host = self.fleet.host(self.host);
        let command = host.command(&envoy.to_string_lossy());
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
        let place = (Some(host), admin);
        Envoy::launch(command, &self.name(), place, self.fleet.dir(), &config)
    }

    fn name(&self) -> String {
        format!("envoy-{}", self.host)
    }

    pub(super) fn access_log(&self, format: &str) -> String {
        let path = self.fleet.dir().join(format!("{}-access.log", self.name()));
        format!(
            "[{{name: file, typed_config: {{\"@type\": {TYPE}.extensions.access_loggers.file.v3.FileAccessLog, \
             path: {}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]",
            path.display()
        )
    }

    /// The common TLS context of an account whose peers' URI names fit `matcher`.
    fn tls(&self, account: &str, matcher: &str) -> String {
        let file = |suffix: &str| self.fleet.dir().join(format!("envoy-{account}{suffix}"));
        let (certificate, key, root) = (file(".crt"), file(".key"), file("-ca.crt"));
        let issued = self.fleet.authority.issue(&Leaf::for_account(account));
        fs::write(&certificate, &issued.pem).unwrap();
        fs::write(&key, &issued.key_pem).unwrap();
        fs::write(&root, self.fleet.authority.pem()).unwrap();
        format!(
            "{{alpn_protocols: [h2], \
             tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
             tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}], \
             validation_context: {{trusted_ca: {{filename: {}}}, match_typed_subject_alt_names: \
             [{{san_type: URI, matcher: {{{matcher}}}}}]}}}}",
            certificate.display(),
            key.display(),
            root.display()
        )
    }
}

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: router, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// A cluster whose connections go to the listener of the same name inside Envoy.
fn inside(name: &str) -> String {
    format!(
        "
  - name: {name}
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{envoy_internal_address: {{server_listener_name: {name}}}}}}}}}]}}]}}"
    )
}
