//! An Envoy process in one of two roles: it opens tunnels (client), or it ends them (server).

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corelane_harness::clock;
use corelane_harness::hosts::Host;
use corelane_harness::http::{self, Answer};
use corelane_harness::pki::Issued;
use corelane_harness::process::Process;

use crate::mesh::Mesh;

const ADMIN_PORT: u16 = 9_901;
const START_LIMIT: Duration = Duration::from_secs(30);
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// A running Envoy.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Process,
    host: Option<Host>,
    admin: SocketAddr,
    access_log: PathBuf,
}

/// What differs between the Envoys of the tests.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// Own certificate.
    pub(crate) certificate: &'a Issued,
    /// The one URI name the peer must have.
    pub(crate) expected_peer: &'a str,
    /// How old a tunnel may get before Envoy says GOAWAY; server role.
    pub(crate) tunnel_age_max: Option<Duration>,
}

impl Envoy {
    /// Takes plain connections at the mesh's entry and tunnels them to its HBONE address.
    pub(crate) fn client(mesh: &Mesh, options: &Options<'_>) -> Self {
        let admin = SocketAddr::from((mesh.client_ip(), ADMIN_PORT));
        Self::start(mesh, "envoy-client", admin, |files| {
            client_config(mesh, options, files)
        })
    }

    /// Ends tunnels at the mesh's HBONE address and connects to its application.
    pub(crate) fn server(mesh: &Mesh, options: &Options<'_>) -> Self {
        let admin = SocketAddr::from((mesh.server_ip(), ADMIN_PORT));
        Self::start(mesh, "envoy-server", admin, |files| {
            server_config(mesh, options, files)
        })
    }

    fn start(
        mesh: &Mesh,
        name: &str,
        admin: SocketAddr,
        config: impl FnOnce(&Files) -> String,
    ) -> Self {
        let files = Files::new(mesh, name);
        let command = Command::new(&mesh.envoy);
        let text = config(&files);
        Self::launch(command, name, (None, admin), mesh.dir.path(), &text)
    }

    /// Starts `command`, Envoy's, with `config` on a host or here; its admin endpoint is at `admin`
    /// there, and its access log is the file `NAME-access.log` in `dir`.
    pub(crate) fn launch(
        mut command: Command,
        name: &str,
        (host, admin): (Option<Host>, SocketAddr),
        dir: &Path,
        config: &str,
    ) -> Self {
        let file = dir.join(format!("{name}.yaml"));
        let text = format!("{config}\n{}", admin_config(admin));
        fs::write(&file, text).unwrap();
        command
            .arg("--config-path")
            .arg(&file)
            .args([
                "--concurrency",
                "1",
                "--log-level",
                "warning",
                "--disable-hot-restart",
            ])
            .args(["--file-flush-interval-msec", "50", "--drain-time-s", "1"]);
        let process = Process::start(name, command, dir);
        let mut envoy = Self {
            process,
            host,
            admin,
            access_log: dir.join(format!("{name}-access.log")),
        };
        clock::wait_for("Envoy to be ready", START_LIMIT, || {
            assert!(envoy.process.ended().is_none(), "Envoy ended at start");
            envoy
                .ask("/ready")
                .is_ok_and(|a| a.status == 200)
                .then_some(())
        });
        envoy
    }

    /// Asks the admin endpoint.
    fn ask(&self, path: &str) -> io::Result<Answer> {
        let ask = || http::request("GET", self.admin, path);
        match &self.host {
            Some(host) => host.enter(ask),
            None => ask(),
        }
    }

    /// Lines of the access log so far that hold all of `parts`.
    pub(crate) fn access_lines(&self, parts: &[&str]) -> Vec<String> {
        let log = fs::read_to_string(&self.access_log).unwrap_or_default();
        let lines = log.lines();
        lines
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line of the access log that holds all of `parts`.
    #[track_caller]
    pub(crate) fn wait_access_line(&self, parts: &[&str]) -> String {
        let what = format!("an Envoy access line with {parts:?}");
        clock::wait_for(&what, LOG_LIMIT, || {
            self.access_lines(parts).into_iter().next()
        })
    }

    /// Waits until one of Envoy's counters, or the sum of those whose names end so, is at least one.
    #[track_caller]
    pub(crate) fn wait_counted(&self, name_end: &str) {
        let what = format!("Envoy to count {name_end}");
        clock::wait_for(&what, LOG_LIMIT, || {
            let page = self.ask("/stats?usedonly").ok()?.body;
            let counts = page.lines().filter_map(|line| line.split_once(": "));
            let ours = counts.filter(|(name, _)| name.ends_with(name_end));
            let sum: u64 = ours
                .filter_map(|(_, count)| count.parse::<u64>().ok())
                .sum();
            (sum > 0).then_some(())
        });
    }
}

/// Files one Envoy reads and writes.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    root: PathBuf,
    access_log: PathBuf,
}

