//! The lab's own applications: the servers that all work goes to, and the clients that no common tool
//! offers. Each runs as a process of its own in its host.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::stats;

/// Answers each HTTP/1.1 request with two bytes.
pub const HTTP_PORT: u16 = 8_080;
/// Sends everything back.
pub const ECHO_PORT: u16 = 7_000;
/// Sends without end.
pub const SOURCE_PORT: u16 = 9_000;
/// iperf3's own.
pub const IPERF_PORT: u16 = 5_201;
/// All of them, for capture rules.
pub const PORTS: [u16; 4] = [HTTP_PORT, ECHO_PORT, SOURCE_PORT, IPERF_PORT];

/// What a client prints once all its connections stand.
pub const READY: &str = "ready";

/// Bytes of a ping-pong message, and of the proof that a held connection works.
const MESSAGE_BYTES: usize = 64;
/// Dials under way at once: fewer than the unauthenticated connections a node takes from one address.
const DIALS: usize = 32;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 8_192;
/// A request longer than this is not from our tools.
const REQUEST_BYTES_MAX: usize = 8 * 1_024;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Serves on all ports until killed.
///
/// # Errors
/// If a port is taken.
pub fn serve() -> io::Result<()> {
    runtime()?.block_on(async {
        let [http, echo, source] = [HTTP_PORT, ECHO_PORT, SOURCE_PORT].map(listen);
        let (http, echo, source) = (http?, echo?, source?);
        println!("{READY}");
        tokio::join!(
            accept(http, answer),
            accept(echo, send_back),
            accept(source, send_without_end)
        );
        Ok(())
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(BACKLOG)
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it small answers wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::with_capacity(1_024);
    while stream.read_buf(&mut request).await? > 0 {
        while let Some(end) = find(&request, b"\r\n\r\n") {
            if find(&request[..end], b"onnection: close").is_some() {
                stream.write_all(LAST_ANSWER).await?;
                return stream.shutdown().await;
            }
            request.drain(..end + 4);
            stream.write_all(ANSWER).await?;
        }
        if request.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

async fn send_back(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 4 * 1_024];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..n]).await?;
    }
}

async fn send_without_end(mut stream: TcpStream) -> io::Result<()> {
    let block = vec![b'x'; 256 * 1_024];
    loop {
        stream.write_all(&block).await?;
    }
}

/// Opens `count` connections to the echo server, proves each by a round trip, says so, and holds them
/// until killed.
///
/// # Errors
/// If one fails.
pub fn hold(to: SocketAddr, count: usize) -> io::Result<()> {
    runtime()?.block_on(async {
        let streams = open(to, count, async |stream: &mut TcpStream| {
            stream.write_all(&[b'h'; MESSAGE_BYTES]).await?;
            let mut back = [0; MESSAGE_BYTES];
            stream.read_exact(&mut back).await.map(|_| ())
        });
        let streams = streams.await?;
        println!("{READY} {}", streams.len());
        std::future::pending::<io::Result<()>>().await
    })
}

/// Opens `count` connections to the server that sends without end, reads one byte of each, says so,
/// and never reads again.
///
/// # Errors
/// If one fails.
pub fn stall(to: SocketAddr, count: usize) -> io::Result<()> {
    runtime()?.block_on(async {
        let streams = open(to, count, async |stream: &mut TcpStream| {
            stream.read_exact(&mut [0; 1]).await.map(|_| ())
        });
        let streams = streams.await?;
        println!("{READY} {}", streams.len());
        std::future::pending::<io::Result<()>>().await
    })
}

async fn open(
    to: SocketAddr,
    count: usize,
    prove: impl AsyncFn(&mut TcpStream) -> io::Result<()> + Copy,
) -> io::Result<Vec<TcpStream>> {
    let local = tokio::task::LocalSet::new();
    let mut streams = Vec::with_capacity(count);
    let mut dials = JoinSet::new();
    let _entered = local.enter();
    local
        .run_until(async {
            while streams.len() < count {
                while dials.len() < DIALS && streams.len() + dials.len() < count {
                    dials.spawn_local(TcpStream::connect(to));
                }
                let Some(joined) = dials.join_next().await else {
                    break;
                };
                let mut stream = joined.map_err(io::Error::other)??;
                prove(&mut stream).await?;
                streams.push(stream);
            }
            Ok(streams)
        })
        .await
}

/// What a ping-pong measured; printed as JSON.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct PingPong {
    /// Round trips.
    pub round_trips: f64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
}

/// Sends 64 bytes to the echo server and waits for them, again and again on one connection, with
/// blocking calls: nothing but the path between is measured.
///
/// # Errors
/// If the connection fails.
pub fn ping_pong(to: SocketAddr, span: Duration) -> io::Result<PingPong> {
    let mut stream = std::net::TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let (message, mut back) = ([b'p'; MESSAGE_BYTES], [0; MESSAGE_BYTES]);
    let mut times: Vec<u64> = Vec::with_capacity(1 << 20);
    let started = Instant::now();
    let mut last = started;
    while last - started < span {
        stream.write_all(&message)?;
        stream.read_exact(&mut back)?;
        let now = Instant::now();
        times.push(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX));
        last = now;
    }
    let seconds = (last - started).as_secs_f64();
    times.sort_unstable();
    let microseconds = |q| stats::quantile(&times, q).map_or(0.0, |ns| ns as f64 / 1e3);
    Ok(PingPong {
        round_trips: times.len() as f64,
        seconds,
        p50_us: microseconds(0.5),
        p99_us: microseconds(0.99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_where_it_is() {
        assert_eq!(find(b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n"), Some(14));
        assert_eq!(find(b"GET", b"\r\n\r\n"), None);
    }

    #[test]
    fn each_request_is_answered_and_the_last_one_closes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let serve = async { answer(TcpStream::from_std(stream)?).await };
            runtime().unwrap().block_on(serve).unwrap();
        });
        let mut client = std::net::TcpStream::connect(to).unwrap();
        let two = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        client.write_all(two).unwrap();
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        assert_eq!(answers, [ANSWER, LAST_ANSWER].concat());
    }

    #[test]
    fn a_ping_pong_counts_its_round_trips() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            corelane_harness::apps::echo(stream);
        });
        let result = ping_pong(to, Duration::from_millis(30)).unwrap();
        assert!(result.round_trips > 0.0 && result.p99_us >= result.p50_us);
    }
}
