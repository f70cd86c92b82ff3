//! How a connection ends at one end is how it ends at the other: an orderly end stays an orderly end,
//! a reset or a vanished peer becomes a reset, and never the other way round. Before, during and after
//! data, from the client's and from the server's side, through a tunnel and in plain text.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corelane_harness::apps;
use corelane_harness::capture;
use corelane_harness::hosts::{Family, Host, Network};
use corelane_harness::node::Driver;
use corelane_harness::pair::{Options, Pair};
use corelane_harness::requirements::has_netns;

use crate::CORELANE;

/// Bytes exchanged before the end, where there are any.
const AMOUNT: usize = 64 * 1024;

/// Keepalive and user timeout of the nodes find a vanished peer after 1 + 2 × 1 s.
const NOTICED: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Fin,
    Rst,
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    During,
    After,
}

const SIDES: [Side; 2] = [Side::Client, Side::Server];
const EVENTS: [Event; 3] = [Event::Fin, Event::Rst, Event::Timeout];
const PHASES: [Phase; 3] = [Phase::Before, Phase::During, Phase::After];

with_both_drivers!(
    every_kind_of_end_arrives_as_itself_through_a_tunnel,
    every_kind_of_end_arrives_as_itself_in_plain_text,
    a_cut_between_the_nodes_resets_both_ends,
);

fn every_kind_of_end_arrives_as_itself_through_a_tunnel(driver: Driver) {
    let pair = start(driver);
    run(&pair.client_host, &pair.server_host, |_, _| true);
}

fn every_kind_of_end_arrives_as_itself_in_plain_text(driver: Driver) {
    let pair = start(driver);
    // The outside host has no node of its own: a vanished server is not the node's to find there.
    run(&pair.client_host, &pair.outside_host, |side, event| {
        (side, event) != (Side::Server, Event::Timeout)
    });
}

fn a_cut_between_the_nodes_resets_both_ends(driver: Driver) {
    let options = Options::new(driver)
        .setting("timeouts.pingInterval", "1s")
        .setting("timeouts.ping", "1s");
    let pair = Pair::start(CORELANE, options);
    let both = connect(&pair.client_host, &pair.server_host, Side::Client).unwrap();
    let (mut near, mut far) = (both.ends, both.told);
    exchange(&mut near, &mut far).unwrap();
    near.set_read_timeout(Some(NOTICED)).unwrap();
    capture::cut_off(&pair.server_host);
    expect_reset(&mut near).unwrap();
    expect_reset(&mut far).unwrap();
}

#[test]
fn the_same_is_expected_of_plain_tcp_without_nodes() {
    if !has_netns("the_same_is_expected_of_plain_tcp_without_nodes") {
        return;
    }
    let network = Network::new(&["a", "b"]);
    let (a, b) = (network.host("a"), network.host("b"));
    // Nobody watches over a direct connection, so a vanished peer stays unnoticed.
    run(&a, &b, |_, event| event != Event::Timeout);
}

fn start(driver: Driver) -> Pair {
    let options = Options::new(driver)
        .env("KEEPALIVE_TIME", "1s")
        .env("KEEPALIVE_INTERVAL", "1s")
        .env("KEEPALIVE_RETRIES", "2")
        .env("USER_TIMEOUT_ENABLED", "true");
    Pair::start(CORELANE, options)
}

