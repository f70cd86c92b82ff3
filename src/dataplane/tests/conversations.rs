//! Random conversations through a tunnel, checked byte for byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::node::{DRIVERS, Pair, patient, pattern};
use crate::dataplane::shard::Message;

const CONVERSATIONS: u64 = 200;
pub(super) const SEED: u64 = 0x00c0_4e1a_4e00;

/// What one side does next.
enum Turn {
    ClientSays(usize),
    ServerSays(usize),
}

/// The same turns for both ends, from the seed.
fn turns(seed: u64) -> Vec<Turn> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..random.usize(1..12))
        .map(|_| {
            let size = match random.u8(0..10) {
                0..=5 => random.usize(1..300),
                6..=8 => random.usize(1..20_000),
                _ => random.usize(1..400_000),
            };
            if random.bool() {
                Turn::ClientSays(size)
            } else {
                Turn::ServerSays(size)
            }
        })
        .collect()
}

/// Plays one end; the other plays the same turns.
pub(super) fn play(mut stream: TcpStream, seed: u64, is_client: bool) {
    for (number, turn) in (0..).zip(turns(seed)) {
        let (speaks, size) = match turn {
            Turn::ClientSays(size) => (is_client, size),
            Turn::ServerSays(size) => (!is_client, size),
        };
        let words = pattern(size, seed.wrapping_mul(31).wrapping_add(number));
        if speaks {
            stream.write_all(&words).unwrap();
        } else {
            let mut heard = vec![0; size];
            stream.read_exact(&mut heard).unwrap();
            assert!(heard == words, "seed {seed:#x}, turn {number}");
        }
    }
    let mut random = fastrand::Rng::with_seed(seed);
    // One of both says goodbye first.
    if random.bool() == is_client {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "seed {seed:#x}");
    } else {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "seed {seed:#x}");
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// The first eight bytes say which conversation it is.
pub(super) fn serve(listener: &TcpListener, count: u64) {
    std::thread::scope(|scope| {
        for _ in 0..count {
            let mut stream = patient(listener.accept().unwrap().0);
            scope.spawn(move || {
                let mut seed = [0; 8];
                stream.read_exact(&mut seed).unwrap();
                play(stream, u64::from_be_bytes(seed), false);
            });
        }
    });
}

#[test]
fn random_conversations_arrive_unchanged_and_end_in_order() {
    for driver in DRIVERS {
        let pair = Pair::new(driver, |config| config.pool.max_streams_per_connection = 7);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&pair.application, CONVERSATIONS));
            for worker in 0..10 {
                let addr = pair.client.addr();
                scope.spawn(move || {
                    for seed in (worker..CONVERSATIONS).step_by(10).map(|n| SEED + n) {
                        let mut stream = patient(TcpStream::connect(addr).unwrap());
                        stream.write_all(&seed.to_be_bytes()).unwrap();
                        play(stream, seed, true);
                    }
                });
            }
        });
        let counters = [&pair.client.counters, &pair.server.counters];
        for counters in counters {
            super::node::until("relays to end", || counters.relays_open.get() == 0);
            assert_eq!(counters.panics.get(), 0, "{driver:?}");
        }
        assert_eq!(
            counters[0].relayed_bytes.get(),
            counters[1].relayed_bytes.get()
        );
        assert_eq!(counters[0].streams_client_opened.get(), CONVERSATIONS);
        pair.stop(|| Message::Drain);
    }
}
