//! Certificates are renewed while connections are made and used: no request fails. Only a connection
//! that outlives the certificates of its tunnel ends, and with them: a tunnel is no older than what it was
//! proven with.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use corelane::tls::certificate::Certificate;
use corelane_harness::load::Load;
use corelane_harness::wire::Tunnel;
use corelane_harness::{apps, clock};

use crate::authority::Ca;
use crate::certificates::nodes;
use crate::mesh::{FORWARD, Mesh};
use crate::plane::{PATIENCE, Plane};
use crate::resources::{a_workload, workload};

const HBONE: u16 = 15_008;
/// Port of the forward to the address at which the test takes tunnels itself.
const PROBE: u16 = 5_440;

/// Serial numbers of the certificates that server and client show.
fn shown(mesh: &Mesh, ca: &Ca, probe: &TcpListener) -> [String; 2] {
    let to = SocketAddr::new(mesh.server_ip(), HBONE);
    let tunnel = Tunnel::open(to, &mesh.certificate("client")).unwrap();
    let server = tunnel.server_chain()[0].clone();
    let _waiting = mesh.connector(PROBE)().unwrap();
    let client = loop {
        // One that was left waiting by a former look has ended.
        let tunnel = apps::accept_within(probe, PATIENCE).unwrap();
        if let Some(client) = ca.client_of(tunnel) {
            break client;
        }
    };
    [server, client].map(|leaf| Certificate::read(&leaf).unwrap().serial_decimal())
}

/// 200 requests a second for at least `span`, and until each node has renewed its certificate so often.
fn rotate(lifetime: Duration, span: Duration, renewals: usize) {
    let (mut mesh, plane) = (Mesh::new(), Plane::start());
    let probe_ip = mesh.ip(5).into();
    mesh.forward(PROBE, SocketAddr::new(probe_ip, 80), "client");
    let probe = apps::listen(probe_ip, HBONE);
    let ca = Ca::start(lifetime);
    let mut all = mesh.workloads();
    all.push(workload(a_workload("probe", probe_ip, "elsewhere")));
    let _nodes = nodes(&mesh, &plane, &ca, (&all, &[]));
    let first = shown(&mesh, &ca, &probe);
    let connect = || mesh.connector(FORWARD);
    let mut load = Load::new(None)
        .brief(25, 8, connect())
        .brief(25, 8, connect());
    for _ in 0..4 {
        load = load.short(25, connect());
    }
    // These outlive certificates; their tunnels do not.
    let staying = Load::new(None).long(50, 20, connect());
    let began = clock::now();
    let (mut issued, mut ends) = (BTreeMap::<String, usize>::new(), Vec::new());
    let limit = span + lifetime * u32::try_from(renewals + 4).unwrap();
    clock::wait_for("the renewals", limit, || {
        while let Some(next) = ca.try_next() {
            ends.push(next.until);
            let account = next.identity.service_account.to_string();
            *issued.entry(account).or_default() += 1;
        }
        // The first is no renewal.
        let renewed = |account| issued.get(account).is_some_and(|count| *count > renewals);
        let whole = began.elapsed() >= span && renewed("client") && renewed("server");
        (whole || load.failed() > 0).then_some(())
    });
    let (elapsed, last) = (began.elapsed(), shown(&mesh, &ca, &probe));
    let (done, stayed) = (load.stop(), staying.stop());
    println!("{elapsed:?}, issued {issued:?}, shown {first:?} then {last:?}, {done:?}");
    println!("staying: {stayed:?}");
    // A machine that is busy otherwise may not keep the rate.
    let seconds = usize::try_from(elapsed.as_secs()).unwrap();
    done.assert_whole(seconds * 90);
    assert!(stayed.requests >= seconds * 30, "{stayed:?}");
    for (at, what) in &stayed.failures {
        let is_end = ends.iter().any(|end| ended_then(*end, *at));
        assert!(
            is_end,
            "{what}, at {at:?}, with certificates until {ends:?}"
        );
    }
    for (before, after) in first.iter().zip(&last) {
        assert_ne!(before, after, "the certificate that is shown has changed");
    }
}

/// Whether a connection that was found closed `at` that time ended with a certificate, whose end is kept
/// in whole seconds. Each connection is looked at every 0.4 s.
fn ended_then(end: SystemTime, at: SystemTime) -> bool {
    let (early, late) = (Duration::from_millis(1_100), Duration::from_secs(2));
    end - early <= at && at <= end + late
}

#[test]
fn certificates_are_renewed_under_load_and_no_request_fails() {
    rotate(Duration::from_secs(8), Duration::from_secs(11), 2);
}

#[test]
#[ignore = "long: five minutes"]
fn certificates_of_twenty_seconds_are_renewed_for_five_minutes_and_no_request_fails() {
    rotate(Duration::from_secs(20), Duration::from_mins(5), 25);
}
