//! jemalloc's dump of sampled allocations (`heap_v2`) → a profile.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::profile::ProfileBuilder;

/// A dump that is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeapDumpError {
    /// Another kind of file.
    #[error("not a heap_v2 dump")]
    Kind,
    /// A line of a stack or of its counts.
    #[error("line {0} of the heap dump is not understood")]
    Line(usize),
}

/// The profile of a dump.
pub(super) fn profile(dump: &str, now: SystemTime) -> Result<Vec<u8>, HeapDumpError> {
    let head = dump
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("heap_v2/"));
    let period: i64 = head
        .and_then(|period| period.parse().ok())
        .ok_or(HeapDumpError::Kind)?;
    let types = [("inuse_objects", "count"), ("inuse_space", "bytes")];
    let mut profile = ProfileBuilder::new(&types, ("space", "bytes"), period);
    profile.time(now, Duration::ZERO);
    let (stacks, libraries) = dump.split_once("MAPPED_LIBRARIES:").unwrap_or((dump, ""));
    for (start, end, offset, file) in libraries.lines().filter_map(mapping) {
        profile.mapping(start, end, offset, file);
    }
    let mut stack: Option<Vec<u64>> = None;
    for (number, line) in stacks.lines().enumerate() {
        let bad = HeapDumpError::Line(number + 1);
        if let Some(addresses) = line.strip_prefix("@ ") {
            let addresses = addresses.split_whitespace().map(hex).collect::<Option<_>>();
            stack = Some(addresses.ok_or(bad)?);
        } else if let Some(counts) = line.trim_start().strip_prefix("t*: ")
            && let Some(stack) = stack.take()
        {
            let (objects, bytes) = counts_of(counts).ok_or(bad)?;
            profile.addresses(&stack, scaled(objects, bytes, period));
        }
    }
    Ok(profile.encode())
}

/// `OBJECTS: BYTES [ALL OBJECTS: ALL BYTES]`, of which the first two are not freed yet.
fn counts_of(text: &str) -> Option<(i64, i64)> {
    let (objects, rest) = text.split_once(": ")?;
    let bytes = rest.split(' ').next()?;
    Some((objects.parse().ok()?, bytes.parse().ok()?))
}

/// What a sample stands for: of objects of one size, jemalloc samples each with the probability
/// 1 − e^(−size / period).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "an estimate; beyond 2^53 bytes there is no memory"
)]
fn scaled(objects: i64, bytes: i64, period: i64) -> Vec<i64> {
    if objects == 0 || bytes == 0 || period <= 1 {
        return vec![objects, bytes];
    }
    let size = bytes as f64 / objects as f64;
    let each = 1.0 / (1.0 - (-size / period as f64).exp());
    let scale = |value: i64| (value as f64 * each).round() as i64;
    vec![scale(objects), scale(bytes)]
}

/// Start, end, offset and file of a line of `/proc/self/maps` that holds code of a file.
fn mapping(line: &str) -> Option<(u64, u64, u64, &str)> {
    let mut columns = line.split_whitespace();
    let (start, end) = columns.next()?.split_once('-')?;
    let permissions = columns.next()?;
    let offset = columns.next()?;
    let file = columns.nth(2)?;
    let code = permissions.contains('x') && file.starts_with('/');
    code.then_some((hex(start)?, hex(end)?, hex(offset)?, file))
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).ok()
}

/// Heap profiles are files of their own, compressed.
pub(super) fn compress(profile: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(profile)?;
    encoder.finish()
}
