//! Handshakes of two of us, and of one of us with a peer that does something else.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use super::*;
use crate::tls::TlsOptions;
use crate::tls::certificate::SanError;
use crate::tls::dev_pki::{Authority, Issued, Leaf, Usage};
use crate::tls::testing::{
    PipeEnd, PipeOptions, Tap, credentials, expecting, identity, pipe, run_both,
};
use crate::tls::verify::{ClientVerifier, ServerVerifier, TrustRoots};
use crate::transport::{recv, send_all};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How one side of a conversation ended.
#[derive(Debug)]
enum End {
    Peer(Peer),
    Handshake(HandshakeError),
    Read(io::Error),
}

impl End {
    /// The alert this side was sent, wherever it surfaced.
    fn alert(&self) -> Option<u8> {
        let fault = match self {
            Self::Peer(_) => None,
            Self::Handshake(HandshakeError::Tls(fault)) => Some(fault),
            Self::Handshake(HandshakeError::Io(_) | HandshakeError::Identity(_)) => None,
            Self::Read(error) => error.get_ref()?.downcast_ref::<TlsError>(),
        };
        if let Some(TlsError::Alert(code)) = fault {
            return Some(*code);
        }
        None
    }

    fn peer(&self) -> &Peer {
        let Self::Peer(peer) = self else {
            panic!("no handshake: {self:?}");
        };
        peer
    }
}

/// Connects and reads the server's greeting.
async fn client_side(io: PipeEnd, own: &Credentials, expected: &Arc<[Identity]>) -> End {
    match connect(io, own, expected).await {
        Ok((mut stream, peer)) => match recv(&mut stream, &mut [0; 16]).await {
            Ok(5) => End::Peer(peer),
            Ok(other) => panic!("{other} bytes"),
            Err(error) => End::Read(error),
        },
        Err(error) => End::Handshake(error),
    }
}

/// Accepts and greets.
async fn server_side(io: PipeEnd, own: &Credentials) -> End {
    match accept(io, own).await {
        Ok((mut stream, peer)) => {
            send_all(&mut stream, b"hello").await.unwrap();
            End::Peer(peer)
        }
        Err(error) => End::Handshake(error),
    }
}

fn meet_on(
    options: PipeOptions,
    client: &Credentials,
    expected: &Arc<[Identity]>,
    server: &Credentials,
) -> (End, End, Tap, Tap) {
    let (near, far) = pipe(options);
    let taps = (near.tap(), far.tap());
    let (client, server) = run_both(
        client_side(near, client, expected),
        server_side(far, server),
    );
    (client, server, taps.0, taps.1)
}

fn meet(client: &Credentials, expected: &[&str], server: &Credentials) -> (End, End) {
    let (client, server, _, _) =
        meet_on(PipeOptions::default(), client, &expecting(expected), server);
    (client, server)
}

fn authority() -> Authority {
    Authority::new("root", SystemTime::now()).unwrap()
}

fn presenting(issued: &Issued, claimed: &str) -> Credentials {
    issued
        .present_unchecked(&identity(claimed), TlsOptions::default())
        .unwrap()
}

#[test]
fn both_sides_prove_their_identities_with_the_strongest_parameters() {
    let authority = authority();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let (at_client, at_server) = meet(&client, &["other", "server"], &server);
    for (end, whose, leaf) in [
        (&at_client, "server", &server),
        (&at_server, "client", &client),
    ] {
        let peer = end.peer();
        assert_eq!(peer.identity.as_deref(), Some(&identity(whose)));
        assert_eq!(peer.not_after, leaf.not_after());
        assert_eq!(peer.version, "TLSv1.3");
        assert_eq!(peer.group, "X25519MLKEM768");
        assert_eq!(peer.cipher, "TLS_AES_256_GCM_SHA384");
    }
}

