//! Envoy: `tcp_proxy` towards the original destination, or CONNECT tunnels over mutual TLS 1.3 with
//! SPIFFE names checked on both sides.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use corelane_harness::hosts::Host;
use corelane_harness::pki::{Authority, Leaf, spiffe};

use super::{NodeProcess, Starter, Way};
use crate::apps::PORTS;
use crate::error::{Error, Result};
use crate::lab::CAPTURE_PORT;
use crate::tool;

const HBONE_PORT: u16 = 15_008;
const TYPE: &str = "type.googleapis.com/envoy";

/// Envoy refuses beyond 1,024 connections by default.
const BREAKERS: &str = "circuit_breakers: {thresholds: [{max_connections: 100000, \
    max_pending_requests: 100000, max_requests: 100000}]}";

pub(super) fn start(starter: &Starter<'_>, way: Way) -> Result<Vec<NodeProcess>> {
    let lab = starter.lab;
    match way {
        Way::Passthrough => {
            let config = passthrough(&Files::new(lab.dir(), "client"), starter);
            Ok(vec![launch(
                starter,
                "client",
                &lab.client,
                &config,
                CAPTURE_PORT,
            )?])
        }
        Way::Tunnel => {
            let authority = Authority::new("corelane perf root");
            let [client, server] = ["client", "server"].map(|name| Files::new(lab.dir(), name));
            let client_tls = client.tls(&authority, "client", "server")?;
            let server_tls = server.tls(&authority, "server", "client")?;
            let server = server_config(&server, starter, &server_tls);
            let client = client_config(&client, starter, &client_tls);
            Ok(vec![
                launch(starter, "server", &lab.server, &server, HBONE_PORT)?,
                launch(starter, "client", &lab.client, &client, CAPTURE_PORT)?,
            ])
        }
    }
}

fn launch(
    starter: &Starter<'_>,
    role: &str,
    host: &Host,
    config: &str,
    port: u16,
) -> Result<NodeProcess> {
    let file = starter.lab.dir().join(format!("envoy-{role}.yaml"));
    fs::write(&file, config).map_err(Error::io("Envoy's configuration"))?;
    let program = starter
        .programs
        .envoy
        .as_deref()
        .unwrap_or_else(|| "envoy".as_ref());
    let mut command = tool::command(host, &program.to_string_lossy());
    command.arg("--config-path").arg(&file);
    command.args(["--concurrency", &starter.shape.shards.to_string()]);
    command.args(["--log-level", "warning", "--disable-hot-restart"]);
    starter.listening(&format!("envoy-{role}"), command, host, port)
}

/// Files one Envoy reads and writes.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    root: PathBuf,
    access_log: PathBuf,
}

impl Files {
    fn new(dir: &Path, role: &str) -> Self {
        let path = |suffix: &str| dir.join(format!("envoy-{role}{suffix}"));
        Self {
            certificate: path(".crt"),
            key: path(".key"),
            root: path("-ca.crt"),
            access_log: path("-access.log"),
        }
    }

