//! Certificates that must be refused, from either side, with an alert the peer understands and an
//! error the operator understands; and a good one that works in between.

use std::net::SocketAddr;
use std::time::Duration;

use corelane_harness::apps::{self, Server};
use corelane_harness::clock;
use corelane_harness::hosts::Family;
use corelane_harness::node::{Driver, Node, REPORT_LIMIT};
use corelane_harness::pair::{CLIENT_ID, Options, Pair, SERVER_ID, SERVER_PORT};
use corelane_harness::pki::{Authority, Issued, Leaf, Validity, spiffe};
use corelane_harness::wire::{self, Reply, Tunnel};
use rustix::process::Signal;
use rustls::{AlertDescription, Error};

use crate::CORELANE;

with_both_drivers!(
    the_server_refuses_every_bad_client_certificate,
    the_client_refuses_every_bad_server_certificate,
    a_renewed_certificate_is_used_for_new_tunnels,
);

/// One bad certificate: its name, what is in it, the alerts that tell so and the words of which one
/// must be in the log.
struct Bad {
    name: &'static str,
    leaf: Leaf,
    another_root: bool,
    alerts: &'static [AlertDescription],
    words: &'static [&'static str],
}

/// Bad in either role; `id` is the identity a good one would have.
fn bad_certificates(id: &str) -> Vec<Bad> {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA,
    };
    const NAMES: &[AlertDescription] = &[CertificateUnknown, BadCertificate, AccessDenied];
    const NAME_WORDS: &[&str] = &["san", "uri", "identity", "spiffe", "name"];
    let with_nul = id.replace("/sa/", "/sa/\0");
    let second = spiffe("cluster.local", "second");
    let bad = |name, leaf, alerts, words| Bad {
        name,
        leaf,
        another_root: false,
        alerts,
        words,
    };
    vec![
        bad(
            "expired",
            Leaf::named(id).valid(Validity::Expired),
            &[CertificateExpired],
            &["expired"],
        ),
        bad(
            "not yet valid",
            Leaf::named(id).valid(Validity::Future),
            &[CertificateExpired],
            &["not valid yet", "not yet valid"],
        ),
        Bad {
            another_root: true,
            ..bad(
                "another root",
                Leaf::named(id),
                &[UnknownCA],
                &["issuer", "root"],
            )
        },
        bad("no SAN", Leaf::named(id).with_uris(&[]), NAMES, NAME_WORDS),
        bad(
            "two SANs",
            Leaf::named(id).with_uris(&[id, &second]),
            NAMES,
            NAME_WORDS,
        ),
        bad(
            "NUL in the SAN",
            Leaf::named(id).with_uris(&[&with_nul]),
            NAMES,
            NAME_WORDS,
        ),
        bad(
            "another trust domain",
            Leaf::named(&id.replace("cluster.local", "clusterset.local")),
            &[CertificateUnknown],
            &["trust domain", "trustdomain", "identity", "san"],
        ),
        bad(
            "not a SPIFFE ID",
            Leaf::named("https://cluster.local/x"),
            NAMES,
            NAME_WORDS,
        ),
    ]
}

impl Bad {
    fn issue(&self, authority: &Authority) -> Issued {
        if self.another_root {
            Authority::new("another root").issue(&self.leaf)
        } else {
            authority.issue(&self.leaf)
        }
    }

    #[track_caller]
    fn check_alert(&self, refusal: Option<Error>) {
        let Some(Error::AlertReceived(alert)) = refusal else {
            panic!("{}: expected an alert, got {refusal:?}", self.name);
        };
        assert!(self.alerts.contains(&alert), "{}: {alert:?}", self.name);
    }

    /// The newest line about a failed connection must tell what was wrong.
    #[track_caller]
    fn check_log(&self, node: &Node, lines_before: usize) {
        let failed = || {
            let lines = node.access_lines().into_iter();
            let errors = lines.map(|line| line.field("error").to_lowercase());
            errors.filter(|error| !error.is_empty()).nth(lines_before)
        };
        let what = format!("an access line about {}", self.name);
        let error = clock::wait_for(&what, REPORT_LIMIT, failed);
        assert!(
            self.words.iter().any(|w| error.contains(w)),
            "{}: {error}",
            self.name
        );
    }
}

fn count_errors(node: &Node) -> usize {
    node.access_lines()
        .iter()
        .filter(|line| !line.field("error").is_empty())
        .count()
}

