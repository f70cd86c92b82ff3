//! A cache is believed whole or not at all.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

const ORIGIN: &str = "https://istiod:15012 ztunnel~1.1.1.1~a.b~b.svc.cluster.local";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn received(kind: ResourceType, accepted: &[(&str, &str)], removed: &[&str]) -> Received {
    Received {
        kind,
        accepted: accepted
            .iter()
            .map(|(name, content)| ((*name).into(), Bytes::copy_from_slice(content.as_bytes())))
            .collect(),
        removed: removed.iter().map(|name| (*name).into()).collect(),
    }
}

fn pending(all: impl IntoIterator<Item = Received>) -> Pending {
    let mut pending = Pending::default();
    for received in all {
        pending.add(received);
    }
    pending
}

/// Names and contents of both types, sorted: policies, addresses.
fn contents(kept: Kept) -> [Vec<(String, String)>; 2] {
    let lists = kept.responses.into_iter().map(|response| {
        let mut list: Vec<_> = response
            .resources
            .into_iter()
            .map(|resource| {
                assert_eq!(resource.version, "", "so that everything is sent again");
                let content = resource.resource.unwrap().value;
                (resource.name, String::from_utf8(content.to_vec()).unwrap())
            })
            .collect();
        list.sort();
        list
    });
    lists.collect::<Vec<_>>().try_into().unwrap()
}

fn pair(name: &str, content: &str) -> (String, String) {
    (name.to_owned(), content.to_owned())
}

#[test]
fn what_was_stored_is_loaded_with_policies_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::new(&dir.path().join("below"), ORIGIN);
    assert!(cache.load(at(0)).unwrap().is_none(), "nothing yet");
    let first = pending([
        received(ResourceType::Address, &[("a", "1"), ("b", "2")], &[]),
        received(ResourceType::Authorization, &[("ns/p", "x")], &[]),
    ]);
    cache.store(&first, at(0)).unwrap();
    let mode = fs::metadata(&cache.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, MODE);
    let second = pending([
        received(ResourceType::Address, &[("a", "one")], &["b", "never"]),
        received(ResourceType::Address, &[("c", "3")], &[]),
    ]);
    cache.store(&second, at(1)).unwrap();
    let mut later = Cache::new(&dir.path().join("below"), ORIGIN);
    let kept = later.load(at(2)).unwrap().unwrap();
    assert_eq!(kept.resources(), 3);
    assert_eq!(
        kept.responses[0].type_url,
        ResourceType::Authorization.url()
    );
    let [policies, addresses] = contents(kept);
    assert_eq!(policies, [pair("ns/p", "x")]);
    assert_eq!(addresses, [pair("a", "one"), pair("c", "3")]);
}

#[test]
fn a_file_that_was_not_loaded_is_replaced_and_not_merged_into() {
    let dir = tempfile::tempdir().unwrap();
    let store = |content: &str| {
        let mut cache = Cache::new(dir.path(), ORIGIN);
        let change = pending([received(ResourceType::Address, &[(content, "1")], &[])]);
        cache.store(&change, at(0)).unwrap();
    };
    store("old");
    store("new");
    let loaded = Cache::new(dir.path(), ORIGIN).load(at(0)).unwrap().unwrap();
    assert_eq!(contents(loaded)[1], [pair("new", "1")]);
}

#[test]
fn state_of_others_and_old_state_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let change = pending([received(ResourceType::Address, &[("a", "1")], &[])]);
    Cache::new(dir.path(), ORIGIN)
        .store(&change, at(1_000))
        .unwrap();
    let load = |origin: &str, now| Cache::new(dir.path(), origin).load(now);
    assert!(load(ORIGIN, at(1_000) + AGE_MAX).unwrap().is_some());
    let late = at(1_001) + AGE_MAX;
    assert!(matches!(load(ORIGIN, late), Err(CacheError::Old { .. })));
    assert!(
        matches!(load(ORIGIN, at(999)), Err(CacheError::Old { .. })),
        "the future"
    );
    assert!(matches!(
        load("other", at(1_000)),
        Err(CacheError::Foreign { .. })
    ));
}

#[test]
fn changes_alone_never_pass_for_the_whole_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = Cache::new(dir.path(), ORIGIN);
    let policy = pending([received(ResourceType::Authorization, &[("ns/p", "x")], &[])]);
    cache.store(&policy, at(0)).unwrap();
    let change = pending([received(ResourceType::Address, &[("a", "1")], &[])]);
    fs::write(&cache.path, "something else").unwrap();
    let stored = cache.store(&change, at(1));
    assert!(
        matches!(stored, Err(CacheError::Corrupt { .. })),
        "{stored:?}"
    );
    fs::remove_file(&cache.path).unwrap();
    let stored = cache.store(&change, at(1));
    assert!(matches!(stored, Err(CacheError::Gone { .. })), "{stored:?}");
    assert!(!cache.path.exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Cache::new(&file, ORIGIN).store(&Pending::default(), at(0));
    assert!(error.unwrap_err().to_string().contains("file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_with_any_byte_changed_or_missing_is_refused(
        place in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<bool>()
    ) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, ORIGIN, at(0)).unwrap();
        writer.record(ResourceType::Address, "a", b"content").unwrap();
        writer.record(ResourceType::Authorization, "ns/p", b"").unwrap();
        writer.finish().unwrap();
        let content = format::Content::open(&bytes).unwrap();
        prop_assert_eq!(records(&bytes, &content).unwrap().len(), 2);
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= flip;
        }
        prop_assert!(format::Content::open(&bytes).is_err());
    }

    #[test]
    fn content_that_makes_no_sense_is_refused_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = [b"corelane-xds-1\n".as_slice(), &body].concat();
        let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        bytes.extend_from_slice(sum.as_ref());
        if let Ok(content) = format::Content::open(&bytes) {
            let _ = records(&bytes, &content);
        }
    }
}
