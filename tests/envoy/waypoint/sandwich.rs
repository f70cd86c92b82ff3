//! A node in front of its Envoy: the node ends the tunnels and hands their bytes on with a PROXY header,
//! Envoy reads from it who calls and for what, and what Envoy sends goes into tunnels of the node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use corelane_harness::apps;
use corelane_harness::fleet::Fleet;
use corelane_harness::http;
use corelane_harness::node::Node;
use corelane_harness::pki::Leaf;
use corelane_harness::state::{State, host_name};
use corelane_harness::wire::{Reply, Tunnel};

use super::config::Waypoint;
use super::http_app::App;
use super::{
    CLIENT_ID, ONLY_WAYPOINT, SERVICE, SERVICE_PORT, WAYPOINT, WAYPOINT_ID, by_name, get, workload,
};
use crate::CORELANE;
use crate::mesh::{APP_PORT, HBONE_PORT};
use crate::peer::{Envoy, TYPE, address};

/// Port of the Envoy behind the node.
const INNER_PORT: u16 = 15_088;
const REQUEST: &[u8] = b"GET /wire HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

struct Bed {
    client: Node,
    waypoint: Node,
    server: Node,
    app: App,
    envoy: Envoy,
    fleet: Fleet,
}

impl Bed {
    /// Envoy listens at `inner`, and the waypoint's node has `env`.
    fn start(envoy: &Path, inner: impl FnOnce(&Fleet) -> Ipv4Addr, env: &[(&str, &str)]) -> Self {
        let fleet = Fleet::new(CORELANE, &["client", "waypoint", "server", "outside"]);
        fleet.publish(&state(&fleet).to_yaml());
        let inner = inner(&fleet);
        let waypoint = fleet.start_node("waypoint", env);
        Self {
            envoy: inner_envoy(&fleet, inner, envoy),
            client: fleet.start_node("client", &[]),
            waypoint,
            server: fleet.start_node("server", &[]),
            app: App::start(&fleet.host("server"), APP_PORT, "server"),
            fleet,
        }
    }

    /// Asks the waypoint's node for `authority` as `account`, from a host without a node, and sends
    /// a request; the answer.
    fn ask(&self, account: &str, authority: &str) -> std::io::Result<Vec<u8>> {
        let certificate = self.fleet.authority.issue(&Leaf::for_account(account));
        let to = self.fleet.at("waypoint", HBONE_PORT);
        self.fleet.host("outside").enter(|| {
            let mut tunnel = Tunnel::open(to, &certificate)?;
            tunnel.start_http2()?;
            tunnel.connect(1, authority)?;
            assert_eq!(tunnel.reply(1)?, Reply::Status(200));
            tunnel.send_data(1, REQUEST, false)?;
            tunnel.receive_data(1)
        })
    }
}

/// The server is reached through the waypoint by service and by workload, and trusts it alone.
fn state(fleet: &Fleet) -> State {
    State::default()
        .workload(&workload("client", &fleet.ips("client"), &[]))
        .workload(&workload(
            "waypoint",
            &fleet.ips("waypoint"),
            &[("waypoint", HBONE_PORT, HBONE_PORT)],
        ))
        .workload_with(&format!(
            "applicationTunnel: {{protocol: PROXY, port: {INNER_PORT}}}"
        ))
        .workload(&workload(
            "server",
            &fleet.ips("server"),
            &[("server", SERVICE_PORT, APP_PORT)],
        ))
        .workload_with(&format!("waypoint: {}", by_name()))
        .workload_with("authorizationPolicies: [default/only-waypoint]")
        .service("waypoint", &[WAYPOINT.into()], HBONE_PORT, HBONE_PORT)
        .service("server", &[SERVICE.into()], SERVICE_PORT, APP_PORT)
        .service_with(&format!("waypoint: {}", by_name()))
        .selected_policy("only-waypoint", "Allow", ONLY_WAYPOINT)
}

