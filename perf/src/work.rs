//! The work: what each kind does, which peers it is for, and how one sample of it is taken.

mod clients;

pub use clients::Held;

use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::peers::{Peer, Running};
use crate::results::Sample;
use crate::stop::Stop;

/// Bytes of a GiB.
pub const GIB: f64 = 1_073_741_824.0;

/// Rate of the slow link.
const SLOW_RATE: &str = "1gbit";

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One iperf3 stream, client to server.
    BulkUp,
    /// One iperf3 stream, server to client.
    BulkDown,
    /// Eight iperf3 streams, client to server.
    BulkEight,
    /// wrk, one connection that stays.
    Wrk1,
    /// wrk, 64 connections that stay.
    Wrk64,
    /// wrk, 512 connections that stay.
    Wrk512,
    /// wrk, a connection for each request.
    Connect,
    /// wrk, a connection for each request and a tunnel for each connection.
    Tunnel,
    /// 64 bytes back and forth.
    PingPong,
    /// Memory of connections on which nothing happens.
    IdleMemory,
    /// wrk on 64 connections beside a few, and beside many, on which nothing happens.
    Crowd,
    /// wrk on 16 connections alone, and beside ten streams whose readers stopped.
    Stalled,
    /// One iperf3 stream up a 1 Gbit/s link with 5 ms of buffer.
    SlowUp,
    /// The same down.
    SlowDown,
}

/// All work, in the order in which it is done.
pub const ALL: [Work; 14] = [
    Work::BulkUp,
    Work::BulkDown,
    Work::BulkEight,
    Work::Wrk1,
    Work::Wrk64,
    Work::Wrk512,
    Work::Connect,
    Work::Tunnel,
    Work::PingPong,
    Work::IdleMemory,
    Work::Crowd,
    Work::Stalled,
    Work::SlowUp,
    Work::SlowDown,
];

/// How much of each.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Rounds of everything.
    pub rounds: usize,
    /// Seconds of a measurement; iperf3 takes whole ones.
    pub seconds: u64,
    /// Idle connections of [`Work::IdleMemory`] and of the fuller [`Work::Crowd`].
    pub idle: usize,
    /// Idle connections of the emptier [`Work::Crowd`].
    pub few: usize,
    /// Streams whose readers stop.
    pub stalled: usize,
}

/// What a lab is in while a sample is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing else happens in it.
    Alone,
    /// That many connections are held, idle.
    Held(usize),
    /// That many streams are stalled.
    Stalled(usize),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => Ok(()),
            Self::Held(n) => write!(f, "{n} idle"),
            Self::Stalled(n) => write!(f, "{n} stalled"),
        }
    }
}

