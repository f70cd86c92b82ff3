//! Compression of the metrics page: gzip and deflate; other codings get the plain page.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// A content coding we can produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate (RFC 9110 §8.4.1.2).
    Deflate,
}

impl Encoding {
    /// Value of `Content-Encoding`.
    #[must_use]
    pub const fn header(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }
}

/// The coding the client likes best of those we have; gzip before deflate when it likes both alike
/// (RFC 9110 §12.5.3).
#[must_use]
pub fn choose(headers: &HeaderMap) -> Encoding {
    let lines = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut best = (Encoding::Identity, 0);
    for element in lines.flat_map(|line| line.split(',')) {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let encoding = match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Encoding::Gzip,
            "deflate" => Encoding::Deflate,
            _ => continue,
        };
        let weight = weight(parameters);
        if weight > best.1 || (weight == best.1 && weight > 0 && encoding == Encoding::Gzip) {
            best = (encoding, weight);
        }
    }
    best.0
}

/// Quality value in thousandths; 1 when absent, 0 when unreadable.
fn weight(parameters: &str) -> u32 {
    let value = parameters
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("q="));
    let Some(value) = value else { return 1_000 };
    match value.trim().parse::<f32>() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1000 by the guard"
        )]
        Ok(q) if (0.0..=1.0).contains(&q) => (q * 1_000.0) as u32,
        Ok(_) | Err(_) => 0,
    }
}

/// Encodes the page. Fast rather than small: a page shrinks to a tenth even so.
///
/// # Errors
/// The encoder fails.
pub fn encode(encoding: Encoding, page: String) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Identity => Ok(page.into_bytes()),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(page.as_bytes())?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(page.as_bytes())?;
            encoder.finish()
        }
    }
}