impl Files {
    fn new(mesh: &Mesh, name: &str) -> Self {
        let path = |suffix: &str| mesh.dir.path().join(format!("{name}{suffix}"));
        Self {
            certificate: path(".crt"),
            key: path(".key"),
            root: path("-ca.crt"),
            access_log: path("-access.log"),
        }
    }

    /// Certificate, key, trust and the peer's name, as Envoy's common TLS context.
    fn tls(&self, mesh: &Mesh, options: &Options<'_>) -> String {
        fs::write(&self.certificate, &options.certificate.pem).unwrap();
        fs::write(&self.key, &options.certificate.key_pem).unwrap();
        fs::write(&self.root, mesh.authority.pem()).unwrap();
        format!(
            "{{alpn_protocols: [h2], \
             tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
             tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}], \
             validation_context: {{trusted_ca: {{filename: {}}}, match_typed_subject_alt_names: \
             [{{san_type: URI, matcher: {{exact: \"{}\"}}}}]}}}}",
            self.certificate.display(),
            self.key.display(),
            self.root.display(),
            options.expected_peer
        )
    }

    fn access_log(&self, format: &str) -> String {
        format!(
            "[{{name: file, typed_config: {{\"@type\": {TYPE}.extensions.access_loggers.file.v3.FileAccessLog, \
             path: {}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]",
            self.access_log.display()
        )
    }
}

/// Prefix of the names of Envoy's types.
pub(crate) const TYPE: &str = "type.googleapis.com/envoy";

/// An address in Envoy's form.
pub(crate) fn address(at: SocketAddr) -> String {
    format!(
        "{{socket_address: {{address: {}, port_value: {}}}}}",
        at.ip(),
        at.port()
    )
}

fn admin_config(at: SocketAddr) -> String {
    format!("admin: {{address: {}}}", address(at))
}

fn client_config(mesh: &Mesh, options: &Options<'_>, files: &Files) -> String {
    let (entry, hbone) = (address(mesh.entry_at()), address(mesh.hbone_at()));
    let (app, tls) = (mesh.app_at(), files.tls(mesh, options));
    let log = files.access_log("%RESPONSE_FLAGS% %UPSTREAM_PEER_URI_SAN% %UPSTREAM_TLS_VERSION% %BYTES_SENT% %UPSTREAM_TRANSPORT_FAILURE_REASON%");
    format!(
        "static_resources:
  listeners:
  - name: entry
    address: {entry}
    filter_chains:
    - filters:
      - name: tcp_proxy
        typed_config:
          \"@type\": {TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: entry
          cluster: tunnel
          tunneling_config: {{hostname: \"{app}\"}}
          access_log: {log}
  clusters:
  - name: tunnel
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: tunnel, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {hbone}}}}}]}}]}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": {TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    transport_socket:
      name: tls
      typed_config:
        \"@type\": {TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {tls}"
    )
}

fn server_config(mesh: &Mesh, options: &Options<'_>, files: &Files) -> String {
    let (app, hbone) = (address(mesh.app_at()), address(mesh.hbone_at()));
    let tls = files.tls(mesh, options);
    let log = files.access_log("%RESPONSE_CODE% %RESPONSE_FLAGS% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_TLS_VERSION% %REQ(:AUTHORITY)% forwarded=%REQ(FORWARDED)% baggage=%REQ(BAGGAGE)% traceparent=%REQ(TRACEPARENT)%");
    let age = options.tunnel_age_max.map_or_else(String::new, |age| {
        format!("max_connection_duration: {}s", age.as_secs_f32())
    });
    format!(
        "static_resources:
  listeners:
  - name: hbone
    address: {hbone}
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
          http2_protocol_options: {{allow_connect: true}}
          common_http_protocol_options: {{{age}}}
          drain_timeout: 0.5s
          upgrade_configs: [{{upgrade_type: CONNECT}}]
          access_log: {log}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route:
                  cluster: app
                  timeout: 0s
                  upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]
          http_filters:
          - name: router
            typed_config: {{\"@type\": {TYPE}.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: app, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {app}}}}}]}}]}}"
    )
}