impl Work {
    /// Name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BulkUp => "bulk-up",
            Self::BulkDown => "bulk-down",
            Self::BulkEight => "bulk-8",
            Self::Wrk1 => "wrk-1",
            Self::Wrk64 => "wrk-64",
            Self::Wrk512 => "wrk-512",
            Self::Connect => "connect",
            Self::Tunnel => "tunnel",
            Self::PingPong => "ping-pong",
            Self::IdleMemory => "idle-memory",
            Self::Crowd => "crowd",
            Self::Stalled => "stalled",
            Self::SlowUp => "slow-up",
            Self::SlowDown => "slow-down",
        }
    }

    /// What it does, for people.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::BulkUp => "one iperf3 stream, client to server",
            Self::BulkDown => "one iperf3 stream, server to client",
            Self::BulkEight => "eight iperf3 streams, client to server",
            Self::Wrk1 => "HTTP requests on one connection",
            Self::Wrk64 => "HTTP requests on 64 connections",
            Self::Wrk512 => "HTTP requests on 512 connections",
            Self::Connect => "a new connection for each HTTP request (tunnels are shared)",
            Self::Tunnel => "a new connection and a new tunnel for each HTTP request",
            Self::PingPong => "64 bytes back and forth on one connection",
            Self::IdleMemory => "memory of idle connections",
            Self::Crowd => "HTTP requests on 64 connections beside idle ones",
            Self::Stalled => "HTTP requests on 16 connections, alone and beside stalled streams",
            Self::SlowUp => "one stream up a 1 Gbit/s link with 5 ms of buffer",
            Self::SlowDown => "one stream down a 1 Gbit/s link with 5 ms of buffer",
        }
    }

    /// What is counted.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::BulkUp | Self::BulkDown | Self::BulkEight | Self::SlowUp | Self::SlowDown => {
                "GiB"
            }
            Self::Wrk1 | Self::Wrk64 | Self::Wrk512 | Self::Crowd | Self::Stalled => "request",
            Self::Connect | Self::Tunnel | Self::IdleMemory => "connection",
            Self::PingPong => "round trip",
        }
    }

    /// Whether it is counted in bytes.
    #[must_use]
    pub fn is_bulk(self) -> bool {
        self.unit() == "GiB"
    }

    /// Whether a peer is asked to do it.
    #[must_use]
    pub fn is_for(self, peer: &Peer) -> bool {
        use crate::peers::Kind;
        match self {
            Self::BulkUp | Self::BulkDown | Self::BulkEight => true,
            Self::Tunnel => peer.tunnels(),
            Self::IdleMemory | Self::Crowd | Self::Stalled => {
                !matches!(peer.kind, Kind::Direct | Kind::Copy)
            }
            Self::Wrk1
            | Self::Wrk64
            | Self::Wrk512
            | Self::Connect
            | Self::PingPong
            | Self::SlowUp
            | Self::SlowDown => !matches!(peer.kind, Kind::Copy),
        }
    }

    /// The states of the lab it is done in.
    #[must_use]
    pub fn conditions(self, amount: &Amount) -> Vec<Condition> {
        match self {
            Self::Crowd => vec![Condition::Held(amount.few), Condition::Held(amount.idle)],
            Self::Stalled => vec![Condition::Alone, Condition::Stalled(amount.stalled)],
            Self::IdleMemory => vec![Condition::Held(amount.idle)],
            _ => vec![Condition::Alone],
        }
    }

    /// Whether each condition needs a fresh lab of its own, with what it holds set up once.
    #[must_use]
    pub const fn own_lab(self) -> bool {
        matches!(self, Self::Tunnel | Self::Crowd)
    }

    /// Whether connections share tunnels.
    #[must_use]
    pub const fn pooled(self) -> bool {
        !matches!(self, Self::Tunnel)
    }

    /// Takes one sample.
    ///
    /// # Errors
    /// If a client fails, a node has ended, or the run is interrupted.
    pub fn sample(self, running: &Running, amount: &Amount, stop: &Stop) -> Result<Sample> {
        let measure = clients::Measure {
            running,
            seconds: amount.seconds,
            stop,
        };
        match self {
            Self::BulkUp => measure.iperf(&[]),
            Self::BulkDown => measure.iperf(&["--reverse"]),
            Self::BulkEight => measure.iperf(&["--parallel", "8"]),
            Self::Wrk1 => measure.wrk(1, 1, &[]),
            Self::Wrk64 | Self::Crowd => measure.wrk(2, 64, &[]),
            Self::Wrk512 => measure.wrk(2, 512, &[]),
            Self::Stalled => measure.wrk(1, 16, &[]),
            Self::Connect | Self::Tunnel => measure.wrk(1, 16, &["-H", "Connection: close"]),
            Self::PingPong => measure.ping_pong(),
            Self::IdleMemory => measure.memory(amount.idle),
            Self::SlowUp | Self::SlowDown => {
                let _slow = running.lab.slow_link(SLOW_RATE)?;
                let direction: &[&str] = match self {
                    Self::SlowDown => &["--reverse"],
                    _ => &[],
                };
                measure.iperf(direction)
            }
        }
    }

    /// Puts a lab into a condition; it lasts until what is returned is dropped.
    ///
    /// # Errors
    /// If a client fails, or the run is interrupted.
    pub fn enter(condition: Condition, running: &Running, stop: &Stop) -> Result<Held> {
        match condition {
            Condition::Alone => Ok(Held::nothing()),
            Condition::Held(count) => clients::hold(running, count, stop),
            Condition::Stalled(count) => {
                let held = clients::stall(running, count, stop)?;
                // Until all windows between the two are full.
                stop.pause(Duration::from_millis(700))?;
                Ok(held)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Kind, Way};

    fn peer(kind: Kind) -> Peer {
        Peer {
            name: "x".into(),
            kind,
        }
    }

    #[test]
    fn each_work_has_a_name_of_its_own() {
        let mut names: Vec<_> = ALL.iter().map(|work| work.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn only_tunnelling_peers_open_tunnels() {
        assert!(Work::Tunnel.is_for(&peer(Kind::Envoy(Way::Tunnel))));
        assert!(!Work::Tunnel.is_for(&peer(Kind::Envoy(Way::Passthrough))));
        assert!(!Work::Tunnel.is_for(&peer(Kind::Haproxy)));
    }

    #[test]
    fn the_floor_is_measured_in_bulk_only() {
        let floor = peer(Kind::Copy);
        let works: Vec<_> = ALL.iter().filter(|work| work.is_for(&floor)).collect();
        assert_eq!(works, [&Work::BulkUp, &Work::BulkDown, &Work::BulkEight]);
    }
}
