//! Many connections held open at once, and a look at which of them have ended.

use std::net::TcpStream;
use std::os::fd::AsFd;

use corelane_harness::apps;
use corelane_harness::pair::Pair;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Threads that open connections.
const OPENERS: usize = 8;

/// Opens `count` echo connections from the client host to that port of the server host, each proven
/// by a round trip.
pub(crate) fn open(pair: &Pair, port: u16, count: usize) -> Vec<TcpStream> {
    let to = pair.server_at(corelane_harness::hosts::Family::V4, port);
    let share = |opener: usize| count / OPENERS + usize::from(opener < count % OPENERS);
    let open_share = |opener: usize| {
        let open_one = |_| {
            let mut stream = apps::connect(to).unwrap();
            assert_eq!(apps::round_trip(&mut stream, b"open").unwrap(), b"open");
            stream
        };
        (0..share(opener)).map(open_one).collect::<Vec<_>>()
    };
    pair.client_host.enter(|| {
        std::thread::scope(|scope| {
            let openers: Vec<_> = (0..OPENERS)
                .map(|opener| scope.spawn(move || open_share(opener)))
                .collect();
            openers
                .into_iter()
                .flat_map(|opener| opener.join().unwrap())
                .collect()
        })
    })
}

/// How many of these silent connections have ended: only an end makes them readable.
pub(crate) fn count_ended(streams: &[TcpStream]) -> usize {
    let mut fds: Vec<_> = streams
        .iter()
        .map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN))
        .collect();
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .unwrap();
    fds.iter().filter(|fd| !fd.revents().is_empty()).count()
}

/// Proves by a round trip that each connection still works; returns how many do.
pub(crate) fn count_working(streams: &mut [TcpStream]) -> usize {
    let works = |stream: &mut &mut TcpStream| {
        apps::round_trip(stream, b"still").is_ok_and(|answer| answer == b"still")
    };
    streams
        .iter_mut()
        .filter_map(|mut stream| works(&mut stream).then_some(()))
        .count()
}
