//! Compression of the metrics page: gzip, zstd, brotli, deflate.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// As fast as gzip's fast level, and smaller.
const BROTLI_QUALITY: u32 = 3;
/// 64 KiB: label sets repeat within a few lines.
const BROTLI_WINDOW_BITS: u32 = 16;
const BROTLI_BUFFER_BYTES: usize = 4_096;

/// A content coding we can produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1950, which HTTP calls deflate (RFC 9110 §8.4.1.2).
    Deflate,
}

/// All codings, the one we would rather use first: gzip is cheapest for what it saves on such a page.
const PREFERENCE: [(&str, Encoding); 5] = [
    ("gzip", Encoding::Gzip),
    ("x-gzip", Encoding::Gzip),
    ("zstd", Encoding::Zstd),
    ("br", Encoding::Brotli),
    ("deflate", Encoding::Deflate),
];

impl Encoding {
    /// Value of `Content-Encoding`.
    #[must_use]
    pub const fn header(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Brotli => Some("br"),
            Self::Deflate => Some("deflate"),
        }
    }
}

/// The coding the client likes best; of several it likes alike, the first of our own preference
/// (RFC 9110 §12.5.3).
#[must_use]
pub fn choose(headers: &HeaderMap) -> Encoding {
    let lines = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let elements = lines.flat_map(|line| line.split(','));
    let known = elements.filter_map(|element| {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let name = name.trim();
        let rank = PREFERENCE
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        let weight = weight(parameters);
        (weight > 0).then_some((weight, std::cmp::Reverse(rank)))
    });
    known
        .max()
        .map_or(Encoding::Identity, |(_, rank)| PREFERENCE[rank.0].1)
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
        Encoding::Zstd => Ok(ruzstd::encoding::compress_to_vec(
            page.as_bytes(),
            ruzstd::encoding::CompressionLevel::Fastest,
        )),
        Encoding::Brotli => {
            let mut out = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(
                &mut out,
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            );
            encoder.write_all(page.as_bytes())?;
            encoder.flush()?;
            drop(encoder);
            Ok(out)
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(page.as_bytes())?;
            encoder.finish()
        }
    }
}
