//! A steady load: callers that make round trips with echoing applications at a given rate, until they are
//! stopped, and what came of it. The rate is kept on average: a caller that was held up catches up.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::apps;
use crate::hosts::Host;

/// Failures a caller describes; more are counted only.
const DESCRIBED_MAX: usize = 1_000;

/// What callers have done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Round trips that were right.
    pub requests: usize,
    /// Connections made.
    pub connections: usize,
    /// Round trips and connections that failed.
    pub failed: usize,
    /// The first failures of each caller: when they were noticed, and what they were.
    pub failures: Vec<(SystemTime, String)>,
    /// Longest round trip, with its connect where it had one.
    pub slowest: Duration,
}

/// Running callers. Dropped, they end with the request they are at.
#[derive(Debug)]
pub struct Load {
    host: Option<Host>,
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<Done>>,
}

impl Load {
    /// No caller yet; they will run on `host`, or here.
    #[must_use]
    pub fn new(host: Option<Host>) -> Self {
        Self {
            host,
            stop: Arc::default(),
            failed: Arc::default(),
            callers: Vec::new(),
        }
    }

    /// Adds a caller that `rate` times a second opens a connection, makes a round trip and ends it in
    /// order.
    #[must_use]
    pub fn short(self, rate: u32, connect: impl Connect) -> Self {
        self.caller(move |caller| {
            caller.run(rate, |number, done| {
                let mut stream = connect()?;
                done.connections += 1;
                ask(&mut stream, number)?;
                end(&stream)
            })
        })
    }

    /// Adds a caller that holds `count` connections and makes `rate` round trips a second on them, in
    /// turn. One that fails is replaced.
    #[must_use]
    pub fn long(self, rate: u32, count: usize, connect: impl Connect) -> Self {
        self.holding(rate, (count, u32::MAX), connect)
    }

    /// Adds a caller that makes `rate` round trips a second on one connection, which it ends in order
    /// and replaces after every `requests`.
    #[must_use]
    pub fn brief(self, rate: u32, requests: u32, connect: impl Connect) -> Self {
        self.holding(rate, (1, requests), connect)
    }

    fn holding(self, rate: u32, (count, requests): (usize, u32), connect: impl Connect) -> Self {
        self.caller(move |caller| {
            let mut held: Vec<Option<(TcpStream, u32)>> = (0..count).map(|_| None).collect();
            caller.run(rate, |number, done| {
                let index = usize::try_from(number).unwrap_or_default() % count;
                let (mut stream, asked) = match held[index].take() {
                    Some(held) => held,
                    None => {
                        done.connections += 1;
                        (connect()?, 0)
                    }
                };
                ask(&mut stream, number)?;
                if asked + 1 == requests {
                    return end(&stream);
                }
                held[index] = Some((stream, asked + 1));
                Ok(())
            })
        })
    }

    /// Failures so far.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends all callers.
    ///
    /// # Panics
    /// If one has panicked.
    #[must_use]
    pub fn stop(mut self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Done::default();
        for caller in self.callers.drain(..) {
            let done = caller.join().expect("a caller");
            all.requests += done.requests;
            all.connections += done.connections;
            all.failed += done.failed;
            all.failures.extend(done.failures);
            all.slowest = all.slowest.max(done.slowest);
        }
        all
    }

    fn caller(mut self, work: impl FnOnce(Caller) -> Done + Send + 'static) -> Self {
        let caller = Caller {
            stop: Arc::clone(&self.stop),
            failed: Arc::clone(&self.failed),
        };
        let work = move || work(caller);
        self.callers.push(match &self.host {
            Some(host) => host.spawn(work),
            None => std::thread::spawn(work),
        });
        self
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Done {
    /// Says what failed, if anything did.
    ///
    /// # Panics
    /// If anything failed, or fewer requests than these were made.
    #[track_caller]
    pub fn assert_whole(&self, requests_min: usize) {
        assert_eq!(self.failed, 0, "{self:?}");
        assert!(self.requests >= requests_min, "{requests_min}: {self:?}");
    }
}

/// Makes the connections of a caller.
pub trait Connect: Fn() -> io::Result<TcpStream> + Send + 'static {}

impl<T: Fn() -> io::Result<TcpStream> + Send + 'static> Connect for T {}

struct Caller {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
}

impl Caller {
    fn run(&self, rate: u32, mut request: impl FnMut(u32, &mut Done) -> io::Result<()>) -> Done {
        let (began, pause) = (Instant::now(), Duration::from_secs(1) / rate);
        let mut done = Done::default();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            // A rate is kept, nothing is waited for.
            std::thread::sleep((pause * number).saturating_sub(began.elapsed()));
            let before = Instant::now();
            match request(number, &mut done) {
                Ok(()) => done.requests += 1,
                Err(error) => {
                    done.failed += 1;
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    if done.failures.len() < DESCRIBED_MAX {
                        let what = format!("request {number}: {error}");
                        done.failures.push((SystemTime::now(), what));
                    }
                }
            }
            done.slowest = done.slowest.max(before.elapsed());
        }
        done
    }
}

fn ask(stream: &mut TcpStream, number: u32) -> io::Result<()> {
    let request = format!("request {number:>10}").into_bytes();
    if apps::round_trip(stream, &request)? == request {
        return Ok(());
    }
    Err(io::Error::other("another answer than the request"))
}

fn end(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    match io::Read::read(&mut &*stream, &mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes after the answer")),
    }
}