fn the_server_refuses_every_bad_client_certificate(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let hbone = pair.server_at(Family::V4, 15_008);
    for bad in bad_certificates(CLIENT_ID) {
        let errors = count_errors(&pair.server);
        let certificate = bad.issue(&pair.authority);
        let refusal = pair.outside_host.enter(|| {
            // In TLS 1.3 the client is done before the server has looked at its certificate.
            let mut tunnel = Tunnel::open(hbone, &certificate).unwrap();
            tunnel.refusal()
        });
        bad.check_alert(refusal);
        bad.check_log(&pair.server, errors);
        assert_eq!(
            app.accepted(),
            0,
            "{}: the application was reached",
            bad.name
        );
    }
    let good = pair.authority.issue(&Leaf::for_account("client"));
    assert_eq!(talk_through(&pair, hbone, &good), b"xx");
}

/// A good peer: CONNECT, bytes, their answer.
fn talk_through(pair: &Pair, hbone: SocketAddr, certificate: &Issued) -> Vec<u8> {
    let authority = pair.server_at(Family::V4, SERVER_PORT).to_string();
    pair.outside_host.enter(|| {
        let mut tunnel = Tunnel::open(hbone, certificate).unwrap();
        tunnel.start_http2().unwrap();
        tunnel.connect(1, &authority).unwrap();
        assert_eq!(tunnel.reply(1).unwrap(), Reply::Status(200));
        tunnel.send_data(1, b"x", true).unwrap();
        tunnel.receive_data(1).unwrap()
    })
}

fn the_client_refuses_every_bad_server_certificate(driver: Driver) {
    let mut pair = Pair::start(CORELANE, Options::new(driver));
    // A server of ours takes the place of the node.
    pair.server.process().signal(Signal::KILL);
    pair.server.process_mut().wait_end(Duration::from_secs(5));
    let hbone = pair.server_at(Family::V4, 15_008);
    let listener = pair
        .server_host
        .enter(|| apps::listen_when_free(hbone.ip(), hbone.port()));
    let to = pair.server_at(Family::V4, SERVER_PORT);
    let wrong_account = Bad {
        name: "another account",
        leaf: Leaf::for_account("other"),
        another_root: false,
        alerts: &[AlertDescription::CertificateUnknown],
        words: &["san", "identity"],
    };
    for bad in bad_certificates(SERVER_ID)
        .into_iter()
        .chain([wrong_account])
    {
        let errors = count_errors(&pair.client);
        let certificate = bad.issue(&pair.authority);
        let (refusal, client) = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let stream = apps::accept_within(&listener, apps::PATIENCE).unwrap();
                wire::serve_tls(stream, &certificate, &pair.authority).unwrap()
            });
            let client = pair.client_host.enter(|| apps::exchange(to, b"secret"));
            (server.join().unwrap(), client)
        });
        bad.check_alert(refusal);
        assert!(
            client.as_ref().map_or_else(apps::is_close, Vec::is_empty),
            "{client:?}"
        );
        bad.check_log(&pair.client, errors);
    }
    // With the right certificate the client goes on to HTTP/2.
    let good = pair.authority.issue(&Leaf::for_account("server"));
    let refusal = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let stream = apps::accept_within(&listener, apps::PATIENCE).unwrap();
            wire::serve_tls(stream, &good, &pair.authority).unwrap()
        });
        let _ = pair.client_host.enter(|| apps::exchange(to, b"secret"));
        server.join().unwrap()
    });
    assert_eq!(refusal, None);
}

fn a_renewed_certificate_is_used_for_new_tunnels(driver: Driver) {
    let pair = Pair::start(CORELANE, Options::new(driver));
    let _app = Server::start(&pair.server_host, SERVER_PORT, apps::double);
    let hbone = pair.server_at(Family::V4, 15_008);
    let me = pair.authority.issue(&Leaf::for_account("client"));
    let presented = || {
        pair.outside_host
            .enter(|| Tunnel::open(hbone, &me).unwrap().server_chain())
    };
    let old = presented();
    assert_eq!(old.len(), 1);
    pair.renew("server");
    clock::wait_for("the new certificate", Duration::from_secs(10), || {
        (presented() != old).then_some(())
    });
    assert_eq!(talk_through(&pair, hbone, &me), b"xx");
}
