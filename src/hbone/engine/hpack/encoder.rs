//! Encodes our few header blocks: static table entries and literals without indexing, so that no
//! state is shared with the peer's decoder.

use http::{HeaderMap, Request, Response};

/// Static table entries (RFC 7541 appendix A).
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const STATUS: u8 = 8;
const STATUSES: [(u16, u8); 7] = [
    (200, 8),
    (204, 9),
    (206, 10),
    (304, 11),
    (400, 12),
    (404, 13),
    (500, 14),
];

/// The size update that a peer is owed whose table is smaller than the default: our table is empty
/// (RFC 7541 section 4.2, RFC 9113 section 4.3.1).
pub(in crate::hbone::engine) fn encode_table_reset(block: &mut Vec<u8>) {
    block.push(0x20);
}

/// A CONNECT request: method, authority, then its headers in order.
pub(in crate::hbone::engine) fn encode_request(request: &Request<()>, block: &mut Vec<u8>) {
    block.push(METHOD);
    string(block, request.method().as_str().as_bytes());
    if let Some(authority) = request.uri().authority() {
        block.push(AUTHORITY);
        string(block, authority.as_str().as_bytes());
    }
    headers(block, request.headers());
}

/// An answer: status, then its headers in order.
pub(in crate::hbone::engine) fn encode_response(response: &Response<()>, block: &mut Vec<u8>) {
    let status = response.status();
    let known = STATUSES
        .iter()
        .find(|(number, _)| *number == status.as_u16());
    if let Some((_, index)) = known {
        block.push(0x80 | index);
    } else {
        block.push(STATUS);
        string(block, status.as_str().as_bytes());
    }
    headers(block, response.headers());
}

fn headers(block: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        block.push(0);
        string(block, name.as_str().as_bytes());
        string(block, value.as_bytes());
    }
}

/// A string without Huffman coding.
fn string(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX_MAX: usize = 0x7f;
    let mut rest = text.len();
    if rest < PREFIX_MAX {
        block.push(low_bits(rest));
    } else {
        block.push(0x7f);
        rest -= PREFIX_MAX;
        while rest > 0x7f {
            block.push(low_bits(rest) | 0x80);
            rest >>= 7;
        }
        block.push(low_bits(rest));
    }
    block.extend_from_slice(text);
}

fn low_bits(value: usize) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}
