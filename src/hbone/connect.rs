//! CONNECT request and reply: encode and parse, no I/O (spec: hbone.md 4, 5, 6 checks 1 and 2).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, uri};

use super::settings::{Event, LimitKind, Settings};
use crate::model::addr::Authority;
use crate::model::baggage::Baggage;
use crate::model::trace::TraceParent;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");

/// What a header field costs besides name and value (RFC 9113 section 6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// The `forwarded` header (RFC 7239).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// `for=`: the client's address. Written by a client, never read by a server.
    pub client: Option<SocketAddr>,
    /// `host=`: hostname of the service that was addressed. Telemetry only.
    pub host: Option<Arc<str>>,
}

/// A CONNECT request, as sent or as received and validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Where the stream is to lead.
    pub authority: Authority,
    /// The source workload, for telemetry only.
    pub baggage: Baggage,
    /// Client address and addressed service.
    pub forwarded: Forwarded,
    /// Trace context; `None` when the peer sent none or a malformed one (make a fresh one then).
    pub traceparent: Option<TraceParent>,
    /// `x-forwarded-network`: network of the source, on the inner request across networks only.
    pub forwarded_network: Option<String>,
}

/// A successful answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Baggage of the destination workload: empty if the peer sent none, `None` if what it sent cannot
    /// be read (spec: telemetry.md 2.2, step 5).
    pub baggage: Option<Baggage>,
}

/// A request that must be answered with an error status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Text for the log (spec: routing.md 8).
    pub error: String,
}

/// Bounds of a request that is accepted.
#[derive(Clone, Copy, Debug)]
struct RequestLimits {
    /// Fields.
    headers: usize,
    /// Size of all fields as RFC 9113 section 6.5.2 counts it.
    header_list: usize,
    /// Bytes of the authority.
    authority: usize,
}

/// Why a request is refused, and whether one of our limits is the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusalCause {
    Malformed,
    Headers,
    Authority,
}

/// Text as a header value; empty if it holds control characters, which no header may carry.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

/// The request as it goes on the wire, fields in the order of the contract. `None` if the authority
/// cannot be written as one.
pub(super) fn encode_request(request: &ConnectRequest) -> Option<Request<()>> {
    let authority = uri::Authority::try_from(request.authority.to_string()).ok()?;
    // Never send what we would refuse.
    parse_authority(&authority)?;
    let mut parts = uri::Parts::default();
    parts.authority = Some(authority);
    let mut encoded = Request::new(());
    *encoded.method_mut() = Method::CONNECT;
    *encoded.uri_mut() = Uri::from_parts(parts).ok()?;
    *encoded.version_mut() = http::Version::HTTP_2;
    let headers = encoded.headers_mut();
    headers.insert(BAGGAGE, value(&request.baggage.to_string()));
    headers.insert(FORWARDED, value(&encode_forwarded(&request.forwarded)));
    if let Some(traceparent) = request.traceparent {
        headers.insert(TRACEPARENT, value(&traceparent.to_string()));
    }
    if let Some(network) = &request.forwarded_network {
        headers.insert(FORWARDED_NETWORK, value(network));
    }
    Some(encoded)
}

fn encode_forwarded(forwarded: &Forwarded) -> String {
    let mut text = String::new();
    if let Some(client) = forwarded.client {
        // Writing to a string cannot fail.
        let _ = write!(text, "for=\"{client}\"");
    }
    if let Some(host) = &forwarded.host {
        let separator = if text.is_empty() { "" } else { ";" };
        let _ = write!(text, "{separator}host={host}");
    }
    text
}

/// A request received by a server within this tunnel's limits, or how it must be refused. Limits that
/// were hit are counted.
pub(super) fn read_request<B>(
    settings: &Settings,
    request: &Request<B>,
) -> Result<ConnectRequest, Refusal> {
    let limits = RequestLimits {
        headers: settings.max_headers,
        header_list: settings.max_header_list as usize,
        authority: settings.max_authority,
    };
    parse_request(request, limits).map_err(|(refusal, cause)| {
        let limit = match cause {
            RefusalCause::Malformed => None,
            RefusalCause::Headers => Some(LimitKind::RequestHeaders),
            RefusalCause::Authority => Some(LimitKind::Authority),
        };
        if let Some(limit) = limit {
            (settings.events)(Event::LimitHit(limit));
        }
        refusal
    })
}

