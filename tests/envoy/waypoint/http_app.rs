//! An HTTP application that says who it is and remembers what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use corelane_harness::apps::Server;
use corelane_harness::hosts::Host;

/// Answers the first request with 503 and all later ones with 200.
pub(super) const FLAKY: &str = "/flaky";
/// Answers 503 always.
pub(super) const BROKEN: &str = "/broken";

/// The running application.
#[derive(Debug)]
pub(super) struct App {
    server: Server,
    asked: Receiver<String>,
}

impl App {
    /// Starts it on `host`; its answers begin with `name`.
    pub(super) fn start(host: &Host, port: u16, name: &'static str) -> Self {
        let (seen, asked) = channel();
        let failed_once = AtomicBool::new(false);
        let server = Server::start(host, port, move |stream| {
            let answer = |path: &str| {
                let _ = seen.send(path.to_owned());
                match path {
                    BROKEN => "503 Service Unavailable",
                    FLAKY if !failed_once.swap(true, Ordering::Relaxed) => {
                        "503 Service Unavailable"
                    }
                    _ => "200 OK",
                }
            };
            serve(stream, name, answer);
        });
        Self { server, asked }
    }

    /// Paths it was asked for since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }

    /// Connections it took.
    pub(super) fn accepted(&self) -> usize {
        self.server.accepted()
    }
}

fn serve(stream: TcpStream, name: &str, answer: impl Fn(&str) -> &'static str) {
    let mut lines = BufReader::new(&stream).lines();
    while let Some(Ok(first)) = lines.next() {
        let path = first.split(' ').nth(1).unwrap_or_default();
        let mut last = false;
        for header in lines.by_ref().map_while(Result::ok) {
            if header.is_empty() {
                break;
            }
            last |= header == "connection: close";
        }
        let (status, body) = (answer(path), format!("{name} {path}"));
        let length = body.len();
        let written = write!(
            &stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        if last || written.is_err() {
            return;
        }
    }
}
