//! Decodes header blocks (RFC 7541 section 3.2).

use bytes::Bytes;

use super::table::DynamicTable;
use super::{HpackError, huffman};

/// Largest integer taken: nothing in a block of ours is longer.
const INTEGER_MAX: usize = 1 << 24;
/// Size updates at the start of a block: the smallest size since the last block and the newest
/// (RFC 7541 section 4.2).
const SIZE_UPDATES_MAX: u32 = 2;

/// Decodes the header blocks of one connection, in order.
#[derive(Debug, Default)]
pub(in crate::hbone::engine) struct Decoder {
    table: DynamicTable,
}

impl Decoder {
    /// Decodes one block and hands its fields to `field`.
    pub(in crate::hbone::engine) fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(Bytes, Bytes),
    ) -> Result<(), HpackError> {
        let mut rest = Input(block);
        let mut fields = 0_usize;
        let mut updates = 0;
        while let Some(first) = rest.0.first().copied() {
            let (name, value) = match first {
                0x80.. => self.table.field(rest.integer(7)?)?,
                0x40.. => {
                    let (name, value) = self.literal(&mut rest, 6)?;
                    self.table.add(name.clone(), value.clone());
                    (name, value)
                }
                0x20.. => {
                    updates += 1;
                    if fields > 0 || updates > SIZE_UPDATES_MAX {
                        return Err(HpackError::LateTableSize);
                    }
                    self.table.resize(rest.integer(5)?)?;
                    continue;
                }
                _ => self.literal(&mut rest, 4)?,
            };
            fields += 1;
            field(name, value);
        }
        Ok(())
    }

    fn literal(&self, rest: &mut Input<'_>, prefix: u32) -> Result<(Bytes, Bytes), HpackError> {
        let name = match rest.integer(prefix)? {
            0 => rest.string()?,
            index => self.table.field(index)?.0,
        };
        Ok((name, rest.string()?))
    }

    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> usize {
        self.table.bytes()
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> (Vec<(String, String)>, usize) {
        self.table.content()
    }
}

/// The bytes of a block that are not decoded yet.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer that begins in the low `prefix` bits of the next byte (RFC 7541 section 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let mask = (1_usize << prefix) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            // Four bytes hold every integer up to the limit.
            if shift > 21 {
                return Err(HpackError::Integer);
            }
            value += usize::from(byte & 0x7f) << shift;
            if value > INTEGER_MAX {
                return Err(HpackError::Integer);
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A string (RFC 7541 section 5.2).
    fn string(&mut self) -> Result<Bytes, HpackError> {
        let coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if !coded {
            return Ok(Bytes::copy_from_slice(text));
        }
        let mut plain = Vec::new();
        huffman::decode(text, &mut plain)?;
        Ok(plain.into())
    }
}
