//! A control plane, and a network, that do everything wrong.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use corelane::proto::discovery::{DeltaDiscoveryResponse, Resource};
use corelane::snapshot::Snapshot;
use corelane::xds::client::Mode;
use tonic::{Code, Status};

use crate::client::Real;
use crate::plane::{ADDRESS, AUTHORIZATION, Plane};
use crate::resources::{a_workload, deny_port, resource, service, workload};

/// What the way from the server to the client does to each connection in turn; after the last one
/// nothing.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Ends after that many bytes.
    Cut(usize),
    /// Turns one bit of that byte.
    Flip(usize),
    /// Gives a few bytes at a time.
    Slow,
}

/// Forwards to `to`, with faults. Its threads end with their connections.
fn faulty(to: SocketAddr, faults: Vec<Fault>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut faults = faults.into_iter();
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else {
                return;
            };
            let fault = faults.next();
            let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || relay(up, server, None));
            thread::spawn(move || relay(down, client, fault));
        }
    });
    port
}

fn relay(mut from: TcpStream, mut to: TcpStream, fault: Option<Fault>) {
    let (_never, pause) = mpsc::channel::<()>();
    let (mut buffer, mut passed) = ([0; 16 * 1024], 0);
    let room = if matches!(fault, Some(Fault::Slow)) {
        97
    } else {
        buffer.len()
    };
    while let Ok(count @ 1..) = from.read(&mut buffer[..room]) {
        let mut bytes = &mut buffer[..count];
        match fault {
            Some(Fault::Cut(at)) if at < passed + count => bytes = &mut bytes[..at - passed],
            Some(Fault::Flip(at)) if (passed..passed + count).contains(&at) => {
                bytes[at - passed] ^= 0x10;
            }
            Some(Fault::Slow) => drop(pause.recv_timeout(Duration::from_millis(1))),
            Some(Fault::Cut(_) | Fault::Flip(_)) | None => {}
        }
        let cut = bytes.len() < count;
        if to.write_all(bytes).is_err() || cut {
            break;
        }
        passed += count;
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

fn named(name: &str, n: u8) -> Resource {
    workload(a_workload(name, Ipv4Addr::new(10, 0, 0, n).into(), ""))
}

fn many(count: u32) -> Vec<Resource> {
    (0..count).map(|n| named(&format!("w{n:04}"), 1)).collect()
}

/// Answers streams with all of it until the client has it.
fn feed(plane: &Plane, real: &Real, resources: &[Resource], done: impl Fn(&Snapshot) -> bool) {
    loop {
        let mut stream = plane.stream();
        // A request may have been lost on the way, with its connection.
        if stream.try_begun() {
            stream.send(ADDRESS, resources.to_vec(), &[]);
            if stream.wait_answer() && done(&real.snapshot()) {
                return;
            }
        }
        real.assert_alive();
    }
}

#[test]
fn responses_cut_anywhere_are_seen_whole_or_not_at_all() {
    let plane = Plane::start();
    let mut random = fastrand::Rng::with_seed(7);
    let cuts = (0..25)
        .map(|_| Fault::Cut(random.usize(1..60_000)))
        .collect();
    let real = Real::start(faulty(plane.address(), cuts), Mode::All);
    let all = many(500);
    feed(&plane, &real, &all, |snapshot| {
        let count = snapshot.counts().workloads;
        assert!(count == 0 || count == 500, "{count} of 500");
        count == 500
    });
}

#[test]
fn bits_turned_on_the_way_harm_nothing_that_lasts() {
    let plane = Plane::start();
    let mut random = fastrand::Rng::with_seed(11);
    let flips = (0..40)
        .map(|_| Fault::Flip(random.usize(1..30_000)))
        .collect();
    let real = Real::start(faulty(plane.address(), flips), Mode::All);
    let all = many(200);
    for _ in 0..40 {
        let mut stream = plane.stream();
        if stream.try_begun() {
            stream.send(ADDRESS, all.clone(), &[]);
            stream.wait_answer();
        }
        real.assert_alive();
    }
    // A server removes what a client says it has and nobody should.
    let (mut stream, [addresses, _]) = plane.stream_begun();
    let has = addresses.initial_resource_versions.into_keys();
    let gone: Vec<_> = has
        .filter(|name| all.iter().all(|r| r.name != *name))
        .collect();
    let gone: Vec<_> = gone.iter().map(String::as_str).collect();
    stream.push(ADDRESS, all.clone(), &gone);
    assert!(real.snapshot().counts().workloads >= all.len());
    assert!(
        all.iter()
            .all(|r| real.snapshot().workload_by_uid(&r.name).is_some())
    );
}

#[test]
fn a_slow_network_only_takes_longer() {
    let plane = Plane::start();
    let port = faulty(plane.address(), vec![Fault::Slow]);
    let real = Real::start(port, Mode::All);
    let (mut stream, _) = plane.stream_begun();
    stream.push(ADDRESS, many(200), &[]);
    assert_eq!(real.workloads().len(), 200);
}

#[test]
fn responses_that_come_twice_or_in_another_order_lead_to_the_same_state() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::All);
    let (mut stream, _) = plane.stream_begun();
    let backing = |name: &str| {
        let mut message = a_workload(name, Ipv4Addr::new(10, 0, 0, 1).into(), "");
        let ports = corelane::proto::workload::PortList::default();
        message.services.insert("default/svc.default".into(), ports);
        workload(message)
    };
    let vip = Ipv4Addr::new(10, 9, 0, 1).into();
    // Removed before it comes, workloads before their service, everything twice.
    stream.push(ADDRESS, vec![], &["a"]);
    for _ in 0..2 {
        stream.push(ADDRESS, vec![backing("a"), backing("b")], &[]);
        stream.push(ADDRESS, vec![service("svc", vip, (80, 8080))], &[]);
        stream.push(AUTHORIZATION, vec![deny_port("no", 80)], &[]);
    }
    let snapshot = real.snapshot();
    let found = snapshot.service_by_host("svc.default", None).unwrap();
    assert_eq!(found.endpoints.len(), 2);
    assert_eq!(snapshot.counts().policies, 1);
    stream.push(ADDRESS, vec![], &["b", "b"]);
    let snapshot = real.snapshot();
    let found = snapshot.service_by_host("svc.default", None).unwrap();
    assert_eq!(found.endpoints.len(), 1);
}

