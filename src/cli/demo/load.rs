//! The demo's client: requests on one kept connection, how long they take, and every byte counted.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::error::DemoError;
use super::http::{self, HEAD_BYTES_MAX, Response};
use super::watch::{Watch, now};

/// Read timeout of the client's connections: how late Ctrl-C may be noticed.
pub(super) const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// Bytes read at once; bulk transfers should not be limited by the client's system calls.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of an answer that are kept to be shown.
const BEGINNING_BYTES: usize = 256;
/// Requests at the start of a measurement that do not count: caches and windows are still cold.
const WARM_UP_REQUESTS: u32 = 20;
/// Requests of one measurement at most, which bounds its memory.
const REQUESTS_MAX: usize = 200_000;
/// Bytes of the transfer that finds out how fast a path is.
const PROBE_BYTES: u64 = 8 << 20;
/// Bytes of a measured transfer: long enough to leave slow start behind, short enough for a demo.
const BULK_BYTES: std::ops::RangeInclusive<u64> = PROBE_BYTES..=1 << 30;

/// Payload bytes, counted at the client's socket.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl Meter {
    /// Bytes written and read so far.
    pub(super) const fn totals(&self) -> (u64, u64) {
        (self.sent.get(), self.received.get())
    }
}

/// A connection to the application, direct or through the tunnel.
pub(super) struct Client<'a> {
    stream: TcpStream,
    meter: &'a Meter,
    watch: &'a Watch,
    piece: Vec<u8>,
    waiting: Vec<u8>,
}

/// An answer with the beginning of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) length: u64,
    pub(super) beginning: String,
}

/// Why a request got no answer: the demo's own end, or what became of the connection.
pub(super) type Asked = Result<io::Result<Answer>, DemoError>;

impl<'a> Client<'a> {
    /// Prepares a connected stream.
    pub(super) fn new(stream: TcpStream, meter: &'a Meter, watch: &'a Watch) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self {
            stream,
            meter,
            watch,
            piece: vec![0; PIECE_BYTES],
            waiting: Vec::new(),
        })
    }

    /// Sends one request and reads its whole answer.
    pub(super) fn ask(&mut self, path: &str) -> Asked {
        let request = format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n");
        self.send(request.as_bytes())
    }

    fn send(&mut self, request: &[u8]) -> Asked {
        if let Err(error) = self.stream.write_all(request) {
            return Ok(Err(error));
        }
        self.meter
            .sent
            .set(self.meter.sent.get() + request.len() as u64);
        let response = match self.head()? {
            Ok(response) => response,
            Err(error) => return Ok(Err(error)),
        };
        let Some(length) = response.length else {
            return Ok(Err(io::ErrorKind::InvalidData.into()));
        };
        let here = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(self.waiting.len());
        let mut beginning = text(&self.waiting[..here]);
        self.waiting.drain(..here);
        let mut left = length - here as u64;
        while left > 0 {
            let read = match self.read()? {
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(read);
            if beginning.is_empty() {
                beginning = text(&self.piece[..used]);
            }
            self.waiting.extend_from_slice(&self.piece[used..read]);
            left -= used as u64;
        }
        Ok(Ok(Answer {
            status: response.status,
            length,
            beginning,
        }))
    }

    fn head(&mut self) -> Result<io::Result<Response>, DemoError> {
        loop {
            if let Some(length) = http::head_length(&self.waiting) {
                let response = http::parse_response(&self.waiting[..length]);
                self.waiting.drain(..length);
                return Ok(response.ok_or_else(|| io::ErrorKind::InvalidData.into()));
            }
            if self.waiting.len() > HEAD_BYTES_MAX {
                return Ok(Err(io::ErrorKind::InvalidData.into()));
            }
            match self.read()? {
                Ok(read) => self.waiting.extend_from_slice(&self.piece[..read]),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Reads into `piece`, at least one byte.
    fn read(&mut self) -> Result<io::Result<usize>, DemoError> {
        let read = match http::read_some(&mut self.stream, &mut self.piece, self.watch)? {
            Ok(0) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        self.meter
            .received
            .set(self.meter.received.get() + read as u64);
        Ok(Ok(read))
    }

    /// As [`Self::ask`], for requests that have to succeed.
    fn expect(&mut self, path: &str) -> Result<Answer, DemoError> {
        match self.ask(path)? {
            Ok(answer) if answer.status == 200 => Ok(answer),
            Ok(answer) => Err(DemoError::unexpected(
                format!("200 for {path}"),
                answer.status.to_string(),
            )),
            Err(source) => Err(DemoError::Io {
                what: format!("fetch {path}"),
                source,
            }),
        }
    }

    /// Fetches so much that it takes about `time`; returns bits per second.
    pub(super) fn bulk(&mut self, time: Duration) -> Result<f64, DemoError> {
        let probe = self.fetch(PROBE_BYTES)?;
        self.fetch(bulk_bytes(probe, time))
    }

    fn fetch(&mut self, bytes: u64) -> Result<f64, DemoError> {
        let began = now();
        self.expect(&format!("/bulk/{bytes}"))?;
        Ok(bits(bytes) / began.elapsed().as_secs_f64().max(1e-9))
    }

    /// Asks one small request after the other for `time`.
    pub(super) fn requests(&mut self, time: Duration) -> Result<Latencies, DemoError> {
        for _ in 0..WARM_UP_REQUESTS {
            self.expect("/")?;
        }
        let mut each = Vec::new();
        let began = now();
        while began.elapsed() < time && each.len() < REQUESTS_MAX {
            let asked = now();
            self.expect("/")?;
            each.push(asked.elapsed());
            if each.len().is_multiple_of(256) {
                self.watch.check()?;
            }
        }
        Ok(Latencies::new(each, began.elapsed()))
    }
}

/// The beginning of a body, as text.
fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(BEGINNING_BYTES)]).into_owned()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is shown with three digits"
)]
const fn bits(bytes: u64) -> f64 {
    bytes as f64 * 8.0
}

