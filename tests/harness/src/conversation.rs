//! Random conversations between two hosts: sizes, chunks, order of speaking, half closes and resets
//! all follow from a seed, and both ends check every byte they receive.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fastrand::Rng;

use crate::apps;
use crate::clock;
use crate::hosts::Host;

/// Largest number of bytes sent in one direction.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long the server end waits for a connection after the client end is over.
const STRAGGLER: Duration = Duration::from_millis(500);

/// Which end of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that connects.
    Client,
    /// The one that accepts.
    Server,
}

/// Everything one end does.
#[derive(Clone, Debug)]
struct Part {
    sends: Arc<Vec<u8>>,
    expects: Arc<Vec<u8>>,
    write_chunk_max: usize,
    read_chunk: usize,
    /// Starts to send only after the other end has finished sending.
    speaks_second: bool,
    /// Resets after having sent and received that many bytes.
    resets_after: Option<(usize, usize)>,
    seed: u64,
}

/// A whole conversation.
#[derive(Clone, Debug)]
pub struct Plan {
    client: Part,
    server: Part,
    resets: Option<End>,
}

/// What one end saw.
#[derive(Debug)]
struct Seen {
    received: usize,
    wrong_at: Option<usize>,
    read_end: Result<(), io::Error>,
    write_end: Result<(), io::Error>,
}

/// Sum over many conversations.
#[derive(Debug, Default)]
pub struct Report {
    /// Conversations held.
    pub held: u64,
    /// Those that ended with a reset, as planned.
    pub resets: u64,
    /// Bytes received by both ends.
    pub bytes: u64,
    /// What went wrong, with the seed of each.
    pub wrong: Vec<String>,
}

/// Between which hosts, and how many at a time.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Host of the client ends.
    pub client: Host,
    /// Host of the server ends.
    pub server: Host,
    /// Address the client ends connect to.
    pub server_ip: IpAddr,
    /// Conversations at the same time.
    pub at_once: usize,
}

impl Plan {
    /// The conversation of that seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let up = Arc::new(random_bytes(&mut rng));
        let down = Arc::new(random_bytes(&mut rng));
        let resets = match rng.u8(0..10) {
            0 | 1 => Some(End::Client),
            2 | 3 => Some(End::Server),
            _ => None,
        };
        // If both waited for the other, or for one that never ends in order, neither would speak.
        let second = if resets.is_none() { rng.u8(0..4) } else { 3 };
        let mut part = |end, sends: &Arc<Vec<u8>>, expects: &Arc<Vec<u8>>| Part {
            sends: Arc::clone(sends),
            expects: Arc::clone(expects),
            write_chunk_max: write_chunk_max(&mut rng, sends.len()),
            read_chunk: [512, 4_096, 65_536][rng.usize(0..3)],
            speaks_second: matches!((end, second), (End::Client, 0) | (End::Server, 1)),
            resets_after: (resets == Some(end))
                .then(|| (rng.usize(0..=sends.len()), rng.usize(0..=expects.len()))),
            seed: rng.u64(..),
        };
        let client = part(End::Client, &up, &down);
        let server = part(End::Server, &down, &up);
        Self {
            client,
            server,
            resets,
        }
    }

    /// The end that resets, if one does.
    #[must_use]
    pub const fn resets(&self) -> Option<End> {
        self.resets
    }
}

/// Holds `count` conversations with the seeds from `first_seed` on.
///
/// # Panics
/// If a thread cannot be started.
#[must_use]
pub fn hold(stage: &Stage, first_seed: u64, count: u64) -> Report {
    let next = AtomicU64::new(first_seed);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..stage.at_once {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first_seed + count {
                        return;
                    }
                    let plan = Plan::from_seed(seed);
                    let verdict = converse(stage, &plan);
                    let mut report = report.lock().expect("report");
                    report.held += 1;
                    report.resets += u64::from(plan.resets.is_some());
                    match verdict {
                        Ok(bytes) => report.bytes += bytes,
                        Err(why) => report.wrong.push(format!("seed {seed}: {why}")),
                    }
                }
            });
        }
    });
    report.into_inner().expect("report")
}

