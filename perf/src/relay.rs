//! The plainest relay that is not careless: one copy in, one copy out, 256 KiB at a time, on epoll.
//!
//! It knows no identities, policies, metrics or logs. Two of them in a row, plus the cost of sealing
//! and opening records, are the floor that a tunnel's cost is held against.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

/// Bytes moved at once.
const BUFFER_BYTES: usize = 256 * 1_024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 8_192;
/// Buffers moved for one direction before others have their turn.
const TURNS: usize = 4;
/// The listener's number among the events.
const LISTENER: u64 = u64::MAX;

/// Relays connections to `port` towards `to`, on `threads` threads, until killed.
///
/// # Errors
/// If the port is taken, or epoll fails.
pub fn run(port: u16, to: SocketAddr, threads: usize) -> io::Result<()> {
    let listeners: io::Result<Vec<TcpListener>> = (0..threads).map(|_| listen(port)).collect();
    println!("{}", crate::apps::READY);
    std::thread::scope(|scope| {
        let serving: Vec<_> = listeners?
            .into_iter()
            .map(|listener| scope.spawn(move || serve(&listener, to)))
            .collect();
        for thread in serving {
            thread
                .join()
                .map_err(|_| io::Error::other("a thread died"))??;
        }
        Ok(())
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Both sockets of a connection, and for each direction what one could not take yet.
struct Pair {
    sides: [TcpStream; 2],
    directions: [Direction; 2],
}

#[derive(Default)]
struct Direction {
    waiting: Vec<u8>,
    ended: bool,
}

fn serve(listener: &TcpListener, to: SocketAddr) -> io::Result<()> {
    let ring = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &ring,
        listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut pairs: HashMap<u64, Pair> = HashMap::new();
    let mut next = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut again: Vec<u64> = Vec::new();
    loop {
        let mut events = [MaybeUninit::uninit(); 256];
        let timeout = (!again.is_empty()).then(rustix::event::Timespec::default);
        let (events, _) = epoll::wait(&ring, &mut events, timeout.as_ref())?;
        let mut ready = std::mem::take(&mut again);
        for event in events {
            let number = event.data.u64();
            if number != LISTENER {
                ready.push(number);
                continue;
            }
            while let Ok((client, _)) = listener.accept() {
                if let Ok(pair) = Pair::open(client, to) {
                    pair.watch(&ring, next)?;
                    pairs.insert(next, pair);
                    next += 1;
                }
            }
        }
        ready.sort_unstable();
        ready.dedup();
        for number in ready {
            let Some(pair) = pairs.get_mut(&number) else {
                continue;
            };
            match pair.advance(&mut buffer) {
                Progress::More => again.push(number),
                Progress::Waits => {}
                // Dropped sockets leave the epoll set by themselves.
                Progress::Over => drop(pairs.remove(&number)),
            }
        }
    }
}

enum Progress {
    More,
    Waits,
    Over,
}

impl Pair {
    fn open(client: TcpStream, to: SocketAddr) -> io::Result<Self> {
        let server = TcpStream::connect(to)?;
        for side in [&client, &server] {
            side.set_nonblocking(true)?;
            side.set_nodelay(true)?;
        }
        Ok(Self {
            sides: [client, server],
            directions: Default::default(),
        })
    }

    fn watch(&self, ring: impl std::os::fd::AsFd, number: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for side in &self.sides {
            epoll::add(&ring, side, EventData::new_u64(number), flags)?;
        }
        Ok(())
    }

    /// Moves what can be moved, both ways. Edges are only reported once, so a direction goes on until
    /// one side would block or it had its turns.
    fn advance(&mut self, buffer: &mut [u8]) -> Progress {
        let mut more = false;
        for way in 0..2 {
            let (from, to) = (&self.sides[way], &self.sides[1 - way]);
            match self.directions[way].advance(from, to, buffer) {
                Ok(unfinished) => more |= unfinished,
                Err(_) => return Progress::Over,
            }
        }
        if self.directions.iter().all(|direction| direction.ended) {
            Progress::Over
        } else if more {
            Progress::More
        } else {
            Progress::Waits
        }
    }
}

impl Direction {
    /// Whether there may be more to move at once.
    fn advance(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        for _ in 0..TURNS {
            while !self.waiting.is_empty() {
                match to.write(&self.waiting) {
                    Ok(n) => drop(self.waiting.drain(..n)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            if self.ended {
                return Ok(false);
            }
            let n = match from.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    to.shutdown(Shutdown::Write)?;
                    return Ok(false);
                }
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            };
            match to.write(&buffer[..n]) {
                Ok(written) => self.waiting.extend_from_slice(&buffer[written..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.waiting.extend_from_slice(&buffer[..n]);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_harness::apps::{self, Server};

    #[test]
    fn bytes_and_ends_pass_both_ways() {
        let app = Server::start_here(Ipv4Addr::LOCALHOST.into(), 0, apps::double);
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, app.port()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let entry = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, to));
        let request: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let answer = apps::exchange(entry, &request).unwrap();
        assert!(answer == [request.as_slice(), &request].concat());
        assert_eq!(apps::exchange(entry, b"").unwrap(), b"");
    }
}