    fn tls(&self, authority: &Authority, account: &str, peer: &str) -> Result<String> {
        let issued = authority.issue(&Leaf::for_account(account));
        let files = [
            (&self.certificate, issued.pem.as_str()),
            (&self.key, &issued.key_pem),
            (&self.root, authority.pem()),
        ];
        for (path, text) in files {
            fs::write(path, text).map_err(Error::io("certificate"))?;
        }
        Ok(format!(
            "{{alpn_protocols: [h2], \
             tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
             tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}], \
             validation_context: {{trusted_ca: {{filename: {}}}, match_typed_subject_alt_names: \
             [{{san_type: URI, matcher: {{exact: \"{}\"}}}}]}}}}",
            self.certificate.display(),
            self.key.display(),
            self.root.display(),
            spiffe("cluster.local", peer)
        ))
    }

    fn access_log(&self, starter: &Starter<'_>, format: &str) -> String {
        if !starter.shape.access_log {
            return "[]".into();
        }
        format!(
            "[{{name: file, typed_config: {{\"@type\": {TYPE}.extensions.access_loggers.file.v3.FileAccessLog, \
             path: {}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]",
            self.access_log.display()
        )
    }
}

const TCP_FORMAT: &str = "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
    %UPSTREAM_HOST% %RESPONSE_FLAGS% %BYTES_SENT% %BYTES_RECEIVED% %DURATION%";
const CONNECT_FORMAT: &str = "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_PEER_URI_SAN% \
    %REQ(:AUTHORITY)% %UPSTREAM_HOST% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_SENT% %BYTES_RECEIVED% %DURATION%";

/// The listener for captured connections, relaying by `tcp_proxy` with `to`.
fn captured(files: &Files, starter: &Starter<'_>, to: &str) -> String {
    let log = files.access_log(starter, TCP_FORMAT);
    format!(
        "  listeners:
  - name: captured
    address: {{socket_address: {{address: 0.0.0.0, port_value: {CAPTURE_PORT}}}}}
    listener_filters:
    - name: original_dst
      typed_config: {{\"@type\": {TYPE}.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
    - filters:
      - name: tcp_proxy
        typed_config:
          \"@type\": {TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: captured
          {to}
          access_log: {log}
"
    )
}

fn passthrough(files: &Files, starter: &Starter<'_>) -> String {
    let listener = captured(files, starter, "cluster: meant");
    format!(
        "static_resources:
{listener}  clusters:
  - name: meant
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 10s
    {BREAKERS}
"
    )
}

fn client_config(files: &Files, starter: &Starter<'_>, tls: &str) -> String {
    let to = "cluster: tunnel\n          \
              tunneling_config: {hostname: \"%DOWNSTREAM_LOCAL_ADDRESS%\"}";
    let listener = captured(files, starter, to);
    let reuse = if starter.shape.pooled {
        ""
    } else {
        "        common_http_protocol_options: {max_requests_per_connection: 1}\n"
    };
    let node = address(starter.lab.server.v4(), HBONE_PORT);
    format!(
        "static_resources:
{listener}  clusters:
  - name: tunnel
    type: STATIC
    connect_timeout: 10s
    {BREAKERS}
    load_assignment: {{cluster_name: tunnel, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {node}}}}}]}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": {TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
{reuse}    transport_socket:
      name: tls
      typed_config:
        \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {tls}
"
    )
}

fn server_config(files: &Files, starter: &Starter<'_>, tls: &str) -> String {
    let log = files.access_log(starter, CONNECT_FORMAT);
    let (mut hosts, mut clusters) = (String::new(), String::new());
    for port in PORTS {
        let app = address(starter.lab.server.v4(), port);
        let name = starter.lab.at(port);
        write!(
            hosts,
            "            - name: app{port}
              domains: [\"{name}\"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route:
                  cluster: app{port}
                  timeout: 0s
                  upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]
"
        )
        .expect("to a string");
        write!(
            clusters,
            "  - name: app{port}
    type: STATIC
    connect_timeout: 10s
    {BREAKERS}
    load_assignment: {{cluster_name: app{port}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {app}}}}}]}}]}}
"
        )
        .expect("to a string");
    }
    let listen = address(Ipv4Addr::UNSPECIFIED, HBONE_PORT);
    format!(
        "static_resources:
  listeners:
  - name: hbone
    address: {listen}
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
          stat_prefix: hbone
          codec_type: HTTP2
          stream_idle_timeout: 0s
          http2_protocol_options: {{allow_connect: true}}
          upgrade_configs: [{{upgrade_type: CONNECT}}]
          access_log: {log}
          route_config:
            virtual_hosts:
{hosts}          http_filters:
          - name: router
            typed_config: {{\"@type\": {TYPE}.extensions.filters.http.router.v3.Router}}
  clusters:
{clusters}"
    )
}

fn address(ip: Ipv4Addr, port: u16) -> String {
    format!("{{socket_address: {{address: {ip}, port_value: {port}}}}}")
}
