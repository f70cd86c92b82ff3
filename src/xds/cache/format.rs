//! Bytes of the cache file.

use std::io::{self, Write};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};

use crate::xds::resource::ResourceType;

const MAGIC: &[u8] = b"corelane-xds-1\n";
const END: u8 = 0;
const ADDRESS: u8 = 1;
const AUTHORIZATION: u8 = 2;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptCache {
    /// Another kind of file, or another version of ours.
    #[error("is no cache of this version")]
    Magic,
    /// Cut short or changed.
    #[error("is damaged")]
    Digest,
    /// The digest is right and the content is not.
    #[error("makes no sense")]
    Content,
}

/// A file whose digest is right.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) written: SystemTime,
    pub(super) origin: &'a str,
    records: Range<usize>,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: ResourceType,
    pub(super) name: &'a str,
    /// Where its content is in the file.
    pub(super) content: Range<usize>,
}

impl<'a> Content<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, CorruptCache> {
        if !bytes.starts_with(MAGIC) {
            return Err(CorruptCache::Magic);
        }
        let end = bytes.len().checked_sub(SHA256_OUTPUT_LEN);
        let end = end.ok_or(CorruptCache::Digest)?;
        let (body, sum) = bytes.split_at(end);
        if digest(&SHA256, body).as_ref() != sum {
            return Err(CorruptCache::Digest);
        }
        let mut cursor = Cursor {
            bytes: body,
            at: MAGIC.len(),
        };
        let seconds = u64::from_le_bytes(cursor.take()?);
        let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let origin = cursor.text()?;
        Ok(Self {
            written: written.ok_or(CorruptCache::Content)?,
            origin,
            records: cursor.at..end,
        })
    }
}

/// All records, or none if any is wrong.
pub(super) fn records<'a>(
    bytes: &'a [u8],
    content: &Content<'_>,
) -> Result<Vec<Record<'a>>, CorruptCache> {
    let mut cursor = Cursor {
        bytes: &bytes[..content.records.end],
        at: content.records.start,
    };
    let mut records = Vec::new();
    loop {
        let [kind] = cursor.take()?;
        let kind = match kind {
            ADDRESS => ResourceType::Address,
            AUTHORIZATION => ResourceType::Authorization,
            END if cursor.at == content.records.end => return Ok(records),
            _ => return Err(CorruptCache::Content),
        };
        let name = cursor.text()?;
        let content = cursor.range()?;
        records.push(Record {
            kind,
            name,
            content,
        });
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], CorruptCache> {
        let rest = self.bytes.get(self.at..).ok_or(CorruptCache::Content)?;
        let taken = rest.first_chunk().ok_or(CorruptCache::Content)?;
        self.at += N;
        Ok(*taken)
    }

    fn range(&mut self) -> Result<Range<usize>, CorruptCache> {
        let length = u32::from_le_bytes(self.take()?);
        let length = usize::try_from(length).map_err(|_| CorruptCache::Content)?;
        let end = self.at.checked_add(length).ok_or(CorruptCache::Content)?;
        if end > self.bytes.len() {
            return Err(CorruptCache::Content);
        }
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn text(&mut self) -> Result<&'a str, CorruptCache> {
        let range = self.range()?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| CorruptCache::Content)
    }
}

/// Writes a file from front to back.
pub(super) struct Writer<W> {
    to: W,
    digest: Context,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W, origin: &str, now: SystemTime) -> io::Result<Self> {
        let mut writer = Self {
            to,
            digest: Context::new(&SHA256),
        };
        writer.put(MAGIC)?;
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = seconds.map_or(0, |since| since.as_secs());
        writer.put(&seconds.to_le_bytes())?;
        writer.sized(origin.as_bytes())?;
        Ok(writer)
    }

    pub(super) fn record(
        &mut self,
        kind: ResourceType,
        name: &str,
        content: &[u8],
    ) -> io::Result<()> {
        self.put(&[match kind {
            ResourceType::Address => ADDRESS,
            ResourceType::Authorization => AUTHORIZATION,
        }])?;
        self.sized(name.as_bytes())?;
        self.sized(content)
    }

    /// The file, its digest at its end.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.put(&[END])?;
        let sum = self.digest.finish();
        self.to.write_all(sum.as_ref())?;
        Ok(self.to)
    }

    fn sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidData);
        let length = u32::try_from(bytes.len()).map_err(too_long)?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.to.write_all(bytes)
    }
}