/// Lets in whom the PROXY header names as the client, and nobody else; requests go to the server.
fn inner_envoy(fleet: &Fleet, inner: Ipv4Addr, envoy: &Path) -> Envoy {
    let config = Waypoint::new(fleet, "waypoint").plain_to("server", fleet.at("server", APP_PORT));
    let at = address(SocketAddr::new(IpAddr::V4(inner), INNER_PORT));
    let routes = ["{match: {prefix: /}, route: {cluster: server}}".to_owned()];
    let http = config.http_filter("sandwich", &routes, &[]);
    let log = config.access_log(
        "connection from=%DOWNSTREAM_REMOTE_ADDRESS% for=%DOWNSTREAM_LOCAL_ADDRESS% \
         identity=%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:peer)% \
         dialled-from=%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    );
    let named = format!(
        "{{sourced_metadata: {{metadata_matcher: {{filter: envoy.filters.listener.proxy_protocol, \
         path: [{{key: peer}}], value: {{string_match: {{exact: \"{CLIENT_ID}\"}}}}}}}}}}"
    );
    config
        .listener(format!(
            "
  - name: sandwich
    address: {at}
    access_log: {log}
    listener_filters:
    - name: proxy
      typed_config:
        \"@type\": {TYPE}.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol
        rules: [{{tlv_type: 208, on_tlv_present: {{key: peer}}}}]
    filter_chains:
    - filters:
      - name: rbac
        typed_config:
          \"@type\": {TYPE}.extensions.filters.network.rbac.v3.RBAC
          stat_prefix: sandwich
          rules: {{action: ALLOW, policies: {{client: {{permissions: [{{any: true}}], principals: [{named}]}}}}}}
      - {http}"
        ))
        .start(envoy)
}

#[test]
fn an_envoy_behind_a_node_learns_who_calls_and_what_for_and_its_traffic_is_not_sent_back() {
    let name =
        "an_envoy_behind_a_node_learns_who_calls_and_what_for_and_its_traffic_is_not_sent_back";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let bed = Bed::start(&envoy, |_| Ipv4Addr::LOCALHOST, &[]);
    let client = bed.fleet.host("client");
    let client_ip = client.v4();
    let server = bed.fleet.at("server", APP_PORT);
    let waypoint_at = bed.fleet.at("waypoint", HBONE_PORT).to_string();

    // By service, then by workload: through the waypoint both times.
    assert_eq!(
        get(&client, SERVICE, "/service", &[]).body,
        "server /service"
    );
    let answer = client.enter(|| http::request("GET", server, "/workload"));
    assert_eq!(answer.unwrap().body, "server /workload");
    let service = format!("{SERVICE}:{SERVICE_PORT}");
    for asked in [service, server.to_string()] {
        let fields = [("dst.hbone_addr", &*asked), ("dst.addr", &waypoint_at)];
        let _ = bed.client.wait_access_line("connection complete", &fields);
        bed.envoy.wait_access_line(&[
            &format!("from={client_ip}:"),
            &format!("for={asked} "),
            &format!("identity={CLIENT_ID} "),
            "dialled-from=127.0.0.1",
        ]);
        let fields = [("direction", "inbound"), ("dst.hbone_addr", &asked)];
        let line = bed
            .waypoint
            .wait_access_line("connection complete", &fields);
        assert_eq!(line.field("src.identity"), CLIENT_ID);
    }

    // What Envoy sends to the server, whose waypoint it is, goes there and not back to it.
    drop(bed.envoy);
    let server_at = bed.fleet.at("server", HBONE_PORT).to_string();
    let fields = [
        ("direction", "outbound"),
        ("src.identity", WAYPOINT_ID),
        ("dst.addr", &server_at),
    ];
    let _ = bed
        .waypoint
        .wait_access_line("connection complete", &fields);
    let fields = [("direction", "inbound"), ("src.identity", WAYPOINT_ID)];
    let line = bed.server.wait_access_line("connection complete", &fields);
    assert_eq!(line.field("error"), "");
    let lines = bed.waypoint.access_lines();
    let back = lines.iter().find(|line| {
        line.has(&[("direction", "outbound"), ("dst.workload", "waypoint")])
            || line.has(&[("direction", "inbound"), ("src.identity", WAYPOINT_ID)])
    });
    assert_eq!(back, None, "nothing went round");
}

#[test]
fn an_envoy_behind_a_node_checks_the_identity_and_sees_the_service_asked_for_by_name() {
    let name = "an_envoy_behind_a_node_checks_the_identity_and_sees_the_service_asked_for_by_name";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let bed = Bed::start(&envoy, |_| Ipv4Addr::LOCALHOST, &[]);
    let by_host = format!("{}:{SERVICE_PORT}", host_name("server"));
    let answer = bed.ask("client", &by_host).unwrap();
    assert!(answer.ends_with(b"server /wire"), "{answer:?}");
    let outside = bed.fleet.ip("outside");
    bed.envoy.wait_access_line(&[
        &format!("from={outside}:"),
        &format!("for={SERVICE}:{SERVICE_PORT} "),
        &format!("identity={CLIENT_ID} "),
    ]);
    assert_eq!(bed.app.asked(), ["/wire"]);
    // The node lets anybody in, but Envoy does not.
    let refused = bed.ask("stranger", &by_host);
    assert!(
        refused.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{refused:?}"
    );
    bed.envoy.wait_access_line(&["sa/stranger "]);
    bed.envoy.wait_counted("rbac.denied");
    assert!(bed.app.asked().is_empty(), "the application was reached");
}

#[test]
fn an_envoy_behind_a_node_is_dialled_at_its_own_address_when_loopback_is_off() {
    let name = "an_envoy_behind_a_node_is_dialled_at_its_own_address_when_loopback_is_off";
    let Some(envoy) = super::envoy(name) else {
        return;
    };
    let env = [("LOCALHOST_APP_TUNNEL", "false")];
    let bed = Bed::start(&envoy, |fleet| fleet.ip("waypoint"), &env);
    let answer = bed.ask("client", &format!("{SERVICE}:{SERVICE_PORT}"));
    assert!(answer.unwrap().ends_with(b"server /wire"));
    let outside = bed.fleet.ip("outside");
    bed.envoy.wait_access_line(&[
        &format!("for={SERVICE}:{SERVICE_PORT} "),
        &format!("identity={CLIENT_ID} "),
        &format!("dialled-from={outside}"),
    ]);
}
