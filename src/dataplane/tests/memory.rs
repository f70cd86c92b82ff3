//! What connections that do nothing hold. A node has tens of thousands of them.
//!
//! Bytes are counted as the allocator hands them out, so these bounds are no measurements: the same
//! program holds the same.

use std::net::TcpStream;

use super::node::{DRIVERS, Pair, Running, exchange, patient, server, until};
use crate::config::DriverChoice;
use crate::dataplane::shard::Message;
use crate::dataplane::table::Registration;
use crate::dataplane::{relay, rt};

/// Connections that are open at once for a measurement.
const OPEN: usize = 200;

/// The same for tunnels.
const TUNNELS: i64 = 40;

/// What each open connection adds to what the shards hold.
fn held_by_each<const N: usize>(
    nodes: [&Running; N],
    open: impl Fn() -> (TcpStream, TcpStream),
) -> [i64; N] {
    let held = || nodes.map(|node| node.memory.bytes());
    let relays = |count: i64| {
        for node in nodes {
            let open = &node.counters.relays_open;
            until("relays to come and go", || open.get() == count);
        }
    };
    let open_all = || {
        let mut ends: Vec<_> = (0..OPEN).map(|_| open()).collect();
        for (client, server) in &mut ends {
            exchange(client, server);
        }
        ends
    };
    // What the first ones bring about stays: buffers, tables, series, the tunnel.
    let first = open_all();
    drop(first);
    relays(0);
    let settled = held();
    let ends = open_all();
    relays(i64::try_from(OPEN).unwrap());
    // Relays count as open before their set-up has ended; a task that comes later ends after it.
    drop(open());
    let each = std::array::from_fn(|at| (held()[at] - settled[at]) / i64::try_from(OPEN).unwrap());
    drop(ends);
    each
}

#[test]
fn an_idle_plain_connection_holds_less_than_a_kilobyte() {
    for driver in DRIVERS {
        let (listener, addr) = server();
        let node = Running::start(driver, addr, |_| {});
        let [held] = held_by_each([&node], || {
            let client = node.connect();
            (client, patient(listener.accept().unwrap().0))
        });
        // With epoll the runtime itself keeps a record of about 60 bytes for each descriptor.
        let limit = if driver == DriverChoice::Epoll {
            1_152
        } else {
            1_024
        };
        assert!((300..=limit).contains(&held), "{driver:?}: {held} bytes");
        node.stop(Message::Drain);
    }
}

#[test]
fn an_idle_stream_holds_less_than_two_kilobytes_on_each_node() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |_| {});
        let held = held_by_each([&pair.client, &pair.server], || pair.open());
        for held in held {
            assert!((300..=2_048).contains(&held), "{driver:?}: {held} bytes");
        }
        pair.stop(|| Message::Drain);
    }
}

#[test]
fn an_idle_tunnel_holds_less_than_24_kilobytes_on_each_node() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 1);
        let tunnels = |count: i64| {
            let [client, server] = [&pair.client.counters, &pair.server.counters];
            until("tunnels to come and go", || {
                [
                    client.tunnels_client_open.get(),
                    server.tunnels_server_open.get(),
                ] == [count; 2]
            });
        };
        let held = || [&pair.client, &pair.server].map(|node| node.memory.bytes());
        let open_all = || {
            let mut ends: Vec<_> = (0..TUNNELS).map(|_| pair.open()).collect();
            for (client, server) in &mut ends {
                exchange(client, server);
            }
            tunnels(TUNNELS);
            ends
        };
        drop(open_all());
        tunnels(0);
        let settled = held();
        let ends = open_all();
        let held: [i64; 2] = std::array::from_fn(|at| (held()[at] - settled[at]) / TUNNELS);
        // Each with its one stream.
        for held in held {
            assert!(
                (2_000..=24 * 1_024).contains(&held),
                "{driver:?}: {held} bytes"
            );
        }
        drop(ends);
        pair.stop(|| Message::Drain);
    }
}

/// Captured plain text cannot be had without rules in the kernel, so its relay is weighed alone.
#[test]
fn a_relay_has_room_for_its_kind_and_no_more() {
    let [plain, outbound, _] = relay::sizes::<()>();
    let [passthrough, _, inbound] = relay::sizes::<Registration>();
    let sizes = [plain, passthrough, outbound, inbound];
    assert!(sizes.iter().all(|size| *size <= 768), "{sizes:?}");
}

/// A wait in a relay must not hold a timer, which takes more than all the rest.
#[test]
fn a_yield_is_small() {
    assert!(size_of_val(&rt::yield_now()) <= 64);
}
