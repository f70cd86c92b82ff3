//! An Envoy as waypoint between nodes on captured hosts (network namespaces; needs root): what it
//! decides about HTTP is in force, and destinations that trust only it cannot be reached past it.

mod config;
mod http_app;
mod jwt;
mod load;
mod references;
mod sandwich;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use corelane_harness::apps;
use corelane_harness::fleet::Fleet;
use corelane_harness::hosts::Host;
use corelane_harness::http::{self, Answer};
use corelane_harness::requirements;
use corelane_harness::state::{State, Workload, host_name};

use self::config::Waypoint;
use self::http_app::{App, BROKEN, FLAKY};
use self::jwt::{ISSUER, Signer};
use crate::CORELANE;
use crate::mesh::{APP_PORT, HBONE_PORT};
use crate::peer::{Envoy, TYPE};

/// Address of the service behind the waypoint.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Address of the service without waypoint.
const PLAIN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
/// Address of the waypoint's service.
const WAYPOINT: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 30);
const SERVICE_PORT: u16 = 80;

const WAYPOINT_ID: &str = "spiffe://cluster.local/ns/default/sa/waypoint";
const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";

/// Lets only the waypoint in.
const ONLY_WAYPOINT: &str = "[[[{principals: [!Exact cluster.local/ns/default/sa/waypoint]}]]]";

/// The Envoy to start, if it and network namespaces are to be had.
fn envoy(test: &str) -> Option<std::path::PathBuf> {
    requirements::has_netns(test)
        .then(|| requirements::envoy(test))
        .flatten()
}

fn workload<'a>(
    name: &'a str,
    ips: &'a [IpAddr],
    services: &'a [(&'a str, u16, u16)],
) -> Workload<'a> {
    Workload {
        name,
        ips,
        hbone: true,
        services,
    }
}

/// A reference to a waypoint.
fn reference(destination: &str) -> String {
    format!("{{destination: {destination}, hboneMtlsPort: {HBONE_PORT}}}")
}

/// The waypoint's service, by name.
fn by_name() -> String {
    reference(&format!("default/{}", host_name("waypoint")))
}

#[track_caller]
fn get(from: &Host, to: Ipv4Addr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let to = SocketAddr::from((to, SERVICE_PORT));
    from.enter(|| http::request_with("GET", to, path, headers))
        .unwrap_or_else(|e| panic!("GET {path} from {to}: {e}"))
}

