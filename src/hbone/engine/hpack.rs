//! HPACK (RFC 7541): decodes any header block, encodes with the static table and literals only.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub(super) use decoder::Decoder;
pub(super) use encoder::{encode_request, encode_response, encode_table_reset};

/// Size of the dynamic table we allow a peer: the protocol's default, which we leave as it is
/// (RFC 9113 section 6.5.2).
pub(super) const TABLE_BYTES_MAX: usize = 4096;
/// What an entry costs besides name and value (RFC 7541 section 4.1); RFC 9113 section 6.5.2 counts
/// header lists in the same way.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 32;

/// Why a header block cannot be decoded. Each is a connection error COMPRESSION_ERROR, because the
/// table is unknown from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HpackError {
    #[error("header block ends inside a field")]
    Truncated,
    #[error("integer too large")]
    Integer,
    #[error("no table entry {0}")]
    Index(usize),
    #[error("invalid Huffman code")]
    Huffman,
    #[error("table size {0} above the limit")]
    TableSize(usize),
    #[error("table size update inside a header block")]
    LateTableSize,
}

#[cfg(test)]
mod tests;