/// Bytes that take about `time` at `rate` bits per second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer saturates, and the result is clamped"
)]
fn bulk_bytes(rate: f64, time: Duration) -> u64 {
    let bytes = (rate / 8.0 * time.as_secs_f64()) as u64;
    bytes.clamp(*BULK_BYTES.start(), *BULK_BYTES.end())
}

/// How long the requests of one measurement took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Latencies {
    sorted: Vec<Duration>,
    /// Requests per second, one after the other.
    pub(super) rate: f64,
}

impl Latencies {
    fn new(mut each: Vec<Duration>, whole: Duration) -> Self {
        each.sort_unstable();
        let count = u32::try_from(each.len()).unwrap_or(u32::MAX);
        let rate = f64::from(count) / whole.as_secs_f64().max(1e-9);
        Self { sorted: each, rate }
    }

    /// The time that `percent` of the requests did not exceed (nearest rank); zero without any.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100);
        self.sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

/// The middle value; of an even number the higher one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::backend::{Backend, GREETING};
    use super::*;

    fn watch() -> Watch {
        Watch::start(Duration::from_secs(20)).unwrap()
    }

    fn backend() -> Backend {
        Backend::start(TcpListener::bind("127.0.0.1:0").unwrap(), None).unwrap()
    }

    #[test]
    fn every_byte_of_an_exchange_is_counted() {
        let (backend, watch, meter) = (backend(), watch(), Meter::default());
        let stream = TcpStream::connect(backend.address()).unwrap();
        let mut client = Client::new(stream, &meter, &watch).unwrap();
        let answer = client.ask("/").unwrap().unwrap();
        assert_eq!((answer.status, answer.beginning.as_str()), (200, GREETING));
        let request = "GET / HTTP/1.1\r\nHost: server\r\n\r\n".len() as u64;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n\
                    Connection: keep-alive\r\n\r\n";
        assert_eq!(
            meter.totals(),
            (request, (head.len() + GREETING.len()) as u64)
        );
        let bulk = client.ask("/bulk/300000").unwrap().unwrap();
        assert_eq!(bulk.length, 300_000);
        assert!(meter.totals().1 > 300_000);
    }

    #[test]
    fn a_connection_cut_before_the_answer_is_an_error_of_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        let (watch, meter) = (watch(), Meter::default());
        let mut client = Client::new(stream, &meter, &watch).unwrap();
        assert!(client.ask("/").unwrap().is_err());
        assert_eq!(meter.totals().1, 0);
    }

    #[test]
    fn an_answer_other_than_200_fails_a_measurement() {
        let (backend, watch, meter) = (backend(), watch(), Meter::default());
        let stream = TcpStream::connect(backend.address()).unwrap();
        let mut client = Client::new(stream, &meter, &watch).unwrap();
        let error = client.expect("/nothing").unwrap_err();
        assert_eq!(error.to_string(), "expected 200 for /nothing, but 404");
        let latencies = client.requests(Duration::from_millis(20)).unwrap();
        assert!(latencies.rate > 0.0 && latencies.percentile(50) > Duration::ZERO);
        assert!(client.bulk(Duration::from_millis(1)).unwrap() > 0.0);
    }

    #[test]
    fn percentiles_are_the_nearest_ranks() {
        let each = (1..=100).rev().map(Duration::from_micros).collect();
        let latencies = Latencies::new(each, Duration::from_secs(1));
        assert_eq!(latencies.percentile(50), Duration::from_micros(50));
        assert_eq!(latencies.percentile(99), Duration::from_micros(99));
        assert_eq!(latencies.percentile(100), Duration::from_micros(100));
        assert!((latencies.rate - 100.0).abs() < 1e-9);
        let one = Latencies::new(vec![Duration::from_micros(7)], Duration::from_secs(1));
        assert_eq!(one.percentile(50), Duration::from_micros(7));
        let none = Latencies::new(Vec::new(), Duration::ZERO);
        assert_eq!((none.percentile(99), none.rate), (Duration::ZERO, 0.0));
    }

    #[test]
    fn the_median_ignores_one_outlier() {
        assert!((median(vec![3.0, 900.0, 2.0]) - 3.0).abs() < 1e-9);
        assert!((median(Vec::new())).abs() < 1e-9);
    }

    #[test]
    fn the_length_of_a_transfer_stays_in_bounds() {
        let second = Duration::from_secs(1);
        assert_eq!(bulk_bytes(8e8, second), 100_000_000);
        assert_eq!(bulk_bytes(1.0, second), *BULK_BYTES.start());
        assert_eq!(bulk_bytes(f64::INFINITY, second), *BULK_BYTES.end());
        assert_eq!(bulk_bytes(f64::NAN, second), *BULK_BYTES.start());
    }
}