fn converse(stage: &Stage, plan: &Plan) -> Result<u64, String> {
    let listener = stage
        .server
        .enter(|| apps::listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
    let to = SocketAddr::new(
        stage.server_ip,
        listener.local_addr().expect("bound").port(),
    );
    let client_over = Arc::new(AtomicBool::new(false));
    let (over, part) = (Arc::clone(&client_over), plan.server.clone());
    let server = stage
        .server
        .spawn(move || accept_until(&listener, &over).map(|s| play(s, &part)));
    let client = stage
        .client
        .enter(|| apps::connect(to).map(|stream| play(stream, &plan.client)));
    client_over.store(true, Ordering::Relaxed);
    let server = server.join().map_err(|_| "the server end panicked")?;
    let client = client.map_err(|e| format!("connect: {e}"))?;
    judge(plan, &client, server.as_ref())
}

/// Accepts the one connection of a conversation; `None` if the client end is over and none came.
fn accept_until(listener: &TcpListener, client_over: &AtomicBool) -> Option<TcpStream> {
    clock::try_wait_for(apps::PATIENCE, || {
        client_over
            .load(Ordering::Relaxed)
            .then_some(())
            .or_else(|| readable(listener).then_some(()))
    });
    apps::accept_within(listener, STRAGGLER).ok()
}

fn readable(listener: &TcpListener) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let soon = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    poll(&mut fds, Some(&soon)).is_ok_and(|ready| ready > 0)
}

/// Plays one part: sends and receives at the same time, then ends as planned.
fn play(stream: TcpStream, part: &Part) -> Seen {
    let (heard, wait_for_end) = mpsc::channel();
    let (send_limit, read_limit) = match part.resets_after {
        Some((sent, received)) => (sent, Some(received)),
        None => (part.sends.len(), None),
    };
    let seen = std::thread::scope(|scope| {
        let stream = &stream;
        let writer = scope.spawn(move || {
            if part.speaks_second {
                let _ = wait_for_end.recv();
            }
            speak(stream, &part.sends[..send_limit], part)
        });
        let (received, wrong_at, read_end) = listen_to(stream, part, read_limit);
        let _ = heard.send(());
        let write_end = writer.join().expect("writer");
        Seen {
            received,
            wrong_at,
            read_end,
            write_end,
        }
    });
    if part.resets_after.is_some() {
        apps::reset(stream);
    }
    seen
}

fn speak(mut stream: &TcpStream, bytes: &[u8], part: &Part) -> io::Result<()> {
    let mut rng = Rng::with_seed(part.seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = rng.usize(1..=part.write_chunk_max).min(rest.len());
        stream.write_all(&rest[..size])?;
        rest = &rest[size..];
    }
    if part.resets_after.is_none() {
        stream.shutdown(Shutdown::Write)?;
    }
    Ok(())
}

/// Receives up to `limit` bytes, or to the end, comparing each with what was to come.
fn listen_to(
    mut stream: &TcpStream,
    part: &Part,
    limit: Option<usize>,
) -> (usize, Option<usize>, io::Result<()>) {
    let mut buffer = vec![0; part.read_chunk];
    let mut received = 0;
    loop {
        let room = limit.map_or(buffer.len(), |limit| buffer.len().min(limit - received));
        if room == 0 {
            return (received, None, Ok(()));
        }
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return (received, None, Ok(())),
            Ok(n) => {
                let expected = part.expects.get(received..received + n);
                if expected != Some(&buffer[..n]) {
                    return (received, Some(received), Ok(()));
                }
                received += n;
            }
            Err(e) => return (received, None, Err(e)),
        }
    }
}

/// Compares what both ends saw with what they had to see.
fn judge(plan: &Plan, client: &Seen, server: Option<&Seen>) -> Result<u64, String> {
    for (end, seen) in [("client", Some(client)), ("server", server)] {
        let Some(at) = seen.and_then(|seen| seen.wrong_at) else {
            continue;
        };
        return Err(format!("the {end} end received wrong bytes near {at}"));
    }
    let Some(server) = server else {
        // A client that resets before it has heard anything may be gone before its tunnel is open.
        return match plan.client.resets_after {
            Some((_, 0)) => Ok(client.received as u64),
            _ => Err(format!(
                "no connection reached the server end; client saw {client:?}"
            )),
        };
    };
    let bytes = (client.received + server.received) as u64;
    match plan.resets {
        None => {
            judge_orderly("client", client, plan.client.expects.len())?;
            judge_orderly("server", server, plan.server.expects.len())?;
        }
        Some(End::Client) => judge_reset("server", server, &plan.client, client)?,
        Some(End::Server) => judge_reset("client", client, &plan.server, server)?,
    }
    Ok(bytes)
}