/// A connection that must be refused.
#[track_caller]
fn check_closed(from: &Host, to: SocketAddr) {
    let result = from.enter(|| apps::exchange(to, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert!(
        result.as_ref().map_or_else(apps::is_close, Vec::is_empty),
        "{to}: {result:?}"
    );
}

/// `first` and `second` behind a waypoint that they trust alone; `plain` without.
fn http_state(fleet: &Fleet) -> State {
    let ips = |name| fleet.ips(name);
    let only_waypoint = "authorizationPolicies: [default/only-waypoint]";
    let endpoint = |service| [(service, SERVICE_PORT, APP_PORT)];
    State::default()
        .workload(&workload("client", &ips("client"), &[]))
        .workload(&workload(
            "waypoint",
            &ips("waypoint"),
            &[("waypoint", HBONE_PORT, HBONE_PORT)],
        ))
        .workload(&workload("first", &ips("first"), &endpoint("first")))
        .workload_with(only_waypoint)
        .workload(&workload("second", &ips("second"), &[]))
        .workload_with(only_waypoint)
        .workload(&workload("plain", &ips("plain"), &endpoint("plain")))
        .service("waypoint", &[WAYPOINT.into()], HBONE_PORT, HBONE_PORT)
        .service("first", &[SERVICE.into()], SERVICE_PORT, APP_PORT)
        .service_with(&format!("waypoint: {}", by_name()))
        .service("plain", &[PLAIN.into()], SERVICE_PORT, APP_PORT)
        .selected_policy("only-waypoint", "Allow", ONLY_WAYPOINT)
}

/// Requests for `/two` with the header `tier: gold` go to `second`, all others to `first`; one retry;
/// below `/private` a token is needed.
fn http_waypoint(fleet: &Fleet, signer: &Signer, envoy: &std::path::Path) -> Envoy {
    let route = |condition: &str, cluster: &str| {
        format!(
            "{{match: {{{condition}}}, route: {{cluster: {cluster}, \
             retry_policy: {{retry_on: 5xx, num_retries: 1}}}}}}"
        )
    };
    let routes = [
        route(
            "prefix: /two, headers: [{name: tier, string_match: {exact: gold}}]",
            "second",
        ),
        route("prefix: /", "first"),
    ];
    let token = format!(
        "{{name: jwt, typed_config: {{\"@type\": {TYPE}.extensions.filters.http.jwt_authn.v3.JwtAuthentication, \
         providers: {{tests: {{issuer: {ISSUER}, local_jwks: {{inline_string: '{}'}}}}}}, \
         rules: [{{match: {{prefix: /private}}, requires: {{provider_name: tests}}}}]}}}}",
        signer.key_set()
    );
    Waypoint::new(fleet, "waypoint")
        .tunnels(fleet.ip("waypoint"), "waypoint", "http")
        .http("http", &routes, &[token])
        .tunnel_to("first", fleet.at("first", APP_PORT), "waypoint", "first")
        .tunnel_to("second", fleet.at("second", APP_PORT), "waypoint", "second")
        .start(envoy)
}

#[test]
fn http_is_routed_checked_and_retried_by_the_waypoint_and_cannot_pass_it_by() {
    let name = "http_is_routed_checked_and_retried_by_the_waypoint_and_cannot_pass_it_by";
    let Some(envoy) = envoy(name) else { return };
    let fleet = Fleet::new(
        CORELANE,
        &["client", "waypoint", "first", "second", "plain"],
    );
    fleet.publish(&http_state(&fleet).to_yaml());
    let signer = Signer::new();
    let [first, second, plain] =
        ["first", "second", "plain"].map(|name| App::start(&fleet.host(name), APP_PORT, name));
    let waypoint = http_waypoint(&fleet, &signer, &envoy);
    let [client_node, first_node, _second_node, plain_node] =
        ["client", "first", "second", "plain"].map(|name| fleet.start_node(name, &[]));
    let client = fleet.host("client");

    std::thread::scope(|scope| {
        // All the while another service is reached without a waypoint.
        let direct = scope.spawn(|| {
            for round in 0..40 {
                let answer = get(&client, PLAIN, &format!("/{round}"), &[]);
                assert_eq!(answer.body, format!("plain /{round}"));
            }
        });
        check_routes(&client);
        check_tokens(&client, &signer);
        check_retries(&client, &first);
        direct.join().unwrap();
    });
    assert_eq!(second.asked(), ["/two", "/two/more"]);
    assert_eq!(plain.asked().len(), 40);

    // Everybody knows whom they talked to.
    let authority = format!("{SERVICE}:{SERVICE_PORT}");
    let waypoint_at = fleet.at("waypoint", HBONE_PORT).to_string();
    let _ = client_node.wait_access_line(
        "connection complete",
        &[
            ("dst.addr", &waypoint_at),
            ("dst.hbone_addr", &authority),
            ("dst.workload", "waypoint"),
            ("dst.identity", WAYPOINT_ID),
            ("dst.service", &host_name("first")),
        ],
    );
    let from = format!("from={CLIENT_ID}");
    let host = format!("host={}", host_name("first"));
    let stream = format!("authority={authority}");
    waypoint.wait_access_line(&["stream 200", &from, &stream, &host]);
    let _ = plain_node.wait_access_line("connection complete", &[("src.identity", CLIENT_ID)]);

    // Past the waypoint the destination is closed: its policy knows only the waypoint.
    let before = first.accepted();
    check_closed(&client, fleet.at("first", APP_PORT));
    assert_eq!(first.accepted(), before, "the application was reached");
    let denied = first_node.wait_access_line(
        "connection complete",
        &[("src.identity", CLIENT_ID), ("direction", "inbound")],
    );
    assert!(denied.field("error").contains("none allowed"), "{denied:?}");
    // Envoy keeps its connections; they end with it.
    drop(waypoint);
    let _ = first_node.wait_access_line(
        "connection complete",
        &[("src.identity", WAYPOINT_ID), ("direction", "inbound")],
    );
}

/// Path and header together decide, neither alone.
fn check_routes(client: &Host) {
    for (path, headers, expected) in [
        ("/two", &[("tier", "gold")][..], "second /two"),
        ("/two/more", &[("tier", "gold")], "second /two/more"),
        ("/two", &[], "first /two"),
        ("/two", &[("tier", "silver")], "first /two"),
        ("/one", &[("tier", "gold")], "first /one"),
    ] {
        let answer = get(client, SERVICE, path, headers);
        let seen = (answer.status, answer.body.as_str());
        assert_eq!(seen, (200, expected), "{path} {headers:?}");
    }
}

/// Below `/private` nobody passes without a token of the right key.
fn check_tokens(client: &Host, signer: &Signer) {
    let bearer = |signer: &Signer| format!("Bearer {}", signer.token("someone"));
    let (good, forged) = (bearer(signer), bearer(&Signer::new()));
    for (path, token, expected) in [
        ("/private", None, 401),
        ("/private", Some(&forged), 401),
        ("/private", Some(&good), 200),
        ("/public", None, 200),
    ] {
        let header = token.map(|token| ("authorization", token.as_str()));
        let answer = get(client, SERVICE, path, header.as_slice());
        assert_eq!(answer.status, expected, "{path} {token:?}");
    }
}

/// A first answer of 503 is hidden from the client, a second one is not.
fn check_retries(client: &Host, app: &App) {
    app.asked();
    assert_eq!(get(client, SERVICE, FLAKY, &[]).status, 200);
    assert_eq!(app.asked(), [FLAKY, FLAKY], "one retry");
    assert_eq!(get(client, SERVICE, BROKEN, &[]).status, 503);
    assert_eq!(app.asked(), [BROKEN, BROKEN], "one retry");
}
