//! Refuses requests that a foreign web page made a browser of this machine send.
//!
//! A page can point its own name at 127.0.0.1 (DNS rebinding), but cannot choose the `Host` the
//! browser then sends; it can post a form to 127.0.0.1, but cannot hide its `Origin`. Tools that send
//! neither are not browsers.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, ORIGIN};
use hyper::http::uri::Authority;

use crate::control::http::Request;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request was made for another host.
    #[error("refused: the Host header must be localhost or a loopback address")]
    Host,
    /// The request was made by a page from elsewhere.
    #[error("refused: cross-site request")]
    CrossSite,
}

/// Checks `Host`, `Origin` and `Sec-Fetch-Site`; absent ones are fine.
///
/// # Errors
/// One of them is foreign.
pub fn check(request: &Request) -> Result<(), Refused> {
    if request
        .uri
        .authority()
        .is_some_and(|authority| !is_loopback(authority))
    {
        return Err(Refused::Host);
    }
    let headers = &request.headers;
    let all = |name, ok: fn(&str) -> bool| {
        headers
            .get_all(name)
            .iter()
            .all(|value: &hyper::header::HeaderValue| value.to_str().is_ok_and(ok))
    };
    if !all(HOST, is_loopback_text) {
        return Err(Refused::Host);
    }
    if !all(ORIGIN, is_loopback_origin) || is_cross_site(headers) {
        return Err(Refused::CrossSite);
    }
    Ok(())
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site" || site == "same-site")
}

fn is_loopback_origin(origin: &str) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(_, host)| is_loopback_text(host))
}

fn is_loopback_text(host: &str) -> bool {
    host.parse().is_ok_and(|authority| is_loopback(&authority))
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let ip = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || ip
            .parse()
            .is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}