#[test]
fn a_handshake_completes_when_its_bytes_arrive_one_by_one() {
    let authority = authority();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    for options in [
        PipeOptions {
            step: 1,
            ..PipeOptions::default()
        },
        PipeOptions {
            capacity: 7,
            ..PipeOptions::default()
        },
        PipeOptions {
            erratic: true,
            ..PipeOptions::default()
        },
    ] {
        let (at_client, at_server, _, _) =
            meet_on(options, &client, &expecting(&["server"]), &server);
        at_client.peer();
        at_server.peer();
    }
}

#[test]
fn a_refusal_is_told_when_its_bytes_arrive_one_by_one() {
    let (ours, theirs) = (authority(), authority());
    let (client, server) = (credentials(&theirs, "client"), credentials(&ours, "server"));
    let trusting = Issued {
        roots: ours.root_pem().to_owned(),
        ..issue(&theirs, "client")
    };
    let trusting = presenting(&trusting, "client");
    let options = PipeOptions {
        step: 1,
        ..PipeOptions::default()
    };
    let (_, at_server, _, _) = meet_on(options, &client, &expecting(&["server"]), &server);
    assert_eq!(at_server.alert(), Some(48));
    let (at_client, _, _, _) = meet_on(options, &trusting, &expecting(&["server"]), &server);
    assert_eq!(at_client.alert(), Some(48));
}

fn issue(authority: &Authority, service_account: &str) -> Issued {
    let leaf = Leaf::new(&identity(service_account), SystemTime::now());
    authority.issue(&leaf).unwrap()
}

/// Certificates broken in one way each, for either role, and the alert their refusal must give.
fn broken(
    authority: &Authority,
    role: &str,
    usable_elsewhere: Usage,
) -> Vec<(&'static str, Issued, u8)> {
    let now = SystemTime::now();
    let leaf = || Leaf::new(&identity(role), now);
    let make = |leaf: Leaf| authority.issue(&leaf).unwrap();
    let stranger = Authority::new("root", now).unwrap();
    let roots = authority.root_pem().to_owned();
    let unknown = Issued {
        roots,
        ..stranger.issue(&leaf()).unwrap()
    };
    let mut cases = vec![
        ("garbage", make(leaf()).with_leaf(b"\x30\x03abc"), 42),
        (
            "altered signature",
            make(leaf()).with_altered_signature(),
            51,
        ),
        (
            "no use allowed",
            make(leaf().usages(&[Usage::CodeSigning])),
            43,
        ),
        (
            "other use allowed",
            make(leaf().usages(&[usable_elsewhere])),
            43,
        ),
        ("expired", make(leaf().valid(now - 2 * DAY, now - DAY)), 45),
        (
            "not valid yet",
            make(leaf().valid(now + DAY, now + 2 * DAY)),
            45,
        ),
        ("unknown root", unknown, 48),
    ];
    cases.extend(misnamed(authority, role, now));
    cases
}

/// The part of [`broken`] that concerns names.
fn misnamed(authority: &Authority, role: &str, now: SystemTime) -> Vec<(&'static str, Issued, u8)> {
    let leaf = || Leaf::new(&identity(role), now);
    let make = |leaf: Leaf| authority.issue(&leaf).unwrap();
    let own = identity(role).to_string();
    let uri = |text: &str| make(leaf().uris(&[text.as_bytes()]));
    let raw = |extension: &[u8]| make(leaf().raw_names(extension.to_vec()));
    let constrained = authority
        .intermediate_for_uris("ca", "cluster.local", now)
        .unwrap();
    vec![
        ("no names", make(leaf().without_names()), 46),
        ("empty names", make(leaf().uris(&[])), 46),
        ("unreadable names", raw(b"\x30\x05\x86"), 49),
        ("unreadable name", raw(b"\x30\x03\x86\x05A"), 49),
        (
            "two URIs",
            make(leaf().uris(&[own.as_bytes(), own.as_bytes()])),
            46,
        ),
        ("NUL in URI", uri(&format!("{own}\0.example")), 46),
        (
            "non-ASCII URI",
            uri("spiffe://cluster.local/ns/default/sa/cliënt"),
            46,
        ),
        ("not a mesh URI", uri("https://example.com/"), 46),
        (
            "wrong trust domain",
            uri(&own.replace("cluster.local", "clusterset.local")),
            46,
        ),
        (
            "URI name constraints",
            constrained.issue(&leaf()).unwrap(),
            46,
        ),
    ]
}

