//! The expert section: bounds, words, and what contradicts the rest.

use super::*;
use crate::config::tuning::{RingFlags, Steering, Tuning};

const BASE: &str = "mode: node\nlocalState: s\nidentityDir: i\nshards: {count: 2, pin: true}\n";

fn tuned(section: &str) -> Result<Tuning, String> {
    let checked = with_file(&format!("{BASE}tuning: {{{section}}}\n"));
    checked
        .map(|checked| checked.config.tuning)
        .map_err(|errors| errors.0[0].to_string())
}

#[test]
fn nothing_said_is_the_default() {
    assert_eq!(with_file(BASE).unwrap().config.tuning, Tuning::default());
}

#[test]
fn every_expert_setting_is_taken() {
    let text = "ringFlags: coop, pipeBytes: 65536, promoteReads: 1, relayBufferBytes: 262144, \
                receiveBufferBytes: 4194304, sendBufferBytes: 4096, notsentLowatBytes: 131072, \
                busyPollMicros: 50, listenBacklog: 4096, steering: cpu";
    let expected = Tuning {
        ring_flags: RingFlags::Coop,
        pipe_bytes: Some(65_536),
        promote_reads: 1,
        relay_buffer_bytes: 262_144,
        receive_buffer_bytes: Some(4_194_304),
        send_buffer_bytes: Some(4_096),
        notsent_lowat_bytes: Some(131_072),
        busy_poll_micros: Some(50),
        listen_backlog: 4_096,
        steering: Steering::Cpu,
    };
    assert_eq!(tuned(text), Ok(expected));
    assert_eq!(tuned("pipeBytes: off").unwrap().pipe_bytes, None);
    assert_eq!(
        tuned("sendBufferBytes: auto").unwrap().send_buffer_bytes,
        None
    );
    let auto = tuned("notsentLowatBytes: auto").unwrap();
    assert_eq!(auto.notsent_lowat_bytes, None);
}

#[test]
fn values_beyond_the_bounds_are_refused_with_the_bounds() {
    for (wrong, part) in [
        ("ringFlags: sqpoll", "`best`, `coop`, `plain`"),
        ("pipeBytes: 65535", "a power of two from 65536"),
        ("pipeBytes: 33554432", "to 16777216"),
        ("promoteReads: 0", "from 1 to 4096"),
        ("relayBufferBytes: 16384", "from 32768 to 524288"),
        ("relayBufferBytes: 1048576", "from 32768 to 524288"),
        ("receiveBufferBytes: 1", "from 4096"),
        ("sendBufferBytes: 1", "from 4096"),
        ("notsentLowatBytes: 0", "from 4096"),
        ("busyPollMicros: 10001", "from 0 to 10000"),
        ("listenBacklog: 0", "from 1 to 65535"),
        ("steering: random", "`hash`, `cpu`"),
        ("pipeByte: 1", "did you mean `pipeBytes`?"),
    ] {
        let told = tuned(wrong).unwrap_err();
        assert!(told.contains(part), "{wrong}: {told}");
    }
}

#[test]
fn steering_by_cpu_needs_pinned_shards() {
    let text = |pin: &str| {
        let base = BASE.replace("pin: true", &format!("pin: {pin}"));
        with_file(&format!("{base}tuning: {{steering: cpu}}\n"))
    };
    assert!(text("true").is_ok());
    let told = text("false").unwrap_err().0[0].to_string();
    assert!(told.contains("needs pinned shards"), "{told}");
}
