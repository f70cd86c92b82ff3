//! Sizes of what each idle connection holds. A node holds tens of thousands of them.

use crate::dataplane::{inbound, outbound, passthrough, relay, rt, socks};

macro_rules! size_of_future {
    ($call:expr, $($argument:ident),+) => {{
        fn size<$($argument,)+ F: Future>(_: impl Fn($($argument),+) -> F) -> usize {
            size_of::<F>()
        }
        size($call)
    }};
}

#[test]
fn what_an_idle_connection_holds_is_bounded() {
    // The task of each kind of connection, without its relay.
    let tasks = [
        (
            "outbound",
            size_of_future!(outbound::captured, A, B, C, D),
            1_280,
        ),
        (
            "forward",
            size_of_future!(outbound::forward, A, B, C, D),
            1_280,
        ),
        ("socks", size_of_future!(socks::serve, A, B, C), 1_280),
        (
            "plain text",
            size_of_future!(passthrough::serve, A, B, C, D),
            1_280,
        ),
        (
            "inbound tunnel",
            size_of_future!(inbound::serve, A, B, C),
            2_560,
        ),
        (
            "inbound stream",
            size_of_future!(inbound::stream_task, A, B, C, D, E, G),
            1_280,
        ),
    ];
    let names = ["plain", "outbound", "inbound"];
    let relays = names
        .iter()
        .zip(relay::sizes())
        .map(|(name, size)| (*name, size, 1_280));
    let all: Vec<_> = tasks.into_iter().chain(relays).collect();
    let wrong: Vec<_> = all.iter().filter(|(_, size, limit)| size > limit).collect();
    assert!(wrong.is_empty(), "{wrong:?} of {all:?}");
}

/// A wait in a relay must not hold a timer, which takes more than all the rest.
#[test]
fn a_yield_is_small() {
    assert!(size_of_val(&rt::yield_now()) <= 64);
}
