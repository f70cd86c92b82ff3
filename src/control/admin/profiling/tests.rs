//! Tests of profiles: what the endpoints take, and what pprof can read of their answers.

use std::io::Read;

use flate2::read::GzDecoder;
use prost::Message;

use super::heap::HeapDumpError;
use super::profile::Profile;
use super::*;
use crate::control::admin::tests::admin;

fn text(profile: &Profile, at: i64) -> &str {
    &profile.string_table[usize::try_from(at).unwrap()]
}

fn types(profile: &Profile) -> Vec<(&str, &str)> {
    let types = profile.sample_type.iter();
    types
        .map(|of| (text(profile, of.r#type), text(profile, of.unit)))
        .collect()
}

#[tokio::test]
async fn parameters_out_of_range_are_refused_with_the_range() {
    let admin = admin();
    for (query, answer) in [
        ("seconds=0", "invalid seconds value; expected 1-300\n"),
        ("seconds=301", "invalid seconds value; expected 1-300\n"),
        ("seconds=soon", "invalid seconds value; expected 1-300\n"),
        ("seconds=", "invalid seconds value; expected 1-300\n"),
        ("frequency=0", "invalid frequency value; expected 1-1000\n"),
        (
            "frequency=1001",
            "invalid frequency value; expected 1-1000\n",
        ),
        ("frequency=-1", "invalid frequency value; expected 1-1000\n"),
    ] {
        let target = format!("/debug/pprof/profile?{query}");
        let reply = admin.rig.ask("GET", &target, "").await;
        assert_eq!((reply.status, reply.text()), (400, answer), "{query}");
    }
}

#[tokio::test]
async fn a_profile_tells_where_time_went_and_there_is_one_at_a_time() {
    let admin = admin();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let busy = std::thread::Builder::new().name("busy".to_owned());
    let busy = busy.spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            std::hint::black_box((0..10_000_u64).map(std::hint::black_box).sum::<u64>());
        }
    });
    let ask = || {
        admin
            .rig
            .ask("GET", "/debug/pprof/profile?seconds=1&frequency=200", "")
    };
    let (one, other) = tokio::join!(ask(), ask());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.unwrap().join().unwrap();
    let (done, refused) = if one.status == 200 {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!(
        (done.status, refused.status),
        (200, 500),
        "{}",
        refused.text()
    );
    assert!(refused.text().contains("another one"), "{}", refused.text());
    let profile = Profile::decode(&done.body[..]).unwrap();
    assert_eq!(
        types(&profile),
        [("samples", "count"), ("cpu", "nanoseconds")]
    );
    assert_eq!(
        (profile.period, profile.duration_nanos),
        (5_000_000, 1_000_000_000)
    );
    assert!(profile.time_nanos > 1_600_000_000_000_000_000);
    let busy = profile.sample.iter().filter(|sample| {
        let mut labels = sample.label.iter();
        labels.any(|l| (text(&profile, l.key), text(&profile, l.str)) == ("thread", "busy"))
    });
    let seen: i64 = busy.map(|sample| sample.value[0]).sum();
    assert!(seen > 0, "the busy thread was seen");
    for sample in &profile.sample {
        assert_eq!(sample.value[1], sample.value[0] * 5_000_000);
        for id in &sample.location_id {
            let place = &profile.location[usize::try_from(*id).unwrap() - 1];
            let function = place.line[0].function_id;
            assert!(profile.function.iter().any(|f| f.id == function));
        }
    }
    assert_eq!(ask().await.status, 200, "the next one may come");
}

/// One test, for whether allocations are sampled concerns the whole program.
#[tokio::test]
async fn heap_profiles_are_made_while_profiling_is_active() {
    let admin = admin();
    let ask = |path: &'static str| admin.rig.ask("GET", path, "");
    let state = ask("/debug/pprof/heap/profiling").await;
    assert_eq!(
        (state.status, state.text()),
        (200, "heap profiling active: false\n")
    );
    let refused = ask("/debug/pprof/heap").await;
    assert_eq!(refused.status, 500);
    assert!(
        refused.text().contains("activate=true"),
        "{}",
        refused.text()
    );
    let bad = ask("/debug/pprof/heap/profiling?activate=yes").await;
    assert_eq!(bad.status, 400);
    let on = ask("/debug/pprof/heap/profiling?activate=true").await;
    assert_eq!(
        (on.status, on.text()),
        (200, "heap profiling active: true\n")
    );
    let heap = ask("/debug/pprof/heap").await;
    assert_eq!(heap.status, 200);
    let mut bytes = Vec::new();
    GzDecoder::new(&heap.body[..])
        .read_to_end(&mut bytes)
        .unwrap();
    let profile = Profile::decode(&bytes[..]).unwrap();
    assert_eq!(
        types(&profile),
        [("inuse_objects", "count"), ("inuse_space", "bytes")]
    );
    assert!(!profile.mapping.is_empty());
    let off = ask("/debug/pprof/heap/profiling?activate=false").await;
    assert_eq!(
        (off.status, off.text()),
        (200, "heap profiling active: false\n")
    );
}

const DUMP: &str = "\
heap_v2/524288
  t*: 3: 1572864 [0: 0]
  t0: 3: 1572864 [0: 0]
@ 0x1011 0x2021 0x9999
  t*: 2: 1048576 [0: 0]
  t0: 2: 1048576 [0: 0]
@ 0x1011
  t*: 1: 524288 [0: 0]
  t3: 1: 524288 [0: 0]

MAPPED_LIBRARIES:
1000-3000 r-xp 00000100 fe:00 42                 /usr/bin/corelane
3000-4000 rw-p 00000000 fe:00 42                 /usr/bin/corelane
7000-8000 r-xp 00000000 00:00 0                  [vdso]
";

#[test]
fn a_dump_becomes_stacks_in_their_files() {
    let bytes = heap::profile(DUMP, SystemTime::UNIX_EPOCH).unwrap();
    let profile = Profile::decode(&bytes[..]).unwrap();
    let [mapping] = &profile.mapping[..] else {
        panic!("{:?}", profile.mapping)
    };
    assert_eq!(
        (mapping.memory_start, mapping.memory_limit),
        (0x1000, 0x3000)
    );
    assert_eq!(
        (mapping.file_offset, text(&profile, mapping.filename)),
        (0x100, "/usr/bin/corelane")
    );
    let stacks: Vec<Vec<(u64, u64)>> = profile
        .sample
        .iter()
        .map(|sample| {
            let places = sample.location_id.iter();
            places
                .map(|id| &profile.location[usize::try_from(*id).unwrap() - 1])
                .map(|place| (place.address, place.mapping_id))
                .collect()
        })
        .collect();
    assert_eq!(
        stacks,
        [
            vec![(0x1010, 1), (0x2020, 1), (0x9998, 0)],
            vec![(0x1010, 1)]
        ]
    );
    // 1 / (1 − 1/e) for objects as large as the period.
    assert_eq!(profile.sample[0].value, [3, 1_658_823]);
    assert_eq!(profile.sample[1].value, [2, 829_411]);
    assert_eq!(profile.period, 524_288);
}

#[test]
fn dumps_that_are_not_understood_are_refused() {
    let now = SystemTime::UNIX_EPOCH;
    for (dump, error) in [
        ("", HeapDumpError::Kind),
        ("heap_v1/1\n", HeapDumpError::Kind),
        ("heap_v2/x\n", HeapDumpError::Kind),
        ("heap_v2/1\n@ zz\n", HeapDumpError::Line(2)),
        ("heap_v2/1\n@ 0x1\n  t*: many\n", HeapDumpError::Line(3)),
    ] {
        assert_eq!(heap::profile(dump, now), Err(error), "{dump}");
    }
}
