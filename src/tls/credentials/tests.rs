//! What is found wrong when material is loaded, and the store.

use std::time::SystemTime;

use super::*;
use crate::tls::dev_pki::{Authority, Issued, Leaf};
use crate::tls::testing::{credentials, identity};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn authority() -> Authority {
    Authority::new("root", SystemTime::now()).unwrap()
}

fn issued(authority: &Authority) -> Issued {
    let leaf = Leaf::new(&identity("own"), SystemTime::now());
    authority.issue(&leaf).unwrap()
}

fn load(material: &Material) -> Result<Credentials, CredentialsError> {
    let (options, now) = (TlsOptions::default(), SystemTime::now());
    Credentials::load(&identity("own"), material, options, now)
}

fn error(material: &Material) -> String {
    load(material).unwrap_err().to_string()
}

#[test]
fn sound_material_is_loaded_without_a_warning() {
    let loaded = load(&issued(&authority()).material()).unwrap();
    assert_eq!(**loaded.identity(), identity("own"));
    assert_eq!(loaded.warnings(), [""; 0]);
    assert_eq!(loaded.validity(SystemTime::now()), Validity::Current);
    assert_eq!(loaded.chain().count(), 1);
    assert_eq!(loaded.roots().count(), 1);
    assert!(loaded.lifetime() > 29 * DAY);
}

#[test]
fn intermediates_are_presented_and_the_root_is_not() {
    let root = authority();
    let below = root.intermediate("below", SystemTime::now()).unwrap();
    let issued = issued(&below);
    assert_eq!(load(&issued.material()).unwrap().chain().count(), 2);
    let with_root = Issued {
        intermediates: issued.intermediates.clone() + root.root_pem(),
        ..issued
    };
    let loaded = load(&with_root.material()).unwrap();
    assert_eq!(loaded.chain().count(), 2);
    assert_eq!(loaded.warnings(), [""; 0]);
}