#[test]
fn a_server_certificate_that_is_broken_in_one_way_is_refused_with_its_alert() {
    let authority = authority();
    let client = credentials(&authority, "client");
    for (what, issued, alert) in broken(&authority, "server", Usage::Client) {
        let server = presenting(&issued, "server");
        let (at_client, at_server) = meet(&client, &["server"], &server);
        assert!(
            matches!(&at_client, End::Handshake(error) if !error.is_io()),
            "{what}: {at_client:?}"
        );
        assert_eq!(at_server.alert(), Some(alert), "{what}: {at_server:?}");
    }
}

#[test]
fn a_client_certificate_that_is_broken_in_one_way_is_refused_with_its_alert() {
    let authority = authority();
    let server = credentials(&authority, "server");
    for (what, issued, alert) in broken(&authority, "client", Usage::Server) {
        let client = presenting(&issued, "client");
        let (at_client, at_server) = meet(&client, &["server"], &server);
        assert!(
            matches!(&at_server, End::Handshake(error) if !error.is_io()),
            "{what}: {at_server:?}"
        );
        assert!(matches!(at_client, End::Read(_)), "{what}: {at_client:?}");
        assert_eq!(at_client.alert(), Some(alert), "{what}: {at_client:?}");
    }
}

#[test]
fn certificates_that_are_unusual_but_sound_are_accepted() {
    let authority = authority();
    let now = SystemTime::now();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let below = authority.intermediate("one", now).unwrap();
    let below = below.intermediate("two", now).unwrap();
    let leaf = || Leaf::new(&identity("client"), now);
    for (what, issued) in [
        ("two intermediates", below.issue(&leaf()).unwrap()),
        ("any use", authority.issue(&leaf().usages(&[])).unwrap()),
        (
            "this use only",
            authority.issue(&leaf().usages(&[Usage::Client])).unwrap(),
        ),
        (
            "short life",
            authority
                .issue(&leaf().valid(now - DAY, now + DAY))
                .unwrap(),
        ),
    ] {
        let (at_client, at_server) = meet(&presenting(&issued, "client"), &["server"], &server);
        at_client.peer();
        assert_eq!(
            at_server.peer().identity.as_deref(),
            Some(&identity("client")),
            "{what}"
        );
    }
    let only_server = authority
        .issue(&Leaf::new(&identity("server"), now).usages(&[Usage::Server]))
        .unwrap();
    meet(&client, &["server"], &presenting(&only_server, "server"))
        .0
        .peer();
}

#[test]
fn a_server_that_is_not_expected_is_refused_and_named() {
    let authority = authority();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let (at_client, at_server) = meet(&client, &["a", "b"], &server);
    assert_eq!(at_server.alert(), Some(46));
    let End::Handshake(error) = at_client else {
        panic!("{at_client:?}")
    };
    assert_eq!(
        error.to_string(),
        "identity verification error: peer did not present the expected SAN \
         (spiffe://cluster.local/ns/default/sa/a,spiffe://cluster.local/ns/default/sa/b), \
         got spiffe://cluster.local/ns/default/sa/server"
    );
}

#[test]
fn an_empty_list_of_expected_identities_accepts_nobody() {
    let authority = authority();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let (at_client, at_server) = meet(&client, &[], &server);
    assert!(matches!(
        at_client,
        End::Handshake(HandshakeError::Identity(_))
    ));
    assert_eq!(at_server.alert(), Some(46));
}