fn judge_orderly(end: &str, seen: &Seen, expected: usize) -> Result<(), String> {
    if seen.received != expected || seen.read_end.is_err() || seen.write_end.is_err() {
        return Err(format!(
            "the {end} end had to receive {expected} bytes and an end, saw {seen:?}"
        ));
    }
    Ok(())
}

/// The other end of a reset must learn of it, on reading or on writing, and must have received
/// nothing that was not sent.
fn judge_reset(end: &str, seen: &Seen, resetter: &Part, resetter_saw: &Seen) -> Result<(), String> {
    let (sent, read) = resetter.resets_after.unwrap_or_default();
    if resetter_saw.received != read || resetter_saw.read_end.is_err() {
        return Err(format!(
            "the resetting end had to receive {read} bytes, saw {resetter_saw:?}"
        ));
    }
    let told = [&seen.read_end, &seen.write_end]
        .into_iter()
        .any(|result| result.as_ref().is_err_and(apps::is_close));
    if !told {
        return Err(format!(
            "the {end} end took a reset for an orderly end: {seen:?}"
        ));
    }
    if seen.received > sent {
        return Err(format!(
            "the {end} end received more than the {sent} bytes sent: {seen:?}"
        ));
    }
    Ok(())
}

/// Between 0 bytes and [`BYTES_MAX`], each magnitude about equally often.
fn random_bytes(rng: &mut Rng) -> Vec<u8> {
    let magnitude = rng.u32(0..=23);
    let len = if magnitude == 0 {
        0
    } else {
        rng.usize(0..=(1 << magnitude).min(BYTES_MAX))
    };
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Small chunks only for small totals, or one conversation would take minutes.
fn write_chunk_max(rng: &mut Rng, total: usize) -> usize {
    let sizes: &[usize] = match total {
        0..=4_096 => &[1, 7, 100, 4_096],
        4_097..=262_144 => &[100, 1_500, 16_384, 65_536],
        _ => &[1_500, 16_384, 262_144, 1_048_576],
    };
    sizes[rng.usize(0..sizes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_conversation() {
        let (a, b) = (Plan::from_seed(7), Plan::from_seed(7));
        assert_eq!(a.client.sends, b.client.sends);
        assert_eq!(a.server.seed, b.server.seed);
        assert_ne!(a.client.sends, Plan::from_seed(8).client.sends);
    }

    #[test]
    fn plans_hold_empty_and_large_directions_and_every_kind_of_end() {
        let plans: Vec<Plan> = (0..300).map(Plan::from_seed).collect();
        assert!(plans.iter().any(|p| p.client.sends.is_empty()));
        assert!(plans.iter().any(|p| p.client.sends.len() > BYTES_MAX / 2));
        for end in [None, Some(End::Client), Some(End::Server)] {
            assert!(plans.iter().any(|p| p.resets == end), "{end:?}");
        }
        assert!(plans.iter().any(|p| p.client.speaks_second));
        assert!(
            plans
                .iter()
                .all(|p| !(p.client.speaks_second && p.server.speaks_second))
        );
    }

    fn seen(received: usize) -> Seen {
        Seen {
            received,
            wrong_at: None,
            read_end: Ok(()),
            write_end: Ok(()),
        }
    }

    #[test]
    fn a_short_orderly_conversation_is_wrong() {
        assert!(judge_orderly("client", &seen(4), 4).is_ok());
        assert!(judge_orderly("client", &seen(3), 4).is_err());
    }

    #[test]
    fn a_reset_that_looks_like_an_end_is_wrong() {
        let seed = (0..)
            .find(|s| Plan::from_seed(*s).resets == Some(End::Server))
            .unwrap();
        let plan = Plan::from_seed(seed);
        let (_, read) = plan.server.resets_after.unwrap();
        assert!(judge_reset("client", &seen(0), &plan.server, &seen(read)).is_err());
        let told = Seen {
            read_end: Err(io::ErrorKind::ConnectionReset.into()),
            ..seen(0)
        };
        assert!(judge_reset("client", &told, &plan.server, &seen(read)).is_ok());
    }

    #[test]
    fn conversations_without_a_node_between_are_all_right() {
        let listener = apps::listen(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
        let to = listener.local_addr().unwrap();
        for seed in 0..60 {
            let plan = Plan::from_seed(seed);
            let part = plan.server.clone();
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let server = scope.spawn(|| accept_until(&listener, &over).map(|s| play(s, &part)));
                let client = play(apps::connect(to).unwrap(), &plan.client);
                over.store(true, Ordering::Relaxed);
                judge(&plan, &client, server.join().unwrap().as_ref()).unwrap();
            });
        }
    }
}