#[test]
fn unknown_types_are_acknowledged_and_change_nothing() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::All);
    let (stream, _) = plane.stream_begun();
    stream.send_raw(DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/some.Thing".into(),
        nonce: "x".into(),
        resources: vec![named("a", 1)],
        ..DeltaDiscoveryResponse::default()
    });
    let answer = stream.request();
    assert_eq!((&*answer.response_nonce, answer.error_detail), ("x", None));
    assert!(real.workloads().is_empty());
}

#[test]
fn a_server_that_comes_and_goes_loses_nothing_and_is_not_flooded() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::All);
    let ends = [
        Code::Ok,
        Code::Unknown,
        Code::Unavailable,
        Code::Internal,
        Code::Aborted,
    ];
    for turn in 0..30 {
        let (mut stream, [addresses, _]) = plane.stream_begun();
        assert_eq!(addresses.initial_resource_versions.len(), turn);
        stream.push(ADDRESS, vec![named(&format!("w{turn}"), 1)], &[]);
        let code = ends[turn % ends.len()];
        if code == Code::Ok {
            drop(stream);
        } else {
            stream.fail(Status::new(code, "flapping"));
        }
    }
    assert_eq!(real.workloads().len(), 30);
}

#[test]
fn a_thousand_mutated_resources_are_refused_by_name_or_taken_whole() {
    let plane = Plane::start();
    let real = Real::start(plane.address().port(), Mode::All);
    let (mut stream, _) = plane.stream_begun();
    let vip = Ipv4Addr::new(10, 9, 0, 1).into();
    let whole = [
        (ADDRESS, named("victim", 1)),
        (ADDRESS, service("victim", vip, (80, 8080))),
        (AUTHORIZATION, deny_port("victim", 80)),
    ];
    for (kind, resource) in &whole {
        stream.push(*kind, vec![resource.clone()], &[]);
    }
    let before = real.snapshot();
    let mut random = fastrand::Rng::with_seed(3);
    let mut refused = 0;
    for n in 0..1_000 {
        let (kind, resource) = &whole[n % whole.len()];
        let mutated = mutate(resource, &mut random);
        let name = mutated.name.clone();
        let good = match *kind {
            ADDRESS => named("good", u8::try_from(n % 250).unwrap()),
            AUTHORIZATION => deny_port("good", u16::try_from(n).unwrap()),
        };
        let answer = stream.answer(*kind, vec![mutated, good], &[]);
        real.assert_alive();
        let snapshot = real.snapshot();
        if let Some(detail) = answer.error_detail {
            refused += 1;
            assert!(
                detail.message.starts_with(&format!("{name}: ")),
                "{}",
                detail.message
            );
            assert!(!detail.message.contains("good"));
            // What was there before still is.
            let policy = |state: &Snapshot| state.policy("default/victim").cloned();
            let workload = |state: &Snapshot| state.workload_by_uid("victim").cloned();
            let service = |state: &Snapshot| state.service_by_host("victim.default", None).cloned();
            assert!(policy(&before).is_some() && workload(&before).is_some());
            assert_eq!(policy(&snapshot), policy(&before));
            assert_eq!(workload(&snapshot), workload(&before));
            assert!(service(&before).is_some() && service(&snapshot) == service(&before));
        }
        let there = match *kind {
            ADDRESS => snapshot.workload_by_uid("good").is_some(),
            AUTHORIZATION => snapshot.policy("default/good").is_some(),
        };
        assert!(there, "the good one of each response is taken");
        // Back to the start.
        stream.push(*kind, vec![resource.clone()], &[]);
    }
    assert!(refused > 300, "only {refused} were refused");
}

/// Bytes turned, cut out or put in; the name stays.
fn mutate(original: &Resource, random: &mut fastrand::Rng) -> Resource {
    let mut content = original.resource.clone().unwrap().value.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..content.len().max(1)).min(content.len());
        match random.u8(..4) {
            0 if at < content.len() => content[at] ^= 1 << random.u8(..8),
            1 => content.truncate(at),
            2 => content.insert(at, random.u8(..)),
            _ if at < content.len() => content[at] = random.u8(..),
            _ => content.push(random.u8(..)),
        }
    }
    resource(&original.name, content)
}