#[test]
fn a_chain_out_of_order_is_refused() {
    let below = authority()
        .intermediate("below", SystemTime::now())
        .unwrap();
    let issued = issued(&below);
    let mut material = issued.material();
    material.chain.bytes = (issued.leaf.clone() + authority().root_pem()).into_bytes();
    let text = error(&material);
    assert!(
        text.starts_with("tls.crt: certificate 2 (CN=root"),
        "{text}"
    );
    assert!(text.contains("did not issue"), "{text}");
    // The leaf last: then the first certificate is the CA, which has no identity.
    material.chain.bytes = (issued.intermediates + &issued.leaf).into_bytes();
    assert!(error(&material).contains("did not issue"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let authority = authority();
    let mut material = issued(&authority).material();
    material.key = issued(&authority).material().key;
    assert_eq!(
        error(&material),
        "tls.key: private key does not belong to the first certificate of tls.crt"
    );
}

#[test]
fn each_file_without_its_content_is_named() {
    let good = issued(&authority()).material();
    for (text, wanted) in [
        ("", "contains no"),
        ("garbage", "contains no"),
        ("-----BEGIN CERTIFICATE-----\n", "not readable as PEM"),
        (
            "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
            "not readable as PEM",
        ),
    ] {
        type Choose = fn(&mut Material) -> &mut Pem;
        let files: [(&str, Choose); 3] = [
            ("tls.crt", |m| &mut m.chain),
            ("tls.key", |m| &mut m.key),
            ("ca.crt", |m| &mut m.roots),
        ];
        for (file, choose) in files {
            let mut material = good.clone();
            choose(&mut material).bytes = text.into();
            let text = error(&material);
            assert!(text.starts_with(file) && text.contains(wanted), "{text}");
        }
    }
    let mut material = good;
    material.chain.bytes = crate::tls::pem::encode("CERTIFICATE", b"junk").into_bytes();
    assert_eq!(
        error(&material),
        "tls.crt: certificate 1: not a readable X.509 certificate"
    );
}

#[test]
fn a_leaf_must_name_the_wanted_identity_and_nothing_else() {
    let authority = authority();
    let now = SystemTime::now();
    let other = authority
        .issue(&Leaf::new(&identity("other"), now))
        .unwrap();
    assert_eq!(
        error(&other.material()),
        "did not find expected SAN: spiffe://cluster.local/ns/default/sa/own \
         (tls.crt is for spiffe://cluster.local/ns/default/sa/other)"
    );
    let own = identity("own").to_string();
    let leaf = || Leaf::new(&identity("own"), now);
    for (leaf, wanted) in [
        (leaf().without_names(), "no URI SAN"),
        (leaf().uris(&[own.as_bytes(), b"x:y"]), "2 URI SANs"),
        (leaf().uris(&[b"spiffe://a\0b"]), "not printable ASCII"),
        (leaf().uris(&[b"spiffe://a"]), "not a mesh identity"),
        (leaf().raw_names(vec![1]), "unreadable subject alternative"),
    ] {
        let text = error(&authority.issue(&leaf).unwrap().material());
        assert!(
            text.starts_with("tls.crt") && text.contains(wanted),
            "{text}"
        );
    }
}

#[test]
fn material_out_of_its_time_is_loaded_with_a_warning() {
    let authority = authority();
    let now = SystemTime::now();
    let leaf = || Leaf::new(&identity("own"), now);
    for (leaf, validity, wanted) in [
        (
            leaf().valid(now - 2 * DAY, now - DAY),
            Validity::Expired,
            "expired",
        ),
        (
            leaf().valid(now + DAY, now + 2 * DAY),
            Validity::NotYet,
            "not valid yet",
        ),
    ] {
        let loaded = load(&authority.issue(&leaf).unwrap().material()).unwrap();
        assert_eq!(loaded.validity(now), validity);
        assert!(
            loaded.warnings()[0].contains(wanted),
            "{:?}",
            loaded.warnings()
        );
    }
}

#[test]
fn material_its_own_roots_would_refuse_is_loaded_with_a_warning() {
    let foreign = Issued {
        roots: authority().root_pem().to_owned(),
        ..issued(&authority())
    };
    let loaded = load(&foreign.material()).unwrap();
    assert!(
        loaded.warnings()[0].contains("unknown CA"),
        "{:?}",
        loaded.warnings()
    );
    let constrained = authority()
        .intermediate_for_uris("team", "cluster.local", SystemTime::now())
        .unwrap();
    let loaded = load(&issued(&constrained).material()).unwrap();
    assert!(
        loaded.warnings()[0].contains("restricts URI names"),
        "{:?}",
        loaded.warnings()
    );
}

#[test]
fn an_unusable_root_is_skipped_while_another_remains() {
    let authority = authority();
    let junk = crate::tls::pem::encode("CERTIFICATE", b"junk");
    let mut material = issued(&authority).material();
    material.roots.bytes = (junk.clone() + authority.root_pem()).into_bytes();
    let loaded = load(&material).unwrap();
    assert!(loaded.warnings()[0].starts_with("ca.crt: root 1 is skipped"));
    material.roots.bytes = junk.into_bytes();
    assert!(error(&material).starts_with("ca.crt: no usable root certificate"));
}

#[test]
fn nothing_prints_the_private_key() {
    let issued = issued(&authority());
    let material = issued.material();
    let key_line = issued.key.lines().nth(1).unwrap();
    let printed = format!("{issued:?} {material:?} {:?}", load(&material).unwrap());
    assert!(!printed.contains(key_line), "{printed}");
}

#[test]
fn a_store_tells_waiting_from_failure_and_from_absence() {
    let authority = authority();
    let store = CredentialStore::new([
        (
            identity("ready"),
            CredentialState::Available(Arc::new(credentials(&authority, "ready"))),
        ),
        (identity("coming"), CredentialState::Initializing),
        (
            identity("failed"),
            CredentialState::Unavailable("tls.crt: gone".to_owned()),
        ),
    ]);
    assert_eq!(
        **store.get(&identity("ready")).unwrap().identity(),
        identity("ready")
    );
    assert_eq!(
        store.get(&identity("coming")).unwrap_err(),
        IdentityError::Initializing(identity("coming"))
    );
    assert_eq!(
        store.get(&identity("failed")).unwrap_err().to_string(),
        "tls.crt: gone"
    );
    assert_eq!(
        store.get(&identity("other")).unwrap_err(),
        IdentityError::Unknown(identity("other"))
    );
    let order: Vec<_> = store
        .entries()
        .map(|(identity, _)| identity.service_account.to_string())
        .collect();
    assert_eq!(order, ["coming", "failed", "ready"]);
}
