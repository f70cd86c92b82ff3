//! As much of HTTP/1.1 as the demo's backend and its clients need: heads, and bodies of known length.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::error::DemoError;
use super::watch::Watch;

/// Longest head that either side takes.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A request head, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// The client wants the connection to end after the answer.
    pub(super) close: bool,
}

/// A response head, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// `Content-Length`; without one the body ends with the connection.
    pub(super) length: Option<u64>,
}

/// Length of the head that `bytes` begin with, its empty line included.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

/// Reads a request head; `None` when it is no HTTP/1 request.
pub(super) fn parse_request(head: &[u8]) -> Option<Request> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path, version) = (first.next()?, first.next()?, first.next()?);
    if first.next().is_some() || !path.starts_with('/') {
        return None;
    }
    let persistent = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    let close = lines.filter_map(field).any(|(name, value)| {
        name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close")
    });
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        close: close || !persistent,
    })
}

/// Reads a response head; `None` when it is no HTTP/1 response.
pub(super) fn parse_response(head: &[u8]) -> Option<Response> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = first.next()?.parse().ok()?;
    let length = lines
        .filter_map(field)
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map(|(_, value)| value.parse())
        .transpose()
        .ok()?;
    Some(Response { status, length })
}

fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    Some((name, value.trim()))
}

/// Asks once on a connection of its own and returns status and body.
pub(super) fn get(
    mut stream: TcpStream,
    path: &str,
    watch: &Watch,
) -> Result<(u16, Vec<u8>), DemoError> {
    let failed = |source| DemoError::Io {
        what: format!("ask for {path}"),
        source,
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    let head = loop {
        if let Some(head) = head_length(&answer) {
            break head;
        }
        if answer.len() > HEAD_BYTES_MAX {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        let read = read_some(&mut stream, &mut piece, watch)?.map_err(failed)?;
        if read == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        answer.extend_from_slice(&piece[..read]);
    };
    let response =
        parse_response(&answer[..head]).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let mut body = answer.split_off(head);
    let wanted = response.length.map_or(u64::MAX, |length| length);
    while (body.len() as u64) < wanted {
        let read = read_some(&mut stream, &mut piece, watch)?.map_err(failed)?;
        if read == 0 {
            break;
        }
        body.extend_from_slice(&piece[..read]);
    }
    Ok((response.status, body))
}

/// Reads once, waiting as long as `watch` allows. Needs a read timeout on the stream, so that Ctrl-C
/// is noticed. The outer error is the demo's, the inner one the connection's.
pub(super) fn read_some(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    watch: &Watch,
) -> Result<io::Result<usize>, DemoError> {
    loop {
        match stream.read(buffer) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                watch.check()?;
            }
            done => return Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_and_its_wish_to_close_understood() {
        let keep = parse_request(b"GET /bulk/7 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(
            (keep.method.as_str(), keep.path.as_str()),
            ("GET", "/bulk/7")
        );
        assert!(!keep.close);
        assert!(parse_request(b"GET / HTTP/1.0\r\n\r\n").unwrap().close);
        assert!(
            parse_request(b"GET / HTTP/1.1\r\nconnection: Close\r\n\r\n")
                .unwrap()
                .close
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for head in [
            &b"GET /\r\n\r\n"[..],
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET x HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1 x\r\n\r\n",
            b"\xff\xfe / HTTP/1.1\r\n\r\n",
            b"",
        ] {
            assert_eq!(
                parse_request(head),
                None,
                "{:?}",
                String::from_utf8_lossy(head)
            );
        }
    }

    #[test]
    fn a_response_tells_status_and_length() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n";
        assert_eq!(
            parse_response(head),
            Some(Response {
                status: 200,
                length: Some(42)
            })
        );
        let open = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
        assert_eq!(
            parse_response(open),
            Some(Response {
                status: 503,
                length: None
            })
        );
        assert_eq!(
            parse_response(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"),
            None
        );
        assert_eq!(parse_response(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r"), None);
    }
}
