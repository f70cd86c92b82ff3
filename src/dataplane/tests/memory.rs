//! Sizes of what each idle connection holds. A node holds tens of thousands of them.

use std::mem::size_of;

use crate::dataplane::{inbound, outbound, passthrough, socks};

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
    let sizes = [
        (
            "outbound",
            size_of_future!(outbound::captured, A, B, C, D),
            1_024,
        ),
        (
            "forward",
            size_of_future!(outbound::forward, A, B, C, D),
            1_024,
        ),
        ("socks", size_of_future!(socks::serve, A, B, C), 1_024),
        (
            "plain text",
            size_of_future!(passthrough::serve, A, B, C, D),
            1_024,
        ),
        (
            "inbound tunnel",
            size_of_future!(inbound::serve, A, B, C),
            1_024,
        ),
        (
            "inbound stream",
            size_of_future!(inbound::stream_task, A, B, C, D, E),
            1_024,
        ),
    ];
    let wrong: Vec<_> = sizes
        .iter()
        .filter(|(_, size, limit)| size > limit)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?} of {sizes:?}");
}