fn parse_request<B>(
    request: &Request<B>,
    limits: RequestLimits,
) -> Result<ConnectRequest, (Refusal, RefusalCause)> {
    let (uri, headers) = (request.uri(), request.headers());
    check_size(headers, limits)?;
    if request.method() != Method::CONNECT {
        let error = format!("expected method CONNECT, got {}", request.method());
        return Err((Refusal { status: 400, error }, RefusalCause::Malformed));
    }
    let length = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    if length > limits.authority {
        let error = format!("no valid authority pseudo header: {length} bytes are too long");
        return Err((Refusal { status: 400, error }, RefusalCause::Authority));
    }
    let Some(authority) = uri.authority().and_then(parse_authority) else {
        let error = format!("no valid authority pseudo header: {uri}");
        return Err((Refusal { status: 400, error }, RefusalCause::Malformed));
    };
    Ok(ConnectRequest {
        authority,
        baggage: parse_baggage(headers).unwrap_or_default(),
        forwarded: Forwarded {
            client: None,
            host: headers.get(FORWARDED).and_then(parse_forwarded_host),
        },
        traceparent: headers
            .get(TRACEPARENT)
            .and_then(|text| TraceParent::parse(text.as_bytes())),
        forwarded_network: headers
            .get(FORWARDED_NETWORK)
            .and_then(|network| network.to_str().ok())
            .map(str::to_owned),
    })
}

fn check_size(headers: &HeaderMap, limits: RequestLimits) -> Result<(), (Refusal, RefusalCause)> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES)
        .sum();
    if headers.len() <= limits.headers && size <= limits.header_list {
        return Ok(());
    }
    let count = headers.len();
    let error = format!("request header fields too large: {count} fields, {size} bytes");
    Err((Refusal { status: 431, error }, RefusalCause::Headers))
}

/// First as `ip:port`; else a host and a port, both present.
fn parse_authority(authority: &uri::Authority) -> Option<Authority> {
    let text = authority.as_str();
    if let Ok(address) = text.parse::<SocketAddr>() {
        // A zone names an interface of the sender: it means nothing here.
        return (!text.contains('%')).then_some(Authority::Address(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    let hostname = !host.is_empty() && !host.contains(['@', ':', '[', ']', '%']);
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !hostname || !digits {
        return None;
    }
    Some(Authority::Hostname(host.into(), port.parse().ok()?))
}

/// `host=` of a `forwarded` header: parts split at `;`, trimmed, quotes optional, empty is none.
fn parse_forwarded_host(header: &HeaderValue) -> Option<Arc<str>> {
    let text = header.to_str().ok()?;
    let host = text
        .split(';')
        .find_map(|part| part.trim().strip_prefix("host="))?;
    let host = host
        .strip_prefix('"')
        .map_or(host, |rest| rest.strip_suffix('"').unwrap_or(rest));
    (!host.is_empty()).then(|| host.into())
}

/// All `baggage` lines; `None` if one of them is not visible ASCII.
fn parse_baggage(headers: &HeaderMap) -> Option<Baggage> {
    Baggage::parse(headers.get_all(BAGGAGE).iter().map(HeaderValue::as_bytes))
}

/// An answer with this status and no field but, with 200, the destination's baggage.
pub(super) fn encode_response(status: u16, baggage: Option<&Baggage>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    *response.version_mut() = http::Version::HTTP_2;
    if let Some(baggage) = baggage {
        response
            .headers_mut()
            .insert(BAGGAGE, value(&baggage.to_string()));
    }
    response
}

/// What a client reads from an answer.
pub(super) fn parse_response(headers: &HeaderMap) -> ConnectResponse {
    ConnectResponse {
        baggage: parse_baggage(headers),
    }
}

#[cfg(test)]
mod tests;
