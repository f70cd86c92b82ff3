//! Descriptors: a whole life leaves none behind, and running out of them hangs nobody. Run in
//! processes of their own, because descriptors are counted for the process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::node::{DRIVERS, Mute, Pair, Running, exchange, forward, patient, until};
use crate::config::DriverChoice;
use crate::dataplane::shard::Message;
use crate::telemetry::counters::Limit;

const INNER: &str = "dataplane::tests::life::descriptors_before_and_after_a_life";

fn descriptors() -> usize {
    // The one that lists them is listed too, each time.
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Connections in every state: relayed, half closed, refused, dialling, shaking hands, silent.
fn live(driver: DriverChoice, end: fn() -> Message) {
    let mut plans = super::node::Plans::new();
    // The mute application is dialled by the server's node.
    plans.server.config.timeouts.dial = Duration::from_millis(300);
    let mute = Mute::new();
    let (closed, refused) = super::node::server();
    drop(closed);
    plans.client.listen.push(forward(mute.addr, "client"));
    plans.client.listen.push(forward(refused, "client"));
    let pair: Pair = plans.start(driver);
    let mut open: Vec<_> = (0..20).map(|_| pair.open()).collect();
    for (client, server) in &mut open {
        exchange(client, server);
    }
    open[0].0.shutdown(std::net::Shutdown::Write).unwrap();
    let silent = pair.server.connect();
    let others: Vec<_> = pair.client.addrs[1..]
        .iter()
        .map(|addr| TcpStream::connect(addr).unwrap())
        .collect();
    until("all connections", || {
        pair.client.counters.connections_open.get() >= 21
    });
    if matches!(end(), Message::Drain) {
        drop((open, silent, others));
        pair.stop(end);
    } else {
        pair.stop(end);
        drop((open, silent, others));
    }
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn descriptors_before_and_after_a_life() {
    for driver in DRIVERS {
        for end in [(|| Message::Drain) as fn() -> Message, || Message::Force] {
            // The first life fills what a process keeps: thread-local buffers, library state.
            live(driver, end);
            until("the kernel to take back its rings", || {
                let before = descriptors();
                std::thread::yield_now();
                descriptors() == before
            });
            let before = descriptors();
            live(driver, end);
            until("every descriptor to be closed", || descriptors() <= before);
        }
    }
}

#[test]
fn a_whole_life_leaves_no_descriptor_behind() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", INNER, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(
        run.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}

const SHORT: &str = "dataplane::tests::life::a_node_with_few_descriptors";
const ADDRESS: &str = "it listens on ";
const COUNTS: &str = "it has reached its limit ";

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn a_node_with_few_descriptors() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (driver, to) = line.trim().split_once(' ').unwrap();
    let driver = if driver == "epoll" {
        DriverChoice::Epoll
    } else {
        DriverChoice::IoUring
    };
    let node = Running::start(driver, to.parse().unwrap(), |config| {
        config.limits.connections = Some(10_000);
    });
    writeln!(std::io::stdout(), "{ADDRESS}{}", node.addr()).unwrap();
    std::io::stdin().read_line(&mut line).unwrap();
    writeln!(
        std::io::stdout(),
        "{COUNTS}{}",
        node.limit(Limit::Descriptors)
    )
    .unwrap();
    node.stop(Message::Force);
}

/// Reads the child's output up to a line that begins so.
fn told(lines: &mut impl BufRead, what: &str) -> String {
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if let Some((_, told)) = line.split_once(what) {
            return told.trim().to_owned();
        }
        line.clear();
    }
    panic!("the child ended without saying {what:?}");
}

#[test]
fn out_of_descriptors_a_node_resets_who_waits_and_recovers() {
    let application = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = application.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = application.accept() {
            // Leaves with its client; one that is gone again needs no greeting.
            std::thread::spawn(move || {
                let _ = stream.write_all(b"!");
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    for driver in ["io_uring", "epoll"] {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n 120; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                SHORT,
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut orders = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        writeln!(orders, "{driver} {to}").unwrap();
        let node: SocketAddr = told(&mut lines, ADDRESS).parse().unwrap();
        // A reset may be here before the connect has returned.
        let connect = || TcpStream::connect(node).map(patient);
        let mut clients: Vec<_> = (0..200).map(|_| connect()).collect();
        let mut served = 0;
        for client in &mut clients {
            // Served or cut; an error for lack of time would mean left hanging.
            let read = match client {
                Ok(client) => client.read(&mut [0]),
                Err(error) => Err(error.kind().into()),
            };
            match read {
                Ok(read) => served += read,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            }
        }
        assert!((10..200).contains(&served), "{driver}: {served}");
        drop(clients);
        until("a connection to be served again", || {
            matches!(
                connect().and_then(|mut client| client.read(&mut [0])),
                Ok(1)
            )
        });
        writeln!(orders).unwrap();
        let reached: u64 = told(&mut lines, COUNTS).parse().unwrap();
        assert!(reached > 0, "{driver}");
        assert!(child.wait().unwrap().success(), "{driver}");
    }
}