#[test]
fn a_client_of_another_trust_domain_is_refused_and_named() {
    let authority = authority();
    let server = credentials(&authority, "server");
    let stranger = Identity::new("clusterset.local", "default", "client");
    let client = authority
        .credentials(&stranger, TlsOptions::default(), SystemTime::now())
        .unwrap();
    let (at_client, at_server) = meet(&client, &["server"], &server);
    assert_eq!(at_client.alert(), Some(46));
    let End::Handshake(error) = at_server else {
        panic!("{at_server:?}")
    };
    assert_eq!(
        error.to_string(),
        "identity verification error: peer did not present the expected trustdomain \
         (cluster.local), got spiffe://clusterset.local/ns/default/sa/client"
    );
}

#[test]
fn a_peer_with_two_names_is_told_apart_from_one_with_the_wrong_name() {
    let authority = authority();
    let own = identity("server").to_string();
    let leaf = Leaf::new(&identity("server"), SystemTime::now());
    let two = authority
        .issue(&leaf.uris(&[own.as_bytes(), b"spiffe://x"]))
        .unwrap();
    let (at_client, _) = meet(
        &credentials(&authority, "client"),
        &["server"],
        &presenting(&two, "server"),
    );
    let End::Handshake(HandshakeError::Identity(error)) = at_client else {
        panic!("{at_client:?}")
    };
    let names = vec![own, "spiffe://x".to_owned()];
    assert_eq!(error, VerifyError::San(SanError::Several(names)));
}

#[test]
fn uri_name_constraints_are_explained() {
    let authority = authority();
    let now = SystemTime::now();
    let constrained = authority
        .intermediate_for_uris("team ca", "cluster.local", now)
        .unwrap();
    let issued = constrained
        .issue(&Leaf::new(&identity("server"), now))
        .unwrap();
    let (at_client, _) = meet(
        &credentials(&authority, "client"),
        &["server"],
        &presenting(&issued, "server"),
    );
    let End::Handshake(error) = at_client else {
        panic!("{at_client:?}")
    };
    let text = error.to_string();
    assert!(
        text.contains("restricts URI names") && text.contains("team ca"),
        "{text}"
    );
}

#[test]
fn a_refused_client_reads_why_in_words() {
    let (ours, theirs) = (authority(), authority());
    let trusting = Issued {
        roots: ours.root_pem().to_owned(),
        ..issue(&theirs, "client")
    };
    let (at_client, at_server) = meet(
        &presenting(&trusting, "client"),
        &["server"],
        &credentials(&ours, "server"),
    );
    let End::Read(error) = at_client else {
        panic!("{at_client:?}")
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(
        error.to_string(),
        "peer refused our certificate: unknown CA (alert 48)"
    );
    let End::Handshake(error) = at_server else {
        panic!("{at_server:?}")
    };
    assert_eq!(
        error.to_string(),
        "tls handshake error: peer certificate refused: unknown CA: not signed by any root trusted \
         for this workload"
    );
}

#[test]
fn workloads_of_two_roots_that_trust_both_meet() {
    let (one, two) = (authority(), authority());
    let both = format!("{}{}", one.root_pem(), two.root_pem());
    let load = |authority: &Authority, name: &str| {
        let issued = Issued {
            roots: both.clone(),
            ..issue(authority, name)
        };
        let (options, now) = (TlsOptions::default(), SystemTime::now());
        Credentials::load(&identity(name), &issued.material(), options, now).unwrap()
    };
    let (client, server) = (load(&one, "client"), load(&two, "server"));
    let (at_client, at_server) = meet(&client, &["server"], &server);
    at_client.peer();
    at_server.peer();
    // The same two without the other's root refuse each other.
    let (at_client, _) = meet(&credentials(&one, "client"), &["server"], &server);
    assert!(matches!(at_client, End::Handshake(HandshakeError::Tls(_))));
}

#[test]
fn options_choose_group_and_version() {
    let authority = authority();
    let load = |name: &str, options| {
        authority
            .credentials(&identity(name), options, SystemTime::now())
            .unwrap()
    };
    let pqc = TlsOptions {
        pqc_only: true,
        tls12: true,
        ..TlsOptions::default()
    };
    let (at_client, _) = meet(&load("client", pqc), &["server"], &load("server", pqc));
    assert_eq!(at_client.peer().group, "X25519MLKEM768");
    assert_eq!(at_client.peer().version, "TLSv1.3");
    let tls12 = TlsOptions {
        tls12: true,
        ..TlsOptions::default()
    };
    let (at_client, _) = meet(&load("client", tls12), &["server"], &load("server", tls12));
    assert_eq!(at_client.peer().version, "TLSv1.3");
}

/// A peer of our own making: whatever configuration, driven like ours.
async fn raw(io: PipeEnd, tls: Connection) -> Result<(), HandshakeError> {
    let mut session = Session::new(io, tls);
    poll_fn(|cx| session.poll_handshake(cx)).await?;
    let mut byte = [0; 5];
    match poll_fn(|cx| session.poll_recv(cx, &mut byte)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(HandshakeError::Io(error)),
    }
}

fn raw_alert(result: Result<(), HandshakeError>) -> Option<u8> {
    let end = match result.unwrap_err() {
        HandshakeError::Io(error) => End::Read(error),
        refused @ (HandshakeError::Identity(_) | HandshakeError::Tls(_)) => End::Handshake(refused),
    };
    end.alert()
}

/// What a client of other make offers.
struct Offer {
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    certificate: bool,
    alpn: Vec<&'static [u8]>,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            versions: vec![&rustls::version::TLS13],
            certificate: true,
            alpn: vec![b"h2"],
        }
    }
}

