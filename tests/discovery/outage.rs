//! Control plane, certificate authority and name server are away for a while: whoever talks goes on, and
//! what changed meanwhile arrives afterwards.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use corelane_harness::clock;
use corelane_harness::node::Node;

use crate::authority::Ca;
use crate::certificates::nodes;
use crate::mesh::{Mesh, dumped};
use crate::name_server::{NameServer, addresses};
use crate::plane::{ADDRESS, AUTHORIZATION, PATIENCE, Plane};
use crate::resources::{deny_port, service};

/// Tries that each node has to fail before the others come back.
const FAILED_MIN: usize = 2;

fn said(node: &Node, text: &str) -> usize {
    node.process().output().matches(text).count()
}

fn times_renewed(ca: &Ca) -> usize {
    std::iter::from_fn(|| ca.try_next()).count()
}

/// All three are away for `span` at least, and until each node has tried to reach them in vain. Renewal
/// falls into that time, as certificates have half of their lives behind them.
fn outage(lifetime: Duration, span: Duration) {
    let (mut mesh, plane) = (Mesh::new(), Plane::start());
    let names_ip = mesh.ip(53);
    let name_server = NameServer::start(names_ip);
    let has_names = name_server.is_some();
    let dns = mesh.with_names(names_ip);
    let vip = Ipv4Addr::new(10, 7, 0, 1);
    let mut all = mesh.workloads();
    all.push(service("web", vip.into(), (80, 8_080)));
    let ca = Ca::start(lifetime);
    let [(server, to_server), (client, to_client)] = nodes(&mesh, &plane, &ca, (&all, &[]));
    let from = mesh.client_ip();
    let mesh_name = || addresses(dns, from, "web.default.");
    let other_name = || addresses(dns, from, "example.test.");
    assert_eq!(mesh_name(), [vip]);
    assert_eq!(other_name(), Vec::from_iter(has_names.then_some(names_ip)));
    let load = mesh.load();

    let at = plane.address();
    drop((to_server, to_client, plane, name_server));
    let ca = ca.leave();
    let began = clock::now();
    // Told only once the name server has been given up, which takes a while.
    let unknown = thread::spawn(move || addresses(dns, from, "example.test."));
    clock::wait_for("failed tries", span + lifetime, || {
        let tried = [&server, &client].iter().all(|node| {
            said(node, "control plane not reached") >= FAILED_MIN
                && said(node, "new certificate not usable, keeping the one held") >= FAILED_MIN
        });
        (tried && began.elapsed() >= span || load.failed() > 0).then_some(())
    });
    let away = began.elapsed();
    assert_eq!(
        mesh_name(),
        [vip],
        "the mesh is answered from what is known"
    );
    assert!(unknown.join().unwrap().is_empty(), "nobody knows others");

    // Back: certificates first, as connections that stay end with theirs.
    let (ca, _name_server) = (ca.back(), NameServer::start(names_ip));
    let back = clock::now();
    let mut renewed = 0;
    clock::wait_for("a new certificate for each", lifetime, || {
        renewed += times_renewed(&ca);
        (renewed >= 2).then_some(())
    });
    let certified = back.elapsed();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let done = load.stop();
    // What changed meanwhile is told.
    let plane = Plane::again(at);
    let other = Ipv4Addr::new(10, 7, 0, 2);
    let changed = |_| {
        let (mut stream, [held, _]) = plane.stream_begun();
        assert_eq!(held.initial_resource_versions.len(), all.len());
        stream.push(AUTHORIZATION, vec![deny_port("no", 1)], &[]);
        let new = service("new", other.into(), (80, 8_080));
        stream.push(ADDRESS, vec![new], &["default/web.default"]);
        stream
    };
    let _streams = [0, 1].map(changed);
    assert_eq!(dumped(&server, "policies").len(), 1);
    assert_eq!(addresses(dns, from, "new.default."), [other]);
    clock::wait_for("names of others", PATIENCE, || {
        (!has_names || other_name() == [names_ip]).then_some(())
    });
    println!(
        "away {away:?}, certificates {certified:?} and all {:?} later, {done:?}",
        back.elapsed()
    );
    done.assert_whole(seconds * 120);
    assert!(mesh.works());
}

#[test]
fn while_control_plane_authority_and_names_are_away_nothing_fails() {
    outage(Duration::from_secs(30), Duration::ZERO);
}

#[test]
#[ignore = "long: more than a minute"]
fn a_minute_without_control_plane_authority_and_names_fails_nothing() {
    outage(Duration::from_secs(100), Duration::from_mins(1));
}
