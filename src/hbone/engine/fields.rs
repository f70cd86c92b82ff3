//! Decoded header fields: their bound, and what makes them a request, an answer or trailers
//! (RFC 9113 section 8).

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::{self, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use super::hpack::ENTRY_OVERHEAD_BYTES;

/// A message that is not one (RFC 9113 section 8.1.1): a stream error PROTOCOL_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields of one block, as far as they are within the bound.
#[derive(Debug)]
pub(super) struct FieldList {
    fields: Vec<(Bytes, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl FieldList {
    /// `bytes_max` counts as RFC 9113 section 6.5.2 says.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            fields: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Keeps the field unless the list is too large already.
    pub(super) fn push(&mut self, name: Bytes, value: Bytes) {
        self.bytes += name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        if self.is_oversize() {
            self.fields = Vec::new();
        } else {
            self.fields.push((name, value));
        }
    }

    pub(super) const fn is_oversize(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// A request as `h2` and `http` see it.
    pub(super) fn into_request(self) -> Result<Request<()>, Malformed> {
        let (pseudo, headers) = self.split()?;
        let method = pseudo.method.ok_or(Malformed)?;
        let method = Method::from_bytes(&method).map_err(|_| Malformed)?;
        let connect = method == Method::CONNECT;
        if pseudo.status || pseudo.protocol || connect && (pseudo.scheme || pseudo.path.is_some()) {
            return Err(Malformed);
        }
        let mut parts = uri::Parts::default();
        if let Some(authority) = pseudo.authority {
            let authority = uri::Authority::from_maybe_shared(authority).map_err(|_| Malformed)?;
            parts.authority = Some(authority);
        }
        if let Some(path) = pseudo.path {
            let path = PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed)?;
            parts.path_and_query = Some(path);
        }
        if pseudo.scheme && parts.authority.is_some() {
            parts.scheme = Some(Scheme::HTTPS);
        }
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed)?;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The status and headers of an answer.
    pub(super) fn into_answer(self) -> Result<(StatusCode, HeaderMap), Malformed> {
        let mut status = None;
        let mut headers = HeaderMap::new();
        for (name, value) in self.fields {
            if &name[..] == b":status" && status.is_none() && headers.is_empty() {
                status = Some(StatusCode::from_bytes(&value).map_err(|_| Malformed)?);
            } else {
                add(&mut headers, name, value)?;
            }
        }
        Ok((status.ok_or(Malformed)?, headers))
    }

    /// Trailers have no pseudo fields; nothing else in them matters here.
    pub(super) fn check_trailers(self) -> Result<(), Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.fields {
            add(&mut headers, name, value)?;
        }
        Ok(())
    }

    fn split(self) -> Result<(Pseudo, HeaderMap), Malformed> {
        let mut pseudo = Pseudo::default();
        let mut headers = HeaderMap::new();
        for (name, value) in self.fields {
            if !name.starts_with(b":") {
                add(&mut headers, name, value)?;
                continue;
            }
            let twice = match &name[..] {
                _ if !headers.is_empty() => return Err(Malformed),
                b":method" => pseudo.method.replace(value).is_some(),
                b":authority" => pseudo.authority.replace(value).is_some(),
                b":path" => pseudo.path.replace(value).is_some(),
                b":scheme" => {
                    Scheme::try_from(&value[..]).map_err(|_| Malformed)?;
                    std::mem::replace(&mut pseudo.scheme, true)
                }
                b":protocol" => std::mem::replace(&mut pseudo.protocol, true),
                b":status" => std::mem::replace(&mut pseudo.status, true),
                _ => return Err(Malformed),
            };
            if twice {
                return Err(Malformed);
            }
        }
        Ok((pseudo, headers))
    }
}

#[derive(Default)]
struct Pseudo {
    method: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    scheme: bool,
    protocol: bool,
    status: bool,
}

/// Adds a regular field: lower case, no control characters, nothing of HTTP/1 (RFC 9113 section 8.2).
fn add(headers: &mut HeaderMap, name: Bytes, value: Bytes) -> Result<(), Malformed> {
    let name = HeaderName::from_lowercase(&name).map_err(|_| Malformed)?;
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed)?;
    let of_connection = name == header::CONNECTION
        || name == header::TRANSFER_ENCODING
        || name == header::UPGRADE
        || name == "keep-alive"
        || name == "proxy-connection";
    if of_connection || name == header::TE && value != "trailers" {
        return Err(Malformed);
    }
    headers.try_append(name, value).map_err(|_| Malformed)?;
    Ok(())
}
