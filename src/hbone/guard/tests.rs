//! The limits of a tunnel, frame by frame.

use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::hbone::tests::frames::{CONNECT, PREFACE, block, data, frame, goaway, headers, reset};
use crate::hbone::tests::harness::World;

fn conversation() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[0; 6]));
    bytes.extend(frame(SETTINGS, ACK, 0, &[]));
    bytes.extend(frame(HEADERS, 0, 1, &block(CONNECT)));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    bytes.extend(data(1, &[9; 300], false));
    bytes.extend(data(1, &[0x7; 5000], true));
    bytes.extend(reset(1, 8));
    bytes.extend(goaway(7, 2));
    bytes
}

#[test]
fn frames_are_found_however_the_bytes_are_cut() {
    for step in [1, 2, 3, 7, 8, 9, 10, 100, 100_000] {
        let world = World::new();
        let guard = Guard::new(Role::Server, &world.settings);
        for part in conversation().chunks(step) {
            guard.received(part);
        }
        assert_eq!(guard.settings_frames(), 1, "{step}");
        assert!(guard.settings_acked());
        assert_eq!(guard.open_block(), None);
        assert_eq!(guard.header_blocks.get(), 1);
        assert_eq!(guard.small_data.get(), 1);
        assert_eq!(guard.state.borrow().resets.count, 1);
        let expected = Goaway {
            last_stream: 7,
            code: 2,
        };
        assert_eq!(guard.goaway_received(), Some(expected));
        assert_eq!(guard.verdict(), None);
        assert_eq!(*world.events.borrow(), [Event::GoawayReceived]);
    }
}

#[test]
fn a_header_block_is_open_until_its_last_byte() {
    let world = World::new();
    let guard = Guard::new(Role::Server, &world.settings);
    let whole = headers(1, CONNECT);
    guard.received(PREFACE);
    guard.received(&whole[..8]);
    assert_eq!(guard.open_block(), None);
    guard.received(&whole[8..9]);
    assert_eq!(guard.open_block(), Some(1));
    guard.received(&whole[9..whole.len() - 1]);
    assert_eq!(guard.open_block(), Some(1));
    guard.received(&whole[whole.len() - 1..]);
    assert_eq!(guard.open_block(), None);
}

#[test]
fn sent_data_earns_control_frames() {
    let world = World::new();
    let guard = Guard::new(Role::Server, &world.settings);
    guard.received(PREFACE);
    for _ in 0..100 {
        guard.sent(&data(1, b"x", false));
    }
    let update = frame(0x8, 0, 0, &[0, 0, 0, 1]);
    for _ in 0..1000 + 750 {
        guard.received(&update);
    }
    assert!(!guard.wants_drain());
    guard.received(&update);
    assert!(guard.wants_drain());
    for _ in 0..249 {
        guard.received(&update);
    }
    assert_eq!(guard.verdict(), None);
    guard.received(&update);
    assert_eq!(guard.verdict(), Some(LimitKind::ControlFrames));
    assert!(guard.must_pause());
}

#[test]
fn earnings_are_bounded() {
    let world = World::new();
    let guard = Guard::new(Role::Client, &world.settings);
    guard.sent(PREFACE);
    let burst = data(1, b"x", false).repeat(1000);
    for _ in 0..101 {
        guard.sent(&burst);
    }
    assert_eq!(guard.state.borrow().control.earned, 1_000_000);
}

#[test]
fn resets_from_a_server_are_not_counted() {
    let world = World::new();
    let guard = Guard::new(Role::Client, &world.settings);
    for _ in 0..10_000 {
        guard.received(&reset(1, 0));
    }
    assert_eq!(guard.verdict(), None);
    let guard = Guard::new(Role::Server, &world.settings);
    guard.received(PREFACE);
    for _ in 0..201 {
        assert_eq!(guard.verdict(), None);
        guard.received(&reset(1, 0));
    }
    assert_eq!(guard.verdict(), Some(LimitKind::PeerResets));
}

#[test]
fn refill_counts_whole_frames_of_time() {
    let mut world = World::new();
    let passed = Rc::new(Cell::new(Duration::ZERO));
    let (base, reader) = ((world.settings.now)(), Rc::clone(&passed));
    world.settings.now = Rc::new(move || base + reader.get());
    let guard = Guard::new(Role::Client, &world.settings);
    let ping = frame(0x6, 0, 0, &[0; 8]);
    // One frame each 10 ms is forgiven for ever, looked at every 5 ms.
    for _ in 0..20_000 {
        passed.set(passed.get() + Duration::from_millis(5));
        guard.received(&[]);
        passed.set(passed.get() + Duration::from_millis(5));
        guard.received(&ping);
    }
    assert!(!guard.wants_drain());
}

#[test]
fn the_highest_stream_sent_is_known() {
    let world = World::new();
    let guard = Guard::new(Role::Client, &world.settings);
    guard.sent(PREFACE);
    assert!(!guard.was_sent(1));
    guard.sent(&headers(1, CONNECT));
    guard.sent(&headers(5, CONNECT));
    assert!(guard.was_sent(5));
    assert!(!guard.was_sent(7));
}