/// Runs the wanted cells and reports all that fail, not only the first.
fn run(client: &Host, server: &Host, wanted: impl Fn(Side, Event) -> bool) {
    let cells = cells().filter(|(side, event, _)| wanted(*side, *event));
    let failures: Vec<String> = cells
        .filter_map(|cell| run_cell(client, server, cell).err())
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

type Cell = (Side, Event, Phase);

fn cells() -> impl Iterator<Item = Cell> {
    SIDES.into_iter().flat_map(|side| {
        EVENTS
            .into_iter()
            .flat_map(move |event| PHASES.map(|phase| (side, event, phase)))
    })
}

/// One connection: `ends` is the socket at which the event happens, `told` the one that must learn of
/// it.
struct Ends {
    ends: TcpStream,
    told: TcpStream,
    /// Host of `ends`, and the port there that its node sees.
    host: Host,
    port: u16,
}

fn run_cell(client: &Host, server: &Host, cell: Cell) -> Result<(), String> {
    let (side, event, phase) = cell;
    let mut pair = connect(client, server, side).map_err(|e| format!("{cell:?}: connect: {e}"))?;
    let result = match phase {
        Phase::Before => end_in_silence(pair, event),
        Phase::After => exchange(&mut pair.ends, &mut pair.told)
            .and_then(|()| exchange(&mut pair.told, &mut pair.ends))
            .map_err(|e| format!("exchange: {e}"))
            .and_then(|()| end_in_silence(pair, event)),
        Phase::During => end_in_a_flood(pair, event),
    };
    result.map_err(|why| format!("{cell:?}: {why}"))
}

fn connect(client: &Host, server: &Host, side: Side) -> io::Result<Ends> {
    let listener = server.enter(|| apps::listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
    let to = SocketAddr::new(server.ip(Family::V4), listener.local_addr()?.port());
    let near = client.enter(|| apps::connect(to))?;
    let far = apps::accept_within(&listener, apps::PATIENCE)?;
    let ends = match side {
        Side::Client => {
            let port = near.local_addr()?.port();
            Ends {
                ends: near,
                told: far,
                host: client.clone(),
                port,
            }
        }
        Side::Server => {
            let port = far.peer_addr()?.port();
            Ends {
                ends: far,
                told: near,
                host: server.clone(),
                port,
            }
        }
    };
    ends.told.set_read_timeout(Some(NOTICED))?;
    Ok(ends)
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    let sent: Vec<u8> = (0..=255).cycle().take(AMOUNT).collect();
    from.write_all(&sent)?;
    let mut received = vec![0; AMOUNT];
    to.read_exact(&mut received)?;
    if sent == received {
        Ok(())
    } else {
        Err(io::Error::other("bytes changed"))
    }
}

/// The event while nobody is sending.
fn end_in_silence(pair: Ends, event: Event) -> Result<(), String> {
    let Ends {
        mut ends,
        mut told,
        host,
        port,
    } = pair;
    match event {
        Event::Fin => {
            ends.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
            expect_end(&mut told)?;
            // Only one direction has ended: the other still carries bytes, then ends too.
            exchange(&mut told, &mut ends).map_err(|e| format!("after the half close: {e}"))?;
            told.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
            expect_end(&mut ends)
        }
        Event::Rst => {
            apps::reset(ends);
            expect_reset(&mut told)
        }
        Event::Timeout => {
            capture::drop_port(&host, port);
            expect_reset(&mut told)
        }
    }
}

/// The event after the ending side has sent some bytes and while the other side sends without pause.
fn end_in_a_flood(pair: Ends, event: Event) -> Result<(), String> {
    let Ends {
        mut ends,
        mut told,
        host,
        port,
    } = pair;
    exchange(&mut ends, &mut told).map_err(|e| format!("exchange: {e}"))?;
    let stop = AtomicBool::new(false);
    let writing = told.try_clone().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&writing, &stop));
        let mut some = vec![0; AMOUNT];
        ends.read_exact(&mut some)
            .map_err(|e| format!("during the flood: {e}"))?;
        let verdict = match event {
            Event::Fin => {
                ends.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
                let end = expect_end(&mut told);
                stop.store(true, Ordering::Relaxed);
                let rest = apps::read_to_end(&mut ends).map_err(|e| format!("the flood: {e}"))?;
                let (sent, result) = flood.join().expect("flood");
                result.map_err(|e| format!("the flood: {e}"))?;
                if rest + AMOUNT != sent {
                    return Err(format!("{sent} bytes sent, {} received", rest + AMOUNT));
                }
                return end;
            }
            Event::Rst => {
                apps::reset(ends);
                expect_reset_somewhere(&mut told, || flood.join().expect("flood").1)
            }
            Event::Timeout => {
                capture::drop_port(&host, port);
                expect_reset_somewhere(&mut told, || flood.join().expect("flood").1)
            }
        };
        stop.store(true, Ordering::Relaxed);
        verdict
    })
}

/// Sends until told to stop, then ends in order; returns the bytes sent.
fn flood(mut stream: &TcpStream, stop: &AtomicBool) -> (usize, io::Result<()>) {
    let chunk = vec![7; 16 * 1024];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Err(e) = stream.write_all(&chunk) {
            return (sent, Err(e));
        }
        sent += chunk.len();
    }
    (sent, stream.shutdown(Shutdown::Write))
}

fn expect_end(stream: &mut TcpStream) -> Result<(), String> {
    match stream.read(&mut [0; 16]) {
        Ok(0) => Ok(()),
        other => Err(format!("expected an orderly end, got {other:?}")),
    }
}

fn expect_reset(stream: &mut TcpStream) -> Result<(), String> {
    match stream.read(&mut [0; 16]) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("expected a reset, got {other:?}")),
    }
}

/// The kernel tells of a reset once: the reader or the writer learns of it, whoever comes first.
fn expect_reset_somewhere(
    stream: &mut TcpStream,
    written: impl FnOnce() -> io::Result<()>,
) -> Result<(), String> {
    let read = stream.read(&mut [0; 16]);
    let write = written();
    let read_told = read
        .as_ref()
        .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
    let write_told = write.as_ref().is_err_and(apps::is_close);
    let read_ended = !matches!(&read, Ok(1..));
    if read_ended && (read_told || write_told) {
        return Ok(());
    }
    Err(format!(
        "expected a reset, reading gave {read:?} and writing {write:?}"
    ))
}
