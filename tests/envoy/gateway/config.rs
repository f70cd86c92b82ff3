//! An Envoy as east-west gateway: ends the tunnels of another network and forwards what is inside them,
//! unread, to the node that the name asked for stands for.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use corelane_harness::pki::Issued;

use crate::mesh::{HBONE_PORT, Mesh};
use crate::peer::{Envoy, TYPE, address};

const ADMIN_PORT: u16 = 9_901;
const NAME: &str = "envoy-gateway";

/// What its access log says of each stream.
const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% from=%DOWNSTREAM_PEER_URI_SAN% \
                   authority=%REQ(:AUTHORITY)% network=%REQ(X-FORWARDED-NETWORK)% \
                   baggage=%REQ(BAGGAGE)% traceparent=%REQ(TRACEPARENT)%";

/// Starts it at the mesh's gateway address, with that certificate, for clients of any name in the trust
/// domain. Streams that ask for `authority` go to the mesh's HBONE address; all others are refused.
///
/// As in Istio, the stream's bytes pass an internal listener on their way.
pub(super) fn start(mesh: &Mesh, certificate: &Issued, authority: &str) -> Envoy {
    let dir = mesh.dir.path();
    let path = |suffix: &str| dir.join(format!("{NAME}{suffix}"));
    let [leaf, key, root, log] = [".crt", ".key", "-ca.crt", "-access.log"].map(path);
    fs::write(&leaf, &certificate.pem).unwrap();
    fs::write(&key, &certificate.key_pem).unwrap();
    fs::write(&root, mesh.authority.pem()).unwrap();
    let at = |port| SocketAddr::from((mesh.gateway_ip(), port));
    let tls = format!(
        "{{alpn_protocols: [h2], tls_params: {{tls_minimum_protocol_version: TLSv1_3}}, \
         tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}], \
         validation_context: {{trusted_ca: {{filename: {}}}, match_typed_subject_alt_names: \
         [{{san_type: URI, matcher: {{prefix: \"spiffe://cluster.local/\"}}}}]}}}}",
        leaf.display(),
        key.display(),
        root.display()
    );
    let listeners = listeners(at(HBONE_PORT), authority, &tls, &log);
    let config = format!("{listeners}\n{}", clusters(mesh));
    let command = Command::new(&mesh.envoy);
    Envoy::launch(command, NAME, (None, at(ADMIN_PORT)), dir, &config)
}

/// Where tunnels end, and the inside that their streams' bytes pass.
fn listeners(at: SocketAddr, authority: &str, tls: &str, log: &Path) -> String {
    let (at, log) = (address(at), log.display());
    format!(
        "bootstrap_extensions:
- name: internal
  typed_config: {{\"@type\": {TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener}}
static_resources:
  listeners:
  - name: tunnels
    address: {at}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context: {tls}
      filters:
      - name: http
        typed_config:
          \"@type\": {TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: tunnels
          codec_type: HTTP2
          http2_protocol_options: {{allow_connect: true}}
          upgrade_configs: [{{upgrade_type: CONNECT}}]
          access_log:
          - name: file
            typed_config:
              \"@type\": {TYPE}.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format: {{text_format_source: {{inline_string: \"{LOG}\\n\"}}}}
          route_config:
            virtual_hosts:
            - name: server
              domains: [\"{authority}\"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route:
                  cluster: inside
                  timeout: 0s
                  upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]
          http_filters:
          - name: router
            typed_config: {{\"@type\": {TYPE}.extensions.filters.http.router.v3.Router}}
  - name: inside
    internal_listener: {{}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          \"@type\": {TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: inside
          cluster: server"
    )
}

/// The way inside, and the node behind.
fn clusters(mesh: &Mesh) -> String {
    let server = address(mesh.hbone_at());
    format!(
        "  clusters:
  - name: inside
    connect_timeout: 5s
    load_assignment:
      cluster_name: inside
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{envoy_internal_address: {{server_listener_name: inside}}}}}}}}]}}]
  - name: server
    type: STATIC
    connect_timeout: 5s
    upstream_bind_config: {{source_address: {{address: {}, port_value: 0}}}}
    load_assignment: {{cluster_name: server, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {server}}}}}]}}]}}",
        mesh.gateway_ip()
    )
}