fn key_of(issued: &Issued) -> Arc<SingleCertAndKey> {
    let chain = CertificateDer::pem_slice_iter(issued.chain().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).unwrap();
    Arc::new(SingleCertAndKey::from(key))
}

fn everything() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots_of(authority: &Authority) -> Arc<TrustRoots> {
    let root = CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap();
    let algorithms = everything().signature_verification_algorithms;
    Arc::new(TrustRoots::new(&[root], algorithms).0)
}

fn raw_client(authority: &Authority, offer: &Offer) -> Connection {
    let verifier = ServerVerifier::new(roots_of(authority), expecting(&["server"]));
    let config = ClientConfig::builder_with_provider(everything())
        .with_protocol_versions(&offer.versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = if offer.certificate {
        config.with_client_cert_resolver(key_of(&issue(authority, "client")))
    } else {
        config.with_no_client_auth()
    };
    config.alpn_protocols = offer.alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("server.example").unwrap();
    Connection::Client(ClientConnection::new(Arc::new(config), name).unwrap())
}

fn raw_meets_server(authority: &Authority, offer: &Offer) -> (Result<(), HandshakeError>, End) {
    let server = credentials(authority, "server");
    let (near, far) = pipe(PipeOptions::default());
    run_both(
        raw(near, raw_client(authority, offer)),
        server_side(far, &server),
    )
}

#[test]
fn a_client_without_a_certificate_is_told_that_one_is_required() {
    let authority = authority();
    let offer = Offer {
        certificate: false,
        ..Offer::default()
    };
    let (client, server) = raw_meets_server(&authority, &offer);
    assert_eq!(raw_alert(client), Some(116));
    let End::Handshake(error) = server else {
        panic!("{server:?}")
    };
    assert_eq!(
        error.to_string(),
        "tls handshake error: peer presented no certificate"
    );
    let (client, server) = raw_meets_server(&authority, &Offer::default());
    client.unwrap();
    server.peer();
}

#[test]
fn alpn_is_h2_or_nothing() {
    let authority = authority();
    for alpn in [vec![], vec![&b"h2"[..]], vec![b"http/1.1", b"h2"]] {
        let (client, server) = raw_meets_server(
            &authority,
            &Offer {
                alpn,
                ..Offer::default()
            },
        );
        client.unwrap();
        server.peer();
    }
    let alpn = vec![&b"http/1.1"[..]];
    let (client, server) = raw_meets_server(
        &authority,
        &Offer {
            alpn,
            ..Offer::default()
        },
    );
    assert_eq!(raw_alert(client), Some(120));
    assert!(matches!(server, End::Handshake(HandshakeError::Tls(_))));
}

#[test]
fn tls_1_2_needs_the_option() {
    let authority = authority();
    let offer = || Offer {
        versions: vec![&rustls::version::TLS12],
        ..Offer::default()
    };
    let (client, server) = raw_meets_server(&authority, &offer());
    assert_eq!(raw_alert(client), Some(70));
    assert!(matches!(server, End::Handshake(HandshakeError::Tls(_))));

    let options = TlsOptions {
        tls12: true,
        ..TlsOptions::default()
    };
    let now = SystemTime::now();
    let server = authority
        .credentials(&identity("server"), options, now)
        .unwrap();
    let (near, far) = pipe(PipeOptions::default());
    let (client, server) = run_both(
        raw(near, raw_client(&authority, &offer())),
        server_side(far, &server),
    );
    client.unwrap();
    let peer = server.peer();
    assert_eq!(peer.version, "TLSv1.2");
    assert_eq!(peer.group, "X25519");
    assert_eq!(peer.cipher, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
}

#[test]
fn a_server_that_selects_no_alpn_is_tolerated() {
    let authority = authority();
    let verifier = ClientVerifier::new(roots_of(&authority), "cluster.local".into());
    let mut config = ServerConfig::builder_with_provider(everything())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(key_of(&issue(&authority, "server")));
    config.send_tls13_tickets = 2;
    let client = credentials(&authority, "client");
    let (near, far) = pipe(PipeOptions::default());
    let ((_stream, peer), served) = run_both(
        async {
            connect(near, &client, &expecting(&["server"]))
                .await
                .unwrap()
        },
        async {
            let tls = Connection::Server(ServerConnection::new(Arc::new(config)).unwrap());
            let mut session = Session::new(far, tls);
            poll_fn(|cx| session.poll_handshake(cx)).await
        },
    );
    served.unwrap();
    assert_eq!(peer.identity.as_deref(), Some(&identity("server")));
}

#[test]
fn a_peer_that_goes_away_meanwhile_is_an_io_error() {
    let authority = authority();
    let own = credentials(&authority, "server");
    let (near, far) = pipe(PipeOptions::default());
    drop(near);
    let (server, ()) = run_both(server_side(far, &own), async {});
    let End::Handshake(error) = server else {
        panic!("{server:?}")
    };
    assert!(error.is_io(), "{error}");
}

#[test]
fn bytes_that_are_not_tls_are_refused_with_an_alert() {
    let authority = authority();
    let own = credentials(&authority, "server");
    let (mut near, far) = pipe(PipeOptions::default());
    let ((), server) = run_both(
        async {
            send_all(&mut near, b"GET / HTTP/1.1\r\nhost: example\r\n\r\n")
                .await
                .unwrap();
            let mut answer = [0; 16];
            let count = recv(&mut near, &mut answer).await.unwrap();
            // A plain alert record: type 21, version, length 2, fatal.
            assert_eq!(answer[..2], [21, 3]);
            assert_eq!(answer[3..6], [0, 2, 2]);
            assert_eq!(count, 7);
        },
        server_side(far, &own),
    );
    assert!(matches!(server, End::Handshake(HandshakeError::Tls(_))));
}

/// Types and first payload bytes of the records in `bytes`.
fn records(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let (payload, next) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        records.push((*kind, payload));
        bytes = next;
    }
    records
}

/// Extensions of a ClientHello by type (RFC 8446, 4.1.2).
fn extensions(hello: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let number = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + number(at);
    at += 1 + usize::from(hello[at]);
    let end = at + 2 + number(at);
    at += 2;
    let mut found = Vec::new();
    while at < end {
        let length = number(at + 2);
        found.push((number(at), hello[at + 4..at + 4 + length].to_vec()));
        at += 4 + length;
    }
    found
}

#[test]
fn the_client_hello_offers_what_the_specification_says() {
    let authority = authority();
    let (client, server) = (
        credentials(&authority, "client"),
        credentials(&authority, "server"),
    );
    let (_, _, sent, _) = meet_on(
        PipeOptions::default(),
        &client,
        &expecting(&["server"]),
        &server,
    );
    let sent = sent.bytes();
    let hello = records(&sent)[0].1;
    assert_eq!(hello[0], 1);
    let extensions = extensions(hello);
    let extension = |kind| {
        extensions
            .iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, v)| &v[..])
    };
    assert_eq!(extension(0), None, "no server_name");
    assert_eq!(extension(41), None, "no pre_shared_key");
    assert_eq!(extension(42), None, "no early_data");
    assert_eq!(extension(16), Some(&b"\0\x03\x02h2"[..]), "ALPN");
    assert_eq!(extension(43), Some(&b"\x02\x03\x04"[..]), "TLS 1.3 only");
    let groups = &b"\0\x08\x11\xec\0\x1d\0\x17\0\x18"[..];
    assert_eq!(
        extension(10),
        Some(groups),
        "X25519MLKEM768, X25519, P-256, P-384"
    );
    let shares = extension(51).unwrap();
    assert_eq!(shares[2..6], *b"\x11\xec\x04\xc0", "hybrid share first");
    assert_eq!(shares[6 + 0x4c0..][..4], *b"\0\x1d\0\x20", "then X25519");
    assert_eq!(shares.len(), 6 + 0x4c0 + 4 + 32);
    let suites = 4 + 2 + 32 + 1 + usize::from(hello[38]);
    // The SCSV is the library's; it negotiates nothing in TLS 1.3.
    assert_eq!(
        hello[suites + 2..suites + 6],
        *b"\x13\x02\x13\x01",
        "AES-256 first, AES-128"
    );
    assert!(!hello[suites + 6..suites + 2 + usize::from(hello[suites + 1])].contains(&0x13));
}

