//! Tests of the operators' HTTP server, by raw bytes over real sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;

/// A server on a free port of loopback.
pub(in crate::control) struct Rig {
    pub(in crate::control) addr: SocketAddr,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Rig {
    pub(in crate::control) fn new(handler: impl Handler) -> Self {
        Self::with(handler, ServerOptions::new("test"))
    }

    pub(in crate::control) fn with(handler: impl Handler, options: ServerOptions) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener, Arc::new(handler), options, stopped));
        Self { addr, stop, served }
    }

    pub(in crate::control) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends the bytes, and returns everything the server answers until it closes.
    pub(in crate::control) async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    /// One request with extra header lines (each ending in CRLF); status, head and body.
    pub(in crate::control) async fn ask(&self, method: &str, target: &str, headers: &str) -> Reply {
        let host = if headers.to_ascii_lowercase().contains("host:") {
            ""
        } else {
            "Host: localhost\r\n"
        };
        let request =
            format!("{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
        Reply::parse(&self.raw(request.as_bytes()).await)
    }
}

pub(in crate::control) struct Reply {
    pub(in crate::control) status: u16,
    pub(in crate::control) head: String,
    pub(in crate::control) body: Vec<u8>,
}

impl Reply {
    fn parse(answer: &[u8]) -> Self {
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head,
            body: answer[end + 4..].to_vec(),
        }
    }

    pub(in crate::control) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(in crate::control) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }
}

/// Answers `/ok`, fails on `/fail`, and waits for a message on `/wait`.
struct Sample {
    #[expect(clippy::disallowed_types, reason = "tests")]
    wait: std::sync::Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
}

impl Sample {
    fn plain() -> Self {
        Self { wait: None.into() }
    }

    /// Tells when a request waits, and lets it go.
    fn waiting() -> (Self, oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (started, has_started) = oneshot::channel();
        let (go, gone) = oneshot::channel();
        (
            Self {
                wait: Some((started, gone)).into(),
            },
            has_started,
            go,
        )
    }
}

impl Handler for Sample {
    fn handle(&self, request: Request) -> Answer<'_> {
        Box::pin(async move {
            match request.path() {
                "/ok" => Ok(text(StatusCode::OK, "fine\n")),
                "/fail" => Err(HandlerError("it broke".to_owned())),
                "/wait" => {
                    let (started, gone) = self.wait.lock().unwrap().take().unwrap();
                    started.send(()).unwrap();
                    gone.await.unwrap();
                    Ok(text(StatusCode::OK, "waited\n"))
                }
                _ => Ok(empty(StatusCode::NOT_FOUND)),
            }
        })
    }
}

fn request(target: &str) -> Request {
    Request {
        method: Method::GET,
        uri: target.parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

#[test]
fn query_is_decoded_and_its_last_value_wins() {
    let query = |target: &str, name: &str| request(target).query(name).map(Cow::into_owned);
    assert_eq!(query("/x?level=info", "level").as_deref(), Some("info"));
    assert_eq!(
        query("/x?level=a%3Ddebug%2Cinfo", "level").as_deref(),
        Some("a=debug,info")
    );
    assert_eq!(query("/x?level=a&level=b", "level").as_deref(), Some("b"));
    assert_eq!(query("/x?reset&level=", "reset").as_deref(), Some(""));
    assert_eq!(query("/x?a+b=c+d", "a b").as_deref(), Some("c d"));
    assert_eq!(query("/x?level=%zz%4", "level").as_deref(), Some("%zz%4"));
    assert_eq!(query("/x?other=1", "level"), None);
    assert_eq!(query("/x", "level"), None);
}

#[tokio::test]
async fn known_path_is_answered_and_unknown_is_404() {
    let rig = Rig::new(Sample::plain());
    let reply = rig.ask("GET", "/ok", "").await;
    assert_eq!((reply.status, reply.text()), (200, "fine\n"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    let reply = rig.ask("GET", "/nope", "").await;
    assert_eq!((reply.status, reply.text()), (404, ""));
}

#[tokio::test]
async fn failing_handler_is_500_with_its_text() {
    let rig = Rig::new(Sample::plain());
    let reply = rig.ask("GET", "/fail", "").await;
    assert_eq!((reply.status, reply.text()), (500, "it broke"));
}

#[tokio::test]
async fn garbage_is_400_and_close() {
    let rig = Rig::new(Sample::plain());
    for garbage in [
        &b"garbage\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /ok\r\n\r\n",
    ] {
        let answer = rig.raw(garbage).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 400"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(
        rig.ask("GET", "/ok", "").await.status,
        200,
        "others are not harmed"
    );
}

#[tokio::test]
async fn head_over_8_kib_is_refused_and_under_is_served() {
    let rig = Rig::new(Sample::plain());
    let reply = rig
        .ask("GET", "/ok", &format!("X-Long: {}\r\n", "a".repeat(6_000)))
        .await;
    assert_eq!(reply.status, 200);
    let mut stream = rig.connect().await;
    let long = format!(
        "GET /ok HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n",
        "a".repeat(9_000)
    );
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 431");
}

#[tokio::test]
async fn connection_is_kept_alive_between_requests() {
    let rig = Rig::new(Sample::plain());
    let mut stream = rig.connect().await;
    for _ in 0..3 {
        stream
            .write_all(b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"fine\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "still open");
        }
    }
}

#[tokio::test]
async fn client_that_ends_its_side_still_gets_its_answer() {
    let rig = Rig::new(Sample::plain());
    let mut stream = rig.connect().await;
    stream
        .write_all(b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("fine\n"), "{answer}");
}

#[tokio::test]
async fn slow_head_and_idle_connection_are_ended() {
    let options = ServerOptions {
        head_timeout: Duration::from_millis(20),
        ..ServerOptions::new("test")
    };
    let rig = Rig::with(Sample::plain(), options);
    for begun in [
        &b""[..],
        b"GET /ok HTTP/1.1\r\nHost:",
        b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut stream = rig.connect().await;
        stream.write_all(begun).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        ended.await.expect("the server closes").unwrap();
    }
}

#[tokio::test]
async fn connections_over_the_cap_wait_for_a_free_slot() {
    let options = ServerOptions {
        connections_max: 1,
        ..ServerOptions::new("test")
    };
    let (handler, started, go) = Sample::waiting();
    let rig = Rig::with(handler, options);
    let mut first = rig.connect().await;
    first
        .write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    started.await.unwrap();
    let mut second = rig.connect().await;
    second
        .write_all(b"GET /ok HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut early = [0; 1];
    let wait = tokio::time::timeout(Duration::from_millis(50), second.read(&mut early));
    assert!(wait.await.is_err(), "not served while the slot is taken");
    go.send(()).unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("fine\n"), "{answer}");
}

#[tokio::test]
async fn stop_finishes_requests_in_flight_and_takes_no_more() {
    let (handler, started, go) = Sample::waiting();
    let rig = Rig::new(handler);
    let mut idle = rig.connect().await;
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    started.await.unwrap();
    rig.stop.send(true).unwrap();
    assert_eq!(
        idle.read(&mut [0; 1]).await.unwrap(),
        0,
        "idle connections are closed"
    );
    assert!(
        TcpStream::connect(rig.addr).await.is_err(),
        "the listener is gone"
    );
    assert!(!rig.served.is_finished());
    go.send(()).unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("waited\n"), "{answer}");
    rig.served.await.unwrap();
}

#[tokio::test]
async fn taken_port_is_an_error() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let taken = bind(first.local_addr().unwrap());
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
