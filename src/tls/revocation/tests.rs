//! Lists as they are read, and what they do to handshakes and to peers accepted before.

use std::time::{Duration, SystemTime};

use super::*;
use crate::tls::credentials::Credentials;
use crate::tls::dev_pki::{Authority, Issued, Leaf};
use crate::tls::error::HandshakeError;
use crate::tls::testing::{PipeOptions, expecting, identity, pipe, run_both};
use crate::tls::{Peer, TlsOptions, handshake};

fn authority() -> Authority {
    Authority::new("root", SystemTime::now()).unwrap()
}

fn issue(authority: &Authority, name: &str) -> Issued {
    let leaf = Leaf::new(&identity(name), SystemTime::now());
    authority.issue(&leaf).unwrap()
}

fn load(issued: &Issued, name: &str, list: Option<&RevocationList>) -> Credentials {
    let now = SystemTime::now();
    let options = TlsOptions::default();
    let loaded = Credentials::load(&identity(name), &issued.material(), options, now).unwrap();
    if let Some(list) = list {
        loaded.enforce(list);
    }
    loaded
}

fn list(pem: &str) -> RevocationList {
    RevocationList::new(Revocations::read(pem.as_bytes()).unwrap())
}

fn revoking(authority: &Authority, certificates: &[&str]) -> String {
    authority.revoke(certificates, SystemTime::now()).unwrap()
}

type Verdict = Result<Peer, HandshakeError>;

/// What server and client make of each other.
fn shake(server: &Credentials, client: &Credentials) -> (Verdict, Verdict) {
    let (a, b) = pipe(PipeOptions::default());
    let expected = expecting(&["server"]);
    let (served, connected) = run_both(
        handshake::accept(a, server),
        handshake::connect(b, client, &expected),
    );
    (
        served.map(|(_, peer)| peer),
        connected.map(|(_, peer)| peer),
    )
}

#[test]
fn files_are_read_in_each_form_or_refused_whole() {
    let (one, other) = (authority(), authority());
    let (first, second) = (revoking(&one, &[]), revoking(&other, &[]));
    let der = CertificateRevocationListDer::from_pem_slice(first.as_bytes()).unwrap();
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let table: [(Vec<u8>, Result<usize, &str>); 8] = [
        (vec![], Ok(0)),
        (one.root_pem().into(), Ok(0)),
        (first.clone().into_bytes(), Ok(1)),
        (
            (first.clone() + one.root_pem() + &second).into_bytes(),
            Ok(2),
        ),
        (der.to_vec(), Ok(1)),
        (b"garbage".to_vec(), Err("revocation list 1")),
        (
            (first.clone() + broken).into_bytes(),
            Err("revocation list 2"),
        ),
        (first[..first.len() - 40].into(), Err("not readable as PEM")),
    ];
    for (bytes, expected) in table {
        let read = Revocations::read(&bytes).map(|lists| lists.len());
        match (read, expected) {
            (Ok(count), Ok(wanted)) => assert_eq!(count, wanted),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (read, expected) => panic!("{read:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn each_side_refuses_a_revoked_peer_and_no_other() {
    let authority = authority();
    let (server, client) = (issue(&authority, "server"), issue(&authority, "client"));
    let stranger = issue(&authority, "stranger");
    for (revoked, server_refuses, client_refuses) in [
        (vec![&*client.leaf], true, false),
        (vec![&*server.leaf], false, true),
        (vec![&*stranger.leaf], false, false),
        (vec![], false, false),
    ] {
        let list = list(&revoking(&authority, &revoked));
        let (served, connected) = shake(
            &load(&server, "server", Some(&list)),
            &load(&client, "client", Some(&list)),
        );
        let refused = |verdict: &Verdict| verdict.as_ref().err().is_some_and(|e| e.is_revoked());
        assert_eq!(refused(&served), server_refuses, "{served:?}");
        assert_eq!(refused(&connected), client_refuses, "{connected:?}");
        if !server_refuses && !client_refuses {
            assert!(served.is_ok() && connected.is_ok());
        }
        if client_refuses {
            let told = served.unwrap_err().to_string();
            assert!(
                told.contains("peer refused our certificate: revoked"),
                "{told}"
            );
        }
    }
}

#[test]
fn revoking_an_intermediate_revokes_all_below_it() {
    let root = authority();
    let middle = root.intermediate("middle", SystemTime::now()).unwrap();
    let (server, client) = (issue(&root, "server"), issue(&middle, "client"));
    let list = list(&revoking(&root, &[&middle.certificate_pem()]));
    let server = load(&server, "server", Some(&list));
    let (served, _) = shake(&server, &load(&client, "client", None));
    assert!(served.unwrap_err().is_revoked());
}

#[test]
fn a_list_of_another_authority_says_nothing() {
    let (root, other) = (authority(), authority());
    let (server, client) = (issue(&root, "server"), issue(&root, "client"));
    let list = list(&revoking(&other, &[&client.leaf]));
    let server = load(&server, "server", Some(&list));
    let (served, _) = shake(&server, &load(&client, "client", None));
    assert!(served.is_ok());
}

#[test]
fn accepted_peers_are_judged_again_by_new_lists_as_of_their_handshake() {
    let authority = authority();
    let now = SystemTime::now();
    let server = issue(&authority, "server");
    let client = Leaf::new(&identity("client"), now);
    let client = authority.issue(&client).unwrap();
    let list = RevocationList::new(Revocations::default());
    let server = load(&server, "server", Some(&list));
    let unchecked = load(&client, "client", None);
    let (served, connected) = shake(&server, &unchecked);
    let peer = served.unwrap();
    let revocable = server.revocable(&peer).unwrap();
    assert!(
        unchecked.revocable(&connected.unwrap()).is_none(),
        "no lists there"
    );
    assert!(!revocable.is_revoked());
    let replace = |pem: String| list.replace(Revocations::read(pem.as_bytes()).unwrap());
    replace(revoking(&authority, &[]));
    assert!(!revocable.is_revoked());
    replace(revoking(&authority, &[&client.leaf]));
    assert!(revocable.is_revoked());
    assert!(revocable.is_revoked(), "and stays so");
    replace(revoking(&authority, &[]));
    assert!(!revocable.is_revoked(), "a list that no longer names it");
    // Long after its end an expired certificate is still not taken for a revoked one.
    let late = UnixTime::since_unix_epoch(Duration::from_secs(u64::from(u32::MAX) * 4));
    let (roots, chain) = (Arc::clone(&revocable.roots), Arc::clone(&revocable.chain));
    assert!(!Revocable::new(roots, chain, late).is_revoked());
}