#[test]
fn a_server_sends_no_ticket() {
    let authority = authority();
    let server = credentials(&authority, "server");
    let (near, far) = pipe(PipeOptions::default());
    let sent = far.tap();
    let client = raw_client(&authority, &Offer::default());
    let (flight, ()) = run_both(
        async {
            let mut session = Session::new(near, client);
            poll_fn(|cx| session.poll_handshake(cx)).await.unwrap();
            let flight = sent.bytes().len();
            let mut byte = [0; 1];
            assert!(
                poll_fn(|cx| session.poll_recv(cx, &mut byte))
                    .await
                    .is_err()
            );
            flight
        },
        async {
            // The stream is dropped at once: everything the handshake makes is on the wire.
            drop(accept(far, &server).await.unwrap());
        },
    );
    assert_eq!(
        sent.bytes().len(),
        flight,
        "nothing after the server's Finished"
    );
}

#[test]
fn nothing_resumes() {
    let authority = authority();
    let server = credentials(&authority, "server");
    let verifier = ServerVerifier::new(roots_of(&authority), expecting(&["server"]));
    let mut config = ClientConfig::builder_with_provider(everything())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(key_of(&issue(&authority, "client")));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    for _ in 0..2 {
        let name = ServerName::try_from("server.example").unwrap();
        let tls = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let (near, far) = pipe(PipeOptions::default());
        let (kind, ()) = run_both(
            async {
                let mut session = Session::new(near, Connection::Client(tls));
                poll_fn(|cx| session.poll_handshake(cx)).await.unwrap();
                let mut greeting = [0; 5];
                poll_fn(|cx| session.poll_recv(cx, &mut greeting))
                    .await
                    .unwrap();
                session.tls().handshake_kind()
            },
            async {
                server_side(far, &server).await.peer();
            },
        );
        assert!(
            !matches!(kind, Some(rustls::HandshakeKind::Resumed)),
            "{kind:?}"
        );
    }
}
