//! Servers of the control plane: addresses, roots, tokens, headers.

use std::path::PathBuf;
use std::sync::Arc;

use super::Kind;
use crate::config::server::{Header, RootSource, Secret, ServerAddress};

/// Longest name DNS allows.
const HOST_BYTES_MAX: usize = 253;

/// `https://HOST:PORT`, `http://HOST:PORT`, `unix:PATH`; without a scheme it is `https`. An empty
/// text means that there is none.
pub(in crate::config) struct Server;

impl Kind for Server {
    type Value = Option<ServerAddress>;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        if text.is_empty() {
            return Some(None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let usable = !path.is_empty() && !path.contains('\0');
            return usable.then(|| Some(ServerAddress::Unix(PathBuf::from(path))));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let address = match scheme.to_ascii_lowercase().as_str() {
            "https" => {
                let (host, port) = host_and_port(rest, 443)?;
                ServerAddress::Tls { host, port }
            }
            "http" => {
                let (host, port) = host_and_port(rest, 80)?;
                ServerAddress::Plain { host, port }
            }
            _ => return None,
        };
        Some(Some(address))
    }

    fn expected(&self) -> String {
        "`https://HOST:PORT`, `http://HOST:PORT`, `unix:PATH`, or empty for none".to_owned()
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(String::new, ToString::to_string)
    }
}

/// Host without brackets, and port.
fn host_and_port(text: &str, default: u16) -> Option<(Arc<str>, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, after.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default,
    };
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    let valid = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.chars().all(usual);
    valid.then(|| (host.into(), port))
}

/// `SYSTEM`, PEM text, or the path of a PEM file.
pub(in crate::config) struct Roots;

impl Kind for Roots {
    type Value = RootSource;

    fn parse(&self, text: &str) -> Option<RootSource> {
        if text == "SYSTEM" {
            return Some(RootSource::System);
        }
        if text.contains("-----BEGIN ") {
            return Some(RootSource::Pem(text.into()));
        }
        let path = !text.is_empty() && !text.contains(['\0', '\n']);
        path.then(|| RootSource::File(text.into()))
    }

    fn expected(&self) -> String {
        "`SYSTEM`, PEM text, or the path of a PEM file".to_owned()
    }

    fn show(&self, value: &RootSource) -> String {
        value.to_string()
    }
}

/// A text that is not shown.
pub(in crate::config) struct SecretText;

impl Kind for SecretText {
    type Value = Secret;

    fn parse(&self, text: &str) -> Option<Secret> {
        Some(Secret::new(text))
    }

    fn expected(&self) -> String {
        "a token, or the path of a file with one".to_owned()
    }

    fn show(&self, value: &Secret) -> String {
        format!("{value:?}")
    }
}

/// The name of a header, from the end of a variable's name.
pub(in crate::config) fn header(name: &str, value: &str) -> Option<Header> {
    let name = name.to_ascii_lowercase();
    let name_ok = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    // Such a value would have to be sent in another encoding (`-bin` headers of gRPC).
    let value_ok = http::HeaderValue::from_str(value).is_ok() && !name.ends_with("-bin");
    let reserved = ["te", "content-type", "grpc-timeout", "host"].contains(&name.as_str());
    (name_ok && value_ok && !reserved).then(|| Header {
        name: name.into(),
        value: Secret::new(value),
    })
}

/// `NAME=VALUE`, one a line.
pub(in crate::config) struct Headers;

impl Kind for Headers {
    type Value = Vec<Header>;

    fn parse(&self, text: &str) -> Option<Vec<Header>> {
        let lines = text.lines().map(|line| {
            let (name, value) = line.split_once('=')?;
            header(name, value)
        });
        lines.collect()
    }

    fn expected(&self) -> String {
        "a list of `NAME=VALUE`, names and values as headers allow them, and not those that the \
         protocol fixes"
            .to_owned()
    }

    fn show(&self, value: &Vec<Header>) -> String {
        let names: Vec<_> = value.iter().map(|header| &*header.name).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        Server.parse(text).map(|address| Server.show(&address))
    }

    #[test]
    fn addresses_take_the_forms_an_operator_may_write() {
        for (text, expected) in [
            ("istiod:15012", "https://istiod:15012"),
            (
                "https://istiod.istio-system.svc:15012/",
                "https://istiod.istio-system.svc:15012",
            ),
            ("HTTPS://a", "https://a:443"),
            ("http://127.0.0.1:1", "http://127.0.0.1:1"),
            ("https://[::1]:15012", "https://[::1]:15012"),
            ("[::1]", "https://[::1]:443"),
            ("unix:/run/xds.sock", "unix:/run/xds.sock"),
            ("unix:///run/xds.sock", "unix:/run/xds.sock"),
            ("", ""),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_no_address() {
        for text in [
            "ftp://a:1",
            "https://",
            "a:0",
            "a:65536",
            "a:b",
            "https://a/path",
            "https://user@a:1",
            "https://[zz]:1",
            "unix:",
            "a b:1",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn roots_are_told_apart_by_what_they_look_like() {
        assert_eq!(Roots.parse("SYSTEM"), Some(RootSource::System));
        assert_eq!(
            Roots.parse("/a/b.pem"),
            Some(RootSource::File("/a/b.pem".into()))
        );
        let pem = "-----BEGIN CERTIFICATE-----\n";
        assert_eq!(Roots.parse(pem), Some(RootSource::Pem(pem.into())));
        assert_eq!(Roots.parse(""), None);
    }

    #[test]
    fn secrets_are_never_shown() {
        let secret = SecretText.parse("hunter2").unwrap();
        assert_eq!(SecretText.show(&secret), "(7 bytes)");
        assert_eq!(format!("{secret:?}"), "(7 bytes)");
    }

    #[test]
    fn headers_of_the_file_are_lines_and_show_only_their_names() {
        let headers = Headers.parse("A=1\nb=x=y").unwrap();
        let pairs: Vec<_> = headers
            .iter()
            .map(|header| (&*header.name, header.value.reveal()))
            .collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x=y")]);
        assert_eq!(Headers.show(&headers), "a, b");
        assert_eq!(Headers.parse("a"), None);
        assert_eq!(Headers.parse("te=x"), None);
    }

    #[test]
    fn header_names_are_lowered_and_those_of_the_protocol_are_refused() {
        let made = header("HEADER_FOO", "foo").unwrap();
        assert_eq!((&*made.name, made.value.reveal()), ("header_foo", "foo"));
        for (name, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a", "x\n"),
            ("TE", "x"),
            ("A-BIN", "x"),
        ] {
            assert_eq!(header(name, value), None, "{name}={value:?}");
        }
    }
}
