//! The static table (RFC 7541 appendix A) and a peer's dynamic table.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{ENTRY_OVERHEAD_BYTES, HpackError, TABLE_BYTES_MAX};

/// Entries 1 to 61.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Entries a peer has added, the newest first.
#[derive(Debug)]
pub(super) struct DynamicTable {
    entries: VecDeque<(Bytes, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for DynamicTable {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES_MAX,
        }
    }
}

impl DynamicTable {
    /// Adds an entry at the cost of the oldest ones; one that is larger than the table empties it
    /// (RFC 7541 section 4.4).
    pub(super) fn add(&mut self, name: Bytes, value: Bytes) {
        let bytes = name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        self.shrink_to(self.bytes_max.saturating_sub(bytes));
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            self.entries.push_front((name, value));
        }
    }

    /// Takes a size update (RFC 7541 section 6.3).
    pub(super) fn resize(&mut self, bytes_max: usize) -> Result<(), HpackError> {
        if bytes_max > TABLE_BYTES_MAX {
            return Err(HpackError::TableSize(bytes_max));
        }
        self.bytes_max = bytes_max;
        self.shrink_to(bytes_max);
        Ok(())
    }

    fn shrink_to(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some((name, value)) = self.entries.pop_back() else {
                return;
            };
            self.bytes -= name.len() + value.len() + ENTRY_OVERHEAD_BYTES;
        }
    }

    /// The field at an index, which counts the static table first (RFC 7541 section 2.3.3).
    pub(super) fn field(&self, index: usize) -> Result<(Bytes, Bytes), HpackError> {
        let missing = HpackError::Index(index);
        let place = index.checked_sub(1).ok_or(missing)?;
        if let Some((name, value)) = STATIC.get(place) {
            let text = |text: &'static str| Bytes::from_static(text.as_bytes());
            return Ok((text(name), text(value)));
        }
        let entry = self.entries.get(place - STATIC.len());
        entry.cloned().ok_or(missing)
    }

    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn content(&self) -> (Vec<(String, String)>, usize) {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let entries = self.entries.iter();
        let fields = entries.map(|(name, value)| (text(name), text(value)));
        (fields.collect(), self.bytes)
    }
}
